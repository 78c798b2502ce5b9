"""Serves the API from worker processes: `python -m config.server`."""

import asyncio
import ctypes
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import import_module
from tempfile import TemporaryDirectory
from threading import Thread

import psutil
from django.http.request import validate_host
from granian import Granian
from granian.http import HTTP1Settings
from granian.log import LogLevels

from config import settings
from config.database.check import wait_for_database
from config.environment import abort

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -2, -3, -8  # in <malloc.h>
LOCAL_NAMES = {  # by address that the server listens on
    "127.0.0.1": ["127.0.0.1", "localhost"],
    "[::1]": ["[::1]", "localhost"],
    "0.0.0.0": ["127.0.0.1", "localhost"],  # noqa: S104 - not bound here
    "[::]": ["[::1]", "127.0.0.1", "localhost"],
}
BANNER = """\
Docs   {url}/api/docs
Admin  {url}/admin/  (first: dev/bin/python manage.py createsuperuser)
Logs   {logs}
Stop   Ctrl-C, or kill {process}"""


def main() -> None:
    address = free_address(settings.HOST, settings.PORT)
    os.environ["SERVING"] = "on"  # for the database: requests must not wait for it as long as commands may
    with suppress(AttributeError):  # only glibc needs it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32_768)  # memory of a large request goes back to the system
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TOP_PAD, 32 * 2**20)  # but not the 19 MiB of a password hash: mapping them again would double its time
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    with ExitStack() as stack:
        if settings.METRICS:  # the variable decides what the client does when it is imported: share values through files
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(TemporaryDirectory(prefix="metrics-"))
        serve(address, most_files)


def serve(address: str, most_files: int) -> None:
    application = import_module("config.server.bridge").application
    wait_for_database()

    def load_in_worker() -> Callable:
        loop = asyncio.get_event_loop()  # once it runs, no signal is lost
        loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, STOP_SIGNALS)
        return application

    server = Granian(
        "config.server.bridge:application",
        address=address,
        port=settings.PORT,
        interface="asginl",
        workers=settings.WEB_CONCURRENCY,
        http="1",
        websockets=False,
        backlog=2048,
        backpressure=most_files - 100,  # connections of a worker; more of them wait until one ends
        http1_settings=HTTP1Settings(header_read_timeout=20_000, max_buffer_size=16_384),
        log_level=LogLevels.error,
        log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},  # keeps the logs of the settings
        respawn_failed_workers=True,
        workers_kill_timeout=30,
    )
    server.on_startup(lambda: print_banner(address))
    handle_signals_in_a_thread(server)
    if settings.METRICS:  # its thread must not be the one that gets a signal
        import_module("config.server.metrics").serve_metrics(*settings.METRICS)
    server.serve(target_loader=load_in_worker, wrap_loader=False)


def handle_signals_in_a_thread(server: Granian) -> None:
    """Let SIGTERM and SIGINT stop the server and SIGHUP replace its workers, however often each is sent.

    Granian would do so in signal handlers. They take a lock, so a signal that interrupts the handler of another one would
    wait for that lock forever. From here on the signals are blocked: in this thread, and in threads and processes it starts.
    """
    signals = {*STOP_SIGNALS, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait_for_signals() -> None:
        while signal.sigwait(signals) == signal.SIGHUP:
            server.signal_handler_reload()
        server.signal_handler_interrupt()

    Thread(target=wait_for_signals, daemon=True).start()


def free_address(host: str, port: int) -> str:
    """Return the numeric address of the host. Exits if it is not this machine's, or if its port is in use."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:  # a label that is too long is a UnicodeError
        abort("HOST", f"{host!r} is not an address ({getattr(error, 'strerror', None) or error})")
    with socket.socket(family, kind) as probe:  # the server itself would share the port, and so its connections
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                abort("HOST", f"{host!r} is not an address of this machine")
            reason = f"used by {describe_listeners(port)}" if error.errno == errno.EADDRINUSE else error.strerror
            abort("PORT", f"cannot listen on {port} ({reason}); try another: PORT={port + 1} make serve")
    return address[0]


def describe_listeners(port: int) -> str:
    """Return the processes that listen on the port, as far as this user may see them."""
    with suppress(psutil.Error):
        tcp = psutil.net_connections("tcp")
        processes = {each.pid for each in tcp if each.status == psutil.CONN_LISTEN and each.laddr.port == port} - {None}
        if processes:
            return ", ".join(f"process {pid}: {' '.join(psutil.Process(pid).cmdline())}" for pid in sorted(processes))
    return "another process"


def print_banner(address: str) -> None:
    url, reason = local_url(address)
    banner = BANNER.format(url=url, logs=settings.LOG_DIR or "on standard output", process=os.getpid())
    output = sys.stdout if settings.LOG_DIR else sys.stderr
    print(f"{banner}\n{reason}".strip(), file=output, flush=True)


def local_url(address: str) -> tuple[str, str]:
    """Return (URL, ""), the URL of the service for a browser on this machine, or ("", reason) if there is none."""
    if settings.HTTPS:
        return "", "Links  have the host name of the proxy: HTTPS=on redirects every other client there"
    literal = f"[{address}]" if ":" in address else address
    hosts = (*LOCAL_NAMES.get(literal, [literal]), settings.HOST)
    for host in hosts:
        if validate_host(host, settings.ALLOWED_HOSTS):
            return f"http://{host}:{settings.PORT}", ""
    return "", f"Links  have a host name of ALLOWED_HOSTS, which does not include {hosts[0]}"


if __name__ == "__main__":
    main()
