"""The service `ordinary`, to compare with: messages sent, listed and filtered as in Django REST framework's tutorial."""
