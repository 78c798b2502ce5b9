"""The users, tokens and messages of the benchmark.

10,000 users have exchanged 1,000,000 messages, each with some of their neighbours. THOUSAND has another 1,000 messages,
MILLION another 1,000,000, and SOCIABLE one with each of 1,000 users. The messages of all are mixed.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
from argon2 import PasswordHasher

USERS = 10_000
THOUSAND, MILLION, SOCIABLE = 1, 2, 3  # user ids; from NEIGHBOURS on, they write to their neighbours
NEIGHBOURS = range(11, USERS + 1)
REACH = 20  # how far apart neighbours are
MESSAGES = {NEIGHBOURS: 1_000_000, MILLION: 1_000_000, THOUSAND: 1_000, SOCIABLE: 1_000}
SPAN = timedelta(days=10)
CONTENT = "The quick brown fox jumps over the lazy dog, and number {} is as long as many a message is."
PASSWORD = "a long secret"  # noqa: S105 - of users that exist in a benchmark alone
OWASP_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def username(number: int) -> str:
    return f"user{number:05d}"


def token(number: int) -> str:
    """Return the token of a user. `load.lua` makes the same."""
    return f"{number:015d}".ljust(40, "0")


def message_rows() -> Iterator[tuple]:
    """Yield all messages, oldest first."""
    chance = random.Random(4)  # noqa: S311 - no secret
    order = [kind for kind, count in MESSAGES.items() for _ in range(count)]
    chance.shuffle(order)
    step = SPAN / len(order)
    created = datetime.now(UTC) - SPAN
    unread_from = created + SPAN * 0.9
    counts, places = Counter(), Counter()
    for number, kind in enumerate(order):
        created += step
        counts[kind] += 1
        if kind is NEIGHBOURS:
            user = chance.choice(NEIGHBOURS)
            partner = NEIGHBOURS[(user - NEIGHBOURS.start + chance.randint(1, REACH)) % len(NEIGHBOURS)]
        elif kind == THOUSAND:
            user, partner = kind, NEIGHBOURS[counts[kind] // 2 % 2]
        elif kind == MILLION:
            user, partner = kind, chance.choice(NEIGHBOURS)
        else:
            user, partner = kind, NEIGHBOURS[counts[kind]]
        sender, receiver = (user, partner) if counts[kind] % 2 else (partner, user)
        places[sender] += 1
        places[receiver] += 1
        read = created if created < unread_from else None
        yield sender, receiver, CONTENT.format(number), created, read, places[sender], places[receiver]


COUNT_CONVERSATIONS = """
    INSERT INTO messageservice_conversation (owner_id, partner_id, sent, received, unread, last_message_id)
    SELECT owner, partner, sum(sent), sum(received), sum(unread), max(id) FROM (
        SELECT sender_id, receiver_id, 1, 0, 0, id FROM messageservice_message
        UNION ALL
        SELECT receiver_id, sender_id, 0, 1, CASE WHEN read IS NULL THEN 1 ELSE 0 END, id FROM messageservice_message
    ) ends (owner, partner, sent, received, unread, id) GROUP BY owner, partner
"""
COUNT_MAILBOXES = """
    INSERT INTO messageservice_mailbox (user_id, total, sent, received, unread, conversations, window_sent)
    SELECT owner_id, sum(sent) + sum(received), sum(sent), sum(received), sum(unread), count(*), 0
    FROM messageservice_conversation GROUP BY owner_id
"""


def fill(connection: psycopg.Connection) -> None:
    """Fill the tables of commit 6bc8ad4, which never change. Users and messages get their ids in the order of the rows."""

    def insert(table: str, columns: str, rows: Iterable[tuple]) -> None:
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    now = datetime.now(UTC)
    password = f"argon2{OWASP_HASHER.hash(PASSWORD)}"
    columns = "username, password, first_name, last_name, email, is_superuser, is_staff, is_active, date_joined"
    users = ((username(user), password, "", "", "", False, False, True, now) for user in range(1, USERS + 1))
    insert("auth_user", columns, users)
    expiry, values = now + timedelta(days=365), ((user, token(user)) for user in range(1, USERS + 1))
    tokens = ((hashlib.sha512(value.encode()).hexdigest(), value[:15], user, now, expiry) for user, value in values)
    insert("knox_authtoken", "digest, token_key, user_id, created, expiry", tokens)
    columns = "sender_id, receiver_id, content, created, read, sender_place, receiver_place"
    insert("messageservice_message", columns, message_rows())
    connection.execute(COUNT_CONVERSATIONS)
    connection.execute(COUNT_MAILBOXES)
