from django.apps import AppConfig


class BlocksConfig(AppConfig):
    name = "blocking"
    verbose_name = "Blocks"
