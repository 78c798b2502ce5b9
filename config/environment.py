"""Reads settings from environment variables. An invalid value ends the process, with one line that names the variable.

An empty variable counts as not set. `<variable>_FILE` may name a file that holds the value, and is used if both are set.
"""

import os
import re
import secrets
import sys
import tempfile
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple, NoReturn

HOST_PATTERN = r"\*|\.?[A-Za-z0-9]+(?:(?:\.|-+)[A-Za-z0-9]+)*|\[[0-9A-Fa-f:.]+\]"
PORT_PATTERN = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
ORIGIN_PATTERN = rf"[a-z][a-z0-9+.-]*://([a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*|\[[0-9A-Fa-f:.]+\])(:{PORT_PATTERN})?"
ADDRESS_PATTERN = rf"(?i:off)|([A-Za-z0-9-]{{1,63}}(?:\.[A-Za-z0-9-]{{1,63}})*|\[[0-9A-Fa-f:.]+\]):0*({PORT_PATTERN})"


class Limit(NamedTuple):
    """How often something may happen within a window of time."""

    count: int
    seconds: int


def abort(variable: str, reason: str) -> NoReturn:
    sys.exit(f"{variable}: {reason}")


def is_utf8(value: str) -> bool:
    """Return whether a variable or an argument was UTF-8: Python reads other bytes as lone surrogates."""
    return re.search(r"[\ud800-\udfff]", value) is None


def text(variable: str, default: str = "") -> str:
    value, file = os.environ.get(variable, ""), os.environ.get(f"{variable}_FILE")
    if not is_utf8(value):
        abort(variable, "is not UTF-8")
    if not file:
        return value or default
    try:
        value = Path(file).read_text().strip()
    except (OSError, ValueError):
        abort(f"{variable}_FILE", f"cannot read {file!r}")
    if not value or "\0" in value:
        abort(f"{variable}_FILE", f"{file!r} is empty or contains a NUL")
    return value


def integer(variable: str, default: int, *, lowest: int, highest: int) -> int:
    value = text(variable, str(default))
    if not re.fullmatch("[0-9]{1,12}", value) or not lowest <= int(value) <= highest:
        abort(variable, f"{value!r} is not a whole number from {lowest} to {highest}")
    return int(value)


def boolean(variable: str) -> bool:
    """True for `on`, `true`, `yes` or `1`, False for `off` (the default), `false`, `no` or `0`."""
    return bool(_match(variable, text(variable, "off"), "(?i:(on|true|yes|1)|off|false|no|0)", "on or off")[1])


def limit(variable: str, default: str) -> Limit | None:
    """A limit written as `<n>/<seconds>`, or None for `off`."""
    pattern = "(?i:off)|0*([1-9][0-9]{0,8})/0*([1-9][0-9]{0,8})"
    match = _match(variable, text(variable, default), pattern, "<n>/<seconds>, such as 10/60, or off")
    return Limit(count=int(match[1]), seconds=int(match[2])) if match[1] else None


def address(variable: str) -> tuple[str, int] | None:
    """Host and port written as `<host>:<port>`, or None for `off`, which is the default."""
    match = _match(variable, text(variable, "off"), ADDRESS_PATTERN, "<host>:<port>, such as 127.0.0.1:9100, or off")
    return (match[1].strip("[]"), int(match[2])) if match[1] else None


def hosts(variable: str, default: str) -> list[str]:
    """Host names as ALLOWED_HOSTS takes them, separated by commas."""
    items = text(variable, default).split(",")
    return [_match(variable, item.strip(), HOST_PATTERN, "a host name without scheme and port")[0] for item in items]


def origins(variable: str) -> list[str]:
    """Origins of web pages, separated by commas. None by default."""
    items = text(variable).split(",") if text(variable) else []
    return [_match(variable, item.strip(), ORIGIN_PATTERN, "an origin such as https://example.com")[0] for item in items]


def _match(variable: str, value: str, pattern: str, expected: str) -> re.Match:
    match, literal = re.fullmatch(pattern, value), re.search(r"\[(.*)\]", value)
    with suppress(ValueError):
        if match and (not literal or IPv6Address(literal[1])):
            return match
    abort(variable, f"{value!r} is not {expected}")


def folder(variable: str, default: Path) -> Path:
    """A folder that the process can write to. It is created if it does not exist."""
    path = Path(text(variable, str(default)))
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except (OSError, ValueError) as error:
        abort(variable, f"cannot write to the folder {str(path)!r} ({error})")
    return path


def secret(variable: str, file: Path) -> str:
    """A secret. By default it is generated at the first start and stored in `file`, which only its owner can read."""
    if value := text(variable):
        return value
    try:
        if not file.exists():
            with tempfile.NamedTemporaryFile("w", dir=file.parent) as draft:
                draft.write(secrets.token_urlsafe(64))
                draft.flush()
                with suppress(FileExistsError):
                    os.link(draft.name, file)  # atomic: processes that start at the same time agree on one secret
        return file.read_text().strip() or abort(variable, f"is not set, and {str(file)!r} is empty; remove the file")
    except (OSError, ValueError) as error:
        abort(variable, f"is not set, and no secret can be kept in {str(file)!r} ({error})")
