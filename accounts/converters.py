class UsernameConverter:
    """A username in a path; a path with a character that databases reject is a 404."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        if not value.isprintable():
            raise ValueError
        return value

    def to_url(self, value: str) -> str:
        return value
