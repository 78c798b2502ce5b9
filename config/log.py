"""The three logs, and what is known of the request that a line belongs to.

A line is one JSON object: what a client sends can neither forge a second line nor split its own. The settings import this
module, so it uses the standard library alone.
"""

import json
import logging
import os
import re
import traceback
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

requests_log = logging.getLogger("requests")
activity_log = logging.getLogger("activity")
debug_log = logging.getLogger("debug")

NOBODY = "-"
LONGEST_NAME = 150  # characters
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(slots=True)
class RequestContext:
    """What stands on every log line of one request."""

    id: str = NOBODY
    method: str = NOBODY
    path: str = NOBODY
    address: str = NOBODY
    user: str = NOBODY


_context: ContextVar[RequestContext] = ContextVar("request_context")


def request_id(proposed: str | None) -> str:
    """The id that the client proposes when it is sane, else a fresh one."""
    return proposed if proposed and SANE_REQUEST_ID.fullmatch(proposed) else uuid.uuid4().hex


def begin_request(context: RequestContext) -> None:
    _context.set(context)


def current_request() -> RequestContext:
    """The request that this thread is answering; outside of one, a context of `-` throughout."""
    return _context.get(None) or RequestContext()


def record_request(status: int, milliseconds: float) -> None:
    """Write the current request's line of requests.log."""
    request = current_request()
    requests_log.info(
        "request",
        extra={
            "fields": {
                "request_id": request.id,
                "method": request.method,
                "path": request.path,
                "status": status,
                "milliseconds": round(milliseconds, 1),
                "user": request.user,
                "address": request.address,
            }
        },
    )


def record_event(event: str, *, who: str, whom: str = NOBODY) -> None:
    """Write a line of activity.log: user `who` did `event`, to user `whom` where it has an object.

    A name that somebody tries to log in with may be a megabyte long; what no name can be is cut off.
    """
    request = current_request()
    activity_log.info(
        "event",
        extra={
            "fields": {
                "request_id": request.id,
                "event": event,
                "who": who[:LONGEST_NAME],
                "whom": whom,
                "address": request.address,
            }
        },
    )


def record_error(error: BaseException) -> None:
    """Write an unforeseen error, with its whole traceback, to debug.log."""
    request = current_request()
    debug_log.debug(
        "error",
        extra={
            "fields": {
                "level": "DEBUG",
                "request_id": request.id,
                "method": request.method,
                "path": request.path,
                "user": request.user,
                "traceback": _traceback(error),
            }
        },
    )


def _traceback(error: BaseException) -> str:
    """The whole traceback, less the rows, message content and all, that PostgreSQL quotes in the detail of an error."""
    lines = "".join(traceback.format_exception(error))
    cause: BaseException | None = error
    while cause is not None:
        detail = getattr(getattr(cause, "diag", None), "message_detail", None)
        if detail:
            lines = lines.replace(detail, "…")
        cause = cause.__cause__ or cause.__context__
    return lines


class JsonFormatter(logging.Formatter):
    """The time, then the record's `fields`, as one JSON object in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        return json.dumps({"time": f"{time:%Y-%m-%dT%H:%M:%S.%fZ}", **record.fields})


class AppendHandler(logging.Handler):
    """Appends each record to a file in one write, so that processes sharing the file never tear each other's lines.

    The file is looked up by name for each record and opened anew when another has taken its place: rotation is left to
    logrotate. Python's own rotating handler loses lines when several processes write.
    """

    def __init__(self, filename: str) -> None:
        super().__init__()
        self.filename = filename
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._open(), f"{self.format(record)}\n".encode())
        except Exception:  # a full disk must not refuse the request that is being logged
            self.handleError(record)

    def close(self) -> None:
        with self.lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        super().close()

    def _open(self) -> int:
        if self._descriptor is not None:
            try:
                named = os.stat(self.filename)
            except FileNotFoundError:
                named = None
            if named is not None and (named.st_dev, named.st_ino) == self._identity:
                return self._descriptor
            os.close(self._descriptor)
            self._descriptor = None
        self._descriptor = os.open(self.filename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        opened = os.fstat(self._descriptor)
        self._identity = (opened.st_dev, opened.st_ino)
        return self._descriptor
