import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from operator import itemgetter
from threading import Event
from unicodedata import normalize
from unittest import skipUnless
from unittest.mock import ANY, patch
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.test import Client, override_settings
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from rest_framework.test import APIClient

from accounts.actions import deactivate
from accounts.authentication import AuthToken, issue_token
from accounts.hashers import LONGEST_PASSWORD, OwaspArgon2Hasher
from config.database.sql import fetch_one
from config.environment import Limit
from config.testing.cases import LOGS, PASSWORD, ApiTestCase, ConcurrentTestCase, with_token

FORM = "application/x-www-form-urlencoded"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MISSING = ["This field is required."]
BLANK = ["This field may not be blank."]
NULL = ["This field may not be null."]
NO_STRING = ["Not a valid string."]
RESERVED = ["Names that begin with deleted- are reserved."]
TAKEN = {"username": ["A user with that username already exists."]}
INCORRECT = {"non_field_errors": ["Incorrect credentials"]}
NOT_TEXT = ("true", "5", "1.5", "1e999", "[]", '["dave"]', "{}")  # as JSON
# PASSWORD, as Django's own hasher stores it with its own parameters.
OUTDATED_HASH = (
    "argon2$argon2id$v=19$m=102400,t=2,p=8$cnp1S3BmYjNHeTBGdXRFUE1GMUxuVw$tOxrViTlHxIGRDIimmz5aM73FlxbRUJLq3KiMLrdLQg"
)


def clock_at(time: datetime):
    return patch("django.utils.timezone.now", return_value=time)


class RegisterTests(ApiTestCase):
    def register(self, **fields):
        return self.client.post("/api/auth/register", {"username": "dave", "password": PASSWORD, **fields})

    def register_raw(self, body):
        return self.client.post("/api/auth/register", body, content_type="application/json")

    def log_in(self, **credentials):
        return self.client.post("/api/auth/login", credentials)

    def assert_registered(self, response, username, email=""):
        self.assertEqual(response.status_code, 201, response.content)
        self.assertEqual(response.json(), {"user": {"username": username, "email": email}, "token": ANY, "expiry": ANY})
        self.assertTime(response.json()["expiry"])
        self.assertEqual(with_token(response.json()["token"]).get("/api/message").status_code, 200)
        self.assertTrue(User.objects.filter(username=username, email=email, is_staff=False, is_superuser=False).exists())

    def assert_rejected(self, response, errors):
        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), errors)
        self.assertEqual(User.objects.count(), 3)

    def test_creates_a_user_and_a_token(self):
        response = self.register(email="dave@example.org")

        self.assert_registered(response, "dave", "dave@example.org")
        self.assertEqual(User.objects.count(), 4)
        self.assertEqual(self.events(), [])

    def test_needs_no_email(self):
        for name, fields in (("dave", {}), ("erin", {"email": ""})):
            with self.subTest(fields):
                response = self.register(username=name, **fields)

                self.assert_registered(response, name)

    def test_a_new_user_can_log_in(self):
        self.register()

        response = self.log_in(username="dave", password=PASSWORD)

        self.assertEqual(response.status_code, 200)

    def test_ignores_permissions_in_the_body(self):
        response = self.register(is_staff=True, is_superuser=True)

        self.assert_registered(response, "dave")

    def test_stores_the_password_hashed_with_argon2id(self):
        self.register()

        self.assertRegex(User.objects.get(username="dave").password, r"^argon2\$argon2id\$v=19\$m=19456,t=2,p=1\$")

    def test_hashes_the_same_password_differently_for_each_user(self):
        self.register()
        self.register(username="erin")

        hashes = {*User.objects.filter(username__in=("dave", "erin")).values_list("password", flat=True)}
        self.assertEqual(len(hashes), 2)

    def test_does_not_store_the_text_of_a_token(self):
        token = self.register().json()["token"]

        stored = User.objects.get(username="dave").auth_token_set.values().get()
        self.assertNotIn(token, str(stored))

    def test_takes_every_allowed_character_in_a_name(self):
        for name in ("7", "a", "@dave.the+brave-one_", "..d", "d" * 150):
            with self.subTest(name):
                response = self.register(username=name)

                self.assert_registered(response, name)

    def test_rejects_a_name_with_other_characters(self):
        plain = ["Use ASCII letters, digits and @ . + - _ only, with a letter or digit among them."]
        odd = ("dave smith", " dave", "dave ", "dave\n", "da/ve", "dave!", "däve", "d\u0430ve", "٣", "🐢")
        without_letter_or_digit = ("..", "@", "._-")
        for name in (*odd, *without_letter_or_digit):
            with self.subTest(name):
                response = self.register(username=name)

                self.assert_rejected(response, {"username": plain})

    def test_rejects_a_missing_or_blank_name(self):
        wrong = (({}, MISSING), ({"username": None}, NULL), ({"username": ""}, BLANK), ({"username": " \t\n"}, BLANK))
        for fields, errors in wrong:
            with self.subTest(fields):
                response = self.client.post("/api/auth/register", {"password": PASSWORD, **fields})

                self.assert_rejected(response, {"username": errors})

    def test_rejects_a_name_that_is_too_long(self):
        for length in (151, 900_000):
            with self.subTest(length):
                response = self.register(username="d" * length)

                self.assert_rejected(response, {"username": ["Ensure this field has no more than 150 characters."]})

    def test_rejects_a_taken_name_in_any_letter_case(self):
        for name in ("alice", "Alice", "ALICE", "aLiCe"):
            with self.subTest(name):
                response = self.register(username=name)

                self.assert_rejected(response, TAKEN)
                self.assertFalse(self.alice.auth_token_set.exists())

    def test_rejects_values_that_are_not_text(self):
        good = {"username": '"dave"', "password": f'"{PASSWORD}"'}
        for field in good:
            for value in NOT_TEXT:
                with self.subTest(field, value=value):
                    fields = {**good, field: value}
                    body = ", ".join(f'"{name}": {text}' for name, text in fields.items())

                    response = self.register_raw(f"{{{body}}}")

                    self.assert_rejected(response, {field: NO_STRING})

    def test_rejects_nul_and_lone_surrogates(self):
        for field in ("username", "password", "email"):
            for text in (r"dave\u0000smith@example.org", r"dave\ud800smith@example.org", r"\udc00"):
                with self.subTest(field, text=text):
                    fields = {"username": "dave", "password": PASSWORD, "email": "dave@example.org", field: "<text>"}

                    response = self.register_raw(json.dumps(fields).replace("<text>", text))

                    self.assert_rejected(response, {field: ANY})

    def test_rejects_a_missing_or_blank_password(self):
        for fields, errors in (({}, MISSING), ({"password": None}, NULL), ({"password": ""}, BLANK)):
            with self.subTest(fields):
                response = self.client.post("/api/auth/register", {"username": "dave", **fields})

                self.assert_rejected(response, {"password": errors})

    def test_takes_a_password_of_1024_characters_whole(self):
        longest = "long 🐢 " * 146 + "ab"

        response = self.register(password=longest)

        self.assert_registered(response, "dave")
        self.assertEqual(self.log_in(username="dave", password=longest).status_code, 200)
        self.assertEqual(self.log_in(username="dave", password=longest[:-1]).json(), INCORRECT)

    def test_rejects_a_password_that_is_too_long(self):
        for length in (1025, 900_000):
            with self.subTest(length):
                response = self.register(password="🐢" + "x" * (length - 1))

                self.assert_rejected(response, {"password": ["Ensure this field has no more than 1024 characters."]})

    def test_rejects_a_weak_password(self):
        weak = {
            "x7k2!qw": "This password is too short. It must contain at least 8 characters.",
            "password1": "This password is too common.",
            "8203719465281": "This password is entirely numeric.",
            "Dave-the-brave1": "The password is too similar to the username.",
        }
        for password, error in weak.items():
            with self.subTest(password):
                response = self.register(username="dave-the-brave", password=password)

                self.assert_rejected(response, {"password": [error]})

    def test_compares_the_password_with_the_name_but_not_with_the_email(self):
        validators = settings.AUTH_PASSWORD_VALIDATORS
        short_ones_too = [validator for validator in validators if "MinimumLength" not in validator["NAME"]]

        with override_settings(AUTH_PASSWORD_VALIDATORS=short_ones_too):
            response = self.register(username="test_user", password="test_pw", email="test@test.com")

        self.assert_registered(response, "test_user", "test@test.com")

    def test_takes_white_space_in_a_password_as_typed(self):
        for name, password, other in (("dave", " \tspaced secret \n", "spaced secret"), ("erin", " " * 12, " " * 11)):
            with self.subTest(password):
                response = self.register(username=name, password=password)

                self.assert_registered(response, name)
                self.assertEqual(self.log_in(username=name, password=password).status_code, 200)
                self.assertEqual(self.log_in(username=name, password=other).json(), INCORRECT)

    def test_rejects_a_malformed_email(self):
        malformed = ["Enter a valid email address."]
        for email in ("dave", "dave@", "@example.org", "dave@example", "dave smith@example.org", "a@b.org, c@d.org", 5):
            with self.subTest(email):
                response = self.register(email=email)

                self.assert_rejected(response, {"email": malformed})

    def test_rejects_an_email_longer_than_an_address_can_be(self):
        response = self.register(email=f"{'d' * 60}@{'example.' * 24}org")

        self.assert_rejected(response, {"email": ["Ensure this field has no more than 254 characters."]})

    def test_names_every_wrong_field_at_once(self):
        short = ["This password is too short. It must contain at least 8 characters."]
        similar = ["The password is too similar to the username."]
        malformed = ["Enter a valid email address."]
        for username, error in (("..", ANY), ("ALICE", TAKEN["username"]), ("Deleted-1", RESERVED), ("x" * 151, ANY)):
            for password, errors in (("", BLANK), ("x7k2!qw", short)):
                with self.subTest(username, password=password):
                    response = self.register(username=username, password=password, email="dave")

                    self.assert_rejected(response, {"username": error, "password": errors, "email": malformed})
        response = self.register(username="dave smith", password="Dave-smith1", email="dave")
        self.assert_rejected(response, {"username": ANY, "password": similar, "email": malformed})
        self.assertEqual(
            self.register_raw('{"username": 5, "password": "x7k2!qw"}').json(), {"username": NO_STRING, "password": short}
        )

    def test_does_not_hash_if_a_field_is_invalid(self):
        for wrong in ({"username": "Alice"}, {"username": "deleted-dave"}, {"password": "password1"}, {"email": "dave"}):
            with self.subTest(wrong), patch.object(OwaspArgon2Hasher, "encode") as encode:
                response = self.register(**wrong)

                self.assertEqual(response.status_code, 400)
                encode.assert_not_called()

    @override_settings(LIMIT_SIGNUP=Limit(1, 60))
    def test_counts_a_sign_up_that_cost_a_hash_and_lost_the_name(self):
        encode = OwaspArgon2Hasher.encode

        def encode_slowly(hasher, password, salt):
            User.objects.create(username="DAVE")  # by another request
            return encode(hasher, password, salt)

        with patch.object(OwaspArgon2Hasher, "encode", encode_slowly):
            response = self.register()

        self.assertEqual((response.status_code, response.json()), (400, TAKEN))
        self.assertEqual(self.register(username="erin").status_code, 429)

    def test_rejects_a_name_reserved_for_deleted_accounts(self):
        for name in ("deleted-0123456789ab", "deleted-", "Deleted-dave", "DELETED-DAVE"):
            with self.subTest(name):
                response = self.register(username=name)

                self.assert_rejected(response, {"username": RESERVED})
        self.assert_registered(self.register(username="deleted"), "deleted")


class ParallelRegisterTests(ConcurrentTestCase):
    def register(self, username):
        return APIClient().post("/api/auth/register", {"username": username, "password": PASSWORD})

    def test_only_one_request_gets_the_name(self):
        for names in (["dave"] * 2, ["erin"] * 8, ["frank", "FRANK"], ["grace", "Grace", "gRACE", "GRACE"] * 2):
            with self.subTest(names):
                responses = self.in_parallel(*[partial(self.register, name) for name in names])

                outcomes = sorted(((response.status_code, response.json()) for response in responses), key=itemgetter(0))
                user = User.objects.get(username__iexact=names[0])
                session = {"user": {"username": user.username, "email": ""}, "token": ANY, "expiry": ANY}
                self.assertEqual(outcomes, [(201, session)] + [(400, TAKEN)] * (len(names) - 1))
                self.assertEqual(user.auth_token_set.count(), 1)


class LoginTests(ApiTestCase):
    def log_in(self, username="alice", password=PASSWORD):
        return self.client.post("/api/auth/login", {"username": username, "password": password})

    def deactivate(self, user):
        user.is_active = False
        user.save()

    def assert_incorrect(self, response):
        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), INCORRECT)

    def assert_no_session(self):
        self.assertFalse(User.objects.filter(auth_token_set__isnull=False).exists())

    def test_returns_the_user_and_a_token(self):
        User.objects.filter(username="alice").update(email="alice@example.org")

        response = self.log_in()

        self.assertEqual(response.status_code, 200)
        self.assertEqual(
            response.json(),
            {"user": {"username": "alice", "email": "alice@example.org"}, "token": ANY, "expiry": ANY},
        )
        self.assertTime(response.json()["expiry"])
        self.assertEqual(self.events(), [("Login", "alice", "-")])

    def test_returns_a_new_token_each_time_and_keeps_the_old_tokens(self):
        tokens = [self.log_in().json()["token"] for _ in range(3)]

        self.assertEqual(len(set(tokens)), 3)
        for token in tokens:
            self.assertEqual(with_token(token).get("/api/message").status_code, 200)

    def test_rejects_a_missing_or_blank_field(self):
        good = {"username": "alice", "password": PASSWORD}
        for field in good:
            for fields, errors in (({}, MISSING), ({field: ""}, BLANK), ({field: None}, NULL), ({field: 5}, NO_STRING)):
                with self.subTest(field, fields=fields):
                    rest = {name: value for name, value in good.items() if name != field}

                    response = self.client.post("/api/auth/login", {**rest, **fields})

                    self.assertEqual(response.status_code, 400)
                    self.assertEqual(response.json(), {field: errors})
        self.assert_no_session()
        self.assertEqual(self.events(), [])

    def test_rejects_nul_and_lone_surrogates(self):
        for field in ("username", "password"):
            for character in ("\x00", "\ud800", "\udc00"):
                with self.subTest(field, character=character):
                    credentials = {"username": "alice", "password": PASSWORD, field: f"alice{character}"}

                    response = self.client.post("/api/auth/login", json.dumps(credentials), content_type="application/json")

                    self.assertEqual(response.status_code, 400)
                    self.assertEqual(response.json(), {field: ANY})

    def test_rejects_an_unknown_name(self):
        response = self.log_in("nobody")

        self.assert_incorrect(response)
        self.assert_no_session()
        self.assertEqual(self.events(), [("Invalid Login", "nobody", "-")])

    def test_rejects_a_wrong_password(self):
        for password in ("another secret", PASSWORD.upper(), f" {PASSWORD}", f"{PASSWORD} ", PASSWORD[:-1]):
            with self.subTest(password):
                response = self.log_in(password=password)

                self.assert_incorrect(response)
        self.assert_no_session()
        self.assertEqual(self.events(), [("Invalid Login", "alice", "-")] * 5)

    def test_rejects_a_deactivated_account(self):
        self.deactivate(self.alice)

        response = self.log_in()

        self.assert_incorrect(response)
        self.assert_no_session()
        self.assertEqual(self.events(), [("Invalid Login", "alice", "-")])

    def test_rejects_a_name_with_white_space(self):
        for name in (" alice", "alice ", "alice\n"):
            with self.subTest(name):
                response = self.log_in(name)

                self.assert_incorrect(response)
        self.assert_no_session()

    def test_rejects_every_password_if_the_hash_is_malformed(self):
        client = self.as_user(self.alice)
        argon2 = "argon2$argon2id$v=19$m=19456,t=2,p=1$"
        for password_hash in (
            "",
            "!",
            "abc",
            "md5$a$b",
            "argon2",
            "argon2$",
            "argon2$garbage",
            "argon2$argon2id$v=19$m=1,t=1,p=1$x$y",
            f"{argon2}é$x",
            "pbkdf2_sha256",
            "pbkdf2_sha256$abc",
            "pbkdf2_sha256$abc$salt$x",
            "pbkdf2_sha256$1$$x",
        ):
            with self.subTest(password_hash), self.settings(LIMIT_LOGIN=None, LIMIT_PASSWORD=None):
                User.objects.filter(pk=self.alice.pk).update(password=password_hash)

                with patch.object(
                    OwaspArgon2Hasher, "verify", autospec=True, side_effect=OwaspArgon2Hasher.verify
                ) as verify:
                    response = self.log_in()

                self.assert_incorrect(response)
                self.assertEqual(verify.call_args.args[2], OwaspArgon2Hasher.unmatched_hash)  # it took as long
                for path in ("password", "user/delete"):
                    body = {"current_password": PASSWORD, "new_password": "a new long secret"}
                    self.assertEqual(client.post(f"/api/auth/{path}", body).status_code, 400)

    def test_renews_only_outdated_hashes(self):
        current = "argon2$argon2id$v=19$m=19456,t=2,p=1$"
        hashes = {  # of PASSWORD
            "Argon2 with Django's parameters": (OUTDATED_HASH, True),
            "Argon2 with the service's": (
                f"{current}MElNaE9NQVVnQTY4VGpRNmp4Z0VybQ$N0AXzbnGpMvqjucNOrAPki0x7nXfINQoS9qvZykfWZY",
                False,
            ),
            "Argon2 with a salt of 16 bytes": (
                f"{current}yMnKy8zNzs/Q0dLT1NXW1w$mbYOJBJde6UM1knDb5wfqVf1U62hqJbwpk1gK3hqnHI",
                False,
            ),
            "Django's default": (PBKDF2PasswordHasher().encode(PASSWORD, "salt", iterations=1000), True),
        }
        for kind, (password_hash, is_outdated) in hashes.items():
            with self.subTest(kind):
                User.objects.filter(pk=self.alice.pk).update(password=password_hash)

                self.assertEqual(self.log_in(password="another secret").status_code, 400)
                self.assertEqual(self.log_in().status_code, 200)

                self.alice.refresh_from_db()
                self.assertEqual(self.alice.password != password_hash, is_outdated)
                self.assertTrue(self.alice.password.startswith(current))
                self.assertEqual(self.log_in().status_code, 200)

    def test_keeps_an_event_on_one_line_whatever_the_name(self):
        name = 'eve\n{"event": "Login", "who": "alice"}\r\u2028'

        self.log_in(name)

        self.assertEqual(self.events(), [("Invalid Login", name, "-")])
        self.assertEqual((self.log_folder / "activity.log").read_bytes().count(b"\n"), 1)

    def test_logs_neither_password_nor_token(self):
        token = self.log_in().json()["token"]
        with_token(token).get("/api/message")
        self.log_in(password="another secret")

        logs = "".join(str(self.log_lines(name)) for name in LOGS)
        self.assertEqual((len(self.log_lines("requests")), len(self.log_lines("activity"))), (3, 2))
        for secret in (PASSWORD, token, "another secret"):
            self.assertNotIn(secret, logs)


class OpenPathTests(ApiTestCase):
    """What register and login have in common."""

    requests = (("/api/auth/register", 201), ("/api/auth/login", 200))  # in this order, dave can log in

    def dave(self, number=0):
        return {"username": f"dave-{number}", "password": ' +a & "b" = ü%20🐢 '}

    def test_read_json_and_forms(self):
        formats = {
            "JSON": (json.dumps, "application/json"),
            "JSON labelled as a form": (json.dumps, FORM),  # as curl -d sends it
            "JSON with white space before it, labelled as a form": (lambda fields: f"\n {json.dumps(fields)}", FORM),
            "form": (urlencode, FORM),
            "multipart": (partial(encode_multipart, BOUNDARY), MULTIPART_CONTENT),
        }
        for number, (name, (encode, content_type)) in enumerate(formats.items()):
            dave = self.dave(number)
            for path, status in self.requests:
                with self.subTest(name, path=path):
                    response = self.client.post(path, encode(dave), content_type=content_type)

                    self.assertEqual(response.status_code, status, response.content)
                    self.assertEqual(response.json()["user"], {"username": dave["username"], "email": ""})
            self.assertTrue(User.objects.get(username=dave["username"]).check_password(dave["password"]))

    def test_ignore_authorization(self):
        with clock_at(LONG_AGO):
            _, expired = issue_token(self.alice)
        headers = (f"Token {expired}", "Token garbage", "Token", "Token \xff", "Bearer a b", "Basic Ym9iOmJvYg==")
        for number, header in enumerate(headers):
            for path, status in self.requests:
                with self.subTest(header, path=path):
                    response = self.client.post(path, self.dave(number), headers={"authorization": header})

                    self.assertEqual(response.status_code, status)

    def test_reject_a_url_parameter(self):
        for path, _ in self.requests:
            for parameters, name in (("username=alice", "username"), ("page=1", "page"), ("next=", "next")):
                with self.subTest(path, parameters=parameters):
                    response = self.client.post(f"{path}?{parameters}", {"username": "alice", "password": PASSWORD})

                    self.assertEqual(response.status_code, 400)
                    self.assertEqual(response.json(), {name: ["Unknown parameter."]})
        self.assertEqual(self.events(), [])

    def test_reject_a_body_that_is_no_object(self):
        nothing = {"username": MISSING, "password": MISSING}
        bodies = {
            "": nothing,
            "{}": nothing,
            "[]": {"non_field_errors": ANY},
            "5": {"non_field_errors": ANY},
            '"alice"': {"non_field_errors": ANY},
            "null": {"non_field_errors": ANY},
            "{": {"detail": ANY},
        }
        for path, _ in self.requests:
            for body, errors in bodies.items():
                with self.subTest(path, body=body):
                    response = self.client.post(path, body, content_type="application/json")

                    self.assertEqual(response.status_code, 400)
                    self.assertEqual(response.json(), errors)

    def test_reject_a_file_in_place_of_a_text(self):
        for path, _ in self.requests:
            with self.subTest(path):
                file = SimpleUploadedFile("name.txt", b"dave")

                response = self.client.post(path, {"username": file, "password": PASSWORD}, format="multipart")

                self.assertEqual(response.status_code, 400)
                self.assertEqual(response.json(), {"username": NO_STRING})

    def test_accept_only_post(self):
        for path, _ in self.requests:
            for method in ("GET", "PUT", "PATCH", "DELETE"):
                with self.subTest(path, method=method):
                    response = self.client.generic(method, path)

                    self.assertEqual(response.status_code, 405)
                    self.assertEqual(response.json(), {"detail": f'Method "{method}" not allowed.'})


class LogoutTests(ApiTestCase):
    def test_revokes_only_its_own_token(self):
        client, other, bob = self.as_user(self.alice), self.as_user(self.alice), self.as_user(self.bob)

        response = client.post("/api/auth/logout")

        self.assertEqual(response.status_code, 204)
        self.assertEqual(response.content, b"")
        self.assertEqual([c.get("/api/message").status_code for c in (client, other, bob)], [401, 200, 200])
        self.assertEqual(self.events(), [])

    def test_rejects_without_a_token(self):
        response = self.client.post("/api/auth/logout")

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})

    def test_rejects_the_same_token_again(self):
        client = self.as_user(self.alice)
        client.post("/api/auth/logout")

        response = client.post("/api/auth/logout")

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.json(), {"detail": "Invalid token."})

    def test_rejects_a_url_parameter(self):
        client = self.as_user(self.alice)

        response = client.post("/api/auth/logout?all=true")

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"all": ["Unknown parameter."]})
        self.assertEqual(client.get("/api/message").status_code, 200)

    def test_accepts_only_post(self):
        client = self.as_user(self.alice)

        response = client.get("/api/auth/logout")

        self.assertEqual(response.status_code, 405)
        self.assertEqual(response.json(), {"detail": 'Method "GET" not allowed.'})
        self.assertEqual(client.get("/api/message").status_code, 200)


class LogoutAllTests(ApiTestCase):
    def test_revokes_every_token_of_the_user_only(self):
        alices = [self.as_user(self.alice) for _ in range(3)]
        bob = self.as_user(self.bob)

        response = alices[1].post("/api/auth/logoutall")

        self.assertEqual(response.status_code, 204)
        self.assertEqual(response.content, b"")
        self.assertEqual([c.get("/api/message").status_code for c in (*alices, bob)], [401, 401, 401, 200])
        self.assertEqual(self.events(), [("Logout All", "alice", "-")])

    def test_lets_the_user_log_in_again(self):
        self.as_user(self.alice).post("/api/auth/logoutall")

        response = self.client.post("/api/auth/login", {"username": "alice", "password": PASSWORD})

        self.assertEqual(response.status_code, 200)
        self.assertEqual(with_token(response.json()["token"]).get("/api/message").status_code, 200)

    def test_rejects_without_a_token(self):
        client = self.as_user(self.alice)

        response = self.client.post("/api/auth/logoutall")

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})
        self.assertEqual(client.get("/api/message").status_code, 200)
        self.assertEqual(self.events(), [])

    def test_rejects_the_same_token_again(self):
        client = self.as_user(self.alice)
        client.post("/api/auth/logoutall")

        response = client.post("/api/auth/logoutall")

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.json(), {"detail": "Invalid token."})

    def test_rejects_a_url_parameter(self):
        client = self.as_user(self.alice)

        response = client.post("/api/auth/logoutall?user=alice")

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"user": ["Unknown parameter."]})
        self.assertEqual(client.get("/api/message").status_code, 200)

    def test_accepts_only_post(self):
        client = self.as_user(self.alice)
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
            with self.subTest(method):
                response = client.generic(method, "/api/auth/logoutall")

                self.assertEqual(response.status_code, 405)
        self.assertEqual(client.get("/api/message").status_code, 200)
        self.assertEqual(self.events(), [])


class UserTests(ApiTestCase):
    def test_returns_the_user_of_the_token(self):
        User.objects.filter(username="bob").update(email="bob@example.org", first_name="Bob", is_staff=True)
        for user, email in ((self.alice, ""), (self.bob, "bob@example.org")):
            with self.subTest(user):
                response = self.as_user(user).get("/api/auth/user")

                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.json(), {"username": user.username, "email": email})

    def test_makes_one_query_that_changes_nothing(self):
        client = self.as_user(self.alice)

        with self.assertNumQueries(1) as queries:
            client.get("/api/auth/user")

        self.assertRegex(queries[0]["sql"].strip(), "^SELECT ")
        self.assertEqual(self.events(), [])

    def test_rejects_without_a_token(self):
        response = self.client.get("/api/auth/user")

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})

    def test_rejects_a_url_parameter(self):
        response = self.as_user(self.alice).get("/api/auth/user?username=bob")

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"username": ["Unknown parameter."]})

    def test_accepts_only_get(self):
        client = self.as_user(self.alice)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            with self.subTest(method):
                response = client.generic(method, "/api/auth/user", '{"email": "eve@example.org"}', "application/json")

                self.assertEqual(response.status_code, 405)
                self.assertEqual(response.json(), {"detail": f'Method "{method}" not allowed.'})
        self.assertEqual(User.objects.get(username="alice").email, "")


class PasswordTests(ApiTestCase):
    new = "another long secret"

    def setUp(self):
        super().setUp()
        self.alices_client, self.other = self.as_user(self.alice), self.as_user(self.alice)

    def change(self, **fields):
        fields = {"current_password": PASSWORD, "new_password": self.new, **fields}
        return self.alices_client.post("/api/auth/password", fields)

    def log_in(self, password):
        return self.client.post("/api/auth/login", {"username": "alice", "password": password})

    def assert_rejected(self, response, errors):
        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), errors)
        self.assert_unchanged()

    def assert_unchanged(self):
        self.assertEqual(User.objects.get(username="alice").password, self.alice.password)
        self.assertEqual([c.get("/api/message").status_code for c in (self.alices_client, self.other)], [200, 200])
        self.assertEqual(self.events(), [])

    def test_sets_the_password(self):
        response = self.change()

        self.assertEqual(response.status_code, 204)
        self.assertEqual(response.content, b"")
        self.assertEqual(self.events(), [("Change Password", "alice", "-")])
        self.assertEqual(self.log_in(self.new).status_code, 200)
        self.assertEqual(self.log_in(PASSWORD).json(), INCORRECT)

    def test_revokes_every_other_token_of_the_user(self):
        bob = self.as_user(self.bob)

        self.change()

        clients = (self.alices_client, self.other, bob)
        self.assertEqual([client.get("/api/message").status_code for client in clients], [200, 401, 200])

    def test_changes_no_other_user(self):
        self.change()

        self.assertEqual(User.objects.get(username="bob").password, self.bob.password)

    def test_stores_the_password_hashed_with_argon2id(self):
        self.change()

        self.assertRegex(User.objects.get(username="alice").password, r"^argon2\$argon2id\$v=19\$m=19456,t=2,p=1\$")

    def test_can_be_repeated(self):
        responses = [self.change(), self.change(current_password=self.new, new_password="a third long secret")]

        self.assertEqual([response.status_code for response in responses], [204, 204])
        self.assertEqual(self.log_in("a third long secret").status_code, 200)

    def test_takes_white_space_as_typed(self):
        spaced = " \tspaced secret \n"

        response = self.change(new_password=spaced)

        self.assertEqual(response.status_code, 204)
        self.assertEqual(self.log_in("spaced secret").json(), INCORRECT)
        self.assertEqual(self.log_in(spaced).status_code, 200)
        self.assertEqual(self.change(current_password=spaced.strip()).status_code, 400)
        self.assertEqual(self.change(current_password=spaced, new_password=" " * 12).status_code, 204)

    def test_takes_a_password_of_1024_characters_whole(self):
        longest = "long 🐢 " * 146 + "ab"

        response = self.change(new_password=longest)

        self.assertEqual(response.status_code, 204)
        self.assertEqual(self.log_in(longest).status_code, 200)
        self.assertEqual(self.log_in(longest[:-1]).json(), INCORRECT)

    def test_rejects_a_wrong_current_password(self):
        for password in ("another secret", self.new, PASSWORD.upper(), f" {PASSWORD}", f"{PASSWORD} ", " ", "x" * 900_000):
            with self.subTest(password[:30]):
                response = self.change(current_password=password)

                self.assert_rejected(response, {"current_password": ["This is not your current password."]})

    def test_rejects_the_current_password_of_another_user(self):
        self.bob.set_password("the secret of bob")
        self.bob.save()

        response = self.change(current_password="the secret of bob")

        self.assert_rejected(response, {"current_password": ["This is not your current password."]})

    def test_rejects_a_missing_or_blank_field(self):
        good = {"current_password": PASSWORD, "new_password": self.new}
        for field in good:
            for fields, errors in (({}, MISSING), ({field: ""}, BLANK), ({field: None}, NULL)):
                with self.subTest(field, fields=fields):
                    rest = {name: value for name, value in good.items() if name != field}

                    response = self.alices_client.post("/api/auth/password", {**rest, **fields})

                    self.assert_rejected(response, {field: errors})

    def test_names_every_wrong_field_at_once(self):
        response = self.alices_client.post("/api/auth/password")

        self.assert_rejected(response, {"current_password": MISSING, "new_password": MISSING})

    def test_rejects_values_that_are_not_text(self):
        good = {"current_password": f'"{PASSWORD}"', "new_password": f'"{self.new}"'}
        for field in good:
            for value in NOT_TEXT:
                with self.subTest(field, value=value):
                    body = ", ".join(f'"{name}": {text}' for name, text in {**good, field: value}.items())

                    response = self.alices_client.post("/api/auth/password", f"{{{body}}}", content_type="application/json")

                    self.assert_rejected(response, {field: NO_STRING})

    def test_rejects_nul_and_lone_surrogates(self):
        for field in ("current_password", "new_password"):
            for character in ("\x00", "\ud800", "\udc00"):
                with self.subTest(field, character=character):
                    body = {"current_password": PASSWORD, "new_password": self.new, field: PASSWORD + character}

                    response = self.alices_client.post(
                        "/api/auth/password", json.dumps(body), content_type="application/json"
                    )

                    self.assert_rejected(response, {field: ANY})

    def test_rejects_a_weak_password(self):
        weak = {
            "x7k2!qw": "This password is too short. It must contain at least 8 characters.",
            "password1": "This password is too common.",
            "8203719465281": "This password is entirely numeric.",
            "Alice-99": "The password is too similar to the username.",
        }
        for password, error in weak.items():
            with self.subTest(password):
                response = self.change(new_password=password)

                self.assert_rejected(response, {"new_password": [error]})

    def test_rejects_a_password_that_is_too_long(self):
        for length in (1025, 900_000):
            with self.subTest(length):
                response = self.change(new_password="x" * length)

                self.assert_rejected(response, {"new_password": ["Ensure this field has no more than 1024 characters."]})

    def test_checks_the_current_password_before_the_new_password(self):
        response = self.change(current_password="another secret", new_password="password1")

        self.assert_rejected(response, {"current_password": ["This is not your current password."]})

    def test_rejects_without_a_token(self):
        response = self.client.post("/api/auth/password", {"current_password": PASSWORD, "new_password": self.new})

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})
        self.assert_unchanged()

    def test_rejects_a_url_parameter(self):
        fields = {"current_password": PASSWORD, "new_password": self.new}

        response = self.alices_client.post("/api/auth/password?user=alice", fields)

        self.assert_rejected(response, {"user": ["Unknown parameter."]})

    def test_accepts_only_post(self):
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
            with self.subTest(method):
                response = self.alices_client.generic(method, "/api/auth/password")

                self.assertEqual(response.status_code, 405)
        self.assert_unchanged()

    def test_logs_no_password(self):
        self.change(current_password="a wrong secret")
        self.change()

        logs = "".join(str(self.log_lines(name)) for name in LOGS)
        self.assertEqual((len(self.log_lines("requests")), len(self.log_lines("activity"))), (2, 1))
        for secret in (PASSWORD, self.new, "a wrong secret"):
            self.assertNotIn(secret, logs)


class UnicodePasswordTests(ApiTestCase):
    """The same password from keyboards that compose its letters differently."""

    composed = "Zürich café geheim ①"
    decomposed = normalize("NFD", composed)
    compatible = normalize("NFKC", composed)  # with the digit 1

    def log_in(self, password, username="dave"):
        return self.client.post("/api/auth/login", {"username": username, "password": password}).status_code

    def test_every_form_logs_in_whatever_form_was_registered(self):
        forms = (self.composed, self.decomposed, self.compatible)
        for number, password in enumerate(forms):
            with self.subTest(ascii(password)):
                self.client.post("/api/auth/register", {"username": f"dave{number}", "password": password})

                self.assertEqual([self.log_in(form, f"dave{number}") for form in forms], [200] * 3)
                self.assertEqual(self.log_in("Zurich cafe geheim 1", f"dave{number}"), 400)

    def test_the_longest_password_logs_in_in_every_form(self):
        password = "é" * LONGEST_PASSWORD
        self.client.post("/api/auth/register", {"username": "dave", "password": password})

        self.assertEqual(self.log_in(normalize("NFD", password)), 200)

    def test_a_weak_password_is_weak_in_every_form(self):
        for username, password in (("dave", "password1"), ("dave", "12345678"), ("similarname", "similarname")):
            with self.subTest(password):
                full_width = password.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
                response = self.client.post("/api/auth/register", {"username": username, "password": full_width})

                self.assertEqual(response.status_code, 400)
                self.assertEqual([*response.json()], ["password"])
        self.assertFalse(User.objects.filter(username__in=["dave", "similarname"]).exists())

    def test_every_form_is_the_current_password(self):
        client = self.as_user(self.alice)
        for current, new in pairwise((PASSWORD, self.composed, self.decomposed, self.compatible, "quite another secret")):
            with self.subTest(ascii(current)):
                response = client.post("/api/auth/password", {"current_password": current, "new_password": new})

                self.assertEqual(response.status_code, 204, response.content)
        self.assertEqual(self.log_in("quite another secret", "alice"), 200)

    def test_a_password_that_was_hashed_as_typed_stays_valid(self):
        typed = normalize("NFD", "Zürich café geheim")
        password_hash = (
            "argon2$argon2id$v=19$m=19456,t=2,p=1$yMnKy8zNzs/Q0dLT1NXW1w$WeEUQBdeXVoJV8Yx6KWHD5CIUrhvhPcrsyDlXJKHRXY"
        )
        User.objects.filter(pk=self.alice.pk).update(password=password_hash)

        self.assertEqual(self.log_in(typed, "alice"), 200)

    def test_a_password_hashed_by_django_is_verified_as_typed(self):
        password_hash = PBKDF2PasswordHasher().encode(self.decomposed, "salt", iterations=1000)
        User.objects.filter(pk=self.alice.pk).update(password=password_hash)

        self.assertEqual([self.log_in(form, "alice") for form in (self.composed, self.decomposed)], [400, 200])
        self.assertEqual(self.log_in(self.composed, "alice"), 200)  # its hash was renewed

    def test_length_limits_count_what_was_typed(self):
        longest = "e\u0301" * 512

        for password, status in ((longest, 201), (f"{longest}x", 400)):
            response = self.client.post("/api/auth/register", {"username": "dave", "password": password})

            self.assertEqual(response.status_code, status)

    def test_a_long_run_of_combining_characters_is_not_normalized(self):
        """Python would need minutes for it, during which the process responds to nobody."""
        response = self.log_in("a" + "\u0315\u0327" * 200_000, "alice")

        self.assertEqual(response, 400)


class ParallelPasswordTests(ConcurrentTestCase):
    def change(self, client, current, new):
        return client.post("/api/auth/password", {"current_password": current, "new_password": new}).status_code

    def log_in(self, password):
        return APIClient().post("/api/auth/login", {"username": "alice", "password": password}).status_code

    def delete_account(self, client, password):
        return client.post("/api/auth/user/delete", {"current_password": password}).status_code

    def log_in_to_admin(self, password):
        """Log in to the admin, and return the status of its first page."""
        client = Client()
        client.post("/admin/login/", {"username": "alice", "password": password})
        return client.get("/admin/").status_code

    def test_only_one_of_two_requests_sets_the_password_and_keeps_its_token(self):
        clients, passwords = [self.as_user(self.alice) for _ in range(2)], ["a first long secret", "a second long secret"]

        statuses = self.in_parallel(
            *[partial(self.change, *each) for each in zip(clients, [PASSWORD] * 2, passwords, strict=True)]
        )

        winner = statuses.index(204)
        self.assertIn(statuses[1 - winner], (400, 401))  # its token may be revoked before it is read
        self.assertEqual(self.log_in(passwords[winner]), 200)
        self.assertEqual([self.log_in(password) for password in (passwords[1 - winner], PASSWORD)], [400, 400])
        self.assertEqual(clients[winner].get("/api/message").status_code, 200)
        self.assertEqual(clients[1 - winner].get("/api/message").status_code, 401)
        self.assertEqual(
            [event for event in self.events() if event[0] == "Change Password"], [("Change Password", "alice", "-")]
        )

    @contextmanager
    def during_the_check(self, act):
        """Call `act` once, while a password is being checked."""
        verify, calls = OwaspArgon2Hasher.verify, iter([act])

        def verify_slowly(hasher, password, encoded):
            next(calls, lambda: None)()
            return verify(hasher, password, encoded)

        with patch.object(OwaspArgon2Hasher, "verify", verify_slowly):
            yield

    def test_renewing_a_hash_does_not_undo_a_change_of_password(self):
        new = "a new long secret"
        checks = {
            "log-in": (lambda client: self.log_in(PASSWORD), 400),
            "log-in to the admin": (lambda client: self.log_in_to_admin(PASSWORD), 302),
            "change of password": (lambda client: self.change(client, PASSWORD, "a third long secret"), 400),
        }
        for kind, (check, status) in checks.items():
            with self.subTest(kind):
                self.alice.password, self.alice.is_staff = OUTDATED_HASH, True
                self.alice.save()
                client = self.as_user(self.alice)

                with self.during_the_check(lambda client=client: self.change(client, PASSWORD, new)):
                    self.assertEqual(check(client), status)

                self.assertEqual([self.log_in(password) for password in (PASSWORD, new)], [400, 200])

    def test_a_hash_that_another_request_renews_is_still_correct(self):
        checks = {
            "log-in": (lambda client: self.log_in(PASSWORD), 200),
            "log-in to the admin": (lambda client: self.log_in_to_admin(PASSWORD), 200),
            "change of password": (lambda client: self.change(client, PASSWORD, "a new long secret"), 204),
            "deletion": (lambda client: self.delete_account(client, PASSWORD), 204),
        }
        for kind, (check, status) in checks.items():
            with self.subTest(kind):
                self.alice.password, self.alice.is_staff = OUTDATED_HASH, True
                self.alice.save()
                client = self.as_user(self.alice)

                with self.during_the_check(lambda: self.assertEqual(self.log_in(PASSWORD), 200)):
                    self.assertEqual(check(client), status)

        self.assertNotIn("Invalid Login", [event for event, _, _ in self.events()])

    def test_creates_no_token_if_the_account_is_deactivated_during_the_check(self):
        with self.during_the_check(lambda: deactivate(self.alice)):
            status = self.log_in(PASSWORD)

        self.assertEqual(status, 400)
        self.assertFalse(self.alice.auth_token_set.exists())

    @skipUnless(connection.features.has_select_for_update, "where transactions lock rows")
    def test_creates_no_token_while_a_change_of_password_is_not_committed(self):
        """The change has set the password and waits for a locked token when the log-in creates its own."""
        client = self.as_user(self.alice)
        locked, _ = issue_token(self.alice)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        has_locked, release = Event(), Event()

        def lock_a_token():
            with transaction.atomic():
                AuthToken.objects.select_for_update().get(pk=locked.pk)
                has_locked.set()
                release.wait(10)

        def change():
            has_locked.wait(10)
            return self.change(client, PASSWORD, "a new long secret")

        def log_in():
            wait_for(1)
            try:
                return self.log_in(PASSWORD)
            finally:
                release.set()

        def release_when_both_wait():
            wait_for(2)
            release.set()

        def wait_for(requests):
            while fetch_one(waiting)[0] < requests and not release.wait(0.01):
                pass

        _, *statuses, _ = self.in_parallel(lock_a_token, change, log_in, release_when_both_wait)

        self.assertEqual(statuses, [204, 400])
        self.assertEqual(self.alice.auth_token_set.count(), 1)

    def test_rejects_a_log_in_if_the_password_changes_during_it(self):
        client, opening, changed = self.as_user(self.alice), Event(), Event()

        def open_slowly(user):
            opening.set()
            changed.wait(10)  # the old password was correct when it was checked
            return issue_token(user)

        def change():
            opening.wait(10)
            try:
                return self.change(client, PASSWORD, "a new long secret")
            finally:
                changed.set()

        with patch("accounts.actions.issue_token", open_slowly):
            statuses = self.in_parallel(change, partial(self.log_in, PASSWORD))

        self.assertEqual(statuses, [204, 400])
        self.assertEqual(self.alice.auth_token_set.count(), 1)
        self.assertEqual(client.get("/api/message").status_code, 200)

    @override_settings(LIMIT_LOGIN=None, LIMIT_LOGIN_NAME=None)
    def test_no_token_of_the_old_password_is_valid_after_the_change(self):
        client, passwords = self.as_user(self.alice), [PASSWORD, *(f"long secret {number}" for number in range(5))]
        for old, new in pairwise(passwords):
            with self.subTest(new):
                requests = [partial(self.change, client, old, new), *[partial(self.log_in, old)] * 6]
                changed, *statuses = self.in_parallel(*requests)

                self.assertEqual(changed, 204)
                self.assertLessEqual(set(statuses), {200, 400})
                self.assertEqual(self.alice.auth_token_set.count(), 1)
                self.assertEqual(client.get("/api/message").status_code, 200)


class AuthorizationTests(ApiTestCase):
    """The token that every other path requires."""

    def assert_unauthorized(self, response, detail="Invalid token."):
        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.json(), {"detail": detail})

    def test_takes_token_and_bearer_in_any_letter_case(self):
        _, token = issue_token(self.alice)
        for scheme in ("Token", "token", "TOKEN", "Bearer", "bearer", "bEARER"):
            with self.subTest(scheme):
                response = with_token(token, scheme).get("/api/message")

                self.assertEqual(response.status_code, 200)
                self.assertEqual(self.log_lines("requests")[-1]["user"], "alice")

    def test_rejects_a_header_without_a_token(self):
        _, token = issue_token(self.alice)
        missing = "Authentication credentials were not provided."
        for header in ("", " ", token, f"Basic {token}", f"Tokens {token}", f"Token{token}", "\xff", f"\xff {token}"):
            with self.subTest(header):
                response = self.client.get("/api/message", headers={"authorization": header})

                self.assert_unauthorized(response, missing)
        self.assert_unauthorized(self.client.get("/api/message"), missing)

    def test_rejects_an_invalid_token(self):
        auth_token, token = issue_token(self.alice)
        similar = (token[:15], token[:-1], f"{token}0", f"{token}\xff", f"{token},", f"{token} {token}", token.upper())
        for scheme in ("Token", "Bearer"):
            for text in ("", "garbage", "\xff", "0" * 5000, auth_token.digest, *similar):
                with self.subTest(scheme, token=text):
                    response = with_token(text, scheme).get("/api/message")

                    self.assert_unauthorized(response)
        self.assert_unauthorized(self.client.get("/api/message", headers={"authorization": "Token"}))

    def test_takes_a_token_for_ten_hours(self):
        began = datetime(2030, 1, 1, tzinfo=UTC)
        with clock_at(began):
            session = self.client.post("/api/auth/login", {"username": "alice", "password": PASSWORD}).json()
        client = with_token(session["token"])

        with clock_at(began + timedelta(hours=10) - timedelta(seconds=1)):
            in_time = client.get("/api/message")
        with clock_at(began + timedelta(hours=10)):
            too_late = client.get("/api/message")

        self.assertEqual(session["expiry"], "2030-01-01T10:00:00.000000Z")
        self.assertEqual(in_time.status_code, 200)
        self.assert_unauthorized(too_late)

    def test_rejects_the_token_of_a_deactivated_user(self):
        client = self.as_user(self.alice)
        User.objects.filter(username="alice").update(is_active=False)

        response = client.get("/api/message")

        self.assert_unauthorized(response)
