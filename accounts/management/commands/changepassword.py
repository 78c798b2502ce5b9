from getpass import getuser

from django.contrib.auth.management.commands import changepassword
from django.core.management.base import CommandError

from accounts.actions import revoke_tokens
from accounts.models import ACCOUNT_IS_DELETED, is_deleted, user_named


class Command(changepassword.Command):
    def handle(self, *args, **options):
        user = user_named(options["username"] or getuser())
        if user:
            if is_deleted(user):
                raise CommandError(ACCOUNT_IS_DELETED)
            options["username"] = user.username
        message = super().handle(*args, **options)
        revoke_tokens(user)
        return message
