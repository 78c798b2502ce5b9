"""Checks, before the service starts or migrates, that its database can be used."""

import time

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connection
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from config.environment import abort

LONGEST_WAIT = 30  # seconds


def wait_for_database() -> None:
    """Return when the database can be used, or end the process with one line that names DATABASE_URL.

    Waits up to LONGEST_WAIT for a PostgreSQL server that is starting. Closes the connection: the server forks workers.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    is_up = False
    while True:
        try:
            connection.ensure_connection()
            break
        except (Error, ImproperlyConfigured, ValueError) as error:
            connection.close()
            if is_up or time.monotonic() > deadline:
                abort("DATABASE_URL", f"the database cannot be used: {' '.join(str(error).split())}")
            is_up = not _is_starting()  # it could have started since the attempt, so try once more
            time.sleep(0.5)
    if connection.vendor == "postgresql":
        encoding = connection.connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            abort("DATABASE_URL", f"the encoding of the database is {encoding}, not UTF8")
    connection.close()


def _is_starting() -> bool:
    """Return whether a PostgreSQL server cannot be reached or does not accept connections yet."""
    address = make_conninfo(host=connection.settings_dict["HOST"], port=connection.settings_dict["PORT"], connect_timeout=3)
    return connection.vendor == "postgresql" and PGconn.ping(address.encode()) in (Ping.NO_RESPONSE, Ping.REJECT)
