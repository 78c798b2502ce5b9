"""What a body may be, and how one is refused that cannot be read."""

import gzip
import io
import itertools
import json
from urllib.parse import urlencode

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from config.testing.cases import ApiTestCase
from messageservice.models import Message

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
LIMIT = 2**20  # bytes
MESSAGE = {"receiver": "bob", "content": "hi"}


def multipart(fields):
    return encode_multipart(BOUNDARY, fields)


def part(header, content="hi"):
    """A multipart body with a receiver, and one more part under the header line."""
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="receiver"\r\n\r\nbob\r\n'
        f"--{BOUNDARY}\r\n{header}\r\n\r\n{content}\r\n--{BOUNDARY}--\r\n"
    ).encode()


def file_of(size):
    file = io.BytesIO(b"x" * size)
    file.name = "file.txt"
    return file


class BodyTestCase(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.client_of_alice = self.as_user(self.alice)

    def send(self, body, media_type=JSON, path="/api/message", client=None):
        return (client or self.client_of_alice).generic("POST", path, body, content_type=media_type)

    def assertRefused(self, response, status=400, keys=("detail",)):  # noqa: N802 - unittest's way to name it
        """Refused in JSON, under these keys alone, and nothing stored."""
        self.assertEqual((response.status_code, [*response.json()]), (status, [*keys]), response.content[:200])
        self.assertFalse(Message.objects.exists())
        self.assertEqual((self.events(), self.log_lines("debug")), ([], []))


class ReadableBodyTests(BodyTestCase):
    def test_json_form_multipart_and_json_under_the_label_of_a_form(self):
        bodies = (
            (json.dumps(MESSAGE), JSON),
            (json.dumps(MESSAGE), f"{JSON}; charset=utf-8"),
            (urlencode(MESSAGE), FORM),
            (multipart(MESSAGE), MULTIPART_CONTENT),
            (f" \n{json.dumps(MESSAGE)}", FORM),
        )

        for body, media_type in bodies:
            with self.subTest(media_type=media_type):
                response = self.send(body, media_type)

                self.assertEqual(response.status_code, 201)
                self.assertEqual(response.json(), {**response.json(), "sender": "alice", **MESSAGE})

    def test_byte_order_mark_before_the_body(self):
        content = "\ufeffhi\ufeff"

        for body, media_type in (
            (json.dumps({**MESSAGE, "content": content}, ensure_ascii=False).encode(), JSON),
            (json.dumps({**MESSAGE, "content": content}, ensure_ascii=False).encode(), FORM),
            (urlencode({**MESSAGE, "content": content}).encode(), FORM),
            (multipart({**MESSAGE, "content": content}), MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type, body=body[:20]):
                response = self.send(b"\xef\xbb\xbf" + body, media_type)

                self.assertEqual((response.status_code, response.json()["content"]), (201, content))

    def test_content_encoding_identity(self):
        for encoding in ("identity", "Identity", "", " identity , identity"):
            with self.subTest(encoding=encoding):
                response = self.client_of_alice.post("/api/message", MESSAGE, headers={"content-encoding": encoding})

                self.assertEqual(response.status_code, 201)

    def test_text_comes_through_to_the_letter_in_every_media_type(self):
        content = " á\u202e😀\n& =%+\t "

        for body, media_type in (
            (json.dumps({**MESSAGE, "content": content}), JSON),
            (urlencode({**MESSAGE, "content": content}), FORM),
            (multipart({**MESSAGE, "content": content}), MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type):
                response = self.send(body, media_type)

                self.assertEqual(response.json()["content"], content)

    def test_exactly_one_mebibyte_is_read(self):
        form = urlencode(MESSAGE).encode() + b"&padding="
        bare = len(multipart({**MESSAGE, "file": file_of(0)}))

        for body, media_type in (
            (json.dumps(MESSAGE).encode().ljust(LIMIT), JSON),
            (form.ljust(LIMIT, b"x"), FORM),
            (multipart({**MESSAGE, "file": file_of(LIMIT - bare)}), MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type):
                response = self.send(body, media_type)

                self.assertEqual((len(body), response.status_code), (LIMIT, 201))


class UnreadableBodyTests(BodyTestCase):
    def test_json_that_is_none(self):
        bodies = (
            b"{", b"}", b"x", b'{"a": 1,}', b"{'a': 1}", b'{"a": 1} {"b": 2}', b'"', b" ", b'{"content": "a\nb"}', b"\x00",
            b'{"receiver": "bob", "content": NaN}', b"[Infinity]", b"-Infinity", b"NaN",
            b'{"content": ' + b"1" * 5_000 + b"}",
            b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000,
        )  # fmt: skip

        for body, client in itertools.product(bodies, (self.client_of_alice, self.client)):
            with self.subTest(body=body[:40], length=len(body)):
                path = "/api/message" if client is self.client_of_alice else "/api/auth/register"

                self.assertRefused(self.send(body, path=path, client=client))

    def test_json_that_is_no_object(self):
        for body in (b"[]", b'["receiver"]', b'"text"', b"null", b"12", b"1e999", b"true", b'[{"receiver": "bob"}]'):
            for path in ("/api/message", "/api/block", "/api/auth/register", "/api/auth/login"):
                with self.subTest(body=body, path=path):
                    self.assertRefused(self.send(body, path=path), keys=("non_field_errors",))

    def test_no_body_at_all_misses_the_fields(self):
        for media_type in (JSON, FORM, MULTIPART_CONTENT, ""):
            with self.subTest(media_type=media_type):
                response = self.send(b"", media_type)

                required = ["This field is required."]
                self.assertEqual((response.status_code, response.json()), (400, {"receiver": required, "content": required}))

    def test_text_that_is_not_utf_8(self):
        latin = multipart(MESSAGE).replace(b"hi", b"h\xff")
        bodies = (
            (b'{"receiver": "bob", "content": "\xff"}', JSON),
            (b'{"receiver": "bob", "content": "\xed\xa0\x80"}', JSON),
            (b"receiver=bob&content=\xff", FORM),
            (b"receiver=bob&content=%FF", FORM),
            (b"receiver=bob&content=%ED%A0%80", FORM),
            (b"receiver=bob&content=hi&%FF=x", FORM),
            (b'{"receiver": "bob", "content": "\xff"}', FORM),
            (latin, MULTIPART_CONTENT),
            (latin, f"{MULTIPART_CONTENT}; charset=latin-1"),
        )

        for body, media_type in bodies:
            with self.subTest(body=body[:40], media_type=media_type):
                self.assertRefused(self.send(body, media_type))

    def test_utf_16_and_utf_32(self):
        content = json.dumps(MESSAGE)

        for encoding, media_type in itertools.product(
            ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
            (JSON, f"{JSON}; charset=utf-16", FORM, MULTIPART_CONTENT),
        ):
            with self.subTest(encoding=encoding, media_type=media_type):
                response = self.send(content.encode(encoding), media_type)

                self.assertRefused(response)
                self.assertIn("UTF-8", response.json()["detail"])

    def test_field_that_is_given_twice(self):
        twice = part('Content-Disposition: form-data; name="content"').replace(
            f"--{BOUNDARY}--".encode(),
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="receiver"\r\n\r\ncarol\r\n--{BOUNDARY}--'.encode(),
        )

        for body, media_type in (
            (b'{"receiver": "bob", "content": "hi", "receiver": "carol"}', JSON),
            (b'{"receiver": "bob", "content": "hi", "receiver": "bob"}', FORM),
            (b"receiver=bob&content=hi&receiver=carol", FORM),
            (twice, MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type, body=body[:60]):
                response = self.send(body, media_type)

                self.assertRefused(response, keys=("receiver",))
                self.assertEqual(response.json(), {"receiver": ["Give this field only once."]})

    def test_name_of_a_field_that_no_response_can_hold(self):
        response = self.send(rb'{"\ud800": 1, "\ud800": 2}')

        self.assertRefused(response, keys=("?",))

    def test_unreadable_body_where_none_is_needed(self):
        for path in ("/api/auth/logout", "/api/auth/logoutall"):
            for body, media_type, status in ((b"{", JSON, 400), (b"xx", "text/plain", 415), (b"", "text/plain", 204)):
                with self.subTest(path=path, body=body):
                    client = self.as_user(self.alice)

                    response = client.generic("POST", path, body, content_type=media_type)

                    self.assertEqual(response.status_code, status)
                    self.assertEqual(client.get("/api/auth/user").status_code, 401 if status == 204 else 200)

    def test_content_encoding(self):
        body = json.dumps(MESSAGE).encode()

        for encoding, content, method, path in itertools.product(
            ("gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip", "gzip,identity", "x", "*"),
            (body, gzip.compress(body)),
            ("POST", "PUT", "PATCH", "DELETE", "GET"),
            ("/api/message", "/api/auth/login", "/healthz", "/api/nothing"),
        ):
            with self.subTest(encoding=encoding, method=method, path=path):
                response = self.client_of_alice.generic(
                    method, path, content, content_type=JSON, headers={"content-encoding": encoding}
                )

                self.assertRefused(response, 415)
                self.assertIn(encoding, response.json()["detail"])

    def test_multipart_that_ends_early(self):
        whole = part('Content-Disposition: form-data; name="content"')

        for end in (b"", b"\r\n", f"\r\n--{BOUNDARY}".encode(), f"\r\n--{BOUNDARY}-".encode()):
            with self.subTest(end=end):
                self.assertRefused(
                    self.send(whole.removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode()) + end, MULTIPART_CONTENT)
                )

    def test_too_many_fields(self):
        many = {f"f{number}": "x" for number in range(1_001)}
        files = {f"f{number}": file_of(1) for number in range(101)}

        for body, media_type in (
            (urlencode(many), FORM),
            ("&".join(["content=x"] * 1_001), FORM),
            (multipart(many), MULTIPART_CONTENT),
            (multipart(files), MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type, length=len(body)):
                self.assertRefused(self.send(body, media_type))

    def test_malformed_multipart(self):
        whole = multipart(MESSAGE)
        encoded = 'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Transfer-Encoding: base64'
        bodies = (
            (whole, "multipart/form-data"),
            (whole, "multipart/form-data; boundary="),
            (whole, f"multipart/form-data; boundary={'x' * 202}"),
            (whole, "multipart/form-data; boundary=é"),
            (part(encoded, "a"), MULTIPART_CONTENT),
        )

        for body, media_type in bodies:
            with self.subTest(body=body[:40], media_type=media_type):
                self.assertRefused(self.send(body, media_type))

    def test_multipart_without_the_fields_misses_them(self):
        bodies = (
            b"garbage",
            multipart(MESSAGE)[:60],
            part("Content-Disposition: form-data"),
            part('Content-Disposition: form-data; name="content"; filename="a.txt"'),
            part("Content-Disposition: form-data; name*=hex''%41"),
            part("Content-Disposition: form-data; name*=nonsense''%41"),
        )

        for body in bodies:
            with self.subTest(body=body):
                response = self.send(body, MULTIPART_CONTENT)

                self.assertEqual(response.status_code, 400, response.content)
                self.assertLessEqual({*response.json()}, {"receiver", "content", "detail"})
                self.assertFalse(Message.objects.exists())

    def test_media_type_that_is_not_read(self):
        for media_type in (
            "text/plain",
            "application/xml",
            "application/jsonp",
            "x",
            "application/json/x",
            "a;b=\x00",
            "/",
            "é/é",
        ):
            with self.subTest(media_type=media_type):
                response = self.send(json.dumps(MESSAGE), media_type)

                self.assertRefused(response, 415)
                self.assertEqual(response.json(), {"detail": f'Unsupported media type "{media_type}" in request.'})


class LargeBodyTests(BodyTestCase):
    REFUSAL = {"detail": "The body is larger than 1 MiB."}

    def test_is_refused_on_every_path_in_every_media_type(self):
        bodies = (
            (json.dumps({**MESSAGE, "content": "x" * LIMIT}), JSON),
            (json.dumps(MESSAGE).ljust(LIMIT + 1), JSON),
            (urlencode({**MESSAGE, "content": "x" * LIMIT}), FORM),
            (multipart({**MESSAGE, "content": "x" * LIMIT}), MULTIPART_CONTENT),
            (multipart({**MESSAGE, "file": file_of(LIMIT)}), MULTIPART_CONTENT),
            ("x" * (LIMIT + 1), "text/plain"),
        )
        paths = ("/api/message", "/api/auth/register", "/api/nothing", "/healthz")

        for (body, media_type), path in itertools.product(bodies, paths):
            with self.subTest(media_type=media_type, length=len(body), path=path):
                response = self.send(body, media_type, path)

                self.assertRefused(response, 413)
                self.assertEqual(response.json(), self.REFUSAL)

    def test_is_refused_with_debug_on(self):
        with self.settings(DEBUG=True):
            response = self.send(b"x" * (LIMIT + 1))

        self.assertEqual((response.status_code, response.json()), (413, self.REFUSAL))
