"""docs/api.md lists every error message: CheckingClient fails at one that is missing there, this test at one too many."""

import re
from pathlib import Path

import django
import rest_framework
from django.conf import settings
from django.test import SimpleTestCase

APPS = ("accounts", "blocking", "config", "messageservice")
LIBRARIES = [
    *Path(rest_framework.__file__).parent.glob("*.py"),
    *(Path(django.__file__).parent / name for name in ("contrib/auth/password_validation.py", "core/validators.py")),
]


class ListedMessagesTests(SimpleTestCase):
    def test_each_is_in_the_code(self):
        own = [file for app in APPS for file in (settings.BASE_DIR / app).rglob("*.py") if not file.name.startswith("test")]
        code = "".join(file.read_text() for file in own + LIBRARIES)
        listed = re.findall("^\\| `([^`]+ [^`]+)` \\|", (settings.BASE_DIR / "docs" / "api.md").read_text(), re.MULTILINE)

        missing = [text for text in listed if not all(part in code for part in re.split("…|[0-9]+(?: MiB)?", text))]

        self.assertEqual(missing, [])
