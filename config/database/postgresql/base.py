"""Django's own backend for PostgreSQL, which does not wait without end, and does not ask a connection for its health."""

import select
import time

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

LONG = 1.0  # second: a server that refuses does so sooner
PAUSE = 1.0  # second


class DatabaseWrapper(base.DatabaseWrapper):
    """One that waits no longer than `longest_wait` where that is set, as it is for a process that serves requests.

    The server itself ends a statement shortly before that, but not a commit that waits for a standby, and nothing where it
    is frozen. When one thread has waited in vain, the others do not wait as well: until `silent_until` nobody makes a new
    connection, then one tries it for all.
    """

    longest_wait: float | None = None  # seconds; None for as long as it takes
    silent_until = 0.0  # in seconds of time.monotonic(), for all threads; 0 while the server answers

    def get_new_connection(self, conn_params):
        if self.longest_wait is None:
            return super().get_new_connection(conn_params)
        began = time.monotonic()
        if began < self.silent_until:
            raise psycopg.OperationalError("The server did not answer a moment ago.")
        if self.silent_until:
            DatabaseWrapper.silent_until = began + self.longest_wait
        statement_timeout = f"-c statement_timeout={900 * self.longest_wait:.0f}"  # milliseconds: nine tenths of it
        try:
            connection = super().get_new_connection(
                {**conn_params, "options": f"{statement_timeout} {conn_params['options']}"}
            )
        except psycopg.OperationalError:
            self.note_silence(began)
            raise
        DatabaseWrapper.silent_until = 0.0
        self.limit_waits(connection)
        return connection

    def limit_waits(self, connection):
        wait, seconds = connection.wait, self.longest_wait

        def wait_for_some_time(generator):
            began = time.monotonic()
            try:
                return wait(generator, timeout=seconds)
            except psycopg.OperationalError:
                if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:  # the answer is still to come
                    connection.close()  # it could be asked nothing else, not even to roll back
                    self.note_silence(began)
                raise

        connection.wait = wait_for_some_time

    @staticmethod
    def note_silence(began: float) -> None:
        """After an attempt that failed: others pause where it took long, and try for themselves where it was refused."""
        now = time.monotonic()
        DatabaseWrapper.silent_until = now + PAUSE if now - began >= LONG else 0.0

    def close_if_health_check_failed(self):
        """Ask the server only where it has sent something unasked, as it does when it hangs up.

        Django's own asks at each request, which adds a tenth to what a list costs.
        """
        kept = self.connection
        if kept is not None and not kept.closed and not self.health_check_done and not has_input(kept.fileno()):
            self.health_check_done = True
        super().close_if_health_check_failed()


def has_input(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
