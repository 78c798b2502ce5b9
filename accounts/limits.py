"""Limits on trying: tallies in the database, so that they hold across all worker processes and nodes.

A tally counts what failed (or, of sign-ups, what was done) from the first time on, for the seconds of its limit. A try that
succeeds reads the tallies and writes nothing. Whether one is let in is decided after its password was checked: of many tries
at the same moment no more are answered than one after the other would be, and guessing in parallel gains nothing.

Who can lock out whom: nobody locks a name out at an address that did not fail for it. Failures for a name from one address
count against that pair. Failures for a name from many addresses together (LIMIT_LOGIN_NAME) leave each address its first
try, so that a flood of guesses cannot keep the owner out, and guessers need a fresh address for each guess. Failures from an
address for any name (LIMIT_LOGIN_ADDRESS) do close that address: who shares it with a guesser waits with them.
"""

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from accounts.models import Tally
from config.api.exceptions import LimitReached
from config.environment import Limit
from config.log import current_request


@dataclass(frozen=True, slots=True)
class Counter:
    """What one tally counts, and how far."""

    limit: Limit
    key: str


def counter(limit: Limit | None, *subject: str) -> Counter | None:
    """The counter for a subject; None where its limit is off."""
    return limit and Counter(limit, hashlib.sha256(repr(subject).encode()).hexdigest())


def client_network() -> str:
    """The address that the request came from; of IPv6 the /64, as one client has all of it."""
    address = current_request().address
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed  # as a socket for both versions writes the address of IPv4
    return str(ipaddress.ip_network((parsed, 64), strict=False) if parsed.version == 6 else parsed)


class Tries:
    """The tries of one subject, counted by each of its counters."""

    def __init__(self, *counters: Counter | None) -> None:
        self.counters = sorted(filter(None, counters), key=lambda counter: counter.key)

    def check(self) -> None:
        """Raise LimitReached where no further try is let in. Writes nothing."""
        if self.counters:
            now = timezone.now()
            self._refuse(Tally.objects.in_bulk([counter.key for counter in self.counters]), now)

    def count(self) -> None:
        """Count one try, or raise LimitReached where others used up the limit meanwhile."""
        while not self._counted():
            pass  # a purge took away an old tally just before it was locked

    def _counted(self) -> bool:
        now = timezone.now()
        fresh = [Tally(key=counter.key, count=0, ends=self._window(counter, now)) for counter in self.counters]
        with transaction.atomic():
            Tally.objects.bulk_create(fresh, ignore_conflicts=True)
            tallies = Tally.objects.select_for_update().order_by("key").in_bulk([tally.key for tally in fresh])
            if len(tallies) < len(fresh):
                transaction.set_rollback(True)  # releases the others: who makes one while it holds another may deadlock
                return False
            self._refuse(tallies, now)
            for counter in self.counters:
                tally = tallies[counter.key]
                if tally.ends <= now:
                    tally.count, tally.ends = 0, self._window(counter, now)
                tally.count += 1
                tally.save()
        return True

    def closed_until(self, tallies: dict[str, Tally]) -> Iterable[datetime]:
        """When each of the windows ends that let no further try in."""
        for counter in self.counters:
            tally = tallies.get(counter.key)
            if tally and tally.count >= counter.limit.count:
                yield tally.ends

    def _refuse(self, tallies: dict[str, Tally], now: datetime) -> None:
        running = {key: tally for key, tally in tallies.items() if tally.count and tally.ends > now}  # 0 where made just now
        ends = max(self.closed_until(running), default=None)
        if ends:
            raise LimitReached(ends=ends, now=now)

    @staticmethod
    def _window(counter: Counter, now: datetime) -> datetime:
        return now + timedelta(seconds=counter.limit.seconds)


class LoginTries(Tries):
    """Failed log-ins for a name from an address."""

    def __init__(self, username: str) -> None:
        address = client_network()
        # The limit of the name alone needs to know as well who failed for it.
        self.pair = counter(settings.LIMIT_LOGIN or settings.LIMIT_LOGIN_NAME, "log-in", username, address)
        self.name = counter(settings.LIMIT_LOGIN_NAME, "log-in to", username)
        super().__init__(self.pair, self.name, counter(settings.LIMIT_LOGIN_ADDRESS, "log-in from", address))

    def closed_until(self, tallies):
        """The name's window closes to those alone who failed for the name themselves."""
        for counter in self.counters:
            tally = tallies.get(counter.key)
            if tally is None or tally.count < counter.limit.count:
                continue
            if counter != self.name:
                yield tally.ends
            elif self.pair.key in tallies:
                yield min(tally.ends, tallies[self.pair.key].ends)


def password_tries(user: User) -> Tries:
    """Wrong current passwords of a user who changes theirs."""
    return Tries(counter(settings.LIMIT_PASSWORD, "password", str(user.pk)))


def signup_tries() -> Tries:
    """Accounts made from an address."""
    return Tries(counter(settings.LIMIT_SIGNUP, "sign-up", client_network()))
