"""Django's backend for PostgreSQL, with a limit on how long a request waits for a server that does not respond."""

import os
import select
import socket
import time

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

UNRESPONSIVE_AFTER = 1.0  # seconds; a running server rejects a connection sooner
RETRY_AFTER = 1.0  # seconds


class DatabaseWrapper(base.DatabaseWrapper):
    """Waits at most `longest_wait` for the server, if that is set.

    The server ends slow statements itself, but not a commit that waits for a standby, and a frozen server ends nothing.
    After the server did not respond, every new connection fails at once until `retry_at`; then one thread tries for all.
    """

    longest_wait: float | None = 4.5 if "SERVING" in os.environ else None  # seconds; config/server sets the variable
    retry_at = 0.0  # time.monotonic(), shared by all threads; 0 while the server responds
    outdated_before = 0.0  # time.monotonic(), shared by all threads: connections opened earlier are replaced

    def get_new_connection(self, conn_params):
        began = self.connected_at = time.monotonic()
        statement_timeout = 900 * (self.longest_wait or 0)  # milliseconds: nine tenths of the wait, 0 for no limit
        conn_params["options"] = f"-c statement_timeout={statement_timeout:.0f} {conn_params['options']}"
        # Where DATABASE_URL has no `application_name`. PostgreSQL cuts it at 63 bytes, so the host name must leave room.
        conn_params["fallback_application_name"] = f"messages {socket.gethostname()[:40]} {os.getpid()}"
        if self.longest_wait is None:
            return super().get_new_connection(conn_params)
        if began < self.retry_at:
            raise psycopg.OperationalError("The server did not respond a moment ago.")
        if self.retry_at:
            DatabaseWrapper.retry_at = began + self.longest_wait
        try:
            connection = super().get_new_connection(conn_params)
        except psycopg.OperationalError:
            self._set_retry_at(began)
            raise
        DatabaseWrapper.retry_at = 0.0
        self._limit_waits(connection)
        return connection

    def _limit_waits(self, connection):
        wait, longest_wait = connection.wait, self.longest_wait

        def limited_wait(generator):
            began = time.monotonic()
            try:
                return wait(generator, timeout=longest_wait)
            except psycopg.OperationalError:
                if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:  # the result is still to come
                    connection.close()
                    DatabaseWrapper._set_retry_at(began)
                raise

        connection.wait = limited_wait

    @staticmethod
    def _set_retry_at(began):
        now = time.monotonic()
        DatabaseWrapper.retry_at = now + RETRY_AFTER if now - began >= UNRESPONSIVE_AFTER else 0.0

    def is_usable(self):
        """Check the connection at the start of a request without a query: a server that closes it sends something first."""
        if self.connection is None or self.connection.closed or self.connected_at < self.outdated_before:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)
