from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from messageservice.comparisons import Differences, Figures, compare, repair_user

BATCH = 100  # users per statement: some tenths of a second if each has some hundred messages


class Command(BaseCommand):
    help = "Compares the stored counters, places and conversations with the messages; exits with status 1 if any differ."

    def add_arguments(self, parser):
        parser.add_argument("--repair", action="store_true", help="make what differs agree with the messages")

    def handle(self, *, repair, **options):
        last = checked = differing = 0
        while ids := list(User.objects.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH]):
            last = ids[-1]
            differences = compare(ids[0], last)
            users = {user_id for user_id, _ in differences}
            if repair:
                repaired = map(repair_user, User.objects.filter(pk__in=users))
                differences = {key: figures for each in repaired for key, figures in each.items()}
            self.report(differences)
            checked += len(ids)
            differing += len(users)
        self.stdout.write(f"{checked:,} users checked, {differing:,} {'repaired' if repair else 'differ'}")
        if differing and not repair:
            raise CommandError("Run again with --repair to make what differs agree with the messages.")

    def report(self, differences: Differences) -> None:
        names = dict(User.objects.filter(pk__in={pk for pair in differences for pk in pair}).values_list("pk", "username"))
        for pair, figures in differences.items():
            where = ", conversation with ".join(names.get(pk, f"a user who was deleted (id {pk})") for pk in pair if pk > 0)
            what = (
                f"{name} is {stored}, should be {expected}"
                for name, expected, stored in zip(Figures._fields, *figures, strict=True)
                if stored != expected
            )
            self.stdout.write(f"{where}: {'; '.join(what)}")
