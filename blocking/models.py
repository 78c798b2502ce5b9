from typing import Self

from django.contrib.auth.models import User
from django.db import models
from django.utils import timezone

from accounts.models import PagedQuerySet
from config.database.sql import Table


class BlockQuerySet(PagedQuerySet):
    def created_by(self, user: User) -> Self:
        """The blocks that the user created."""
        return self.filter(blocker=user)

    def involving(self, user: User) -> Self:
        """The blocks that the user created, and the blocks against the user."""
        return self.filter(models.Q(blocker=user) | models.Q(blocked=user))

    def newest_first(self) -> Self:
        return self.order_by("-pk")


class Block(models.Model):
    """`blocked` cannot send messages to `blocker`."""

    blocker = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    blocked = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    created = models.DateTimeField(default=timezone.now)

    objects = BlockQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["blocker", "blocked"], name="block_once"),
            models.CheckConstraint(condition=~models.Q(blocker=models.F("blocked")), name="block_not_oneself"),
        ]

    def __str__(self) -> str:
        return f"{self.blocker} blocks {self.blocked}"


BLOCK = Table(Block)


def blocks(*, blocker: str, blocked: str) -> str:
    """Return the SQL condition that one user blocks another. Both arguments are SQL expressions of a user's id.

    A send evaluates it in `messageservice.sending.LOCK`: a message is rejected if its receiver blocks its sender.
    """
    return f"EXISTS (SELECT 1 FROM {BLOCK} WHERE {BLOCK.blocker} = {blocker} AND {BLOCK.blocked} = {blocked})"
