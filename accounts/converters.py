from django.urls.converters import StringConverter


class UsernameConverter(StringConverter):
    """A username in a path. A path with a character that databases reject gets a 404."""

    def to_python(self, value: str) -> str:
        if not value.isprintable():
            raise ValueError
        return value
