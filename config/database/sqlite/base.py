"""Django's backend for SQLite, whose write transactions take turns, and whose file only its owner can read."""

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

from django.db import OperationalError
from django.db.backends.sqlite3 import base

PAUSE = 0.0002  # seconds; short compared to a transaction
write_lock = threading.Lock()  # held by the one thread of this process that writes or waits for another process


class DatabaseWrapper(base.DatabaseWrapper):
    holds_write_lock = False

    def get_new_connection(self, conn_params):
        """Create a missing file with mode 600: SQLite would let every user of the machine read it, and its log.

        Do not open an existing file: closing it would release the locks of this process's other connections.
        """
        with suppress(OSError):  # SQLite reports what is wrong
            Path(conn_params["database"]).touch(mode=0o600)
        connection = super().get_new_connection(conn_params)
        self.file = os.stat(conn_params["database"])
        return connection

    def is_usable(self):
        """Check at the start of a request that the file was neither deleted nor replaced."""
        try:
            return os.path.samestat(self.file, os.stat(self.settings_dict["NAME"]))
        except OSError:
            return False

    def _start_transaction_under_autocommit(self):
        """Wait for the other threads of this process in a queue, then poll until no other process writes.

        SQLite's own wait sleeps up to a tenth of a second and is unfair: the threads that waited longest sleep longest.
        """
        timeout = self.settings_dict["OPTIONS"]["timeout"]
        deadline = time.monotonic() + timeout
        self.holds_write_lock = write_lock.acquire(timeout=timeout)
        try:
            self.connection.execute("PRAGMA busy_timeout = 0")
            while True:
                try:
                    return super()._start_transaction_under_autocommit()
                except OperationalError as error:
                    is_busy = error.__cause__.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                    if not is_busy or time.monotonic() > deadline:
                        raise
                time.sleep(PAUSE)
        except BaseException:
            self._release_write_lock()
            raise
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {timeout * 1000:.0f}")

    def _set_autocommit(self, autocommit):
        """Release the lock as well: Django calls this method after each transaction."""
        try:
            super()._set_autocommit(autocommit)
        finally:
            self._release_write_lock()

    def _close(self):
        try:
            super()._close()
        finally:
            self._release_write_lock()

    def _release_write_lock(self):
        if self.holds_write_lock:
            self.holds_write_lock = False
            write_lock.release()
