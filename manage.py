#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""

import os
import sys

from django.core.management import execute_from_command_line

from config.database.check import wait_for_database
from config.environment import is_utf8

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if not is_utf8(" ".join(sys.argv)):
        sys.exit("An argument is not UTF-8.")
    if sys.argv[1:2] == ["runserver"]:
        wait_for_database()
    execute_from_command_line(sys.argv)
