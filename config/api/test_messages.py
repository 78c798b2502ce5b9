"""The list of error messages in docs/api.md.

CheckingClient fails at a message that is missing in the list, this test at a message that the code does not have.
"""

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
    def test_every_listed_message_is_in_the_code(self):
        own = [file for app in APPS for file in (settings.BASE_DIR / app).rglob("*.py") if not file.name.startswith("test")]
        code = "".join(file.read_text() for file in own + LIBRARIES)
        listed = re.findall("^\\| `([^`]+ [^`]+)` \\|", (settings.BASE_DIR / "docs" / "api.md").read_text(), re.MULTILINE)

        missing = [text for text in listed if not all(part in code for part in re.split("…|[0-9]+(?: MiB)?", text))]

        self.assertEqual(missing, [])
