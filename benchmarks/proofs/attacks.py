"""Clients that are slow, greedy, many, or speak no HTTP."""

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

OPEN_FILES = 8_000
RETRY_AFTER = 0.5  # seconds
PIECE = b"x" * 65_536
HALF = "this was never sent to its end"
GARBAGE = bytes(range(1, 10)) * 30

Address = tuple[str, int]
Client = Callable[[Address, float, Counter], Awaitable[None]]  # until when, and what it counts there
Crowd = Callable[[Address, float, Counter], Awaitable[None]]


def head(token: str, *lines: str, request: str = "POST /api/message") -> bytes:
    every = (f"{request} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Token {token}", "Content-Type: application/json")
    return "\r\n".join((*every, *lines, "", "")).encode()


def crowds(token: str, hoarder: str) -> dict[str, Crowd]:
    """All kinds. The token is of a user whose messages none may be stored of, the hoarder's mailbox has pages of 4 MB."""
    chunked = head(token, "Transfer-Encoding: chunked")
    half = f'{{"receiver": "mallory", "content": "{HALF}'.encode()
    sized_half = head(token, f"Content-Length: {len(half) + 2}") + half
    chunked_half = chunked + b"%x\r\n%b\r\n" % (len(half), half)
    whole = head(token, f"Content-Length: {3 * 2**20}") + b"x" * (3 * 2**20)
    large_page = head(hoarder, request="GET /api/message?page_size=100")
    return {
        "4 announce 2 GB and pour": partial(at_once, 4, partial(pouring, head(token, f"Content-Length: {2**31}"), PIECE)),
        "4 pour 3 MiB": partial(at_once, 4, partial(sending, whole)),
        "4 pour chunks without end": partial(at_once, 4, partial(pouring, chunked, b"%x\r\n%b\r\n" % (len(PIECE), PIECE))),
        "4 pour a chunk's size without end": partial(at_once, 4, partial(pouring, chunked + b"1;", PIECE)),
        "4 pour trailers without end": partial(at_once, 4, partial(pouring, chunked + b"0\r\n", b"X: x\r\n" * 10_000)),
        "50 drip a body": partial(at_once, 50, partial(dripping, head(token, "Content-Length: 1000"), b" ")),
        "50 drip chunks": partial(at_once, 50, partial(dripping, chunked, b"1\r\n \r\n")),
        "50 drip a header": partial(at_once, 50, partial(dripping, head(token)[:-2] + b"X-Long: ", b"x")),
        "50 drip headers": partial(at_once, 50, partial(dripping, head(token)[:-2], b"X: x\r\n")),
        "50 drip a body that was refused": partial(
            at_once, 50, partial(dripping, head("none", "Content-Length: 1500000"), b" ")
        ),
        "8 hang up in a body": partial(at_once, 8, partial(hanging_up, sized_half)),
        "8 hang up in chunks": partial(at_once, 8, partial(hanging_up, chunked_half)),
        "8 end in a body": partial(at_once, 8, partial(ending, sized_half)),
        "50 a second send garbage and stay": partial(each_second, 50, partial(staring, GARBAGE)),
        "20 never read a page of 4 MB": partial(at_once, 20, partial(staring, large_page)),
        "50 never read any of 1,000 answers": partial(
            at_once, 50, partial(staring, head("none", request="GET /api/message") * 1_000)
        ),
        "2,100 are idle": partial(at_once, 2_100, partial(sending, b"")),
        "2,100 are idle after an answer": partial(at_once, 2_100, idling),
        "as many as can be open and hang up": partial(at_once, 50, partial(hanging_up, b"")),
    }


def unleash(crowd: Crowd, address: Address, seconds: float) -> Counter:
    """What they saw, and how often; for a process of their own."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, limit))
    seen: Counter = Counter()
    asyncio.run(crowd(address, time.monotonic() + seconds, seen))
    return seen


async def at_once(number: int, client: Client, address: Address, until: float, seen: Counter) -> None:
    """So many at all times, after the first second, in which they come."""

    async def one_after_another(first: float) -> None:
        await asyncio.sleep(first)
        while time.monotonic() < until:
            await counted(client, address, until, seen)

    await asyncio.gather(*(one_after_another(place / number) for place in range(number)))


async def each_second(number: int, client: Client, address: Address, until: float, seen: Counter) -> None:
    """So many new ones a second."""
    tasks = []
    while time.monotonic() < until:
        tasks.append(asyncio.create_task(counted(client, address, until, seen)))
        await asyncio.sleep(1 / number)
    await asyncio.gather(*tasks)


async def counted(client: Client, address: Address, until: float, seen: Counter) -> None:
    try:
        async with asyncio.timeout(until - time.monotonic()):
            await client(address, until, seen)
    except TimeoutError:
        seen["kept to the end"] += 1
    except OSError:
        seen["hung up on"] += 1
        await asyncio.sleep(RETRY_AFTER)


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader: asyncio.StreamReader) -> str:
    """Its status; raises ConnectionError where there is none."""
    beginning = await reader.read(65_536)
    if not beginning:
        raise ConnectionError("hung up")
    return f"answered {beginning[9:12].decode(errors='replace')}"


def expected(reader: asyncio.StreamReader) -> asyncio.Task:
    """The answer, to look for while sending."""
    task = asyncio.create_task(answer(reader))
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # who sends may see the end first
    return task


async def repeating(beginning: bytes, piece: bytes, address: Address, until: float, seen: Counter, *, pause: float) -> None:
    """Sends the beginning, then the piece after each pause in seconds, until the server answers or hangs up."""
    async with connected(address) as (reader, writer):
        answering = expected(reader)
        writer.write(beginning)
        while not answering.done():
            writer.write(piece)
            await writer.drain()
            if kilobytes := len(piece) // 1000:
                seen["KB sent"] += kilobytes
            await asyncio.wait([answering], timeout=pause)
        seen[await answering] += 1


pouring = partial(repeating, pause=0.01)  # some 6 MB a second
dripping = partial(repeating, pause=1)


async def sending(raw: bytes, address: Address, until: float, seen: Counter) -> None:
    """Sends it and waits for an answer."""
    async with connected(address) as (reader, writer):
        writer.write(raw)
        await writer.drain()
        seen[await answer(reader)] += 1


async def ending(raw: bytes, address: Address, until: float, seen: Counter) -> None:
    """Sends it, says that no more will come, and waits for an answer."""
    async with connected(address) as (reader, writer):
        writer.write(raw)
        writer.write_eof()
        seen[await answer(reader)] += 1


async def hanging_up(raw: bytes, address: Address, until: float, seen: Counter) -> None:
    async with connected(address) as (_, writer):
        writer.write(raw)
        await writer.drain()
        seen["sent"] += 1


async def idling(address: Address, until: float, seen: Counter) -> None:
    """Asks once, then keeps the connection until the server hangs up."""
    async with connected(address) as (reader, writer):
        writer.write(head("none", request="GET /healthz"))
        seen[await answer(reader)] += 1
        await answer(reader)


async def staring(raw: bytes, address: Address, until: float, seen: Counter) -> None:
    """Sends it and keeps the socket open, without ever reading from it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, raw)
        await asyncio.sleep(until - time.monotonic())
        seen["kept to the end"] += 1


SMUGGLED = "GET /api/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
TO_LOG_IN = "POST /api/auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
ASKING = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
TLS_HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(range(128, 160)) + b"\x20" + bytes(range(160, 250))


def chunked(body: str, *lines: str) -> bytes:
    return "".join((TO_LOG_IN, "Transfer-Encoding: chunked\r\n", *(f"{line}\r\n" for line in lines), "\r\n", body)).encode()


ODDITIES: dict[str, tuple[bytes, set[int | None]]] = {
    # What is sent, and the statuses that are right; none where it may be the beginning of something, and is waited for.
    "URI of 9,000 bytes": (f"GET /{'x' * 9_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), {414}),
    "URI without end": (f"GET /{'x' * 100_000}".encode(), {414}),
    "header of 9,000 bytes": (f"{ASKING}X: {'x' * 9_000}\r\n\r\n".encode(), {431}),
    "101 headers": (f"{ASKING}{''.join(f'X-{n}: x{chr(13)}{chr(10)}' for n in range(100))}\r\n".encode(), {431}),
    "headers of 900 KB without end": (f"{ASKING}{'X: x' * 225_000}".encode(), {431}),
    "garbage": (GARBAGE, {None, 400}),
    "garbage and an empty line": (b"\x80\x81\x82\r\n\r\n", {400}),
    "zeros": (b"\x00" * 10_000, {400, 414}),
    "TLS hello": (TLS_HELLO, {None, 400}),
    "TLS hello and an empty line": (TLS_HELLO + b"\r\n\r\n", {400}),
    "HTTP/0.9": (b"GET /healthz\r\n", {None, 400}),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", {400}),
    "HTTP/3.0": (b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", {400}),
    "two lengths": (
        f"{TO_LOG_IN}Content-Length: 2\r\nContent-Length: {2 + len(SMUGGLED)}\r\n\r\n{{}}{SMUGGLED}".encode(),
        {400},
    ),
    "the same length twice": (f"{TO_LOG_IN}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "length and chunks": (chunked(f"0\r\n\r\n{SMUGGLED}", f"Content-Length: {5 + len(SMUGGLED)}"), {400}),
    "length +2": (f"{TO_LOG_IN}Content-Length: +2\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "length 2, 2": (f"{TO_LOG_IN}Content-Length: 2, 2\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "length ²": (f"{TO_LOG_IN}Content-Length: ²\r\n\r\n{{}}{SMUGGLED}".encode("latin-1"), {400}),
    "length of 5,000 digits": (f"{TO_LOG_IN}Content-Length: {'9' * 5_000}\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "chunked, identity": (f"{TO_LOG_IN}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}".encode(), {400}),
    "identity": (f"{TO_LOG_IN}Transfer-Encoding: identity\r\n\r\n{SMUGGLED}".encode(), {400}),
    "chunked twice": (chunked(f"0\r\n\r\n{SMUGGLED}", "Transfer-Encoding: chunked"), {400}),
    "xchunked": (f"{TO_LOG_IN}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}".encode(), {400, 501}),
    "chunked with a tab before": (
        f"{TO_LOG_IN}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{SMUGGLED}".encode(),
        {400, 501},
    ),
    "chunked in HTTP/1.0": (chunked(f"0\r\n\r\n{SMUGGLED}").replace(b"1.1", b"1.0", 1), {400}),
    "gzip, chunked": (f"{TO_LOG_IN}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{SMUGGLED}".encode(), {400}),
    "folded header": (f"{TO_LOG_IN}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{SMUGGLED}".encode(), {400}),
    "bare LF between headers": (f"{TO_LOG_IN}X: x\nContent-Length: 2\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "bare LF everywhere": (f"{TO_LOG_IN}\r\n".replace("\r\n", "\n").encode(), {400}),
    "bare CR in a header": (f"{TO_LOG_IN}X: x\rContent-Length: 2\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "space before the colon": (f"{TO_LOG_IN}Content-Length : 2\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "space before a header": (f"{TO_LOG_IN} Content-Length: 2\r\n\r\n{{}}{SMUGGLED}".encode(), {400}),
    "NUL in a header": (f"{ASKING}X: \x00\r\n\r\n".encode(), {400}),
    "no Host": (b"GET /api/message HTTP/1.1\r\n\r\n", {400, 401}),
    "two Hosts": (f"{ASKING}Host: 127.0.0.1\r\n\r\n".encode(), {400}),
    "Content_Length": (f"{TO_LOG_IN}Content_Length: 5\r\nContent-Length: 2\r\n\r\n{{}}".encode(), {400}),
    "chunk size zz": (chunked(f"zz\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"), {400}),
    "chunk size 0x2": (chunked(f"0x2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"), {400}),
    "chunk size -2": (chunked(f"-2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"), {400}),
    "chunk size of 17 digits": (chunked(f"{'f' * 17}\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"), {None, 400, 413}),
    "chunk without its end": (chunked(f"2\r\n{{}}xx0\r\n\r\n{SMUGGLED}"), {400}),
    "chunk ended by LF": (chunked(f"2\n{{}}\n0\n\n{SMUGGLED}"), {400}),
    "chunk with an extension": (chunked('2;a="b"\r\n{}\r\n0\r\n\r\n'), {400}),
    "chunks with a trailer": (chunked("2\r\n{}\r\n0\r\nX: x\r\n\r\n"), {400}),
    "chunks with a length as trailer": (chunked(f"2\r\n{{}}\r\n0\r\nContent-Length: 9\r\n\r\n{SMUGGLED}"), {400}),
    "gzip without chunks": (
        f"{TO_LOG_IN}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x0b\x08\x00".encode(),
        {400, 415},
    ),
    "body that is not UTF-8": (f"{TO_LOG_IN}Content-Length: 4\r\n\r\n".encode() + b'"\xff\xfe"', {400}),
    "expectation that nobody knows": (f"{TO_LOG_IN}Content-Length: 2\r\nExpect: x\r\n\r\n{{}}".encode(), {417}),
    "CONNECT": (f"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n{SMUGGLED}".encode(), {400, 404, 405}),
}


def ask(address: Address, raw: bytes, patience: float) -> bytes:
    """All that the server sends within the patience, or until it hangs up."""
    received = b""
    with socket.create_connection(address, timeout=patience) as client:
        try:
            client.sendall(raw)
            while piece := client.recv(65_536):
                received += piece
        except OSError:
            pass
    return received
