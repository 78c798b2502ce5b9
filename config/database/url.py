"""Reads the address of the database from an environment variable and configures Django's connection to it."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from config.environment import abort, text

EXPECTED = "write postgresql://user:password@host:5432/name or sqlite:////path/of/the/file"
# What every PostgreSQL connection sets, whatever the server, the database or the role says.
SESSION_SETTINGS = {
    "DateStyle": "ISO",
    "array_nulls": "on",
    "search_path": '"$user",public',
    "default_transaction_isolation": r"read\ committed",
    "lock_timeout": "3s",
    "random_page_cost": "1.1",  # with the default, 4, PostgreSQL reads all ids backwards instead of a user's own index
}


def database(variable: str, default: Path) -> dict[str, Any]:
    """Return an entry of DATABASES for the URL in the variable, or for the SQLite file `default`."""
    url = text(variable)
    if url.partition(":")[0] in ("postgresql", "postgres"):
        return _postgresql(variable, url)
    match = re.fullmatch("sqlite:///([^?#]+)", url)
    if url and not match:
        abort(variable, EXPECTED)
    return _sqlite(variable, Path(unquote(match[1])) if match else default)


def _sqlite(variable: str, file: Path) -> dict[str, Any]:
    if file.name == ":memory:":
        abort(variable, "the processes need a file that they share")
    is_usable = False
    with suppress(OSError, ValueError):  # the name is too long, or has a NUL
        is_usable = file.name and not file.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK)
    if not is_usable:
        abort(variable, f"{str(file)!r} is not a file that can be written to")
    return {
        "ENGINE": "config.database.sqlite",
        "NAME": file,
        "TEST": {"NAME": file.with_name("test.sqlite3")},  # a file, because tests with threads need real locks
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",  # a deferred transaction fails at once if another one writes
            "timeout": 20,  # seconds
            # FULL syncs each commit: a message that was acknowledged with 201 is on disk. A send changes about twenty pages;
            # with the default of 1,000 every fiftieth send would copy the log back. With 10,000 the log grows to 40 MB.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=10000;",
        },
    }


def _postgresql(variable: str, url: str) -> dict[str, Any]:
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its message contains the URL, and so the password
        abort(variable, EXPECTED)
    host, port, name = (parameters.pop(key, "") for key in ("host", "port", "dbname"))
    # Each of them could be a part of a password that is not percent-encoded, so it is not shown.
    if not name:
        abort(variable, "the name of the database is missing")
    if "@" in host + name:
        abort(variable, "in the password, write @ as %40 and / as %2F")
    if not all(re.fullmatch("[0-9]{0,5}", number) and 0 < int(number or 5432) < 65536 for number in port.split(",")):
        abort(variable, "a port is not a number from 1 to 65535")
    if "," in host:
        parameters.setdefault("target_session_attrs", "read-write")  # of several hosts, the primary
    options = [f"-c {setting}={value}" for setting, value in SESSION_SETTINGS.items()]
    # Last, so that no other option overrides it: what was acknowledged with a 201 must be on disk.
    options += [parameters.pop("options", ""), "-c synchronous_commit=on"]
    return {
        "ENGINE": "config.database.postgresql",
        "HOST": host,
        "PORT": port,
        "NAME": name,
        "USER": parameters.pop("user", ""),
        "PASSWORD": parameters.pop("password", ""),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": True,  # a pooler may run each statement on another server connection
        "OPTIONS": {
            "connect_timeout": 3,  # seconds: a server that is gone is noticed within five
            "tcp_user_timeout": 5000,  # milliseconds
            # These queries take longer to plan than to run: the server keeps the plan of a statement it has seen twice.
            "server_side_binding": True,
            "prepare_threshold": 2,
            **parameters,
            "options": " ".join(options),
        },
    }
