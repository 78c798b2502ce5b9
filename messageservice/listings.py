"""Lists, a page or a stretch at a time, each read by one statement that neither counts nor sorts a mailbox.

How many rows there are is stored, and read by the same statement; only the messages of a day, and the conversations with or
without something unread, are counted. Ids are found first, in an index alone; what their rows hold, and their users' names,
is looked up for those on the page.
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import NamedTuple, Self

from django.contrib.auth.models import User

from config.database.sql import fetch_all, fetch_one
from messageservice.models import Conversation, Message, MessageRow

COLUMNS = "m.id, s.username, r.username, m.content, m.created, m.read"
NAMES = "JOIN auth_user s ON s.id = m.sender_id JOIN auth_user r ON r.id = m.receiver_id"
COUNTED = {
    ("sender_id",): "sent",
    ("receiver_id",): "received",
    ("sender_id", "receiver_id"): "total",
}


class Stretch(NamedTuple):
    """The rows next to an id, newest first; whether more follow, and whether any stand on the other side of the id."""

    rows: list[MessageRow]
    more: bool
    behind: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageListing:
    """The messages that `user` sent, received, or both, narrowed down by what else is set."""

    user: User
    ends: tuple[str, ...]  # the columns one of which holds the user
    partner: User | None = None
    day: date | None = None
    is_unread: bool | None = None

    model = Message  # what a FilterSet asks of a queryset

    @classmethod
    def sent_by(cls, user: User) -> Self:
        return cls(user=user, ends=("sender_id",))

    @classmethod
    def received_by(cls, user: User) -> Self:
        return cls(user=user, ends=("receiver_id",))

    @classmethod
    def involving(cls, user: User) -> Self:
        return cls(user=user, ends=("sender_id", "receiver_id"))

    def exchanged_with(self, partner: User) -> Self:
        return replace(self, partner=partner)

    def on(self, day: date) -> Self:
        """Those sent between the two midnights of a day in UTC."""
        return replace(self, day=day)

    def unread(self, wanted: bool) -> Self:
        """Those that their receiver has not marked as read; with False, those that they have."""
        return replace(self, is_unread=wanted)

    def page(self, start: int, size: int) -> tuple[list[MessageRow], int]:
        """The rows from `start` on, counted from 0, newest first, and how many there are in all (0 beside an empty page)."""
        whole_mailbox = len(self.ends) == 2 and self.partner is None and self.day is None
        ids = self._ids_in_places(size) if whole_mailbox else self._ids(size, start)
        rows = fetch_all(
            f"SELECT {COLUMNS}, ({self._count()}) {_rows_of(ids)}",
            **self._parameters(),
            start=start,
        )
        return [MessageRow(*row[:-1]) for row in rows], rows[0][-1] if rows else 0

    def before(self, pk: int, size: int) -> Stretch:
        """The rows next older than an id."""
        return self._stretch(pk, size, ("<", "DESC"), (">=", "ASC"))

    def after(self, pk: int, size: int) -> Stretch:
        """The rows next newer than an id."""
        return self._stretch(pk, size, (">", "ASC"), ("<=", "DESC"))

    def with_id(self, pk: int) -> MessageRow | None:
        return self._one("id = %(pk)s", pk=pk) if pk < 2**63 else None  # beyond that no database has an id

    def under_key(self, idempotency_key: str) -> MessageRow | None:
        return self._one("idempotency_key = %(key)s", key=idempotency_key)

    def _one(self, condition: str, **parameters: int | str) -> MessageRow | None:
        ids = " UNION ".join(f"{self._arm(end)} AND {condition}" for end in self.ends)
        row = fetch_one(f"SELECT {COLUMNS} {_rows_of(ids)}", **self._parameters(), **parameters)
        return row and MessageRow(*row)

    def _stretch(self, pk: int, size: int, ahead: tuple[str, str], behind: tuple[str, str]) -> Stretch:
        """One row more than `size` from one side of the id, and one from the other, tell what follows and what is behind."""
        ids = " UNION ALL ".join(
            f"SELECT id FROM ({self._ids(limit, where=f' AND {self._id} {side} %(pk)s', order=order)}) {name}"
            for name, limit, (side, order) in (("ahead", size + 1, ahead), ("behind", 1, behind))
        )
        rows = [MessageRow(*row) for row in fetch_all(f"SELECT {COLUMNS} {_rows_of(ids)}", **self._parameters(), pk=pk)]
        if ahead[0] == "<":
            found = [row for row in rows if row.id < pk]
            shown = found[:size]
        else:
            found = [row for row in rows if row.id > pk]
            shown = found[-size:]
        return Stretch(shown, more=len(found) > size, behind=len(found) < len(rows))

    def _ids(self, size: int, start: int = 0, where: str = "", order: str = "DESC") -> str:
        arms = [f"{self._arm(end)}{where} ORDER BY {self._id} {order}" for end in self.ends]
        if len(arms) == 1:
            return f"{arms[0]} LIMIT {size} OFFSET {start}"
        union = " UNION ".join(f"SELECT id FROM ({arm} LIMIT {start + size}) arm{i}" for i, arm in enumerate(arms))
        return f"SELECT id FROM ({union}) ids ORDER BY id {order} LIMIT {size} OFFSET {start}"

    @property
    def _id(self) -> str:
        """The id for comparing and sorting; of the messages of a day hidden from the indexes by a plus, as in `_arm`."""
        return "id" if self.day is None else "+id"

    def _ids_in_places(self, size: int) -> str:
        """Those of a page of the whole mailbox: a range of places, in which each message stands once."""
        total = f"({self._count()})"
        places = f"BETWEEN {total} - %(start)s - {size - 1} AND {total} - %(start)s"
        return (
            f"SELECT id FROM messageservice_message WHERE sender_id = %(user)s AND sender_place {places} UNION "
            f"SELECT id FROM messageservice_message WHERE receiver_id = %(user)s AND receiver_place {places} LIMIT {size}"
        )

    def _count(self) -> str:
        if self.day is not None:
            arms = " UNION ".join(self._arm(end) for end in self.ends)
            return f"SELECT count(*) FROM ({arms}) counted"
        counted = COUNTED[self.ends]
        if self.is_unread is not None:
            counted = "unread" if self.is_unread else "received - unread"
        if self.partner is None:
            return f"SELECT {counted} FROM messageservice_mailbox WHERE user_id = %(user)s"
        if counted == "total":
            counted = "sent" if self.partner == self.user else "sent + received"
        return f"SELECT {counted} FROM messageservice_conversation WHERE owner_id = %(user)s AND partner_id = %(partner)s"

    def _arm(self, end: str) -> str:
        """The ids of the messages that have the user at one end.

        Those of a day are found by their time: a plus hides the other columns from the indexes. A database would else look
        for them among all newer messages, or all of a partner.
        """
        other_end = "receiver_id" if end == "sender_id" else "sender_id"
        conditions = [f"{end} = %(user)s"]
        if self.day is not None:
            conditions.append("created BETWEEN %(midnight)s AND %(last_moment)s")
        if self.partner is not None:
            conditions.append(f"{other_end if self.day is None else f'+{other_end}'} = %(partner)s")
        if self.is_unread is not None:
            conditions.append("read IS NULL" if self.is_unread else "read IS NOT NULL")
        return f"SELECT id FROM messageservice_message WHERE {' AND '.join(conditions)}"

    def _parameters(self) -> dict[str, int | datetime]:
        parameters = {"user": self.user.pk}
        if self.partner is not None:
            parameters["partner"] = self.partner.pk
        if self.day is not None:
            parameters["midnight"] = datetime.combine(self.day, time.min, tzinfo=UTC)
            parameters["last_moment"] = datetime.combine(self.day, time.max, tzinfo=UTC)
        return parameters


def _rows_of(ids: str) -> str:
    return f"FROM ({ids}) page JOIN messageservice_message m ON m.id = page.id {NAMES} ORDER BY m.id DESC"


class ConversationRow(NamedTuple):
    user: str
    unread: int
    last_message: MessageRow


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationListing:
    """The conversations of `owner`, latest first; with `is_unread`, those with something unread, or those without."""

    owner: User
    is_unread: bool | None = None

    model = Conversation

    def unread(self, wanted: bool) -> Self:
        return replace(self, is_unread=wanted)

    def page(self, start: int, size: int) -> tuple[list[ConversationRow], int]:
        """The rows from `start` on, counted from 0, and how many there are in all (0 beside an empty page)."""
        condition = {None: "", True: " AND unread > 0", False: " AND unread = 0"}[self.is_unread]
        conversations = f"FROM messageservice_conversation WHERE owner_id = %(owner)s{condition}"
        count = f"SELECT count(*) {conversations}"
        if self.is_unread is None:
            count = "SELECT conversations FROM messageservice_mailbox WHERE user_id = %(owner)s"
        rows = fetch_all(
            f"SELECT {COLUMNS}, c.unread, ({count})"
            f" FROM (SELECT * {conversations} ORDER BY last_message_id DESC LIMIT {size} OFFSET {start}) c"
            f" JOIN messageservice_message m ON m.id = c.last_message_id {NAMES} ORDER BY m.id DESC",
            owner=self.owner.pk,
        )
        return [self._row(MessageRow(*row[:6]), row[6]) for row in rows], rows[0][-1] if rows else 0

    def _row(self, last_message: MessageRow, unread: int) -> ConversationRow:
        partner = last_message.receiver if last_message.sender == self.owner.username else last_message.sender
        return ConversationRow(partner, unread, last_message)
