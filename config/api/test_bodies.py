"""The request bodies that the service accepts, and the errors for all other bodies."""

import gzip
import io
import itertools
import json
from unittest.mock import patch
from urllib.parse import urlencode

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from config.testing.cases import ApiTestCase
from messageservice.models import Message

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
LIMIT = 2**20  # bytes
MESSAGE = {"receiver": "bob", "content": "hi"}
CONTENT_PART = 'Content-Disposition: form-data; name="content"'


def multipart(fields):
    """Return a multipart body with these fields."""
    return encode_multipart(BOUNDARY, fields)


def multipart_with(header, content="hi"):
    """Return a multipart body with the field `receiver`, and a second part with this header line and content."""
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="receiver"\r\n\r\nbob\r\n'
        f"--{BOUNDARY}\r\n{header}\r\n\r\n{content}\r\n--{BOUNDARY}--\r\n"
    ).encode()


def make_file(size):
    """Return a file of this size in bytes."""
    file = io.BytesIO(b"x" * size)
    file.name = "file.txt"
    return file


class BodyTestCase(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.alice_client = self.as_user(self.alice)

    def send(self, body, media_type=JSON, path="/api/message", client=None):
        """Send the body in a POST request, by default as alice."""
        return (client or self.alice_client).generic("POST", path, body, content_type=media_type)

    def assert_rejected(self, response, status=400, keys=("detail",)):
        """Assert that the error has only these keys, and that nothing is stored or logged."""
        self.assertEqual((response.status_code, [*response.json()]), (status, [*keys]), response.content[:200])
        self.assertFalse(Message.objects.exists())
        self.assertEqual((self.events(), self.log_lines("debug")), ([], []))


class ValidBodyTests(BodyTestCase):
    def test_accepts_json_form_multipart_and_json_with_the_media_type_of_a_form(self):
        bodies = (
            (json.dumps(MESSAGE), JSON),
            (json.dumps(MESSAGE), f"{JSON}; charset=utf-8"),
            (urlencode(MESSAGE), FORM),
            (multipart(MESSAGE), MULTIPART_CONTENT),
            (f" \n{json.dumps(MESSAGE)}", FORM),
            (json.dumps(MESSAGE), "Application/JSON"),
            (multipart(MESSAGE), f"Multipart/Form-Data; boundary={BOUNDARY}"),
            (json.dumps(MESSAGE), f"{JSON} ;x=y"),
            (multipart_with(f"{CONTENT_PART}\r\nContent-Transfer-Encoding: base64", "aGk="), MULTIPART_CONTENT),
        )

        for body, media_type in bodies:
            with self.subTest(media_type=media_type):
                response = self.send(body, media_type)

                self.assertEqual(response.status_code, 201)
                self.assertEqual(response.json(), {**response.json(), "sender": "alice", **MESSAGE})

    def test_accepts_many_characters_that_separate_values_elsewhere(self):
        for content in ('[,{"\\' * 2_000, "," * 10_000, '"' * 10_000, "\\" * 10_000, "]}:" * 3_000):
            with self.subTest(content=content[:5]):
                unknown = {f"unknown {number}": [content[:100], {}] for number in range(60)}

                response = self.send(json.dumps({**unknown, "receiver": "bob", "content": content}))

                self.assertEqual((response.status_code, response.json().get("content")), (201, content))

    def test_ignores_a_byte_order_mark_before_the_body(self):
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

    def test_accepts_content_encoding_identity(self):
        for encoding in ("identity", "Identity", "", " identity , identity"):
            with self.subTest(encoding=encoding):
                response = self.alice_client.post("/api/message", MESSAGE, headers={"content-encoding": encoding})

                self.assertEqual(response.status_code, 201)

    def test_keeps_text_unchanged_in_every_media_type(self):
        content = " á\u202e😀\n& =%+\t "

        for body, media_type in (
            (json.dumps({**MESSAGE, "content": content}), JSON),
            (urlencode({**MESSAGE, "content": content}), FORM),
            (multipart({**MESSAGE, "content": content}), MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type):
                response = self.send(body, media_type)

                self.assertEqual(response.json()["content"], content)

    def test_accepts_a_body_of_exactly_1_mib(self):
        form = urlencode(MESSAGE).encode() + b"&padding="
        overhead = len(multipart({**MESSAGE, "file": make_file(0)}))

        for body, media_type in (
            (json.dumps(MESSAGE).encode().ljust(LIMIT), JSON),
            (form.ljust(LIMIT, b"x"), FORM),
            (multipart({**MESSAGE, "file": make_file(LIMIT - overhead)}), MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type):
                response = self.send(body, media_type)

                self.assertEqual((len(body), response.status_code), (LIMIT, 201))


class InvalidBodyTests(BodyTestCase):
    def test_rejects_invalid_json(self):
        bodies = (
            b"{", b"}", b"x", b'{"a": 1,}', b"{'a': 1}", b'{"a": 1} {"b": 2}', b'"', b" ", b'{"content": "a\nb"}', b"\x00",
            b'{"receiver": "bob", "content": NaN}', b"[Infinity]", b"-Infinity", b"NaN",
            b'{"content": ' + b"1" * 5_000 + b"}",
            b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000,
        )  # fmt: skip

        for body, client in itertools.product(bodies, (self.alice_client, self.client)):
            with self.subTest(body=body[:40], length=len(body)):
                path = "/api/message" if client is self.alice_client else "/api/auth/register"

                self.assert_rejected(self.send(body, path=path, client=client))

    def test_rejects_json_with_too_many_values_before_it_is_parsed(self):
        for value in ("[],", "0,", '"",', '"', '{"a":[],', "[", '{"a":', '"' + r"\"" * 9 + '",'):
            for start in ('{"username": [', '{"username": "x", "unknown": ['):
                with self.subTest(value=value, start=start), patch("rest_framework.utils.json.loads") as loads:
                    body = start + value * ((LIMIT - len(start)) // len(value))

                    response = self.send(body, path="/api/auth/login", client=self.client)

                    self.assert_rejected(response)
                    self.assertEqual(response.json(), {"detail": "The body has too many values."})
                    self.assertFalse(loads.called)

    def test_rejects_json_that_is_not_an_object(self):
        for body in (
            b"[]",
            b'["receiver"]',
            b'"text"',
            b"null",
            b"12",
            b"1e999",
            b"true",
            b'[{"receiver": "bob"}]',
            b"[" * 500 + b"]" * 500,
        ):
            for path in ("/api/message", "/api/block", "/api/auth/register", "/api/auth/login"):
                with self.subTest(body=body, path=path):
                    self.assert_rejected(self.send(body, path=path), keys=("non_field_errors",))

    def test_reports_missing_fields_for_an_empty_body(self):
        for media_type in (JSON, FORM, MULTIPART_CONTENT, ""):
            with self.subTest(media_type=media_type):
                response = self.send(b"", media_type)

                required = ["This field is required."]
                self.assertEqual((response.status_code, response.json()), (400, {"receiver": required, "content": required}))

    def test_rejects_text_that_is_not_utf_8(self):
        not_utf_8 = multipart(MESSAGE).replace(b"hi", b"h\xff")
        bodies = (
            (b'{"receiver": "bob", "content": "\xff"}', JSON),
            (b'{"receiver": "bob", "content": "\xed\xa0\x80"}', JSON),
            (b"receiver=bob&content=\xff", FORM),
            (b"receiver=bob&content=%FF", FORM),
            (b"receiver=bob&content=%ED%A0%80", FORM),
            (b"receiver=bob&content=hi&%FF=x", FORM),
            (b'{"receiver": "bob", "content": "\xff"}', FORM),
            (not_utf_8, MULTIPART_CONTENT),
            (not_utf_8, f"{MULTIPART_CONTENT}; charset=latin-1"),
            (multipart_with(f"{CONTENT_PART}\r\nContent-Transfer-Encoding: base64", "//8="), MULTIPART_CONTENT),
        )

        for body, media_type in bodies:
            with self.subTest(body=body[:40], media_type=media_type):
                self.assert_rejected(self.send(body, media_type))

    def test_rejects_utf_16_and_utf_32(self):
        content = json.dumps(MESSAGE)

        for encoding, media_type in itertools.product(
            ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
            (JSON, f"{JSON}; charset=utf-16", FORM, MULTIPART_CONTENT),
        ):
            with self.subTest(encoding=encoding, media_type=media_type):
                response = self.send(content.encode(encoding), media_type)

                self.assert_rejected(response)
                self.assertIn("UTF-8", response.json()["detail"])

    def test_rejects_a_repeated_field(self):
        repeated = multipart_with('Content-Disposition: form-data; name="content"').replace(
            f"--{BOUNDARY}--".encode(),
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="receiver"\r\n\r\ncarol\r\n--{BOUNDARY}--'.encode(),
        )

        for body, media_type in (
            (b'{"receiver": "bob", "content": "hi", "receiver": "carol"}', JSON),
            (b'{"receiver": "bob", "content": "hi", "receiver": "bob"}', FORM),
            (b"receiver=bob&content=hi&receiver=carol", FORM),
            (repeated, MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type, body=body[:60]):
                response = self.send(body, media_type)

                self.assert_rejected(response, keys=("receiver",))
                self.assertEqual(response.json(), {"receiver": ["Give this field only once."]})

    def test_error_replaces_a_field_name_that_cannot_be_encoded(self):
        response = self.send(rb'{"\ud800": 1, "\ud800": 2}')

        self.assert_rejected(response, keys=("?",))

    def test_rejects_an_invalid_body_where_no_body_is_required(self):
        for path in ("/api/auth/logout", "/api/auth/logoutall"):
            for body, media_type, status in ((b"{", JSON, 400), (b"xx", "text/plain", 415), (b"", "text/plain", 204)):
                with self.subTest(path=path, body=body):
                    client = self.as_user(self.alice)

                    response = client.generic("POST", path, body, content_type=media_type)

                    self.assertEqual(response.status_code, status)
                    self.assertEqual(client.get("/api/auth/user").status_code, 401 if status == 204 else 200)

    def test_rejects_every_other_content_encoding(self):
        body = json.dumps(MESSAGE).encode()

        for encoding, content, method, path in itertools.product(
            ("gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip", "gzip,identity", "x", "*"),
            (body, gzip.compress(body)),
            ("POST", "PUT", "PATCH", "DELETE", "GET"),
            ("/api/message", "/api/auth/login", "/healthz", "/api/nothing"),
        ):
            with self.subTest(encoding=encoding, method=method, path=path):
                response = self.alice_client.generic(
                    method, path, content, content_type=JSON, headers={"content-encoding": encoding}
                )

                self.assert_rejected(response, 415)
                self.assertIn(encoding, response.json()["detail"])

    def test_rejects_a_content_length_that_is_no_number_or_too_large(self):
        for length, status in (("-1", 400), ("1e3", 400), ("½", 400), ("9" * 20, 413), ("9" * 5_000, 400)):
            with self.subTest(length[:20]):
                response = self.alice_client.post("/api/message", MESSAGE, CONTENT_LENGTH=length)

                self.assert_rejected(response, status)

    def test_rejects_incomplete_multipart(self):
        complete = multipart_with('Content-Disposition: form-data; name="content"')

        for end in (b"", b"\r\n", f"\r\n--{BOUNDARY}".encode(), f"\r\n--{BOUNDARY}-".encode()):
            with self.subTest(end=end):
                self.assert_rejected(
                    self.send(complete.removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode()) + end, MULTIPART_CONTENT)
                )

    def test_rejects_too_many_fields(self):
        many = {f"f{number}": "x" for number in range(1_001)}
        files = {f"f{number}": make_file(1) for number in range(101)}

        for body, media_type in (
            (urlencode(many), FORM),
            ("&".join(["content=x"] * 1_001), FORM),
            (multipart(many), MULTIPART_CONTENT),
            (multipart(files), MULTIPART_CONTENT),
        ):
            with self.subTest(media_type=media_type, length=len(body)):
                self.assert_rejected(self.send(body, media_type))

    def test_rejects_malformed_multipart(self):
        complete = multipart(MESSAGE)
        encoded = 'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Transfer-Encoding: base64'
        bodies = (
            (complete, "multipart/form-data"),
            (complete, "multipart/form-data; boundary="),
            (complete, f"multipart/form-data; boundary={'x' * 202}"),
            (complete, "multipart/form-data; boundary=é"),
            (multipart_with(encoded, "a"), MULTIPART_CONTENT),
        )

        for body, media_type in bodies:
            with self.subTest(body=body[:40], media_type=media_type):
                self.assert_rejected(self.send(body, media_type))

    def test_reports_missing_fields_for_multipart_without_them(self):
        bodies = (
            b"garbage",
            multipart(MESSAGE)[:60],
            multipart_with("Content-Disposition: form-data"),
            multipart_with('Content-Disposition: form-data; name="content"; filename="a.txt"'),
            multipart_with("Content-Disposition: form-data; name*=hex''%41"),
            multipart_with("Content-Disposition: form-data; name*=nonsense''%41"),
        )

        for body in bodies:
            with self.subTest(body=body):
                response = self.send(body, MULTIPART_CONTENT)

                self.assertEqual(response.status_code, 400, response.content)
                self.assertLessEqual({*response.json()}, {"receiver", "content", "detail"})
                self.assertFalse(Message.objects.exists())

    def test_rejects_an_unsupported_media_type(self):
        for media_type in (
            "text/plain",
            "application/xml",
            "application/jsonp",
            "x",
            "application/json/x",
            "a;b=\x00",
            "/",
            "é/é",
            "*/*",
            "application/*",
            f"multipart/*; boundary={BOUNDARY}",
        ):
            with self.subTest(media_type=media_type):
                body = multipart(MESSAGE) if media_type.startswith("multipart") else json.dumps(MESSAGE)

                response = self.send(body, media_type)

                self.assert_rejected(response, 415)
                self.assertEqual(response.json(), {"detail": f'Unsupported media type "{media_type}" in request.'})


class LargeBodyTests(BodyTestCase):
    ERROR = {"detail": "The body is larger than 1 MiB."}

    def test_rejects_a_body_over_1_mib_on_every_path_in_every_media_type(self):
        bodies = (
            (json.dumps({**MESSAGE, "content": "x" * LIMIT}), JSON),
            (json.dumps(MESSAGE).ljust(LIMIT + 1), JSON),
            (urlencode({**MESSAGE, "content": "x" * LIMIT}), FORM),
            (multipart({**MESSAGE, "content": "x" * LIMIT}), MULTIPART_CONTENT),
            (multipart({**MESSAGE, "file": make_file(LIMIT)}), MULTIPART_CONTENT),
            ("x" * (LIMIT + 1), "text/plain"),
        )
        paths = ("/api/message", "/api/auth/register", "/api/nothing", "/healthz")

        for (body, media_type), path in itertools.product(bodies, paths):
            with self.subTest(media_type=media_type, length=len(body), path=path):
                response = self.send(body, media_type, path)

                self.assert_rejected(response, 413)
                self.assertEqual(response.json(), self.ERROR)

    def test_rejects_a_body_over_1_mib_with_debug_on(self):
        with self.settings(DEBUG=True):
            response = self.send(b"x" * (LIMIT + 1))

        self.assertEqual((response.status_code, response.json()), (413, self.ERROR))
