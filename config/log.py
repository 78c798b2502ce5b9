"""The three logs, and the request that a log line is about.

A line is one JSON object in ASCII, so nothing that a client sends can split it or forge another. The settings import this
module, so it uses only the standard library.
"""

import fcntl
import json
import logging
import math
import mmap
import os
import re
import select
import struct
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

requests_log = logging.getLogger("requests")
activity_log = logging.getLogger("activity")
debug_log = logging.getLogger("debug")

NOBODY = "-"
MAX_LENGTHS = {"path": 1_000, "traceback": 100_000}  # characters
MAX_LENGTH = 150  # characters of every other field, such as the name in a login attempt, which can be as long as a body
STANDARD_OUTPUT = 1  # its file descriptor
LINE_SIZE = 4_096  # bytes of a line there, which a pipe takes whole or not at all
LONGEST_WAIT = 1  # second that a request waits for room in standard output
TRACEBACK_INTERVAL = 60  # seconds
REPORT_INTERVAL = 1  # second
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
        """Return the fields that requests.log and debug.log have in common."""
        return {"request_id": self.id, "method": self.method, "path": self.path, "user": self.user}


_context: ContextVar[RequestContext] = ContextVar("request_context")
_tracebacks: dict[tuple, tuple[float, int]] = {}  # when the traceback of an error was written, and the repeats since then
_lock = Lock()
_last_report = mmap.mmap(-1, 8)  # the time of the last report, in memory that forked worker processes share


def request_id(proposed: str | None) -> str:
    """Return the id that the client proposes if it is well-formed, otherwise a new id."""
    return proposed if proposed and REQUEST_ID.fullmatch(proposed) else uuid.uuid4().hex


def begin_request(context: RequestContext) -> None:
    _context.set(context)


def current_request() -> RequestContext:
    """Return the request that this thread handles. Outside of requests all fields are `-`."""
    return _context.get(None) or RequestContext()


def record_request(status: int, milliseconds: float) -> None:
    """Write the current request's line of requests.log."""
    request = current_request()
    line = {**request.fields(), "status": status, "milliseconds": round(milliseconds, 1), "address": request.address}
    requests_log.info(line)


def record_event(event: str, *, who: str, whom: str = NOBODY) -> None:
    """Write a line of activity.log: `who` is the user who acted, `whom` the user whom it affects."""
    request = current_request()
    activity_log.info({"request_id": request.id, "event": event, "who": who, "whom": whom, "address": request.address})


def record_error(error: BaseException) -> None:
    """Write an unexpected error to debug.log.

    For errors of the same type from the same line of code, the whole traceback is written once per TRACEBACK_INTERVAL. Lines
    of repeated errors have `repeats`, their number, instead.
    """
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    key, now = (type(error), *frames[-1:]), time.monotonic()
    with _lock:
        written, repeats = _tracebacks.get(key, (-math.inf, 0))
        is_repeated = now < written + TRACEBACK_INTERVAL
        _tracebacks[key] = (written, repeats + 1) if is_repeated else (now, 0)
    details = {"error": type(error).__name__, "repeats": repeats + 1} if is_repeated else {"traceback": _traceback(error)}
    debug_log.debug({"level": "DEBUG", **current_request().fields(), **details})


def _traceback(error: BaseException | None) -> str:
    """Return the traceback without what PostgreSQL's errors quote: rows or parameters, and so message content."""
    text = "".join(traceback.format_exception(error))
    while error is not None:
        for name in ("message_detail", "context"):
            if quoted := getattr(getattr(error, "diag", None), name, None):
                text = text.replace(quoted, "…")
        error = error.__cause__ or error.__context__
    return text


def fields_of(record: logging.LogRecord, **extra: str) -> dict[str, Any]:
    """Return the fields of the record's line: the time, `extra`, and the fields of its message, with texts cut.

    No line is longer than 16 KB, or 1.2 MB with a traceback: a character takes up to 12 bytes.
    """
    line = {"time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}", **extra}
    for name, value in record.msg.items():
        line[name] = value[: MAX_LENGTHS.get(name, MAX_LENGTH)] if isinstance(value, str) else value
    return line


def encode(line: dict[str, Any]) -> bytes:
    """Return the line as one JSON object in ASCII."""
    return f"{json.dumps(line)}\n".encode()


class AppendHandler(logging.Handler):
    """Appends whole lines to a file that several processes share.

    Each line opens the file: after logrotate has renamed it, the next line goes to a new one.
    """

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        self.file = file

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with open(self.file, "ab+", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o640)) as file:
                self._append(file.fileno(), encode(fields_of(record)))
        except Exception:  # the request that is being logged must succeed on a full disk
            report_loss(str(self.file))

    def _append(self, file: int, line: bytes) -> None:
        """Write the whole line or nothing: half a line on a full disk is removed before another process can append."""
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":  # a process was killed while it wrote
            line = b"\n" + line
        if os.write(file, line) < len(line):
            os.ftruncate(file, size)
            raise OSError("no space for a whole line")


class StandardOutputHandler(logging.Handler):
    """Writes the lines of all logs to standard output, which the worker processes share.

    If nobody reads standard output, a request waits up to LONGEST_WAIT, and lines are lost until somebody does.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = [*encode_lines(fields_of(record, log=record.name))]
            fcntl.lockf(STANDARD_OUTPUT, fcntl.LOCK_EX)  # so that no other process fills the pipe after `poll`
            try:
                for line in lines:
                    self._write(line)
            finally:
                fcntl.lockf(STANDARD_OUTPUT, fcntl.LOCK_UN)
        except Exception:  # the request that is being logged must succeed
            report_loss("standard output")

    def _write(self, line: bytes) -> None:
        poll = select.poll()
        poll.register(STANDARD_OUTPUT, select.POLLOUT)
        if not poll.poll(0 if reported_recently() else 1_000 * LONGEST_WAIT):
            raise TimeoutError("nobody reads it")
        written = os.write(STANDARD_OUTPUT, line)
        if written < len(line):  # it is a file on a full disk
            os.ftruncate(STANDARD_OUTPUT, os.lseek(STANDARD_OUTPUT, -written, os.SEEK_CUR))
            raise OSError("no space for a whole line")


def encode_lines(line: dict[str, Any]) -> Iterator[bytes]:
    """Encode a line in at most LINE_SIZE bytes: long texts are cut, and a long traceback is split into numbered parts."""
    traceback_text = line.pop("traceback", "")
    while len(encode(line)) > LINE_SIZE / 2:  # the other half is for a part of the traceback
        longest = max(line, key=lambda name: len(json.dumps(line[name])))
        line[longest] = line[longest][: len(line[longest]) // 2]
    room = LINE_SIZE - len(encode({**line, "traceback": "", "part": 9_999, "parts": 9_999}))
    parts = [*split_text(traceback_text, room)]
    if not parts:
        yield encode(line)
    elif len(parts) == 1:
        yield encode({**line, "traceback": traceback_text})
    else:
        for number, part in enumerate(parts, start=1):
            yield encode({**line, "traceback": part, "part": number, "parts": len(parts)})


def split_text(text: str, size: int) -> Iterator[str]:
    """Split the text into pieces whose JSON has at most `size` bytes."""
    start = 0
    while start < len(text):
        piece = text[start : start + size]
        while (needed := len(json.dumps(piece)) - 2) > size:
            piece = piece[: len(piece) * size // needed]
        yield piece
        start += len(piece)


def reported_recently() -> bool:
    return time.monotonic() < struct.unpack("d", _last_report)[0] + REPORT_INTERVAL


def report_loss(log: str) -> None:
    """Report the current error, which lost a line, on standard error: in one line, at most once per REPORT_INTERVAL."""
    if not reported_recently():
        _last_report[:] = struct.pack("d", time.monotonic())
        with suppress(Exception):  # standard error may be a file on the same disk
            sys.stderr.write(f"{log}: {sys.exc_info()[1]}\n")
