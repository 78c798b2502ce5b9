"""Limits on attempts, counted in the database, so that they hold across all worker processes and nodes.

A tally counts failed logins, wrong passwords or sign-ups. Its window begins with the first of them and lasts for the
seconds of the limit. A successful login reads tallies and writes nothing.

A user cannot be locked out at an address that has had no failed logins for their name:
- LIMIT_LOGIN counts failures for a name from one address, and then rejects logins for the name from that address.
- LIMIT_LOGIN_NAME counts failures for a name from all addresses, and then rejects logins for the name from each IPv4
  address or IPv6 /48 that has had a failure. The owner can log in from elsewhere; an attacker needs a new address per guess.
- LIMIT_LOGIN_ADDRESS counts failures from one address for any name, and then rejects all logins from that address.
"""

import hashlib
import ipaddress
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from accounts.models import Tally
from config.api.exceptions import DatabaseIsReadOnly, LimitReached
from config.database.sql import is_writable
from config.environment import Limit
from config.log import current_request


def tally_key(*subject: str) -> str:
    """Return the key of the tally that counts the attempts of a subject."""
    return hashlib.sha256(repr(subject).encode()).hexdigest()


def is_window_running(ends: datetime, limit: Limit, now: datetime) -> bool:
    """Return whether a window that ends at `ends` is running.

    An end further away than the limit's seconds is ignored: a wrong clock or an earlier, longer limit has stored it.
    """
    return now < ends <= now + timedelta(seconds=limit.seconds)


def longest_window() -> timedelta:
    """Return the longest window of the limits that use tallies."""
    names = ("LIMIT_LOGIN", "LIMIT_LOGIN_ADDRESS", "LIMIT_LOGIN_NAME", "LIMIT_PASSWORD", "LIMIT_SIGNUP")
    limits = [getattr(settings, name) for name in names]
    return timedelta(seconds=max((limit.seconds for limit in limits if limit is not None), default=0))


def client_network(ipv6_prefix: int = 64) -> str:
    """Return the client's address; for IPv6 its network, because one client can use every address of a /64."""
    address = current_request().address
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed  # a socket for both versions shows IPv4 addresses as IPv6
    return str(ipaddress.ip_network((parsed, ipv6_prefix), strict=False) if parsed.version == 6 else parsed)


class Attempts:
    """Counts the attempts of one subject in several tallies, each with a limit; `limits` has them by the tally's key."""

    def __init__(self, limits: dict[str, Limit | None]) -> None:
        self.limits = {key: limit for key, limit in limits.items() if limit is not None}

    def check(self) -> None:
        """Raise LimitReached if no further attempt is allowed, DatabaseIsReadOnly if none can be counted.

        Called before and after a password is hashed, so that parallel guesses learn no more than sequential guesses.
        """
        if not is_writable():  # failures could not be counted
            raise DatabaseIsReadOnly
        self._check(Tally.objects.in_bulk(self.limits), timezone.now())

    def record(self) -> None:
        """Count one attempt, or raise LimitReached if others have reached the limit since it was checked."""
        with transaction.atomic():
            # Create and then lock them in one order, so that no two requests wait for each other.
            new = [Tally(key=key, count=0, ends=timezone.now()) for key in self.limits]
            Tally.objects.bulk_create(new, ignore_conflicts=True)
            locked = Tally.objects.select_for_update().order_by("key").in_bulk(self.limits)
            now = timezone.now()
            self._check(locked, now)
            tallies = [locked.get(tally.key, tally) for tally in new]  # a purge may have deleted an old one just now
            for tally in tallies:
                limit = self.limits[tally.key]
                if not is_window_running(tally.ends, limit, now):
                    tally.count, tally.ends = 0, now + timedelta(seconds=limit.seconds)
                tally.count += 1
            Tally.objects.bulk_create(tallies, update_conflicts=True, unique_fields=["key"], update_fields=["count", "ends"])

    def _check(self, tallies: dict[str, Tally], now: datetime) -> None:
        reached = {
            key: tally.ends
            for key, tally in tallies.items()
            if tally.count >= self.limits[key].count and is_window_running(tally.ends, self.limits[key], now)
        }
        ends = self.ends_to_wait_for(reached)
        if ends:
            raise LimitReached(ends=max(ends), now=now)

    def ends_to_wait_for(self, reached: dict[str, datetime]) -> list[datetime]:
        """Return the ends of windows that the next attempt must wait for. `reached` has one per tally at its limit."""
        return [*reached.values()]


class LoginAttempts(Attempts):
    """Counts failed logins for a name from an address."""

    def __init__(self, username: str) -> None:
        address = client_network()
        self.for_name = tally_key("log-in to", username)
        self.failed_before = tally_key("first log-in", username, client_network(ipv6_prefix=48))
        one_failure = None
        if settings.LIMIT_LOGIN_NAME is not None:
            one_failure = Limit(1, (settings.LIMIT_LOGIN or settings.LIMIT_LOGIN_NAME).seconds)
        super().__init__(
            {
                tally_key("log-in", username, address): settings.LIMIT_LOGIN,
                tally_key("log-in from", address): settings.LIMIT_LOGIN_ADDRESS,
                self.for_name: settings.LIMIT_LOGIN_NAME,
                self.failed_before: one_failure,
            }
        )

    def ends_to_wait_for(self, reached):
        """Apply the limit on the name only to addresses that have had a failure, which `failed_before` counts."""
        both = [reached.pop(key) for key in (self.for_name, self.failed_before) if key in reached]
        return [*reached.values(), *([min(both)] if len(both) == 2 else [])]


def password_attempts(user: User) -> Attempts:
    """Return the Attempts that count a user's wrong current passwords."""
    return Attempts({tally_key("password", str(user.pk)): settings.LIMIT_PASSWORD})


def signup_attempts() -> Attempts:
    """Return the Attempts that count the sign-ups from the client's address."""
    return Attempts({tally_key("sign-up", client_network()): settings.LIMIT_SIGNUP})
