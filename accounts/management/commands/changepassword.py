from getpass import getuser

from django.contrib.auth.management.commands import changepassword

from accounts.actions import revoke_tokens
from accounts.models import user_named


class Command(changepassword.Command):
    def handle(self, *args, **options):
        user = user_named(options["username"] or getuser())
        if user:
            options["username"] = user.username
        message = super().handle(*args, **options)
        revoke_tokens(user)
        return message
