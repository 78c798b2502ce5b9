from django.db import models


class Tally(models.Model):
    """How often something happened since its window began: a failed log-in, a wrong password, a sign-up."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField()
    ends = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "tallies"

    def __str__(self) -> str:
        return f"{self.count} until {self.ends}"
