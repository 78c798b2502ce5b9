"""Limits on attempts, counted in the database, so that they hold across all worker processes and nodes.

A tally counts failures (or sign-ups that cost a hash) from the first on, for the seconds of its limit. A good log-in reads
tallies and writes nothing.

Nobody can close a name to an address that has had no failed log-ins for it:
- Failures for a name from one address close the name to that address (LIMIT_LOGIN).
- Failures for a name from all addresses together (LIMIT_LOGIN_NAME) close it to each IPv4 address or IPv6 /48 that has had
  one, so the owner gets in from elsewhere, and guessers need a fresh address for each guess.
- Failures from one address for any name close the address (LIMIT_LOGIN_ADDRESS), also to others who share it.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Bucket:
    """The key of a tally, and the limit that it counts towards."""

    limit: Limit
    key: str


def bucket(limit: Limit | None, *subject: str) -> Bucket | None:
    """The bucket of a subject; None where its limit is off."""
    if limit is None:
        return None
    return Bucket(limit, hashlib.sha256(repr(subject).encode()).hexdigest())


def is_running(ends: datetime, limit: Limit, now: datetime) -> bool:
    """Whether a window that ends then is running.

    An end further away than the limit's seconds is ignored: it was stored by a wrong clock, or while the window was longer.
    """
    return now < ends <= now + timedelta(seconds=limit.seconds)


def longest_window() -> timedelta:
    """Of the limits that tallies are counted for, as they are set now."""
    names = ("LIMIT_LOGIN", "LIMIT_LOGIN_ADDRESS", "LIMIT_LOGIN_NAME", "LIMIT_PASSWORD", "LIMIT_SIGNUP")
    limits = [getattr(settings, name) for name in names]
    return timedelta(seconds=max((limit.seconds for limit in limits if limit is not None), default=0))


def client_network(ipv6_prefix: int = 64) -> str:
    """The address that the request came from; for IPv6 the network around it, as one client has all of a /64."""
    address = current_request().address
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed  # IPv4, as a socket for both versions writes it
    return str(ipaddress.ip_network((parsed, ipv6_prefix), strict=False) if parsed.version == 6 else parsed)


class Tries:
    """The attempts of one subject, counted in each of its buckets."""

    def __init__(self, *buckets: Bucket | None) -> None:
        self.buckets = [bucket for bucket in buckets if bucket is not None]

    def check(self) -> None:
        """Raise LimitReached if no further attempt is allowed, DatabaseIsReadOnly if none can be counted.

        Called before and after a password is hashed, so that parallel guesses get no more answers than sequential ones.
        """
        if not is_writable():  # failures could not be counted
            raise DatabaseIsReadOnly
        self._check(Tally.objects.in_bulk([bucket.key for bucket in self.buckets]), timezone.now())

    def record(self) -> None:
        """Count one attempt, or raise LimitReached if others have reached the limit since it was checked."""
        with transaction.atomic():
            # Created and then locked in one order, so that no two requests wait for each other.
            new = [Tally(key=bucket.key, count=0, ends=timezone.now()) for bucket in self.buckets]
            Tally.objects.bulk_create(new, ignore_conflicts=True)
            locked = Tally.objects.select_for_update().order_by("key").in_bulk([tally.key for tally in new])
            now = timezone.now()
            self._check(locked, now)
            tallies = [locked.get(tally.key, tally) for tally in new]  # a purge may have deleted an old one just now
            for bucket, tally in zip(self.buckets, tallies, strict=True):
                if not is_running(tally.ends, bucket.limit, now):
                    tally.count, tally.ends = 0, now + timedelta(seconds=bucket.limit.seconds)
                tally.count += 1
            Tally.objects.bulk_create(tallies, update_conflicts=True, unique_fields=["key"], update_fields=["count", "ends"])

    def _check(self, tallies: dict[str, Tally], now: datetime) -> None:
        full = {}
        for bucket in self.buckets:
            tally = tallies.get(bucket.key)
            if tally and tally.count >= bucket.limit.count and is_running(tally.ends, bucket.limit, now):
                full[bucket] = tally.ends
        closed_until = self.closed_until(full)
        if closed_until:
            raise LimitReached(ends=max(closed_until), now=now)

    def closed_until(self, full: dict[Bucket, datetime]) -> list[datetime]:
        """The ends of the windows that allow no further attempt; `full` holds the end for each bucket at its limit."""
        return [*full.values()]


class LoginTries(Tries):
    """Failed log-ins for a name from an address."""

    def __init__(self, username: str) -> None:
        address = client_network()
        self.name = bucket(settings.LIMIT_LOGIN_NAME, "log-in to", username)
        self.first = None
        if self.name is not None:
            seconds = (settings.LIMIT_LOGIN or settings.LIMIT_LOGIN_NAME).seconds
            self.first = bucket(Limit(1, seconds), "first log-in", username, client_network(ipv6_prefix=48))
        super().__init__(
            bucket(settings.LIMIT_LOGIN, "log-in", username, address),
            bucket(settings.LIMIT_LOGIN_ADDRESS, "log-in from", address),
            self.name,
            self.first,
        )

    def closed_until(self, full):
        """The name's limit and the address's first failure allow no further attempt together, not alone."""
        both = [full.pop(bucket) for bucket in (self.name, self.first) if bucket in full]
        return [*full.values(), *([min(both)] if len(both) == 2 else [])]


def password_tries(user: User) -> Tries:
    """Wrong current passwords of a user."""
    return Tries(bucket(settings.LIMIT_PASSWORD, "password", str(user.pk)))


def signup_tries() -> Tries:
    """Sign-ups from an address."""
    return Tries(bucket(settings.LIMIT_SIGNUP, "sign-up", client_network()))
