from django.apps import AppConfig


class MessagesConfig(AppConfig):
    name = "messageservice"
    verbose_name = "Messages"
