"""Fills databases for the benchmarks: the service's, on PostgreSQL or SQLite, and that of the yardstick `ordinary`.

10,000 users have exchanged 1,000,000 messages, each with some of their neighbours. THOUSAND and COLLECTOR have 1,000 more,
MILLION 1,000,000 more, and SOCIABLE one with each of 1,000 users. The messages of all are mixed, as time would have done.
"""

import hashlib
import random
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

USERS = 10_000
THOUSAND, MILLION, SOCIABLE, COLLECTOR = 1, 2, 3, 4  # user ids; from NEIGHBOURS on, they write to their neighbours
NEIGHBOURS = range(11, USERS + 1)
REACH = 20  # how far apart neighbours are
PASSWORD = "a long secret"  # noqa: S105 - of users that exist in a benchmark alone

MESSAGES = {NEIGHBOURS: 1_000_000, MILLION: 1_000_000, THOUSAND: 1_000, SOCIABLE: 1_000, COLLECTOR: 1_000}
SPAN = timedelta(days=10)
MORE_TOKENS = 999  # that COLLECTOR has beside the one that all have
KNOX_KEY_LENGTH = 15

USER_COLUMNS = (
    "id",
    "password",
    "is_superuser",
    "username",
    "first_name",
    "last_name",
    "email",
    "is_staff",
    "is_active",
    "date_joined",
)
TOKEN_COLUMNS = ("digest", "token_key", "user_id", "created", "expiry")

Insert = Callable[[str, Iterable[str], Iterable[tuple]], None]


def username(number: int) -> str:
    return f"user{number:05d}"


def token(number: int) -> str:
    """The token of a user; `load.lua` makes the same. Those that follow the last user's are the collector's."""
    return f"{number:015d}".ljust(64, "0")


def user_rows(password_hash: str) -> Iterator[tuple]:
    now = datetime.now(UTC)
    for number in range(1, USERS + 1):
        yield number, password_hash, False, username(number), "", "", "", False, True, now


def token_rows() -> Iterator[tuple]:
    """As knox keeps tokens: their digest, and their first characters to look them up by."""
    now = datetime.now(UTC)
    for number in range(1, USERS + MORE_TOKENS + 1):
        digest = hashlib.sha512(token(number).encode()).hexdigest()
        user = number if number <= USERS else COLLECTOR
        yield digest, token(number)[:KNOX_KEY_LENGTH], user, now, now + timedelta(days=365)


def exchanges() -> Iterator[tuple[int, int, int, datetime, datetime | None]]:
    """All messages, oldest first, the same at each call but for their times: id, sender, receiver, created, read."""
    chance = random.Random(4)  # noqa: S311 - no secret
    kinds = list(MESSAGES)
    order = array("B", [index for index, kind in enumerate(kinds) for _ in range(MESSAGES[kind])])
    chance.shuffle(order)
    step = SPAN / len(order)
    created = datetime.now(UTC) - SPAN
    unread_from = created + SPAN * 0.9
    seen = Counter()
    for pk, index in enumerate(order, start=1):
        kind = kinds[index]
        created += step
        seen[kind] += 1
        if kind is NEIGHBOURS:
            one = chance.choice(NEIGHBOURS)
            other = NEIGHBOURS[(one - NEIGHBOURS.start + chance.randint(1, REACH)) % len(NEIGHBOURS)]
        elif kind in (THOUSAND, COLLECTOR):
            one, other = kind, NEIGHBOURS[seen[kind] // 2 % 2]
        elif kind == MILLION:
            one, other = kind, chance.choice(NEIGHBOURS)
        else:
            one, other = kind, NEIGHBOURS[seen[kind]]
        sender, receiver = (one, other) if seen[kind] % 2 else (other, one)
        yield pk, sender, receiver, created, created if created < unread_from else None


CONTENT = "The quick brown fox jumps over the lazy dog, and number {} is as long as many a message is."


class Ledger:
    """What the service keeps beside the messages, counted as they pass."""

    def __init__(self) -> None:
        self.total, self.sent, self.received, self.unread = Counter(), Counter(), Counter(), Counter()
        self.conversations: dict[tuple[int, int], list[int]] = {}

    def message_rows(self) -> Iterator[tuple]:
        for pk, sender, receiver, created, read in exchanges():
            for user in (sender, receiver):
                self.total[user] += 1
            self.sent[sender] += 1
            self.received[receiver] += 1
            self.unread[receiver] += read is None
            theirs = self.conversations.setdefault((sender, receiver), [0, 0, 0, 0])
            theirs[0] += 1
            theirs[3] = pk
            theirs = self.conversations.setdefault((receiver, sender), [0, 0, 0, 0])
            theirs[1] += 1
            theirs[2] += read is None
            theirs[3] = pk
            yield pk, sender, receiver, CONTENT.format(pk), created, read, self.total[sender], self.total[receiver]

    def mailbox_rows(self) -> Iterator[tuple]:
        partners = Counter(owner for owner, _ in self.conversations)
        for user, total in self.total.items():
            yield user, total, self.sent[user], self.received[user], self.unread[user], partners[user], 0

    def conversation_rows(self) -> Iterator[tuple]:
        for (owner, partner), (sent, received, unread, last_message) in self.conversations.items():
            yield owner, partner, sent, received, unread, last_message


BACK = "\r\033[K" if sys.stderr.isatty() else ""  # to the begin of an empty line


def with_progress(label: str, rows: Iterable[tuple], total: int) -> Iterator[tuple]:
    began = time.monotonic()
    done = 0
    for done, row in enumerate(rows, start=1):
        if done % 50_000 == 0 and sys.stderr.isatty():
            print(f"{BACK}{label}: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)
        yield row
    print(f"{BACK}{label}: {done:,} in {time.monotonic() - began:.0f} s", file=sys.stderr)


def fill_service(insert: Insert, password_hash: str) -> None:
    ledger = Ledger()
    messages = sum(MESSAGES.values())
    insert("auth_user", USER_COLUMNS, user_rows(password_hash))
    insert("knox_authtoken", TOKEN_COLUMNS, token_rows())
    insert(
        "messageservice_message",
        ("id", "sender_id", "receiver_id", "content", "created", "read", "sender_place", "receiver_place"),
        with_progress("messages", ledger.message_rows(), messages),
    )
    insert(
        "messageservice_mailbox",
        ("user_id", "total", "sent", "received", "unread", "conversations", "window_sent"),
        ledger.mailbox_rows(),
    )
    insert(
        "messageservice_conversation",
        ("owner_id", "partner_id", "sent", "received", "unread", "last_message_id"),
        with_progress("conversations", ledger.conversation_rows(), len(ledger.conversations)),
    )


def fill_ordinary(insert: Insert, password_hash: str) -> None:
    insert("auth_user", USER_COLUMNS, user_rows(password_hash))
    insert("knox_authtoken", TOKEN_COLUMNS, token_rows())
    insert(
        "ordinary_message",
        ("id", "sender_id", "receiver_id", "created", "read", "content"),
        with_progress(
            "messages of the ordinary service",
            ((*exchange, CONTENT.format(exchange[0])) for exchange in exchanges()),
            sum(MESSAGES.values()),
        ),
    )


def postgresql_insert(connection: Any) -> Insert:
    def insert(table: str, columns: Iterable[str], rows: Iterable[tuple]) -> None:
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    return insert


def sqlite_insert(connection: Any) -> Insert:
    def plain(value: Any) -> Any:
        return value.replace(tzinfo=None).isoformat(" ", "microseconds") if isinstance(value, datetime) else value

    def insert(table: str, columns: Iterable[str], rows: Iterable[tuple]) -> None:
        columns = tuple(columns)
        connection.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            (tuple(map(plain, row)) for row in rows),
        )

    return insert
