"""The yardstick `ordinary`: messages sent, listed and filtered as in Django REST framework's tutorial."""
