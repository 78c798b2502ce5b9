"""The lists of messages and conversations. One statement reads a page of them, and never counts or sorts a mailbox.

The number of rows is stored, and read by the same statement; only the messages of a period, and conversations
filtered by `unread`, are counted. The statement finds the ids of a page in an index, then joins their rows and the names of
their users.
"""

from collections import namedtuple
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar, NamedTuple, Self

from django.contrib.auth.models import User

from config.database.sql import Table, fetch_all
from messageservice.models import CONVERSATION, LARGEST_ID, MAILBOX, MESSAGE, Conversation, Message


class MessageRow(NamedTuple):
    """A message as responses show it."""

    id: int
    sender: str
    receiver: str
    content: str
    created: datetime
    read: datetime | None


# Rows of a page: a message; a conversation's last message and number of unread messages. `count` counts the whole list.
CountedRow = namedtuple("CountedRow", [*MessageRow._fields, "count"])
LastMessageRow = namedtuple("LastMessageRow", [*MessageRow._fields, "unread", "count"])


class ConversationRow(NamedTuple):
    """A conversation as responses show it."""

    user: str
    last_message: MessageRow
    unread: int

    @property
    def id(self) -> int:
        """The id for a cursor."""
        return self.last_message.id


class CursorPage(NamedTuple):
    """The rows next to an id, newest first, and whether there are more in that direction and in the opposite direction."""

    rows: list[MessageRow] | list[ConversationRow]
    has_next: bool
    has_previous: bool


M, SENDER, RECEIVER, C = Table(Message, "m"), Table(User, "sender"), Table(User, "receiver"), Table(Conversation, "c")
ROW = f"{M.id}, {SENDER.username}, {RECEIVER.username}, {M.content}, {M.created}, {M.read}"  # the fields of MessageRow
NAMES_NEWEST_FIRST = (
    f"JOIN {SENDER} ON {SENDER.id} = {M.sender} JOIN {RECEIVER} ON {RECEIVER.id} = {M.receiver} ORDER BY {M.id} DESC"
)
SENT, RECEIVED = (MESSAGE.sender,), (MESSAGE.receiver,)
SENT_OR_RECEIVED = SENT + RECEIVED
PARTNER_COLUMN = {MESSAGE.sender: MESSAGE.receiver, MESSAGE.receiver: MESSAGE.sender}
PLACE_COLUMN = {MESSAGE.sender: MESSAGE.sender_place, MESSAGE.receiver: MESSAGE.receiver_place}
IN_PERIOD = f"{MESSAGE.created} BETWEEN %(first_moment)s AND %(last_moment)s"
IS_UNREAD = {True: f"{MESSAGE.read} IS NULL", False: f"{MESSAGE.read} IS NOT NULL"}
IN_MAILBOX = f"FROM {MAILBOX} WHERE {MAILBOX.user} = %(user)s"
IN_CONVERSATION = f"FROM {CONVERSATION} WHERE {CONVERSATION.owner} = %(user)s AND {CONVERSATION.partner} = %(partner)s"
CONVERSATIONS = {
    None: f"FROM {CONVERSATION} WHERE {CONVERSATION.owner} = %(user)s",
    True: f"FROM {CONVERSATION} WHERE {CONVERSATION.owner} = %(user)s AND {CONVERSATION.unread} > 0",
    False: f"FROM {CONVERSATION} WHERE {CONVERSATION.owner} = %(user)s AND {CONVERSATION.unread} = 0",
}
YEAR_ONE, MICROSECOND = datetime.min.replace(tzinfo=UTC), timedelta(microseconds=1)
ALL_TIME = range((datetime.max.replace(tzinfo=UTC) - YEAR_ONE) // MICROSECOND + 1)  # in microseconds since YEAR_ONE
LAST_MESSAGES = f"JOIN {M} ON {M.id} = {C.last_message} {NAMES_NEWEST_FIRST}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageListing:
    """The messages that `user` sent, received, or both; the other fields narrow them down."""

    user: User
    user_columns: tuple[str, ...]  # the listing has the messages with the user in one of these columns
    partner: User | None = None
    created: range | None = None  # a part of ALL_TIME
    is_unread: bool | None = None

    model: ClassVar = Message  # for django-filter and drf-spectacular

    @classmethod
    def sent_by(cls, user: User) -> Self:
        return cls(user=user, user_columns=SENT)

    @classmethod
    def received_by(cls, user: User) -> Self:
        return cls(user=user, user_columns=RECEIVED)

    @classmethod
    def involving(cls, user: User) -> Self:
        return cls(user=user, user_columns=SENT_OR_RECEIVED)

    def exchanged_with(self, partner: User) -> Self:
        return replace(self, partner=partner)

    def page(self, start: int, size: int) -> tuple[list[MessageRow], int]:
        """Return up to `size` rows from the offset `start`, newest first, and how many there are (0 on an empty page)."""
        whole_mailbox = self.user_columns == SENT_OR_RECEIVED and self.partner is None and self.created is None
        ids = self._ids_by_place(size) if whole_mailbox else self._ids(size, start)
        rows = self._fetch(CountedRow, f"{ROW}, ({self._count_query()})", ids, start=start)
        return rows, rows[0].count if rows else 0

    def before(self, message_id: int, size: int) -> CursorPage:
        """Return the rows older than the id."""
        rows, newer = self._around(min(message_id - 1, LARGEST_ID), older=size + 1, newer=1)
        return CursorPage(rows[:size], has_next=len(rows) > size, has_previous=bool(newer))

    def after(self, message_id: int, size: int) -> CursorPage:
        """Return the rows newer than the id."""
        older, rows = self._around(min(message_id, LARGEST_ID), older=1, newer=size + 1)
        return CursorPage(rows[-size:], has_next=len(rows) > size, has_previous=bool(older))

    def with_id(self, message_id: int) -> MessageRow | None:
        return self._row(f"{MESSAGE.id} = %(id)s", id=message_id) if message_id <= LARGEST_ID else None

    def with_key(self, idempotency_key: str) -> MessageRow | None:
        return self._row(f"{MESSAGE.idempotency_key} = %(key)s", key=idempotency_key)

    def _row(self, condition: str, **parameters: int | str) -> MessageRow | None:
        ids = " UNION ".join(f"{self._ids_query(column)} AND {condition}" for column in self.user_columns)
        return next(iter(self._fetch(MessageRow, ROW, ids, **parameters)), None)

    def _around(self, last_id: int, *, older: int, newer: int) -> tuple[list[MessageRow], list[MessageRow]]:
        """Return up to `older` rows with ids up to `last_id`, and up to `newer` rows with larger ids, each newest first."""
        id_ = self._unindexed_by_period(MESSAGE.id)
        older_ids = self._ids(older, condition=f" AND {id_} <= %(last_id)s")
        newer_ids = self._ids(newer, condition=f" AND {id_} > %(last_id)s", order="ASC")
        ids = f"SELECT {MESSAGE.id} FROM ({older_ids}) older UNION ALL SELECT {MESSAGE.id} FROM ({newer_ids}) newer"
        rows = self._fetch(MessageRow, ROW, ids, last_id=last_id)
        return [row for row in rows if row.id <= last_id], [row for row in rows if row.id > last_id]

    def _fetch(self, row_type: type, columns: str, ids: str, **parameters: int | str) -> list:
        """Return these columns of the messages that the query `ids` selects, newest first."""
        parameters["user"] = self.user.pk
        if self.partner is not None:
            parameters["partner"] = self.partner.pk
        if self.created is not None:
            period = self.created or range(1, 1)  # the bounds of an empty period may be outside the calendar
            parameters["first_moment"] = YEAR_ONE + period.start * MICROSECOND
            parameters["last_moment"] = YEAR_ONE + (period.stop - 1) * MICROSECOND
        statement = f"SELECT {columns} FROM ({ids}) page JOIN {M} ON {M.id} = page.{MESSAGE.id} {NAMES_NEWEST_FIRST}"
        return list(map(row_type._make, fetch_all(statement, **parameters)))

    def _ids(self, size: int, start: int = 0, condition: str = "", order: str = "DESC") -> str:
        """Return the query for up to `size` ids from the offset `start`."""
        by_id = f"ORDER BY {self._unindexed_by_period(MESSAGE.id)} {order}"
        queries = [f"{self._ids_query(column)}{condition} {by_id}" for column in self.user_columns]
        if len(queries) == 1:
            return f"{queries[0]} LIMIT {size} OFFSET {start}"
        union = " UNION ".join(f"SELECT * FROM ({query} LIMIT {start + size}) q{i}" for i, query in enumerate(queries))
        return f"SELECT * FROM ({union}) ids ORDER BY {MESSAGE.id} {order} LIMIT {size} OFFSET {start}"

    def _ids_by_place(self, size: int) -> str:
        """Return the query for the ids on a page of the whole mailbox: a range of places, each with one message."""
        total = f"({self._count_query()})"
        places = f"BETWEEN {total} - %(start)s - {size - 1} AND {total} - %(start)s"
        queries = (f"{self._ids_query(column)} AND {PLACE_COLUMN[column]} {places}" for column in self.user_columns)
        return f"{' UNION '.join(queries)} LIMIT {size}"

    def _ids_query(self, user_column: str) -> str:
        """Return the query for the ids of the messages of the listing that have the user in this column."""
        conditions = [f"{user_column} = %(user)s"]
        if self.created is not None:
            conditions.append(IN_PERIOD)
        if self.partner is not None:
            conditions.append(f"{self._unindexed_by_period(PARTNER_COLUMN[user_column])} = %(partner)s")
        if self.is_unread is not None:
            conditions.append(IS_UNREAD[self.is_unread])
        return f"SELECT {MESSAGE.id} FROM {MESSAGE} WHERE {' AND '.join(conditions)}"

    def _unindexed_by_period(self, column: str) -> str:
        """Return the column, with a unary plus if the listing is filtered by time.

        Time filters must use the index on (user, created). The plus keeps the planner from choosing an index on another
        column, which would scan everything newer, or all messages of the partner.
        """
        return column if self.created is None else f"+{column}"

    def _count_query(self) -> str:
        """Return the query for the number of all rows."""
        if self.created is not None:
            return f"SELECT count(*) FROM ({' UNION '.join(map(self._ids_query, self.user_columns))}) listed"
        counters = MAILBOX if self.partner is None else CONVERSATION
        if self.is_unread is not None:
            count = counters.unread if self.is_unread else f"{counters.received} - {counters.unread}"
        elif self.user_columns == SENT or self.partner == self.user:
            count = counters.sent
        elif self.user_columns == RECEIVED:
            count = counters.received
        else:
            count = MAILBOX.total if self.partner is None else f"{CONVERSATION.sent} + {CONVERSATION.received}"
        return f"SELECT {count} {IN_MAILBOX if self.partner is None else IN_CONVERSATION}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationListing:
    """The conversations of `user`, latest message first; `is_unread` selects those with, or without, unread messages."""

    user: User
    is_unread: bool | None = None

    model: ClassVar = Conversation  # for django-filter and drf-spectacular

    def page(self, start: int, size: int) -> tuple[list[ConversationRow], int]:
        """Return up to `size` rows from the offset `start`, and how many there are (0 on an empty page)."""
        count = f"SELECT count(*) {CONVERSATIONS[self.is_unread]}"
        if self.is_unread is None:
            count = f"SELECT {MAILBOX.conversations} {IN_MAILBOX}"
        rows = self._fetch(size, start, count=count)
        return rows, rows[0].last_message.count if rows else 0

    def before(self, message_id: int, size: int) -> CursorPage:
        """Return the conversations whose last message is older than the id."""
        older = f" AND {CONVERSATION.last_message} <= %(last_id)s"
        rows = self._fetch(size + 1, condition=older, last_id=min(message_id - 1, LARGEST_ID))
        return CursorPage(rows[:size], has_next=len(rows) > size, has_previous=False)

    def _fetch(
        self, size: int, start: int = 0, *, count: str = "NULL", condition: str = "", **parameters: int
    ) -> list[ConversationRow]:
        statement = (
            f"SELECT {ROW}, {C.unread}, ({count}) FROM (SELECT * {CONVERSATIONS[self.is_unread]}{condition}"
            f" ORDER BY {CONVERSATION.last_message} DESC LIMIT {size} OFFSET {start}) c {LAST_MESSAGES}"
        )
        rows = map(LastMessageRow._make, fetch_all(statement, user=self.user.pk, **parameters))
        return [ConversationRow(self._partner(row), row, row.unread) for row in rows]

    def _partner(self, message: MessageRow) -> str:
        return message.receiver if message.sender == self.user.username else message.sender
