"""Reads settings from the environment. A value that makes no sense stops the start with one line that names its variable.

An empty variable counts as one that is not set.
"""

import os
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
HOST_PATTERN = re.compile(r"\*|\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
ORIGIN_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Limit:
    count: int
    seconds: int


def refuse(variable: str, reason: str) -> NoReturn:
    sys.exit(f"{variable}: {reason}")


def text(variable: str, default: str) -> str:
    return os.environ.get(variable) or default


def whole_number(variable: str, default: int, *, lowest: int, highest: int) -> int:
    value = text(variable, str(default))
    if not re.fullmatch("[0-9]{1,12}", value) or not lowest <= int(value) <= highest:
        refuse(variable, f"{value!r} is not a whole number from {lowest} to {highest}")
    return int(value)


def switch(variable: str) -> bool:
    """Whether the variable is on; off unless set."""
    value = text(variable, "off")
    if value.lower() not in SWITCH:
        refuse(variable, f"{value!r} is neither on nor off")
    return SWITCH[value.lower()]


def hosts(variable: str, default: str) -> list[str]:
    """Comma-separated host names as ALLOWED_HOSTS takes them: no scheme, no port, `*` for any."""
    names = [name.strip() for name in text(variable, default).split(",")]
    for name in names:
        if not HOST_PATTERN.fullmatch(name):
            refuse(variable, f"{name!r} is not a host name (write no scheme and no port)")
    return names


def origins(variable: str) -> list[str]:
    """Comma-separated origins of browser pages: scheme, host and, where it is not the scheme's own, port."""
    value = text(variable, "")
    names = [name.strip() for name in value.split(",")] if value else []
    for name in names:
        if not ORIGIN_PATTERN.fullmatch(name):
            refuse(variable, f"{name!r} is not an origin such as https://example.com")
    return names


def limit(variable: str, default: str) -> Limit | None:
    """How often something may happen, `<n>/<seconds>`; None for `off`."""
    value = text(variable, default)
    if value.lower() == "off":
        return None
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", value)
    if not match or not int(match[1]) or not int(match[2]):
        refuse(variable, f"{value!r} is neither <n>/<seconds>, such as 10/60, nor off")
    return Limit(count=int(match[1]), seconds=int(match[2]))


def folder(variable: str, default: Path) -> Path:
    """A folder that can be written to, made if it is missing."""
    path = Path(text(variable, str(default)))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(variable, f"cannot make the folder {str(path)!r} ({error.strerror})")
    if not os.access(path, os.W_OK | os.X_OK):
        refuse(variable, f"cannot write to the folder {str(path)!r}")
    return path


def secret(variable: str, file: Path) -> str:
    """The variable, or else what stands in `file`, which is made at first and readable for its owner alone."""
    if os.environ.get(variable):
        return os.environ[variable]
    if not file.exists():
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(secrets.token_urlsafe(64))
            try:
                os.link(draft, file)  # of several processes that start at once, one makes the key and all read it
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            refuse(variable, f"is not set, and a key cannot be kept in {str(file)!r} ({error.strerror})")
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        refuse(variable, f"is not set, and {str(file)!r} cannot be read")
    return key or refuse(variable, f"is not set, and {str(file)!r} is empty; remove the file")


def database(variable: str, default: Path) -> dict[str, Any]:
    """Django's description of the database that the URL names; without one, of the SQLite file `default`."""
    url = os.environ.get(variable)
    if not url:
        return _sqlite(variable, default)
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return _sqlite(variable, Path(unquote(urlsplit(url).path.removeprefix("/"))))
    if scheme in ("postgresql", "postgres"):
        return _postgresql(variable, url)
    refuse(variable, "write postgresql://user:password@host:5432/name or sqlite:////path/of/the/file")


def _sqlite(variable: str, path: Path) -> dict[str, Any]:
    if not path.name or not path.parent.is_dir() or path.is_dir():
        refuse(variable, f"{str(path)!r} is no file in a folder that is there")
    return {
        "ENGINE": "config.database.sqlite",
        "NAME": path,
        "TEST": {"NAME": path.with_name("test.sqlite3")},  # a file: tests with threads need real locks
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",  # a deferred transaction fails at once when another one writes
            "timeout": 20,
            # FULL syncs each commit: what was answered with 201 is on disk. A send changes some twenty pages, so that the
            # default of 1,000 would have the log copied back at every fiftieth; with 10,000 the log grows to 40 MB.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=10000;",
        },
    }


def _postgresql(variable: str, url: str) -> dict[str, Any]:
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its message quotes the URL, with the password
        refuse(variable, "cannot be read; write postgresql://user:password@host:5432/name")
    host, port = parameters.pop("host", ""), parameters.pop("port", "")
    name = parameters.pop("dbname", "")
    if not name:
        refuse(variable, "names no database")
    if not all(re.fullmatch("[0-9]{0,5}", one) and 0 < int(one or 5432) < 65536 for one in port.split(",")):
        refuse(variable, "a port is not a number from 1 to 65535")  # quoting it could quote part of a password
    options = {
        "connect_timeout": 3,  # a database that is gone is noticed within five seconds
        "tcp_user_timeout": 5000,
        # These queries take longer to plan than to run: the server keeps the plans of those it has seen before.
        "server_side_binding": True,
        "prepare_threshold": 2,
        **parameters,
        "options": " ".join(
            (
                "-c lock_timeout=3000",
                # Costly random access, PostgreSQL's default, makes it read all ids backwards instead of a user's own index.
                "-c random_page_cost=1.1",
                parameters.pop("options", ""),
                "-c synchronous_commit=on",  # last, so that nothing makes a 201 less than durable
            )
        ),
    }
    if "," in host:
        options.setdefault("target_session_attrs", "read-write")  # of several hosts, the primary
    return {
        "ENGINE": "config.database.postgresql",
        "HOST": host,
        "PORT": port,
        "NAME": name,
        "USER": options.pop("user", ""),
        "PASSWORD": options.pop("password", ""),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": True,  # a pooler may answer each statement from another session
        "OPTIONS": options,
    }
