import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import ANY, patch

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import override_settings, skipUnlessDBFeature
from rest_framework.test import APIClient

from accounts.authentication import AuthToken
from accounts.hashers import OwaspArgon2Hasher
from accounts.models import Tally
from accounts.tests import INCORRECT
from config.environment import Limit
from config.testing.cases import PASSWORD, ApiTestCase, ConcurrentTestCase
from config.testing.service import run_service

THREE_A_MINUTE = Limit(count=3, seconds=60)
FIVE_AN_HOUR = Limit(count=5, seconds=3600)
WRONG = "another secret"
NOT_CURRENT = {"current_password": ["This is not your current password."]}


def only_limits(**limits):
    """Turn off all limits except these."""
    off = dict.fromkeys(("LIMIT_LOGIN", "LIMIT_LOGIN_ADDRESS", "LIMIT_LOGIN_NAME", "LIMIT_PASSWORD", "LIMIT_SIGNUP"))
    return override_settings(**(off | limits))


class LimitTestCase(ApiTestCase):
    """Stops the clock; `advance_clock` advances it."""

    def setUp(self):
        super().setUp()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        clock = patch("django.utils.timezone.now", lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)

    def advance_clock(self, seconds):
        self.now += timedelta(seconds=seconds)

    def log_in(self, username="alice", password=WRONG, **environ):
        return self.client.post("/api/auth/login", {"username": username, "password": password}, **environ)

    def sign_up(self, username, **environ):
        return self.client.post("/api/auth/register", {"username": username, "password": PASSWORD}, **environ)

    def assert_incorrect(self, response):
        self.assertEqual((response.status_code, response.json()), (400, INCORRECT))

    def assert_limited(self, response, *, seconds=60):
        self.assertEqual(response.status_code, 429, response.content)
        self.assertEqual(response.json(), {"detail": f"Too many attempts. Try again in {seconds} s."})
        self.assertEqual(response.headers["Retry-After"], str(seconds))

    def assert_ignores_distant_ends(self, limit, attempt, status):
        """Assert that an end further away than the window of the limit, whatever stored it, rejects no attempt."""
        AuthToken.objects.update(expiry=self.now + timedelta(days=5 * 365))
        stored = {
            "a window that was longer": (0, Limit(3, 86_400)),
            "a clock that was a year ahead": (365 * 86_400, THREE_A_MINUTE),
            "both": (365 * 86_400, Limit(3, 86_400)),
        }
        for reason, (ahead, longer) in stored.items():
            with self.subTest(reason):
                self.advance_clock(ahead)
                with override_settings(**{limit: longer}):
                    self.assertEqual([attempt().status_code for _ in range(4)], [status] * 3 + [429])
                self.advance_clock(1 - ahead)

                with override_settings(**{limit: THREE_A_MINUTE}):
                    self.assertEqual([attempt().status_code for _ in range(3)], [status] * 3)
                    self.assert_allowed_after(60, attempt, status)
                self.advance_clock(60)

    def assert_allowed_after(self, seconds, attempt, status):
        """Assert that the limit rejects the attempt for exactly so many seconds."""
        self.assert_limited(attempt(), seconds=seconds)
        self.advance_clock(seconds - 1)
        self.assert_limited(attempt(), seconds=1)
        self.advance_clock(1)
        self.assertEqual(attempt().status_code, status)


@only_limits(LIMIT_LOGIN=THREE_A_MINUTE)
class FailedLoginsForNameFromAddressTests(LimitTestCase):
    def guess(self, times, **environ):
        for _ in range(times):
            self.assert_incorrect(self.log_in(**environ))

    def test_reject_log_ins_for_the_name_from_the_address(self):
        self.guess(3)

        self.assert_limited(self.log_in())
        self.assert_limited(self.log_in(password=PASSWORD))
        self.assertFalse(self.alice.auth_token_set.exists())
        self.assertEqual(self.events(), [("Invalid Login", "alice", "-")] * 3)

    def test_reject_attempts_until_retry_after(self):
        for password, status in ((PASSWORD, 200), (WRONG, 400)):
            with self.subTest(status):
                self.guess(1)
                self.advance_clock(20.5)
                self.guess(2)

                self.assert_allowed_after(40, partial(self.log_in, password=password), status)
                self.advance_clock(60)

    def test_reject_log_ins_again_in_the_next_window(self):
        self.guess(3)
        self.advance_clock(60)

        self.guess(3)
        self.assert_limited(self.log_in())

    def test_expire_with_the_window(self):
        self.guess(2)
        self.advance_clock(60)

        self.guess(3)

    def test_are_not_counted_while_log_ins_are_rejected(self):
        self.guess(3)
        for _ in range(5):
            self.advance_clock(10)
            self.log_in()

        self.advance_clock(10)
        self.guess(3)

    def test_do_not_affect_other_names_and_addresses(self):
        self.guess(3)

        self.assertEqual(self.log_in("bob", PASSWORD).status_code, 200)
        self.assertEqual(self.log_in(password=PASSWORD, REMOTE_ADDR="192.0.2.1").status_code, 200)

    def test_below_the_limit_allow_the_owner(self):
        self.guess(2)

        responses = [self.log_in(password=PASSWORD) for _ in range(5)]

        self.assertEqual([response.status_code for response in responses], [200] * 5)
        self.guess(1)  # successes neither count nor reset the tally
        self.assert_limited(self.log_in())

    def test_include_log_ins_to_a_deactivated_account(self):
        User.objects.filter(username="alice").update(is_active=False)

        responses = [self.log_in(password=PASSWORD) for _ in range(4)]

        self.assertEqual([response.status_code for response in responses], [400] * 3 + [429])

    def test_get_the_same_responses_for_an_unknown_name(self):
        def responses_to(username):
            responses = [self.log_in(username) for _ in range(5)]
            return [(response.status_code, response.json(), response.headers.get("Retry-After")) for response in responses]

        self.assertEqual(responses_to("nobody"), responses_to("alice"))

    def test_do_not_include_malformed_requests(self):
        good = {"username": "alice", "password": WRONG}
        fields = [{**good, name: value} for name in good for value in ("", None, 5, "alice\x00", ["alice"])]
        missing = [{"username": "alice"}, {"password": WRONG}, {}, []]
        bodies = [*map(json.dumps, fields + missing), "{", "alice", '{"username": "\\ud800", "password": "x"}']
        for body in bodies:
            with self.subTest(body):
                response = self.client.post("/api/auth/login", body, content_type="application/json")

                self.assertEqual(response.status_code, 400)
        self.assertEqual(self.log_in(QUERY_STRING="next=x").status_code, 400)
        self.assertEqual(self.client.get("/api/auth/login").status_code, 405)
        self.assertFalse(Tally.objects.exists())
        self.guess(3)

    def test_beyond_the_limit_are_not_hashed(self):
        self.guess(3)

        with patch.object(OwaspArgon2Hasher, "encode") as encode, patch.object(OwaspArgon2Hasher, "verify") as verify:
            self.assert_limited(self.log_in())
            self.assert_limited(self.log_in(password=PASSWORD))

        self.assertFalse(encode.called or verify.called)

    def test_reject_the_correct_password_while_it_is_hashed(self):
        verify = OwaspArgon2Hasher.verify

        def verify_slowly(hasher, password, encoded):
            if password == PASSWORD:
                self.guess(3)
            return verify(hasher, password, encoded)

        with patch.object(OwaspArgon2Hasher, "verify", verify_slowly):
            response = self.log_in(password=PASSWORD)

        self.assert_limited(response)
        self.assertFalse(self.alice.auth_token_set.exists())

    def test_count_for_all_addresses_of_an_ipv6_network_together(self):
        for address in ("2001:db8::1", "2001:DB8:0:0:ffff::2", "2001:0db8:0000:0000:0000:0000:0000:0003"):
            self.guess(1, REMOTE_ADDR=address)

        self.assert_limited(self.log_in(password=PASSWORD, REMOTE_ADDR="2001:db8::4"))
        self.assertEqual(self.log_in(password=PASSWORD, REMOTE_ADDR="2001:db8:0:1::1").status_code, 200)

    def test_count_for_each_ipv4_address_even_if_written_as_ipv6(self):
        for address in ("::ffff:192.0.2.1", "::ffff:c000:201", "192.0.2.1"):
            self.guess(1, REMOTE_ADDR=address)

        self.assert_limited(self.log_in(password=PASSWORD, REMOTE_ADDR="::ffff:192.0.2.1"))
        self.assertEqual(self.log_in(password=PASSWORD, REMOTE_ADDR="::ffff:192.0.2.2").status_code, 200)

    @override_settings(TRUSTED_PROXIES=1)
    def test_do_not_affect_an_owner_behind_the_same_proxy(self):
        self.guess(3, HTTP_X_FORWARDED_FOR="192.0.2.1")

        self.assert_limited(self.log_in(password=PASSWORD, HTTP_X_FORWARDED_FOR="192.0.2.1"))
        self.assertEqual(self.log_in(password=PASSWORD, HTTP_X_FORWARDED_FOR="192.0.2.2").status_code, 200)

    @only_limits(LIMIT_LOGIN=None)
    def test_are_not_counted_with_all_limits_off(self):
        self.guess(10)

        self.assertFalse(Tally.objects.exists())


@only_limits(LIMIT_LOGIN_ADDRESS=THREE_A_MINUTE)
class FailedLoginsFromAddressTests(LimitTestCase):
    def guess(self, **environ):
        for name in ("alice", "nobody", "carol"):
            self.assert_incorrect(self.log_in(name, **environ))

    def test_reject_log_ins_for_every_name_from_the_address(self):
        self.guess()

        self.assert_limited(self.log_in("alice"))
        self.assert_limited(self.log_in("somebody"))
        self.assert_allowed_after(60, partial(self.log_in, "bob", PASSWORD), 200)

    def test_do_not_affect_other_addresses(self):
        self.guess()

        self.assertEqual(self.log_in(password=PASSWORD, REMOTE_ADDR="192.0.2.1").status_code, 200)

    def test_do_not_include_successful_log_ins(self):
        for name in ("alice", "bob", "carol", "alice"):
            self.assertEqual(self.log_in(name, PASSWORD).status_code, 200)

        self.guess()

    def test_reject_log_ins_until_the_longest_window_ends(self):
        with only_limits(LIMIT_LOGIN=Limit(count=2, seconds=600), LIMIT_LOGIN_ADDRESS=THREE_A_MINUTE):
            for name in ("alice", "alice", "bob"):
                self.assert_incorrect(self.log_in(name))

            self.assert_limited(self.log_in("bob"), seconds=60)
            self.assert_allowed_after(600, partial(self.log_in, "alice", PASSWORD), 200)


@only_limits(LIMIT_LOGIN=Limit(count=2, seconds=60), LIMIT_LOGIN_NAME=Limit(count=4, seconds=3600))
class FailedLoginsForNameTests(LimitTestCase):
    """Failures from many addresses."""

    def fail_at_addresses(self, addresses=4):
        for number in range(addresses):
            self.assert_incorrect(self.log_in(REMOTE_ADDR=f"192.0.2.{number}"))

    def test_allow_each_address_one_attempt(self):
        self.fail_at_addresses()

        self.assert_incorrect(self.log_in(REMOTE_ADDR="198.51.100.1"))
        for address in ("198.51.100.1", "192.0.2.0"):
            self.assert_limited(self.log_in(REMOTE_ADDR=address))
            self.assert_limited(self.log_in(password=PASSWORD, REMOTE_ADDR=address))

    def test_allow_the_owner_at_an_address_without_failures(self):
        self.fail_at_addresses(addresses=20)

        response = self.log_in(password=PASSWORD, REMOTE_ADDR="198.51.100.1")

        self.assertEqual(response.status_code, 200)

    def test_do_not_affect_other_names(self):
        self.fail_at_addresses()

        self.assert_incorrect(self.log_in("bob", REMOTE_ADDR="192.0.2.0"))
        self.assert_incorrect(self.log_in("bob", REMOTE_ADDR="192.0.2.0"))

    def test_allow_one_more_attempt_after_retry_after(self):
        self.fail_at_addresses()

        guess = partial(self.log_in, REMOTE_ADDR="192.0.2.3")
        self.assert_allowed_after(60, guess, 400)
        self.assert_allowed_after(60, guess, 400)

    def test_expire_with_the_window(self):
        self.fail_at_addresses(addresses=3)
        self.advance_clock(3590)
        self.fail_at_addresses(addresses=1)

        self.assert_allowed_after(10, partial(self.log_in, REMOTE_ADDR="192.0.2.0"), 400)

    def test_are_limited_without_limit_login(self):
        with only_limits(LIMIT_LOGIN_NAME=THREE_A_MINUTE):
            for _ in range(3):
                self.assert_incorrect(self.log_in())

            self.assert_limited(self.log_in(password=PASSWORD))
            self.assertEqual(self.log_in(password=PASSWORD, REMOTE_ADDR="192.0.2.1").status_code, 200)

    def test_allow_each_ipv6_48_one_attempt(self):
        """A /48 with its 65,536 networks of /64."""
        self.fail_at_addresses()

        guesses = [self.log_in(REMOTE_ADDR=f"2001:db8:0:{number:x}::1") for number in range(3)]

        self.assertEqual([guess.status_code for guess in guesses], [400, 429, 429])
        self.assert_limited(self.log_in(password=PASSWORD, REMOTE_ADDR="2001:db8:0:ffff::1"))
        self.assert_incorrect(self.log_in(REMOTE_ADDR="2001:db8:1::1"))

    def test_below_the_limit_do_not_affect_the_rest_of_the_ipv6_48(self):
        for number in range(3):
            self.assert_incorrect(self.log_in(REMOTE_ADDR=f"2001:db8:0:{number:x}::1"))

        self.assertEqual(self.log_in(password=PASSWORD, REMOTE_ADDR="2001:db8::1").status_code, 200)
        self.assert_incorrect(self.log_in(REMOTE_ADDR="2001:db8::1"))
        self.assert_limited(self.log_in(password=PASSWORD, REMOTE_ADDR="2001:db8:0:4::1"))


class StoredEndTests(LimitTestCase):
    @only_limits()
    def test_rejects_log_ins_no_longer_than_the_window(self):
        for limit in ("LIMIT_LOGIN", "LIMIT_LOGIN_ADDRESS", "LIMIT_LOGIN_NAME"):
            with self.subTest(limit):
                self.assert_ignores_distant_ends(limit, self.log_in, 400)
                Tally.objects.all().delete()

    @only_limits(LIMIT_LOGIN=THREE_A_MINUTE, LIMIT_LOGIN_NAME=FIVE_AN_HOUR)
    def test_allows_the_correct_password_after_a_clock_was_wrong(self):
        self.advance_clock(365 * 86_400)
        for number in range(8):
            self.log_in(REMOTE_ADDR=f"192.0.2.{number // 3}")
        self.assert_limited(self.log_in(password=PASSWORD, REMOTE_ADDR="192.0.2.1"), seconds=60)
        self.advance_clock(-365 * 86_400)

        self.assertEqual(self.log_in(password=PASSWORD, REMOTE_ADDR="192.0.2.1").status_code, 200)

    @only_limits()
    def test_rejects_password_changes_no_longer_than_the_window(self):
        fields = {"current_password": WRONG, "new_password": "a new long secret"}
        self.assert_ignores_distant_ends(
            "LIMIT_PASSWORD", partial(self.as_user(self.alice).post, "/api/auth/password", fields), 400
        )

    @only_limits()
    def test_rejects_sign_ups_no_longer_than_the_window(self):
        self.assert_ignores_distant_ends("LIMIT_SIGNUP", lambda: self.sign_up(f"user-{User.objects.count()}"), 201)

    @only_limits(LIMIT_LOGIN=Limit(3, 100))
    def test_still_holds_within_a_window_that_became_shorter(self):
        for _ in range(3):
            self.log_in()
        self.advance_clock(50)

        with only_limits(LIMIT_LOGIN=THREE_A_MINUTE):
            self.assert_allowed_after(50, self.log_in, 400)

    @only_limits(LIMIT_LOGIN=THREE_A_MINUTE)
    def test_counts_towards_a_limit_that_was_changed(self):
        for _ in range(3):
            self.log_in()

        with only_limits(LIMIT_LOGIN=Limit(4, 60)):
            self.assert_incorrect(self.log_in())
            self.assert_limited(self.log_in())
        with only_limits(LIMIT_LOGIN=Limit(2, 3600)):
            self.assert_allowed_after(60, self.log_in, 400)


class SuccessfulLoginTests(ApiTestCase):
    def log_in(self, password=PASSWORD):
        return self.client.post("/api/auth/login", {"username": "alice", "password": password})

    def test_leaves_no_tally(self):
        for _ in range(3):
            self.log_in()

        self.assertFalse(Tally.objects.exists())

    def test_number_of_queries_is_the_same_after_failures(self):
        queries = 4  # the tallies twice, the user, the token

        with self.assertNumQueries(queries):
            self.log_in()
        self.log_in(password=WRONG)
        with self.assertNumQueries(queries):
            self.log_in()


class ForwardedForTests(LimitTestCase):
    """A client cannot avoid a limit by what it writes into X-Forwarded-For."""

    forgeries = (
        {},
        {"HTTP_X_FORWARDED_FOR": "198.51.100.1"},
        {"HTTP_X_FORWARDED_FOR": "198.51.100.2, 198.51.100.3"},
        {"HTTP_X_FORWARDED_FOR": "unknown"},
        {"HTTP_X_FORWARDED_FOR": ", ,"},
        {"HTTP_X_REAL_IP": "198.51.100.4"},
        {"HTTP_FORWARDED": "for=198.51.100.5"},
        {"HTTP_CLIENT_IP": "198.51.100.6"},
    )

    def through_proxy(self, forgery):
        """Return the headers as a proxy sends them: it appends the address that it sees."""
        written = forgery.get("HTTP_X_FORWARDED_FOR")
        return {
            **forgery,
            "REMOTE_ADDR": "10.0.0.1",
            "HTTP_X_FORWARDED_FOR": f"{written}, 192.0.2.1" if written else "192.0.2.1",
        }

    def assert_forgeries_limited(self, attempt, status):
        for proxies, arrive in ((0, dict), (1, self.through_proxy)):
            with self.subTest(proxies=proxies), override_settings(TRUSTED_PROXIES=proxies):
                statuses = [attempt(number, **arrive(forgery)).status_code for number, forgery in enumerate(self.forgeries)]

                self.assertEqual(statuses, [status] * 3 + [429] * 5)
                self.advance_clock(60)

    @only_limits(LIMIT_LOGIN=THREE_A_MINUTE)
    def test_failed_logins_for_a_name(self):
        self.assert_forgeries_limited(lambda number, **environ: self.log_in(**environ), 400)

    @only_limits(LIMIT_LOGIN_ADDRESS=THREE_A_MINUTE)
    def test_failed_logins_for_any_name(self):
        self.assert_forgeries_limited(lambda number, **environ: self.log_in(f"guess-{number}", **environ), 400)

    @only_limits(LIMIT_SIGNUP=THREE_A_MINUTE)
    def test_sign_ups(self):
        self.assert_forgeries_limited(lambda number, **environ: self.sign_up(f"user-{User.objects.count()}", **environ), 201)


@only_limits(LIMIT_PASSWORD=THREE_A_MINUTE)
class WrongCurrentPasswordsTests(LimitTestCase):
    def setUp(self):
        super().setUp()
        self.alices_client = self.as_user(self.alice)

    def change(self, client=None, current=WRONG, new="a new long secret", **environ):
        fields = {"current_password": current, "new_password": new}
        return (client or self.alices_client).post("/api/auth/password", fields, **environ)

    def guess(self, times):
        for _ in range(times):
            response = self.change()
            self.assertEqual((response.status_code, response.json()), (400, NOT_CURRENT))

    def test_reject_changes_by_the_user(self):
        self.guess(3)

        self.assert_limited(self.change())
        self.assert_limited(self.change(current=PASSWORD))
        self.assertEqual(User.objects.get(username="alice").password, self.alice.password)
        self.assertEqual(self.events(), [])

    def test_reject_changes_with_every_token_and_address_of_the_user(self):
        self.guess(3)

        self.assert_limited(self.change(self.as_user(self.alice), REMOTE_ADDR="192.0.2.1"))

    def test_reject_attempts_until_retry_after(self):
        self.guess(1)
        self.advance_clock(20)
        self.guess(2)

        self.assert_allowed_after(40, partial(self.change, current=PASSWORD), 204)

    def test_do_not_affect_other_users_and_log_ins(self):
        self.guess(3)

        self.assertEqual(self.change(self.as_user(self.bob), current=PASSWORD).status_code, 204)
        self.assertEqual(self.log_in(password=PASSWORD).status_code, 200)

    def test_do_not_include_correct_passwords(self):
        self.guess(2)

        for _ in range(4):
            self.assertEqual(self.change(current=PASSWORD, new="password1").json(), {"new_password": ANY})
        self.assertEqual(self.change(current=PASSWORD).status_code, 204)
        self.guess(1)
        self.assert_limited(self.change())

    def test_do_not_include_malformed_requests(self):
        for fields in ({}, {"current": ""}, {"current": 5}, {"new": ""}, {"new": None}, {"new": "x" * 1025}):
            with self.subTest(fields):
                self.assertEqual(self.change(**(fields or {"current": None})).status_code, 400)
        self.assertFalse(Tally.objects.exists())

    def test_reject_the_correct_password_while_it_is_checked(self):
        verify = OwaspArgon2Hasher.verify

        def verify_slowly(hasher, password, encoded):
            if password == PASSWORD:
                self.guess(3)
            return verify(hasher, password, encoded)

        with patch.object(OwaspArgon2Hasher, "verify", verify_slowly):
            response = self.change(current=PASSWORD)

        self.assert_limited(response)
        self.assertEqual(User.objects.get(username="alice").password, self.alice.password)

    @only_limits(LIMIT_PASSWORD=None)
    def test_are_not_counted_with_the_limit_off(self):
        self.guess(10)

        self.assertFalse(Tally.objects.exists())


@only_limits(LIMIT_SIGNUP=THREE_A_MINUTE)
class SignUpLimitTests(LimitTestCase):
    def fill(self, **environ):
        for name in ("dave", "erin", "frank"):
            self.assertEqual(self.sign_up(name, **environ).status_code, 201)

    def test_rejects_one_more_from_the_address(self):
        self.fill()

        self.assert_limited(self.sign_up("grace"))
        self.assertEqual(User.objects.count(), 6)

    def test_allows_sign_ups_after_retry_after(self):
        self.fill()
        self.advance_clock(15)

        self.assert_allowed_after(45, partial(self.sign_up, "grace"), 201)

    def test_does_not_affect_other_addresses_and_log_ins(self):
        self.fill()

        self.assertEqual(self.sign_up("grace", REMOTE_ADDR="192.0.2.1").status_code, 201)
        self.assertEqual(self.log_in("dave", PASSWORD).status_code, 200)

    def test_counts_for_all_addresses_of_an_ipv6_network_together(self):
        self.fill(REMOTE_ADDR="2001:db8::1")

        self.assert_limited(self.sign_up("grace", REMOTE_ADDR="2001:db8::2"))
        self.assertEqual(self.sign_up("grace", REMOTE_ADDR="2001:db8:0:1::1").status_code, 201)

    def test_does_not_count_an_invalid_sign_up(self):
        weak = {"username": "dave", "password": "password1"}
        for fields in ({"username": "ALICE", "password": PASSWORD}, weak, {"username": "..", "password": PASSWORD}, {}) * 2:
            with self.subTest(fields):
                self.assertEqual(self.client.post("/api/auth/register", fields).status_code, 400)
        self.assertFalse(Tally.objects.exists())

        self.fill()

    @only_limits(LIMIT_SIGNUP=None)
    def test_counts_nothing_when_off(self):
        self.fill()

        self.assertEqual(self.sign_up("grace").status_code, 201)
        self.assertFalse(Tally.objects.exists())


class ParallelLimitTests(ConcurrentTestCase):
    def log_in(self, username, password):
        return APIClient().post("/api/auth/login", {"username": username, "password": password}).status_code

    def is_waited_for(self) -> bool:
        """Return whether another session waits for a lock of this transaction."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))")
            return cursor.fetchone() != (0,)

    @only_limits(LIMIT_LOGIN=FIVE_AN_HOUR, LIMIT_LOGIN_ADDRESS=Limit(100, 60), LIMIT_LOGIN_NAME=Limit(100, 60))
    def test_wrong_log_ins(self):
        statuses = self.in_parallel(*[partial(self.log_in, "alice", WRONG)] * 50)

        self.assertEqual(Counter(statuses), {400: 5, 429: 45})
        self.assertEqual(self.events(), [("Invalid Login", "alice", "-")] * 5)

    @only_limits(LIMIT_LOGIN_ADDRESS=FIVE_AN_HOUR, LIMIT_LOGIN_NAME=Limit(100, 60), LIMIT_LOGIN=Limit(100, 60))
    def test_wrong_log_ins_for_several_names(self):
        names = ("alice", "bob", "nobody", "somebody") * 6

        statuses = self.in_parallel(*[partial(self.log_in, name, WRONG) for name in names])

        self.assertEqual(Counter(statuses), {400: 5, 429: 19})

    @only_limits(LIMIT_LOGIN=FIVE_AN_HOUR)
    def test_guesses_with_the_correct_password_among_them(self):
        passwords = [f"guess {number}" for number in range(29)]
        passwords.insert(random.randrange(30), PASSWORD)  # noqa: S311 - any place will do

        statuses = self.in_parallel(*[partial(self.log_in, "alice", password) for password in passwords])

        owner_status = statuses.pop(passwords.index(PASSWORD))
        self.assertIn(owner_status, (200, 429))
        self.assertEqual(Counter(statuses), {400: 5, 429: 24})
        self.assertEqual(self.alice.auth_token_set.count(), int(owner_status == 200))

    def test_wrong_log_ins_at_several_worker_processes(self):
        credentials = {"username": "alice", "password": WRONG}
        with run_service(self.log_folder, LIMIT_LOGIN="5/3600") as service:
            # All of them may reach one worker, where no more may wait for a hash.
            responses = self.in_parallel(*[partial(service.request, "POST", "/api/auth/login", credentials)] * 20)

        self.assertEqual(Counter(status for status, _ in responses), {400: 5, 429: 15})

    @only_limits(LIMIT_PASSWORD=FIVE_AN_HOUR)
    def test_wrong_current_passwords(self):
        client = self.as_user(self.alice)
        fields = {"current_password": WRONG, "new_password": "a new long secret"}

        responses = self.in_parallel(*[partial(client.post, "/api/auth/password", fields)] * 20)

        self.assertEqual(Counter(response.status_code for response in responses), {400: 5, 429: 15})

    @skipUnlessDBFeature("has_select_for_update_skip_locked")
    def test_wrong_log_ins_lock_tallies_in_the_order_of_their_keys(self):
        """In different orders, two requests could deadlock. The second holds the tallies before the locked tally."""
        self.log_in("alice", WRONG)
        tallies = list(Tally.objects.order_by("-key"))
        Tally.objects.all().delete()
        Tally.objects.bulk_create(tallies)  # stored in another order than that of the keys
        *after, locked, _ = [tally.key for tally in tallies]

        with ThreadPoolExecutor() as pool, transaction.atomic():
            Tally.objects.select_for_update().get(key=locked)
            second = pool.submit(self.in_parallel, partial(self.log_in, "alice", WRONG))
            while not second.done() and not self.is_waited_for():
                time.sleep(0.01)
            unlocked = Tally.objects.select_for_update(skip_locked=True).values_list("key", flat=True)
            self.assertCountEqual(unlocked, [*after, locked])
        self.assertEqual(second.result(), [400])

    @only_limits(LIMIT_SIGNUP=FIVE_AN_HOUR)
    def test_sign_ups(self):
        sign_up = partial(APIClient().post, "/api/auth/register")
        fields = [{"username": f"user-{number}", "password": PASSWORD} for number in range(20)]

        responses = self.in_parallel(*[partial(sign_up, each) for each in fields])

        self.assertEqual(Counter(response.status_code for response in responses), {201: 5, 429: 15})
        self.assertEqual(User.objects.count(), 3 + 5)
