class UsernameConverter:
    """A username in a path. A path with a character that databases reject gets a 404."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        if not value.isprintable():
            raise ValueError
        return value

    def to_url(self, value: str) -> str:
        return value
