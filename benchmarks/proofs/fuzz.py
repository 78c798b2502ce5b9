"""Bad requests of seven kinds, made from a seed, and a client that holds the service to its promises for each of them.

Whatever comes, the answer is JSON, no 5xx, with an X-Request-ID, and on a kept connection each belongs to its request.
"""

import json
import random
import re
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

PATIENCE = 20  # seconds without an answer
LONGEST_PIPELINE = 3  # requests sent at once
FAULTS_KEPT = 20  # of one client
LONGEST_OWN = 10  # characters of the ids that a draft brings along, which are not unique
SOME_JSON = b"application/json"
SOME_FORM = b"application/x-www-form-urlencoded"
BOUNDARY = b"boundary"
SOME_PARTS = b"multipart/form-data; boundary=" + BOUNDARY
OFTEN = 0.8  # of the requests have a route that fits the kind, and does not hash
HASHING = "/api/auth/"  # some 20 ms each
ENDING_TOKENS = ("/api/auth/logout", "/api/auth/logoutall")

GOOD_VALUES = {
    "username": "somebody new",  # a space is in no name: an account for each would cost a hash
    "password": "a long secret",
    "email": "somebody@example.com",
    "current_password": "a wrong secret",
    "new_password": "another long secret",
    "receiver": "fuzz0",
    "blocked": "fuzz1",
    "content": "hello",
    "up_to": 1,
}
TEXTS = [
    "", " ", "\t\r\n", "\0", "a\0b", "\ud800", "x\udfff", "\ud83d\ude00", "\ufeff", "\u202eabc", "\x7f\x1b[2J", "😀" * 300,
    "\u0130\u0131\u017f\u212a",
    "x" * 151, "x" * 10_000, "x" * 10_001, "fuzz0", "FUZZ0", "fuzz0\n", " fuzz0", "..", "../../etc/passwd", "%00", "%",
    "'", '"', "\\",
    "'; DROP TABLE auth_user; --", "{{7*7}}", "${jndi:x}", "<script>", "null", "NaN", "1e999", "٣", "\uff11", "0x10",
    "1_000", "+1", "-1",
    "0", "1", "100", "101", "1.0", "9" * 19, "9" * 5_000, "true", "True", "2026-01-01", "0001-01-01", "9999-12-31",
    "10000-01-01",
    "2026-02-30", "2026-1-1", "2026-01-01T00:00:00Z", "a@b", "a@b.c" * 50, "é" * 75, "ø\u0301" * 100, ",", ";", "=", "&",
    "?", "#", "/",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-1", "1.0", "0.5", "1e5", "1e999", "-1e999", "1e-999", "9" * 19, "-" + "9" * 30, "9" * 400, "9" * 5_000,
    "NaN", "Infinity",
    "true", "false", "null",
]  # fmt: skip
SHAPES = [
    "[]", "{}", "[[]]", '[{"a": 1}]', '{"a": {"b": []}}', "[" * 100 + "]" * 100, '{"a":' * 100 + "1" + "}" * 100,
    '["fuzz0", "fuzz1"]', '{"username": "fuzz0"}',
]  # fmt: skip
VALUES = [*(json.dumps(text) for text in TEXTS), *NUMBERS, *SHAPES]
DEEP = [
    "[" * 50_000,
    "[" * 50_000 + "]" * 50_000,
    '{"a":' * 20_000 + "1" + "}" * 20_000,
    json.dumps("x" * 500_000),
    "9" * 100_000,
]
PIECES = [
    b",", b":", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud800", b"'", b"\x00", b"\xff", b"\xc0\x80",
    b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"NaN", b"//", b"/**/", b"\r\n", b"1e", b"--", b"\x1f", b"tru", b"&", b"=", b"%", b"%zz", b"%ff", b"%00", b"+", b";",
    b"--" + BOUNDARY, b"--" + BOUNDARY + b"--", b"\r\n\r\n", b"\n",
]  # fmt: skip
PART_HEADERS = [
    b"", b"Content-Disposition: form-data", b'Content-Disposition: form-data; name="content"; filename="a.txt"',
    b"Content-Disposition: form-data; name*=utf-8''%ff", b"Content-Disposition: form-data; name*=hex''%41",
    b'Content-Disposition: form-data; name="content"\r\nContent-Transfer-Encoding: base64',
    b'Content-Disposition: form-data; name="f"; filename="a"\r\nContent-Transfer-Encoding: base64',
    b'Content-Disposition: form-data; name="content"\r\nContent-Length: -1', b"X" * 2_000,
    b'Content-Disposition: form-data; name="\xff"',
    b'Content-Disposition: form-data; name="content"\r\nContent-Type: text/plain; charset=hex',
]  # fmt: skip
MEDIA_TYPES = [
    b"", b"/", b"x", b"application/json; charset=hex", b"application/json; charset=utf-16",
    b"application/json; charset=" + b"x" * 500,
    b"application/json; x*=nonsense''%41", b"application/jsonp", b"text/plain", b"multipart/form-data",
    b"multipart/form-data; boundary=",
    b"multipart/form-data; boundary=" + b"b" * 300, b"multipart/form-data; boundary=\xc3\xa9",
    b"multipart/mixed; boundary=boundary",
    b"application/x-www-form-urlencoded; charset=utf-7", b"APPLICATION/JSON", b"application/json, text/plain", b";;;",
    b"application/\xff",
]  # fmt: skip
HEADER_VALUES = [
    b"", b" ", b"x", b"\xff", b"\xc3\xa9", b"x" * 200, b"x" * 8_000, b"x" * 9_000, b",", b",,,,", b"a b", b'"', b"\t",
    b"%00", b"-1", b"0",
    b"9" * 400, b"null", b"*", b"a\x00b", b"a\x7fb", b"a\x0bb", b"../..", b"=?utf-8?q?=00?=", b"keep-alive", b"close",
    b"upgrade", b"gzip",
]  # fmt: skip
HEADERS: dict[bytes, list[bytes]] = {
    b"Authorization": [
        b"Token", b"Token ", b"Token \xff", b"Bearer a b", b"Token " + b"0" * 64, b"Basic Z29vZDA6eA==",
        b"Token " + b"x" * 5_000, b"token,token",
    ],
    b"Content-Type": MEDIA_TYPES,
    b"X-Request-ID": [b"a" * 65, b"a b", b"a/b", b"\xc3\xa9", b"a,b", b"a;b"],
    b"Idempotency-Key": [b"k", b"k" * 255, b"k" * 256, b"\xff", b"k k", b"~!", b"k,k"],
    b"Host": [b"localhost:99999", b"evil.example", b"[::1", b"[::1]:x", b"127.0.0.1:", b"localhost/", b"a@localhost",
        b"..", b"x" * 300, b"local_host"],
    b"X-Forwarded-For": [b"1.2.3.4", b"1.2.3.4, x", b"::1", b"[::1]:80", b"'; --", b"1.2.3.4:80:90", b"fe80::1%eth0",
        b"1.2.3.4," * 900, b"256.1.1.1"],
    b"X-Forwarded-Proto": [b"https", b"http", b"ftp", b"https,http"],
    b"X-Forwarded-Host": [b"evil.example"],
    b"Accept": [b"text/html", b"*/*;q=x", b"application/json;version=9", b"/", b"application/*; indent=9999999999"],
    b"Accept-Language": [b"x" * 600, b"de-" * 500, b"*"],
    b"Accept-Encoding": [b"gzip", b"identity;q=0", b"br;q=x"],
    b"Content-Encoding": [b"gzip", b"br", b"identity"],
    b"Cookie": [b"sessionid=x", b"sessionid=\xff; csrftoken=", b"=;;=", b"a=" + b"b" * 5_000],
    b"Origin": [b"null", b"http://evil.example", b"http://[", b"x"],
    b"Access-Control-Request-Method": [b"POST", b"x"],
    b"Access-Control-Request-Headers": [b"authorization", b"\xff"],
    b"If-Modified-Since": [b"x", b"Thu, 01 Jan 1970 00:00:00 GMT", b"Thu, 99 Jan 99999 00:00:00 GMT"],
    b"If-None-Match": [b'"x"', b"*", b"W/"],
    b"Range": [b"bytes=0-0", b"bytes=-1", b"bytes=9-1"],
    b"Expect": [b"100-continue", b"nonsense"],
    b"Connection": [b"close", b"keep-alive", b"upgrade", b"keep-alive, close"],
    b"Upgrade": [b"h2c", b"websocket"],
    b"X-HTTP-Method-Override": [b"DELETE"],
    b"X_Request_ID": [b"x"],
    b"Script-Name": [b"/api"],
    b"Date": [b"x"],
    b"TE": [b"trailers"],
    b"Bad Name": [b"x"],
}  # fmt: skip
METHODS = [
    b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PROPFIND", b"MKCOL",
    b"SEARCH", b"QUERY", b"PRI",
    b"get", b"Get", b"G", b"X" * 20, b"X" * 21, b"X" * 300, b"GE T", b"G\xc3\x89T", b"GET\x00", b"!#$", b"-", b"", b"0",
    b"POST,GET", b"__INIT__",
    b"DISPATCH", b"INITIAL",
]  # fmt: skip
SEGMENTS = [
    b"%00", b"%ff", b"%c0%80", b"%2f", b"%2e%2e", b"..", b".", b"", b"//", b"%", b"%zz", b"%E2%80%AE", b"%0a",
    b"%0d%0aX:%20y", b"%20", b"+", b";a=b",
    b"@", b":", b"\\", b"|", b"~", b"'", b"%22", b"{id}", b"-1", b"0", b"9" * 30, b"9" * 400, b"1e3", b"%D9%A3", b"0x1",
    b"fuzz0", b"FUZZ0", b"a" * 2_000,
    b"a/" * 500, b"\xff", b"\xc3\xa9", b"%F0%9F%98%80", b"read", b"#x", b"static/..%2f..%2fmanage.py", b"*",
]  # fmt: skip


@dataclass(frozen=True)
class Route:
    """A method of a path in the API's description."""

    method: str
    path: str
    parameters: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass
class Draft:
    """A request before it is written down."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes
    body: bytes
    identifier: str

    @property
    def closes(self) -> bool:
        return b"\r\nconnection: close\r\n" in self.head.lower()


@dataclass
class Outcome:
    """What a client saw: how often which status, the answers by their X-Request-ID, and what is wrong."""

    statuses: Counter = field(default_factory=Counter)
    answered: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def note(self, answer: Answer, wrong: str | None, raw: bytes) -> None:
        self.statuses[answer.status] += 1
        if len(answer.identifier) > LONGEST_OWN:
            self.answered[answer.identifier] = answer.status
        if wrong:
            self.faults.append(f"{wrong}: {raw[:600]!r} got {answer.head!r} {answer.body[:200]!r}")


def routes(description: dict[str, Any]) -> list[Route]:
    """All that the API's description names, and two paths beside it."""
    found = [Route("GET", "/api/nothing"), Route("GET", "/api/schema")]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            parameters = tuple(one["name"] for one in operation.get("parameters", ()) if one["in"] == "query")
            shape = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            named = description["components"]["schemas"].get(shape.get("$ref", "").rpartition("/")[2], {})
            found.append(Route(method.upper(), path, parameters, tuple(named.get("properties", ()))))
    return found


def good(route: Route) -> Draft:
    """A request of the route with which little or nothing is wrong."""
    target = route.path.replace("{id}", "1").replace("{username}", "fuzz1")
    body = json.dumps({name: GOOD_VALUES[name] for name in route.fields}).encode() if route.fields else b""
    return Draft(route.method.encode(), target.encode(), [(b"Content-Type", SOME_JSON)] if body else [], body)


def mutated(dice: random.Random, text: bytes) -> bytes:
    """The text with one to three bytes or pieces cut out, put in or replaced."""
    for _ in range(dice.randint(1, 3)):
        start = dice.randint(0, len(text))
        match dice.randrange(5):
            case 0:
                text = text[:start]
            case 1:
                text = text[:start] + text[start + dice.randint(1, 5) :]
            case 2:
                text = text[:start] + dice.choice(PIECES) + text[start:]
            case 3:
                text = text[:start] + bytes([dice.randrange(256)]) + text[start + 1 :]
            case 4:
                text = text[:start] + text[start // 2 :]
    return text


def malformed_json(dice: random.Random, route: Route) -> Draft:
    draft = good(route)
    draft.headers = [(b"Content-Type", dice.choice([SOME_JSON, SOME_JSON, SOME_FORM]))]
    whole = draft.body or b'{"a": [1, "b", null]}'
    if dice.random() < 0.05:
        draft.body = whole.decode().encode(dice.choice(["utf-16", "utf-32", "utf-7", "utf-8-sig"]))
    else:
        draft.body = mutated(dice, whole)
    return draft


def json_of_wrong_shape(dice: random.Random, route: Route) -> Draft:
    draft = good(route)
    draft.headers = [(b"Content-Type", SOME_JSON)]
    chance = dice.random()
    if chance < 0.01:
        draft.body = dice.choice(DEEP).encode()
    elif chance < 0.2:
        draft.body = dice.choice(VALUES).encode()
    else:
        names = [*route.fields, *dice.choices([*GOOD_VALUES, *TEXTS[:20]], k=dice.choice([0, 0, 1, 2]))]
        pairs = (
            f"{json.dumps(name)}: {json.dumps(GOOD_VALUES.get(name)) if dice.random() < 0.3 else dice.choice(VALUES)}"
            for name in names
        )
        draft.body = f"{{{', '.join(pairs)}}}".encode()
    return draft


def broken_form(dice: random.Random, route: Route) -> Draft:
    draft = good(route)
    names = [*route.fields, "a"]
    if dice.random() < 0.4:
        body = "&".join(f"{quote(name)}={quote(dice.choice(TEXTS), errors='replace')}" for name in names).encode()
        draft.headers = [(b"Content-Type", SOME_FORM)]
        draft.body = b"&".join([body] * 1_001) if dice.random() < 0.01 else mutated(dice, body)
        return draft
    parts = []
    for name in names:
        heading = b'Content-Disposition: form-data; name="%b"' % name.encode()
        content = str(GOOD_VALUES.get(name, "x")).encode()
        if dice.random() < 0.4:
            heading = dice.choice(PART_HEADERS)
        parts.append(b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY, heading, content))
    body = b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"
    draft.headers = [(b"Content-Type", SOME_PARTS if dice.random() < 0.8 else dice.choice(MEDIA_TYPES))]
    draft.body = mutated(dice, body) if dice.random() < 0.7 else body
    return draft


def odd_parameters(dice: random.Random, route: Route) -> Draft:
    draft = good(route)
    known = [*route.parameters, "page", "page_size", "date"]
    pairs = []
    for _ in range(dice.randint(1, 4)):
        name = dice.choice(known) if dice.random() < 0.8 else quote(dice.choice(TEXTS), errors="replace")
        value = quote(dice.choice(TEXTS), errors="replace").encode()
        pairs.append(name.encode() + dice.choice([b"=", b"=", b"=", b"", b"=="]) + value)
    draft.target += b"?" + b"&".join(pairs)
    if dice.random() < 0.2:
        start = dice.randint(len(draft.target) // 2, len(draft.target))
        draft.target = draft.target[:start] + dice.choice(PIECES).strip() + draft.target[start:]
    if dice.random() < 0.01:
        draft.target += b"&a=" + b"x" * dice.randint(7_000, 9_000)
    return draft


def odd_path(dice: random.Random, route: Route) -> Draft:
    draft = good(route)
    segments = route.path.encode().replace(b"{id}", dice.choice(SEGMENTS)).replace(b"{username}", dice.choice(SEGMENTS))
    steps = segments.split(b"/")
    match dice.randrange(5):
        case 0:
            steps[dice.randrange(len(steps))] = dice.choice(SEGMENTS)
        case 1:
            steps.insert(dice.randint(1, len(steps)), dice.choice(SEGMENTS))
        case 2:
            steps[-1] += dice.choice(SEGMENTS)
        case 3:
            steps[0] = dice.choice([b"", b"http://evil.example", b"http://127.0.0.1", b"ftp://x", b"//evil.example", b"*"])
    draft.target = b"/".join(steps)
    return draft


def odd_headers(dice: random.Random, route: Route) -> Draft:
    draft = good(route)
    for name in dice.sample([*HEADERS], dice.randint(1, 3)):
        value = dice.choice(HEADERS[name] if dice.random() < 0.7 else HEADER_VALUES)
        draft.headers.append((name, value))
        if dice.random() < 0.1:
            draft.headers.append((name.swapcase(), value))
    return draft


def odd_method(dice: random.Random, route: Route) -> Draft:
    draft = good(route)
    draft.method = dice.choice(METHODS)
    return draft


KINDS: dict[str, Callable[[random.Random, Route], Draft]] = {
    "malformed JSON": malformed_json,
    "JSON of wrong shape": json_of_wrong_shape,
    "broken forms": broken_form,
    "odd URL parameters": odd_parameters,
    "odd paths": odd_path,
    "odd headers": odd_headers,
    "odd methods": odd_method,
}
ABOUT_BODIES = ("malformed JSON", "JSON of wrong shape", "broken forms")


def written(draft: Draft, identifier: str, token: str | None, chunked: bool) -> bytes:
    """The request as it is sent; headers that the draft has are left as they are."""
    names = {name.lower() for name, _ in draft.headers}
    headers = [*draft.headers]
    if b"host" not in names:
        headers.append((b"Host", b"127.0.0.1"))
    if b"x-request-id" not in names:
        headers.append((b"X-Request-ID", identifier.encode()))
    if b"authorization" not in names and token:
        headers.append((b"Authorization", b"Token " + token.encode()))
    body = draft.body
    if chunked:
        half = len(body) // 2
        pieces = [piece for piece in (body[:half], body[half:]) if piece]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif body:
        headers.append((b"Content-Length", b"%d" % len(body)))
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (draft.method, draft.target, lines, body)


class Connection:
    """One kept connection, over which requests are written and answers read, byte for byte."""

    STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
    LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
    IDENTIFIER = re.compile(rb"\r\nx-request-id: ([!-~]+)\r\n", re.IGNORECASE)

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def more(self) -> None:
        piece = self.socket.recv(65_536)
        if not piece:
            raise ConnectionError("hung up")
        self.received += piece

    def answer(self, to_head: bool = False) -> Answer:
        """The next answer; raises ConnectionError or TimeoutError where there is none, ValueError for what is no HTTP."""
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            self.more()
        head, self.received = self.received[: end + 2], self.received[end + 4 :]
        status = self.STATUS.match(head)
        if not status:
            raise ValueError(f"no HTTP in {head[:200]!r}")
        if status[1].startswith(b"1"):
            return self.answer(to_head)
        length = self.LENGTH.search(head)
        size = 0 if to_head or status[1] == b"204" or not length else int(length[1])
        while len(self.received) < size:
            self.more()
        body, self.received = self.received[:size], self.received[size:]
        identifier = self.IDENTIFIER.search(head)
        return Answer(int(status[1]), head, body, identifier[1].decode() if identifier else "")


def fault(answer: Answer, expected: str | None, to_head: bool) -> str | None:
    """What is wrong with the answer; None where nothing is. `expected` is the id that it has to carry."""
    if answer.status >= 500:
        return "an error of the service"
    if not answer.identifier:
        return "no X-Request-ID"
    is_fresh = re.fullmatch("[0-9a-f]{32}", answer.identifier)
    if expected and answer.identifier != expected and not (is_fresh and answer.closes):
        return f"out of step: it belongs to {answer.identifier}"
    if not answer.body and (to_head or answer.status in (204, 302)):  # the admin's pages lead to its log-in
        return None
    if b"\r\ncontent-type: application/json\r\n" not in answer.head.lower():
        return "no JSON"
    try:
        json.loads(answer.body)
    except ValueError:
        return "broken JSON"
    return None


def attack(
    address: tuple[str, int], kind: str, seed: str, number: int, known: list[Route], tokens: list[str], doomed: str
) -> Outcome:
    """Send bad requests of a kind over one connection, some of them several at once, until so many are answered."""
    dice = random.Random(f"{kind} {seed}")  # noqa: S311 - to be had again
    fitting = [route for route in known if not route.path.startswith(HASHING) and (route.fields or kind not in ABOUT_BODIES)]
    outcome = Outcome()
    connection = Connection(address)
    sent = answered = 0
    while answered < number and len(outcome.faults) < FAULTS_KEPT:
        batch = []
        for _ in range(dice.randint(1, LONGEST_PIPELINE)):
            sent += 1
            route = dice.choice(fitting if dice.random() < OFTEN else known)
            draft = KINDS[kind](dice, route)
            identifier = f"{kind.replace(' ', '-')}.{seed}.{sent}"
            token = doomed if route.path in ENDING_TOKENS else dice.choice([*tokens, *tokens, None])
            raw = written(draft, identifier, token, dice.random() < 0.1)
            has_own = any(name.lower() == b"x-request-id" for name, _ in draft.headers)
            batch.append((raw, None if has_own else identifier, draft.method == b"HEAD"))
        answer = None
        try:
            connection.send(b"".join(raw for raw, _, _ in batch))
            for raw, expected, to_head in batch:
                answer = None
                answer = connection.answer(to_head)
                answered += 1
                outcome.note(answer, fault(answer, expected, to_head), raw)
                if answer.closes:
                    break
        except (OSError, ValueError) as error:
            outcome.faults.append(f"{type(error).__name__} {error}: no answer to {raw[:600]!r}")
        if answer is None or answer.closes:
            connection.close()
            connection = Connection(address)
            outcome.statuses["new connection"] += 1
    connection.close()
    return outcome
