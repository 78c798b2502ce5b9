"""Sends requests to a running service, for tests and benchmarks. It uses only the standard library."""

import json
import random
import socket
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any


def send_request(
    url: str, method: str, body: Any = None, token: str | None = None, *, seconds: float, **headers: str
) -> tuple[int, Any]:
    """Return status and JSON of the response. Raises OSError if there is none within the seconds."""
    request = urllib.request.Request(url, method=method, headers=headers)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Token {token}")
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            content = response.read()
            return response.status, json.loads(content) if content else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def free_port() -> int:
    """Return a port below those that the system gives to clients.

    A client that gets the port it tries to reach would connect to itself, and the service could not use the port.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
