"""The WSGI application: Django's own, with two corrections to how it reads a request."""

import io
import os

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

from config.database.postgresql.base import DatabaseWrapper

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


LIMIT = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
READ_AWAY = 2 * 2**20  # bytes
PIECE = 2**16  # bytes


class Utf8Request(WSGIRequest):
    """Reads every request as UTF-8.

    Django takes the charset of the Content-Type for the URL as well, and breaks on those that Python knows but that are
    none, such as `hex`.
    """

    encoding = None

    def _set_content_type_params(self, meta):
        try:
            super()._set_content_type_params(meta)
        except ValueError:  # such as a charset that nobody knows, in `x*=nonsense''%41`
            meta["CONTENT_TYPE"] = ""
            super()._set_content_type_params(meta)


class Application(WSGIHandler):
    """Django's own, for servers that end the body's stream where the body ends, as gunicorn does."""

    request_class = Utf8Request

    def __call__(self, environ, start_response):
        stream = environ["wsgi.input"]
        if not environ.get("wsgi.input_terminated"):
            return super().__call__(environ, start_response)
        if "CONTENT_LENGTH" not in environ:
            self.read_chunks(environ)
        response = super().__call__(environ, start_response)
        if int(environ["CONTENT_LENGTH"]) > LIMIT:
            self.read_away(stream)
        return response

    @staticmethod
    def read_chunks(environ):
        """Read a body that comes in chunks, without a length, to one byte over the limit; Django would read none of it."""
        try:
            body = environ["wsgi.input"].read(LIMIT + 1)
            length = len(body)
        except OSError:  # a malformed chunk, or a client that is gone
            body, length = b"", 1  # a body that does not reach its length is refused
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(length)

    @staticmethod
    def read_away(stream):
        """Read what is left of a body that was refused: the next request of the client stands behind it."""
        try:
            for _ in range(READ_AWAY // PIECE):
                if not stream.read(PIECE):
                    return
        except OSError:  # the client is gone
            return


django.setup(set_prefix=False)
DatabaseWrapper.longest_wait = 4.5  # seconds; manage.py, which does not come here, may take as long as it needs
application = Application()
