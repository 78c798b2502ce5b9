import re
from datetime import datetime

from rest_framework import serializers


def shown_time(time: datetime) -> str:
    """A time that is in UTC, whether it says so or not, as the contract writes times."""
    return f"{time.isoformat(timespec='microseconds')[:26]}Z"


class StringField(serializers.CharField):
    """A JSON string, kept to the letter: the framework's own trims white space, and takes numbers as well."""

    pattern = r"^[^\u0000]*$"  # as the API's description shows it

    def __init__(self, **kwargs):
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        return data


class TextField(StringField):
    """A string that says something: white space alone is blank."""

    pattern = r"^[^\u0000]*[^\u0000\s][^\u0000]*$"

    def to_internal_value(self, data):
        text = super().to_internal_value(data)
        if not text.strip():
            self.fail("blank")
        return text


class WholeNumberField(serializers.IntegerField):
    """A JSON integer, or its digits where a form sends them: the framework's own takes `5.0`, `" 5"` and `"1_0"` as well."""

    def to_internal_value(self, data):
        if isinstance(data, float) or (isinstance(data, str) and not re.fullmatch("[0-9]+", data)):
            self.fail("invalid")
        return super().to_internal_value(data)
