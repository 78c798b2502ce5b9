from django.contrib.auth.models import User
from django.db import models
from django.utils import timezone


class BlockQuerySet(models.QuerySet):
    def between(self, *, blocker: User, blocked: User) -> "BlockQuerySet":
        return self.filter(blocker=blocker, blocked=blocked)


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
