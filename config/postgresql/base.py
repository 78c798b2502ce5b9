"""Django's own backend for PostgreSQL, which does not wait without end, and does not ask a connection for its health."""

import functools
import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    longest_wait: float | None = None  # seconds; None for as long as it takes

    def get_new_connection(self, conn_params):
        """One that is given up after the longest wait.

        The server's own statement_timeout ends neither a commit that waits for a standby nor anything where it is frozen.
        """
        connection = super().get_new_connection(conn_params)
        connection.wait = functools.partial(connection.wait, timeout=self.longest_wait)
        return connection

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
