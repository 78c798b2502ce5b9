"""Django's own backend for SQLite, whose transactions take turns more evenly, and whose file is its owner's alone."""

import os
import sqlite3
import threading
import time
from contextlib import suppress

from django.db import OperationalError
from django.db.backends.sqlite3 import base

PAUSE = 0.0002  # seconds, a small part of what a transaction takes
turn = threading.Lock()  # of the one thread of this process that writes, or looks whether it can


class DatabaseWrapper(base.DatabaseWrapper):
    has_turn = False

    def get_new_connection(self, conn_params):
        """Make a missing file before SQLite does, which would let everybody on the machine read it.

        The log that SQLite keeps beside it is made as readable as the file. One that is there must not even be opened:
        closing it would take from this process's other connections their locks on it.
        """
        with suppress(OSError):  # it is there, or SQLite will say what is wrong
            os.close(os.open(conn_params["database"], os.O_CREAT | os.O_EXCL, 0o600))
        return super().get_new_connection(conn_params)

    def _start_transaction_under_autocommit(self):
        """Queue up behind the process's other threads, then look every moment whether another process still writes.

        SQLite's own wait sleeps longer each time, up to a tenth of a second, and who has waited long is overtaken by who has
        just come: of sends on all threads at once the slowest hundredth took four times as long. With all threads of a
        process looking, they fought for the interpreter: a send cost a fifth more.
        """
        self.ensure_connection()
        seconds = self.settings_dict["OPTIONS"]["timeout"]
        deadline = time.monotonic() + seconds
        self.has_turn = turn.acquire(timeout=seconds)
        try:
            self.connection.execute("PRAGMA busy_timeout = 0")
            try:
                while not self._started(last_try=time.monotonic() > deadline):
                    time.sleep(PAUSE)
            finally:
                self.connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        except BaseException:
            self._pass_turn_on()
            raise

    def _started(self, *, last_try: bool) -> bool:
        try:
            super()._start_transaction_under_autocommit()
        except OperationalError as error:
            if last_try or error.__cause__.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    def _set_autocommit(self, autocommit):
        """Django calls it after each transaction,"""
        try:
            super()._set_autocommit(autocommit)
        finally:
            self._pass_turn_on()

    def _close(self):
        """unless the connection is closed amidst it."""
        try:
            super()._close()
        finally:
            self._pass_turn_on()

    def _pass_turn_on(self):
        if self.has_turn:
            self.has_turn = False
            turn.release()
