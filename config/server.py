"""gunicorn's configuration: the processes and threads that serve the application."""

import errno
import json
import os
import socket

from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from config import settings
from config.environment import refuse
from config.log import RequestContext, begin_request, record_error, record_request, request_id

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
loglevel = "warning"

SERVED_LINES = """\
API    http://{address}/api
Docs   http://{address}/api/docs
Admin  http://{address}/admin/  (first: dev/bin/python manage.py createsuperuser)
Try    curl -d '{{"username": "alice", "password": "a long secret"}}' http://{address}/api/auth/register"""


class Worker(ThreadWorker):
    """gunicorn's worker with threads, which leaves new connections to the others while it is busy, and refuses in JSON."""

    in_hand = 0  # connections that a thread serves, or that wait for one
    has_finished_one = False

    def set_accept_enabled(self, enabled):
        """With all threads busy, take one new connection for each that was served, and none while none is.

        gunicorn's own takes whatever it can get: of 16 clients one of two workers often got all, at half the throughput, and
        behind slow clients others waited beside an idle worker.
        """
        super().set_accept_enabled(enabled and (self.in_hand < threads or self.has_finished_one))
        self.has_finished_one = False

    def enqueue_req(self, conn):
        super().enqueue_req(conn)
        self.in_hand += 1
        self.set_accept_enabled(self._accepting)

    def finish_request(self, conn, fs):
        self.in_hand -= 1
        self.has_finished_one = True
        super().finish_request(conn, fs)

    def handle_error(self, req, client, addr, exc):
        """Refuse what is no HTTP request, or one with a line or headers too long; gunicorn's own answer is HTML."""
        status, reason = self.refusal(exc)
        request = RequestContext(id=request_id(None), address=addr[0] if addr else "-")
        begin_request(request)
        if status == 500:
            record_error(exc)
        record_request(status, 0)
        body = json.dumps({"detail": reason if status != 500 else "Something went wrong"})
        headers = {
            "Connection": "close",
            "Content-Type": "application/json",
            **settings.ANSWER_HEADERS,
            "X-Request-ID": request.id,
            "Content-Length": len(body),
        }
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", body]
        try:
            write_nonblock(client, "\r\n".join(lines).encode())
        except OSError:
            self.log.debug("The client is gone.")

    @staticmethod
    def refusal(error: Exception) -> tuple[int, str]:
        match error:
            case errors.LimitRequestLine():
                return 414, "URI Too Long"
            case errors.LimitRequestHeaders():
                return 431, "Request Header Fields Too Large"
            case errors.ExpectationFailed():
                return 417, "Expectation Failed"
            case errors.UnsupportedTransferCoding():
                return 501, "Not Implemented"
            case errors.ParseException():
                return 400, "Bad Request"
        return 500, "Internal Server Error"


worker_class = Worker


def on_starting(server):
    """Say in one line why the address cannot be had; gunicorn alone would try for five seconds and say less."""
    if "GUNICORN_PID" in os.environ:  # an upgrade in flight: the listening socket is handed over
        return
    try:
        family, kind, _, _, address = socket.getaddrinfo(settings.HOST, settings.PORT, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        refuse("HOST", f"{settings.HOST!r} is no address ({error.strerror})")
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                refuse("HOST", f"{settings.HOST!r} is no address of this machine")
            refuse(
                "PORT", f"cannot listen on {bind} ({error.strerror}); choose another: PORT={settings.PORT + 1} make serve"
            )


def when_ready(server):
    print(SERVED_LINES.format(address=bind), flush=True)  # noqa: T201 - for the operator's terminal
