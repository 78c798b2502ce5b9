from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from accounts.models import user_named
from messageservice.actions import erase_for_operator


class Command(BaseCommand):
    help = "Deletes a user's account for good. Their messages stay with the other users."

    def add_arguments(self, parser):
        parser.add_argument("username", help="in this letter case, where several users have the name")

    def handle(self, *, username, **options):
        user = User.objects.filter(username=username).first() or user_named(username)
        if user is None:
            raise CommandError(f"There is no user {username}.")
        if not erase_for_operator(user):
            raise CommandError(f"{user} was deleted before, or their password has just changed.")
        self.stdout.write(f"The account of {user} is deleted.")
