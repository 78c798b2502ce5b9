"""The three logs, and the request that a log line is about.

A line is one JSON object in ASCII, so nothing that a client sends can split it or forge another. The settings import this
module, so it uses only the standard library.
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
from logging.handlers import WatchedFileHandler

requests_log = logging.getLogger("requests")
activity_log = logging.getLogger("activity")
debug_log = logging.getLogger("debug")

NOBODY = "-"
MAX_NAME = 150  # characters
REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(slots=True)
class RequestContext:
    """What the log lines of a request say about it."""

    id: str = NOBODY
    method: str = NOBODY
    path: str = NOBODY
    address: str = NOBODY
    user: str = NOBODY

    def fields(self) -> dict[str, str]:
        """The fields that requests.log and debug.log have in common."""
        return {"request_id": self.id, "method": self.method, "path": self.path, "user": self.user}


_context: ContextVar[RequestContext] = ContextVar("request_context")


def request_id(proposed: str | None) -> str:
    """The id that the client proposes if it is well-formed, otherwise a new one."""
    return proposed if proposed and REQUEST_ID.fullmatch(proposed) else uuid.uuid4().hex


def begin_request(context: RequestContext) -> None:
    _context.set(context)


def current_request() -> RequestContext:
    """The request that this thread is handling. Outside of requests all fields are `-`."""
    return _context.get(None) or RequestContext()


def record_request(status: int, milliseconds: float) -> None:
    """Write the current request's line of requests.log."""
    request = current_request()
    line = {**request.fields(), "status": status, "milliseconds": round(milliseconds, 1), "address": request.address}
    requests_log.info(line)


def record_event(event: str, *, who: str, whom: str = NOBODY) -> None:
    """Write a line of activity.log: `who` is the user who acted, `whom` the user that it was done to."""
    request = current_request()
    who = who[:MAX_NAME]  # the name in a login attempt can be as long as a body
    activity_log.info({"request_id": request.id, "event": event, "who": who, "whom": whom, "address": request.address})


def record_error(error: BaseException) -> None:
    """Write an unexpected error, with its whole traceback, to debug.log."""
    debug_log.debug({"level": "DEBUG", **current_request().fields(), "traceback": _traceback(error)})


def _traceback(error: BaseException | None) -> str:
    """The whole traceback, without the row, message content included, that PostgreSQL quotes in the detail of an error."""
    text = "".join(traceback.format_exception(error))
    while error is not None:
        detail = getattr(getattr(error, "diag", None), "message_detail", None)
        if detail:
            text = text.replace(detail, "…")
        error = error.__cause__ or error.__context__
    return text


class JsonFormatter(logging.Formatter):
    """Formats a record whose message is a dictionary as one JSON object in ASCII that begins with the time."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        return json.dumps({"time": f"{time:%Y-%m-%dT%H:%M:%S.%fZ}", **record.msg})


class AppendHandler(WatchedFileHandler):
    """Appends each line to a file in one write, so that processes which share the file never mix their lines.

    logrotate renames the file; the next line then goes to a new one.
    """

    def _open(self):
        return open(self.baseFilename, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o640))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.reopenIfNeeded()
            if self.stream is None:
                self.stream = self._open()
                self._statstream()
            self.stream.write(f"{self.format(record)}\n".encode())
        except Exception:  # the request that is being logged must succeed on a full disk
            self.handleError(record)
