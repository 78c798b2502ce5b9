"""The ASGI application that the server runs: it calls Django in threads that never wait for a client."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from contextvars import Context
from io import BytesIO
from threading import Lock
from urllib.parse import unquote_to_bytes

from django.conf import settings

from config.wsgi import application as wsgi_application

PIECE, MEMORY = 2**16, 40 * 2**20  # bytes: a body or response always accepted, all larger ones in a worker together
MOST_DISCARDED, SECONDS_TO_DISCARD = 2 * 2**20, 2  # bytes and seconds of a rejected body
SECONDS_TO_RECEIVE, SECONDS_TO_SEND = 38, 60  # a body (the server allows 20 for the head), a piece of a response
OTHER_PARAMETERS = re.compile(r";(?!\s*boundary=)[^;]*", re.IGNORECASE)  # of a Content-Type
# A POST to these may hash a password, which takes a core for 20 ms. They share one thread, and the others have the rest.
HASHING = re.compile("(?s)/api/auth/(register|login|password|user/delete)|/admin/(login|password_change|auth/user/.*)/")
hashing_thread, hashing_slots, threads = ThreadPoolExecutor(1), asyncio.Semaphore(21), ThreadPoolExecutor(4)  # 20 wait


class Share:
    """The bytes of the worker's MEMORY that a request uses. `add` reserves more and returns whether they fit."""

    lock, held_by_all, held = Lock(), 0, 0

    def close(self):
        self.add(-self.held)

    def add(self, size):
        with Share.lock:
            if fits := size <= 0 or Share.held_by_all + size <= MEMORY:
                Share.held_by_all += size
                self.held += size
            return fits


async def application(scope, receive, send):
    with closing(Share()) as share, suppress(TimeoutError):  # if a client reads nothing, the server closes the connection
        environ = make_environ(scope, share)
        is_whole = await receive_body(receive, environ, share)
        status, headers, body = await call_in_thread(environ)
        headers += [] if is_whole else [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for i in range(0, len(body) or 1, PIECE):
            async with asyncio.timeout(SECONDS_TO_SEND):
                await send({"type": "http.response.body", "body": body[i : i + PIECE], "more_body": i + PIECE < len(body)})


def make_environ(scope, share):
    """Return the WSGI environ, as far as Django reads it."""
    headers = {}
    for name, value in scope["headers"]:
        # `X_Forwarded_For` would pass for `X-Forwarded-For`. The server adds an empty Host where HTTP/1.0 has none.
        if b"_" not in name and (value or name != b"host"):
            key, text = "HTTP_" + name.decode().upper().replace("-", "_"), value.decode("latin-1")
            headers[key] = f"{headers[key]},{text}" if key in headers else text
    return {
        "REQUEST_METHOD": scope["method"].upper(),  # as Django does; HASHING is for POST
        "PATH_INFO": "/" + unquote_to_bytes(scope["raw_path"]).decode("latin-1").removeprefix("/"),  # `/*` for `OPTIONS *`
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        # Without a charset: Django would decode the whole request with it, and fail at one that Python does not know.
        "CONTENT_TYPE": OTHER_PARAMETERS.sub("", headers.pop("HTTP_CONTENT_TYPE", "")),
        "CONTENT_LENGTH": headers.pop("HTTP_CONTENT_LENGTH", "0"),
        "SERVER_NAME": scope["server"][0],
        "SERVER_PORT": scope["server"][1],
        "REMOTE_ADDR": scope["client"][0],
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "server.may_send": lambda size: size <= PIECE or share.add(size),
        **headers,
    }


async def receive_body(receive, environ, share):
    """Read the body into the environ and return whether all of it was read. If not, Django rejects the request."""
    body, size, discarded = environ["wsgi.input"], int(environ["CONTENT_LENGTH"]), 0
    more = size > 0 or "HTTP_TRANSFER_ENCODING" in environ
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS_TO_RECEIVE):
            while more and size <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                if size > PIECE and not share.add(size - share.held):
                    environ["server.is_overloaded"] = True
                    break
                message = await receive()
                if message["type"] == "http.disconnect":
                    break
                body.write(message["body"])
                size, more = max(size, body.tell()), message["more_body"]
    body.seek(0)
    environ["CONTENT_LENGTH"] = str(max(size, more))  # of an incomplete body more than it has: Django rejects it
    if more:
        body.truncate()
        with suppress(TimeoutError):  # many clients send all before they read a response
            async with asyncio.timeout(SECONDS_TO_DISCARD):
                while discarded < MOST_DISCARDED and (message := await receive()).get("more_body"):
                    discarded += len(message["body"])
    return not more


async def call_in_thread(environ):
    is_hashing = environ["REQUEST_METHOD"] == "POST" and HASHING.fullmatch(environ["PATH_INFO"]) is not None
    if is_hashing and hashing_slots.locked():
        environ["server.is_overloaded"], is_hashing = "hashing", False
    pool, slots = (hashing_thread, hashing_slots) if is_hashing else (threads, nullcontext())
    loop = asyncio.get_running_loop()
    environ["server.queued_at"] = loop.time() if is_hashing else None
    async with slots:
        return await loop.run_in_executor(pool, Context().run, call_django, environ)


def call_django(environ):
    started = []
    with closing(wsgi_application(environ, lambda *status_and_headers: started.extend(status_and_headers))) as response:
        body = b"".join(response)
    status, headers = started
    return int(status[:3]), [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers], body
