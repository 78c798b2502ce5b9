from typing import Self

from django.contrib.auth.models import User
from django.db import models
from django.utils import timezone


class BlockQuerySet(models.QuerySet):
    def of(self, user: User) -> Self:
        """Those that the user set up."""
        return self.filter(blocker=user)

    def page(self, start: int, size: int) -> tuple[list["Block"], int]:
        """The rows from `start` on, counted from 0, and how many there are in all."""
        return list(self[start : start + size]), self.count()

    def newest_first(self) -> Self:
        return self.order_by("-pk")


class Block(models.Model):
    """`blocked` cannot write to `blocker`."""

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
