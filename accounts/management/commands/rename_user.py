from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from accounts.actions import rename_user
from accounts.models import user_named


class Command(BaseCommand):
    help = "Gives a user another name."

    def add_arguments(self, parser):
        parser.add_argument("old", help="in this letter case, where several users have the name")
        parser.add_argument("new")

    def handle(self, *, old, new, **options):
        user = User.objects.filter(username=old).first() or user_named(old)
        if user is None:
            raise CommandError(f"There is no user {old}.")
        try:
            rename_user(user, new)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(f"{user} is now called {new}.")
