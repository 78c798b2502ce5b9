"""Compares the stored counters, places and conversations of every user with the messages, while the service runs."""

import sys

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from messageservice.comparisons import Difference, Figures, compare, repair_user

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
            users = {difference.user_id for difference in differences}
            if repair:
                differences = [each for user in User.objects.filter(pk__in=users) for each in repair_user(user)]
            self.report(differences)
            checked += len(ids)
            differing += len(users)
        outcome = f"{differing:,} {'repaired' if repair else 'differ; run again with --repair'}"
        self.stdout.write(f"{checked:,} users checked: {outcome if differing else 'all agree'}")
        if differing and not repair:
            sys.exit(1)

    def report(self, differences: list[Difference]) -> None:
        ids = {pk for difference in differences for pk in (difference.user_id, difference.partner_id)}
        names = {pk: f"a user who was deleted (id {pk})" for pk in ids}
        names.update(User.objects.filter(pk__in=ids).values_list("pk", "username"))
        for user_id, partner_id, *figures in differences:
            where = f"{names[user_id]}, conversation with {names[partner_id]}" if partner_id else names[user_id]
            what = (
                f"{name} is {stored}, should be {expected}"
                for name, stored, expected in zip(Figures._fields, *figures, strict=True)
                if stored != expected
            )
            self.stdout.write(f"{where}: {'; '.join(what)}")
