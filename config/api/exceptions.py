"""Errors that Django has no exception for; `config/api/errors.py` gives each its status."""

import math
from datetime import datetime


class LimitReached(Exception):
    """Too many attempts: 429 until `ends`."""

    def __init__(self, *, ends: datetime, now: datetime) -> None:
        super().__init__(ends)
        self.wait = max(1, math.ceil((ends - now).total_seconds()))  # seconds


class DatabaseIsReadOnly(Exception):
    """A request writes, but the database accepts no writes, for example because it is a hot standby: 503."""


class KeyUsedBefore(Exception):
    """The Idempotency-Key was already used for another message: 422."""
