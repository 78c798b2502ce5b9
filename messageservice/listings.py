"""Lists of messages that know how long they are without counting."""

from collections.abc import Callable
from functools import cached_property

from django.contrib.auth.models import User

from messageservice.models import Mailbox, Message, MessageQuerySet


class Listing:
    """Messages, newest first, whose number `stored_count` tells, or None where it has to be counted."""

    def __init__(self, messages: MessageQuerySet, stored_count: Callable[[], int | None]) -> None:
        self.messages = messages
        self.stored_count = stored_count

    def count(self) -> int:
        stored = self.stored_count()
        return self.messages.count() if stored is None else stored

    def __getitem__(self, rows: slice) -> MessageQuerySet:
        return self.messages.newest_first()[rows]

    def older_than(self, pk: int, limit: int) -> MessageQuerySet:
        return self.messages.older_than(pk, limit)

    def newer_than(self, pk: int, limit: int) -> MessageQuerySet:
        return self.messages.newer_than(pk, limit)


class MailboxListing:
    """All that a user sent or received, newest first. Every page of it is a range of places, at any depth."""

    def __init__(self, user: User, messages: MessageQuerySet) -> None:
        self.user = user
        self.messages = messages

    @cached_property
    def total(self) -> int:
        return Mailbox.objects.of(self.user).total

    def count(self) -> int:
        return self.total

    def __getitem__(self, rows: slice) -> MessageQuerySet:
        return self.in_places(self.total - rows.stop + 1, self.total - rows.start).newest_first()

    def older_than(self, pk: int, limit: int) -> MessageQuerySet:
        last = Message.objects.last_place(self.user, before=pk)
        return self.in_places(last - limit + 1, last).newest_first()

    def newer_than(self, pk: int, limit: int) -> MessageQuerySet:
        last = Message.objects.last_place(self.user, before=pk + 1)
        return self.in_places(last + 1, last + limit).order_by("pk")

    def in_places(self, first: int, last: int) -> MessageQuerySet:
        return self.messages.in_places(self.user, first, last)


class ArchiveListing:
    """All messages of all users, newest first. Every page of it is a range of ids, at any depth.

    As ids have few gaps (what a sender's rollback leaves), the newest one stands for the number of messages, and a page may
    hold a little less than others.
    """

    def __init__(self, messages: MessageQuerySet) -> None:
        self.messages = messages
        self.newest = messages.newest_first().values_list("pk", flat=True).first() or 0

    def count(self) -> int:
        return self.newest

    def __getitem__(self, rows: slice) -> MessageQuerySet:
        return self.messages.filter(pk__range=(self.newest - rows.stop + 1, self.newest - rows.start)).newest_first()
