"""The runner of `manage.py test`."""

import sys
from pathlib import Path

from django.db import connection
from django.test.runner import DiscoverRunner


class TestRunner(DiscoverRunner):
    """Django's runner, but a run without tests fails, and parallel runs get whole copies of SQLite's database."""

    def build_suite(self, *args, **kwargs):
        suite = super().build_suite(*args, **kwargs)
        if not suite.countTestCases():
            sys.exit("No test was found.")
        return suite

    def setup_databases(self, **kwargs):
        if connection.vendor == "sqlite" and not self.keepdb:  # Django would delete only the databases of a killed run
            for log in Path(connection.settings_dict["TEST"]["NAME"]).parent.glob("test*.sqlite3-*"):
                log.unlink()
        processes, self.parallel = self.parallel, 1
        databases = super().setup_databases(**kwargs)
        self.parallel = processes
        if processes > 1:
            connection.close()  # SQLite then empties its write-ahead log, which Django would not copy
            for process in range(1, processes + 1):
                connection.creation.clone_test_db(str(process), self.verbosity, keepdb=self.keepdb)
        return databases
