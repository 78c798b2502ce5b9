"""Listing and ending sessions."""

from datetime import timedelta
from functools import partial

from django.utils import timezone

from accounts.authentication import AuthToken, issue_token
from config.testing.cases import ApiTestCase, ConcurrentTestCase, make_user, with_token

NOT_FOUND = {"detail": "Not found."}


class SessionsTestCase(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.tokens = [issue_token(self.alice) for _ in range(3)]
        self.client = with_token(self.tokens[1][1])

    def list_sessions(self, query: str = "") -> list[dict]:
        response = self.client.get(f"/api/auth/session{query}")
        self.assertEqual(response.status_code, 200, response.content)
        return response.json()["results"]

    def path(self, token: AuthToken) -> str:
        return f"/api/auth/session/{token.digest[:32]}"

    def expire(self, token: AuthToken) -> None:
        AuthToken.objects.filter(pk=token.pk).update(expiry=timezone.now() - timedelta(seconds=1))


class SessionListTests(SessionsTestCase):
    def test_returns_live_tokens_newest_first_and_marks_the_current_one(self):
        issue_token(self.bob)
        expired, _ = issue_token(self.alice)
        self.expire(expired)

        response = self.client.get("/api/auth/session")

        self.assertEqual(
            response.json(),
            {
                "count": 3,
                "next": None,
                "previous": None,
                "results": [
                    {
                        "id": token.digest[:32],
                        "created": token.created.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                        "expiry": token.expiry.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                        "current": token == self.tokens[1][0],
                    }
                    for token, _ in reversed(self.tokens)
                ],
            },
        )

    def test_shows_no_part_of_a_token(self):
        text = self.client.get("/api/auth/session").text

        for token, secret in self.tokens:
            self.assertNotIn(token.digest[:33], text)
            for start in range(0, len(secret), 8):
                self.assertNotIn(secret[start : start + 8], text)

    def test_orders_tokens_of_the_same_moment(self):
        AuthToken.objects.update(created=timezone.now())

        pages = [self.list_sessions(f"?page_size=1&page={number}")[0]["id"] for number in (1, 2, 3)]

        self.assertEqual(pages, sorted((token.digest[:32] for token, _ in self.tokens), reverse=True))

    def test_rejects_a_page_that_does_not_exist_and_an_unknown_parameter(self):
        self.assertEqual(self.client.get("/api/auth/session?page=2").json(), {"detail": "Invalid page."})
        self.assertEqual(self.client.get("/api/auth/session?user=bob").json(), {"user": ["Unknown parameter."]})


class EndSessionTests(SessionsTestCase):
    def test_revokes_that_token_and_no_other(self):
        (first, text), (second, _), (third, other) = self.tokens

        response = self.client.delete(self.path(first))

        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertEqual(with_token(text).get("/api/auth/user").status_code, 401)
        self.assertEqual(with_token(other).get("/api/auth/user").status_code, 200)
        self.assertEqual([row["id"] for row in self.list_sessions()], [third.digest[:32], second.digest[:32]])
        self.assertEqual(self.events(), [("End Session", "alice", "-")])

    def test_revokes_the_token_of_the_request(self):
        response = self.client.delete(self.path(self.tokens[1][0]))

        self.assertEqual(response.status_code, 204)
        self.assertEqual(self.client.get("/api/auth/user").status_code, 401)

    def test_responds_404_for_a_session_of_another_user_or_an_expired_one(self):
        bobs, text = issue_token(self.bob)
        expired, ended = self.tokens[0][0], self.tokens[2][0]
        self.expire(expired)
        self.client.delete(self.path(ended))
        before = self.events()

        for token in (bobs, expired, ended):
            with self.subTest(token=token):
                response = self.client.delete(self.path(token))

                self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))
        self.assertEqual(with_token(text).get("/api/auth/user").status_code, 200)
        self.assertTrue(AuthToken.objects.filter(pk=expired.pk).exists())
        self.assertEqual(self.events(), before)

    def test_accepts_only_32_lower_case_hexadecimal_digits(self):
        digest = self.tokens[0][0].digest
        wrong = (
            digest,
            digest[:31],
            digest[:33],
            digest[:31] + "_",
            digest[:32].upper(),
            digest[:31] + "%25",
            "%25",
            "_" * 32,
            "x",
            f"{digest[:32]}%0A",
            "%00",
            "%ED%A0%80",
            "\uff11" * 32,
        )

        for session_id in wrong:
            if session_id == digest[:32]:
                continue  # an upper-case form without letters
            with self.subTest(session_id):
                response = self.client.delete(f"/api/auth/session/{session_id}")

                self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))
        self.assertEqual(AuthToken.objects.count(), 3)

    def test_rejects_without_a_token(self):
        for response in (
            with_token("0" * 64).delete(self.path(self.tokens[0][0])),
            with_token("0" * 64).get("/api/auth/session"),
        ):
            self.assertEqual(response.status_code, 401)
        self.assertEqual(AuthToken.objects.count(), 3)


class ParallelEndSessionTests(ConcurrentTestCase):
    def test_only_one_of_two_requests_ends_the_session(self):
        for number in range(5):
            dave = make_user(f"dave{number}")
            token, _ = issue_token(dave)
            path = f"/api/auth/session/{token.digest[:32]}"
            requests = [partial(self.as_user(dave).delete, path) for _ in range(2)]

            responses = self.in_parallel(*requests)

            self.assertEqual(sorted(response.status_code for response in responses), [204, 404])
        self.assertEqual(self.events(), [("End Session", f"dave{number}", "-") for number in range(5)])
