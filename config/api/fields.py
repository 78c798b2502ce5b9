from rest_framework import serializers


class TextField(serializers.CharField):
    """A JSON string, kept to the letter. DRF's own field also accepts numbers, and strips white space.

    White space alone is blank, unless `trim_whitespace` is False.
    """

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        return data
