"""gunicorn's configuration: the processes and threads that serve the application."""

import errno
import os
import socket

from config import settings
from config.environment import abort
from config.server.worker import Worker

wsgi_app = "config.wsgi:application"
bind = f"[{settings.HOST}]:{settings.PORT}" if ":" in settings.HOST else f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
threads = 4  # each holds a connection to the database: workers times threads stays below PostgreSQL's max_connections
backlog = 2048
keepalive = 15  # seconds
timeout = 30
graceful_timeout = 30
max_requests = 100_000  # what a library may leak does not add up,
max_requests_jitter = 10_000  # and the workers do not restart together
preload_app = True  # a worker that replaces another answers at once, and all share the code's memory
limit_request_line = 8190
forwarded_allow_ips = ""  # the application itself decides which proxy to trust
control_socket_disable = True
sendfile = False  # a file would be sent past what the worker keeps for slow clients
loglevel = "warning"
worker_class = Worker

SERVED_LINES = """\
API    http://{address}/api
Docs   http://{address}/api/docs
Admin  http://{address}/admin/  (first: dev/bin/python manage.py createsuperuser)
Try    curl -d '{{"username": "alice", "password": "a long secret"}}' http://{address}/api/auth/register"""


def on_starting(server):
    """Say in one line why the address cannot be had; gunicorn alone would try for five seconds and say less."""
    if {"LISTEN_FDS", "GUNICORN_PID"} & os.environ.keys():  # systemd, or another gunicorn, hands over a listening socket
        return
    try:
        family, kind, _, _, address = socket.getaddrinfo(settings.HOST, settings.PORT, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        abort("HOST", f"{settings.HOST!r} is no address ({error.strerror})")
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                abort("HOST", f"{settings.HOST!r} is no address of this machine")
            abort("PORT", f"cannot listen on {bind} ({error.strerror}); choose another: PORT={settings.PORT + 1} make serve")


def when_ready(server):
    address = str(server.LISTENERS[0]).removeprefix("http://")
    print(SERVED_LINES.format(address=address), flush=True)  # noqa: T201 - for the operator's terminal
