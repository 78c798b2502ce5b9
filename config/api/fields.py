import re
from datetime import datetime

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


def format_time(time: datetime) -> str:
    """Return a time in UTC, naive or aware, in the format of the API."""
    return f"{time.isoformat(timespec='microseconds')[:26]}Z"


class TextField(serializers.CharField):
    """A JSON string, kept to the letter. DRF's own field also accepts numbers, and strips white space.

    White space alone is blank, unless `trim_whitespace` is False.
    """

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        return data


@extend_schema_field(OpenApiTypes.INT64)
class WholeNumberField(serializers.IntegerField):
    """A JSON integer, or its digits in a form. DRF's own field also accepts `5.0`, `" 5"` and `"1_0"`.

    The schema gives it 64 bits: without a format, generated clients in Java or C# have 32.
    """

    def to_internal_value(self, data):
        if not re.fullmatch("-?[0-9]+", str(data)):
            self.fail("invalid")
        return super().to_internal_value(data)
