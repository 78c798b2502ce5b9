"""The WSGI application: Django's own, with two corrections to how it reads a request."""

import io
import os

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class Utf8Request(WSGIRequest):
    """Reads every request as UTF-8.

    Django takes the charset of the Content-Type for the URL as well, and breaks on those that Python knows but that are
    none, such as `hex`.
    """

    encoding = None


class Application(WSGIHandler):
    request_class = Utf8Request

    def __call__(self, environ, start_response):
        """Django reads no body that comes in chunks, without a length: read it here, to one byte over the limit."""
        if environ.get("wsgi.input_terminated") and "CONTENT_LENGTH" not in environ:
            try:
                body = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
                length = len(body)
            except OSError:  # a malformed chunk, or a client that is gone
                body, length = b"", 1  # a body that does not reach its length is refused
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(length)
        return super().__call__(environ, start_response)


django.setup(set_prefix=False)
application = Application()
