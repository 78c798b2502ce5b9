"""gunicorn's worker with threads, whose threads never wait for a client.

The thread that polls the sockets collects each request until it is whole, head and body, and sends what of an answer a
client does not take at once. So four threads serve a thousand clients, however slow: only who has sent all gets a thread.
"""

import errno
import json
import re
import select
import selectors
import socket
import time
from heapq import nsmallest

from gunicorn.http import errors
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from config import settings
from config.log import RequestContext, begin_request, record_error, record_request, request_id

PIECE = 2**16  # bytes
LARGEST_HEAD = 2**16  # bytes
LARGEST_BODY = 2 * 2**20  # bytes: what is larger is refused at once, and the connection closed
MOST_KEPT = 64 * 2**20  # bytes, for all those connections of a worker for which more than a PIECE is kept
SECONDS_TO_SEND = 60  # that a client has for a whole request,
SECONDS_TO_TAKE = 60  # for an answer,
SECONDS_TO_CLOSE = 2  # and to close the connection when told so

PROPOSED_ID = re.compile(rb"\r\nx-request-id:[ \t]*([!-~]+)[ \t]*\r\n", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
ANY_BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding):", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:(?:[^\r]*,)?[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
ASKS_BEFORE = re.compile(rb"[^\r]* HTTP/1\.1\r\n(?:.*\r\n)?expect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE | re.DOTALL)


class BufferedSocket:
    """A client's socket as a thread sees it: what is read was received before, what is sent is kept until it can be sent."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.client.setblocking(False)
        self.received = bytearray()
        self.unsent = bytearray()
        self.head = b""  # of the request, once it is whole
        self.has_ended = False  # the client has said that it sends no more,
        self.was_short = False  # or a thread has asked for more than was there

    def recv(self, size: int) -> bytes:
        piece = bytes(self.received[:size])
        del self.received[:size]
        self.was_short |= not piece
        return piece

    def sendall(self, answer: bytes) -> None:
        self.unsent += answer

    def size(self) -> int:
        return len(self.received) + len(self.unsent)

    def receive(self) -> bool:
        """Take what has come; whether there was anything. Raises OSError when the connection is broken."""
        piece = self.client.recv(PIECE)
        self.received += piece
        return bool(piece)

    def flush(self) -> None:
        """Send as much as the client takes now."""
        try:
            while self.unsent:
                del self.unsent[: self.client.send(self.unsent)]
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        return self.client.fileno()

    def shutdown(self, how: int) -> None:
        self.client.shutdown(how)

    def close(self) -> None:
        self.client.close()

    def setblocking(self, flag: bool) -> None:
        """It never blocks, whatever gunicorn says."""


class Connection(TConn):
    """A client's connection, and how much of its next request is there."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.data_ready = True  # when a thread gets it
        self.await_next()

    def await_next(self) -> None:
        self.sock.head = b""
        self.body = 0  # where it begins, once the head is there
        self.end = 0  # where the request ends, or its next chunk begins
        self.is_chunked = False
        self.is_cut = False  # given to a thread before it was whole, as it will be refused

    def is_ready(self) -> bool:
        """Whether a thread can answer: the request is whole, or so wrong that it will be refused."""
        received = self.sock.received
        if not self.body and not self._find_body(received):
            return self._is_no_head(received)
        if self.is_chunked:
            return self._has_all_chunks(received)
        return self.is_cut or len(received) >= self.end

    def _find_body(self, received: bytearray) -> bool:
        """Whether the head is there; how gunicorn reads it counts, this only has to find out what to wait for."""
        head_end = received.find(b"\r\n\r\n", 2 if received.startswith(b"\r\n") else 0)
        if head_end < 0:
            return False
        self.body = self.end = head_end + 4
        self.sock.head = head = bytes(received[: head_end + 2])
        if ANY_BODY.search(head):
            length, chunked = LENGTH.search(head), CHUNKED.search(head)
            if length and chunked:
                return True  # for gunicorn to refuse
            self.is_chunked = bool(chunked)
            self.end += int(length[1]) if length else 0
            self.is_cut = self.end - self.body > LARGEST_BODY
            if len(received) == self.body and not self.is_cut and ASKS_BEFORE.match(head):
                self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.sock.flush()
        return True

    def _is_no_head(self, received: bytearray) -> bool:
        """Whether gunicorn will refuse it without waiting for the end of the head, which may never come."""
        if len(received) > LARGEST_HEAD:
            raise errors.LimitRequestHeaders("without end")
        first_line_is_too_long = (
            len(received) > self.cfg.limit_request_line + 2 and b"\n" not in received[: self.cfg.limit_request_line + 2]
        )
        return first_line_is_too_long or received.count(b"\n") != received.count(b"\r\n")

    def _has_all_chunks(self, received: bytearray) -> bool:
        while (line_end := received.find(b"\r\n", self.end)) >= 0:
            try:
                size = int(bytes(received[self.end : line_end]).partition(b";")[0], 16)
            except ValueError:
                return True
            if size <= 0:
                return received.find(b"\r\n\r\n", line_end) >= 0 or len(received) - line_end > LARGEST_HEAD
            self.end = line_end + 2 + size + 2
        self.is_cut = len(received) - self.body > LARGEST_BODY
        return self.is_cut or len(received) - self.end > self.cfg.limit_request_field_size


class Worker(ThreadWorker):
    """gunicorn's, with the polling thread doing all that may take long, new connections shared out, and refusals in JSON."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.polled: set[Connection] = set()
        self.large_ones: dict[Connection, None] = {}
        self.in_hand = 0  # connections that a thread serves, or that wait for one
        self.has_finished_one = False
        self.next_look = 0.0

    # New connections

    def may_accept(self):
        """With all threads busy, take one new connection for each that was served, and none while none is.

        gunicorn's own takes whatever it can get: of 16 clients one of two workers often got all, at half the throughput.
        """
        return self.in_hand < self.cfg.threads or self.has_finished_one

    def set_accept_enabled(self, enabled):
        """gunicorn's loop calls it before it polls, and with False where the worker stops."""
        super().set_accept_enabled(enabled and self.may_accept())
        if not enabled and not self.alive:
            self.close_listeners()

    def close_listeners(self):
        """A stopping worker takes those who wait at its address; who comes later is refused, and can ask another node."""
        listeners, self.sockets = self.sockets, []
        for listener in listeners:
            for _ in range(self.cfg.backlog):
                if not select.select([listener], [], [], 0)[0]:
                    break
                self.accept(listener)
            listener.close()

    def accept(self, listener):
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.make_room()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        self.has_finished_one = False
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self.make_room()
        connection = Connection(self.cfg, BufferedSocket(client), address, listener.getsockname())
        self.poll(connection, self.cfg.keepalive, selectors.EVENT_READ, self.receive)

    def make_room(self):
        """Close the connections that have waited longest."""
        for connection in nsmallest(len(self.polled) // 50 + 1, self.polled, key=lambda connection: connection.since):
            self.drop(connection)

    # What waits for clients

    def poll(self, connection, seconds, event, callback):
        """Call back when there is something to read, or room to write; the connection is closed unless all ends in time."""
        connection.since = time.monotonic()
        connection.timeout = connection.since + seconds
        self.polled.add(connection)
        # One of those polled together may be closed to make room for another.
        self.poller.register(
            connection.sock, event, lambda _: connection in self.polled and self.attend(connection, callback)
        )
        self.look_at_size(connection)

    def attend(self, connection, callback, *arguments):
        """What goes wrong with one connection must not end the worker."""
        try:
            callback(connection, *arguments)
        except OSError:  # the client is gone
            self.drop(connection)
        except Exception as error:
            record_error(error)
            self.drop(connection)

    def leave(self, connection):
        """Poll it no more."""
        if connection in self.polled:
            self.polled.remove(connection)
            self.large_ones.pop(connection, None)
            self.poller.unregister(connection.sock)

    def drop(self, connection):
        self.leave(connection)
        self.nr_conns -= 1
        connection.close()

    def look_at_size(self, connection):
        """Where too much is kept for all, let the oldest of those go for which much is kept."""
        if connection.sock.size() > PIECE:
            self.large_ones[connection] = None
            while sum(large_one.sock.size() for large_one in self.large_ones) > MOST_KEPT:
                self.drop(next(iter(self.large_ones)))

    def murder_keepalived(self, force=False):
        """Close those whose time is over; gunicorn calls this after all that it polls."""
        now = time.monotonic()
        if now < self.next_look and not force:
            return
        self.next_look = now + 1
        for connection in [*self.polled]:
            if connection not in self.polled or (connection.timeout > now and not force):
                continue
            if connection.sock.received and not connection.sock.unsent and not force:
                self.attend(connection, self.refuse, TimeoutError())
            else:
                self.drop(connection)

    def _cap_keepalive(self, deadline):
        """A stopping worker waits for idle connections no longer than until then."""
        for connection in self.polled:
            if not connection.sock.received:
                connection.timeout = min(connection.timeout, deadline)

    # From a request to its answer

    def receive(self, connection):
        was_idle = not connection.sock.received
        try:
            if not connection.sock.receive():
                connection.sock.has_ended = True
        except BlockingIOError:
            return
        if was_idle:
            connection.timeout = time.monotonic() + SECONDS_TO_SEND
        self.look_at_size(connection)
        if connection in self.polled:
            self.look_at_request(connection)

    def look_at_request(self, connection):
        if not connection.sock.received:
            if connection.sock.has_ended:
                self.drop(connection)
            return
        try:
            is_ready = connection.is_ready()
        except errors.ParseException as refusal:
            self.refuse(connection, refusal)
            return
        if is_ready:
            self.leave(connection)
            self.enqueue_req(connection)
        elif connection.sock.has_ended:
            self.refuse(connection, errors.NoMoreData())

    def enqueue_req(self, connection):
        super().enqueue_req(connection)
        self.in_hand += 1
        super().set_accept_enabled(self._accepting and self.may_accept())

    def handle(self, connection):
        """In a thread: answer the request, and send what the client takes at once."""
        goes_on = super().handle(connection) and not connection.sock.was_short
        connection.sock.flush()
        return goes_on

    def handle_request(self, req, connection):
        req._expected_100_continue = False  # the client was told so before
        if connection.is_cut:
            req.force_close()
        return super().handle_request(req, connection)

    def finish_request(self, connection, future):
        self.in_hand -= 1
        self.has_finished_one = True
        self.attend(connection, self.conclude, future)

    def conclude(self, connection, future):
        connection.goes_on = future.result()
        self.deliver(connection)

    def deliver(self, connection):
        """Send what is left of an answer; then wait for the next request, or for the client to close."""
        self.leave(connection)
        connection.sock.flush()
        if connection.sock.unsent:
            self.poll(connection, SECONDS_TO_TAKE, selectors.EVENT_WRITE, self.deliver)
        elif connection.goes_on:
            self.await_request(connection)
        else:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.received.clear()
            self.poll(connection, SECONDS_TO_CLOSE, selectors.EVENT_READ, self.discard)

    def await_request(self, connection):
        connection.sock.received[:0] = connection.parser.unreader.take_buffered()
        connection.await_next()
        idle_seconds = self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER
        seconds = SECONDS_TO_SEND if connection.sock.received else idle_seconds
        self.poll(connection, seconds, selectors.EVENT_READ, self.receive)
        self.look_at_request(connection)

    def discard(self, connection):
        """Read away what a client still sends after its last answer: closing on it could take the answer from it."""
        try:
            has_ended = not connection.sock.client.recv(PIECE)
        except BlockingIOError:
            return
        if has_ended:
            self.drop(connection)

    # Refusals

    def refuse(self, connection, error):
        self.handle_error(None, connection.sock, connection.client, error)
        connection.goes_on = False
        self.deliver(connection)

    def handle_error(self, req, client, addr, exc):
        """Refuse what is no HTTP request, or one with a line or headers too long; gunicorn's own answer is HTML."""
        status, reason = self.refusal(exc)
        proposed = PROPOSED_ID.search(client.head or client.received)
        request = RequestContext(id=request_id(proposed and proposed[1].decode()), address=addr[0] if addr else "-")
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
        client.sendall("\r\n".join(lines).encode())

    @staticmethod
    def refusal(error: Exception) -> tuple[int, str]:
        match error:
            case TimeoutError():
                return 408, "Request Timeout"
            case errors.LimitRequestLine():
                return 414, "URI Too Long"
            case errors.LimitRequestHeaders():
                return 431, "Request Header Fields Too Large"
            case errors.ExpectationFailed():
                return 417, "Expectation Failed"
            case errors.UnsupportedTransferCoding():
                return 501, "Not Implemented"
            case errors.ParseException() | errors.NoMoreData():
                return 400, "Bad Request"
        return 500, "Internal Server Error"
