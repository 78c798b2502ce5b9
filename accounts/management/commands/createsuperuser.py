from django.contrib.auth.management.commands import createsuperuser
from django.core.management.base import CommandError
from django.db import IntegrityError

from accounts.models import NAME_IS_TAKEN


class Command(createsuperuser.Command):
    """Django's command, with an error message if another process takes the name, or if what is given is not UTF-8."""

    def handle(self, *args, **options):
        try:
            return super().handle(*args, **options)
        except IntegrityError:  # another process has just taken the name
            raise CommandError(NAME_IS_TAKEN) from None
        except UnicodeEncodeError:
            raise CommandError("The username, email or password is not UTF-8.") from None
