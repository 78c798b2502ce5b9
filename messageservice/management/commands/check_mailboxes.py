import sys

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from messageservice.comparisons import Differences, Figures, compare, repair_user

BATCH = 100  # users per statement: a tenth of a second if each has some hundred messages


class Command(BaseCommand):
    help = (
        "Compares the counters, places and conversations stored for each user with the messages, while the service runs. "
        "Prints a line for each mailbox or conversation that differs. Exits with status 1 if one does and is not repaired."
    )

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
        outcome = f"{differing:,} {'repaired' if repair else 'differ; run again with --repair'}"
        self.stdout.write(f"{checked:,} users checked: {outcome if differing else 'all agree'}")
        if differing and not repair:
            sys.exit(1)

    def report(self, differences: Differences) -> None:
        names = dict(User.objects.filter(pk__in={pk for pair in differences for pk in pair}).values_list("pk", "username"))
        for pair, figures in differences.items():
            where = ", conversation with ".join(names.get(pk, f"a user who was deleted (id {pk})") for pk in pair if pk)
            what = (
                f"{name} is {stored}, should be {expected}"
                for name, expected, stored in zip(Figures._fields, *figures, strict=True)
                if stored != expected
            )
            self.stdout.write(f"{where}: {'; '.join(what)}")
