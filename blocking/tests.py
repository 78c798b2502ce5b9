from functools import partial
from threading import Event
from urllib.parse import quote

from django.contrib.auth.models import User

from blocking.models import Block
from config.testing.cases import ApiTestCase, ConcurrentTestCase, delete_after_lookup

YOURSELF = {"blocked": ["You cannot block yourself."]}
ALREADY = {"blocked": ["You already block this user."]}
UNKNOWN = {"blocked": ["There is no such user."]}


class BlockTests(ApiTestCase):
    def block(self, blocked, by=None):
        return self.as_user(by or self.alice).post("/api/block", {"blocked": blocked})

    def assert_rejected(self, response, errors):
        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), errors)
        self.assertFalse(Block.objects.exists())
        self.assertEqual(self.events(), [])

    def test_stores_and_returns_the_block(self):
        response = self.block("bob")

        self.assertEqual(response.status_code, 201)
        block = Block.objects.get()
        self.assertEqual((block.blocker, block.blocked), (self.alice, self.bob))
        self.assertEqual(response.json(), {"blocked": "bob", "created": f"{block.created:%Y-%m-%dT%H:%M:%S.%fZ}"})
        self.assertEqual(self.events(), [("Block User", "alice", "bob")])

    def test_blocks_several_users_who_can_block_in_return(self):
        responses = [self.block("bob"), self.block("carol"), self.block("alice", by=self.bob)]

        self.assertEqual([response.status_code for response in responses], [201] * 3)
        self.assertEqual(Block.objects.count(), 3)
        self.assertEqual(
            self.events(), [("Block User", "alice", "bob"), ("Block User", "alice", "carol"), ("Block User", "bob", "alice")]
        )

    def test_takes_the_blocker_from_the_token_only(self):
        fields = {"blocked": "bob", "blocker": "carol", "created": "2020-01-01T00:00:00.000000Z"}

        response = self.as_user(self.alice).post("/api/block", fields)

        self.assertEqual(response.status_code, 201)
        block = Block.objects.get()
        self.assertEqual(block.blocker, self.alice)
        self.assertGreater(block.created.year, 2020)

    def test_rejects_a_missing_name(self):
        response = self.as_user(self.alice).post("/api/block", {})

        self.assert_rejected(response, {"blocked": ["This field is required."]})

    def test_rejects_null_and_an_empty_name(self):
        for name, reason in ((None, "This field may not be null."), ("", "There is no such user.")):
            with self.subTest(name):
                response = self.block(name)

                self.assert_rejected(response, {"blocked": [reason]})

    def test_rejects_a_name_that_is_not_a_string(self):
        for value in (True, 5, self.bob.pk, 1.5, [], ["bob"], {}, {"username": "bob"}):
            with self.subTest(value):
                response = self.block(value)

                self.assert_rejected(response, {"blocked": ["Not a valid string."]})

    def test_rejects_an_unknown_user(self):
        for name in ("nobody", "bo", "bobb", " bob", "bob ", "bob\n", " ", str(self.bob.pk), "b" * 900_000):
            with self.subTest(name[:20]):
                response = self.block(name)

                self.assert_rejected(response, UNKNOWN)

    def test_rejects_nul_and_lone_surrogates(self):
        for text in (r"bob\u0000", r"\u0000", r"bob\ud800", r"\udc00bob"):
            with self.subTest(text):
                response = self.as_user(self.alice).post(
                    "/api/block", f'{{"blocked": "{text}"}}', content_type="application/json"
                )

                self.assert_rejected(response, UNKNOWN)

    def test_blocks_a_deactivated_user(self):
        User.objects.filter(pk=self.bob.pk).update(is_active=False)

        response = self.block("bob")

        self.assertEqual(response.status_code, 201)
        self.assertEqual(Block.objects.get().blocked, self.bob)

    def test_rejects_to_block_yourself(self):
        response = self.block("alice")

        self.assert_rejected(response, YOURSELF)

    def test_rejects_a_user_who_is_already_blocked(self):
        self.block("bob")

        response = self.block("bob")

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), ALREADY)
        self.assertEqual(Block.objects.count(), 1)
        self.assertEqual(self.events(), [("Block User", "alice", "bob")])

    def test_rejects_a_url_parameter(self):
        response = self.as_user(self.alice).post("/api/block?blocked=bob", {"blocked": "bob"})

        self.assert_rejected(response, {"blocked": ["Unknown parameter."]})

    def test_rejects_without_a_token(self):
        response = self.client.post("/api/block", {"blocked": "bob"})

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})
        self.assertFalse(Block.objects.exists())


class ParallelBlockTests(ConcurrentTestCase):
    def test_only_one_of_many_requests_succeeds(self):
        clients = [self.as_user(self.alice) for _ in range(8)]

        responses = self.in_parallel(*[partial(client.post, "/api/block", {"blocked": "bob"}) for client in clients])

        self.assertEqual(sorted(response.status_code for response in responses), [201] + [400] * 7)
        self.assertEqual([response.json() for response in responses if response.status_code == 400], [ALREADY] * 7)
        self.assertEqual(Block.objects.count(), 1)
        self.assertEqual(self.events(), [("Block User", "alice", "bob")])

    def test_rejects_a_user_who_has_just_been_deleted(self):
        with delete_after_lookup("bob"):
            response = self.as_user(self.alice).post("/api/block", {"blocked": "bob"})

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"blocked": ["There is no such user."]})
        self.assertFalse(Block.objects.exists())
        self.assertEqual(self.events(), [])

    def test_two_can_block_each_other(self):
        alice, bob = self.as_user(self.alice), self.as_user(self.bob)

        responses = self.in_parallel(
            partial(alice.post, "/api/block", {"blocked": "bob"}), partial(bob.post, "/api/block", {"blocked": "alice"})
        )

        self.assertEqual([response.status_code for response in responses], [201, 201])
        self.assertEqual(Block.objects.count(), 2)

    def test_holds_from_its_response_on(self):
        alice, clients = self.as_user(self.alice), [self.as_user(self.bob) for _ in range(4)]
        responded = Event()

        def block():
            try:
                return alice.post("/api/block", {"blocked": "bob"}).status_code
            finally:
                responded.set()

        def write_until_after_the_response(client):
            begins_after = False
            while not begins_after:
                begins_after = responded.is_set()
                status = client.post("/api/message", {"receiver": "alice", "content": "hi"}).status_code
            return status

        statuses = self.in_parallel(block, *[partial(write_until_after_the_response, client) for client in clients])

        self.assertEqual(statuses, [201] + [403] * 4)


class BlockListTests(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.alices_client = self.as_user(self.alice)

    def block(self, *blocked, by=None):
        """Create the blocks and return them as the list shows them."""
        blocks = [Block.objects.create(blocker=by or self.alice, blocked=user) for user in blocked]
        return [{"blocked": block.blocked.username, "created": f"{block.created:%Y-%m-%dT%H:%M:%S.%fZ}"} for block in blocks]

    def users(self, number):
        return [User.objects.create(username=f"user-{position}") for position in range(number)]

    def test_lists_the_newest_first(self):
        bob, carol = self.block(self.bob, self.carol)

        response = self.alices_client.get("/api/block")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json(), {"count": 2, "next": None, "previous": None, "results": [carol, bob]})
        self.assertEqual(self.events(), [])

    def test_is_an_empty_page_if_nobody_is_blocked(self):
        response = self.alices_client.get("/api/block")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json(), {"count": 0, "next": None, "previous": None, "results": []})

    def test_lists_only_the_users_own_blocks(self):
        self.block(self.alice, self.carol, by=self.bob)
        own = self.block(self.bob)

        response = self.alices_client.get("/api/block")

        self.assertEqual(response.json(), {"count": 1, "next": None, "previous": None, "results": own})

    def test_shows_the_same_as_the_response_to_the_post(self):
        made = self.alices_client.post("/api/block", {"blocked": "bob"}).json()

        self.assertEqual(self.alices_client.get("/api/block").json()["results"], [made])

    def test_has_pages_that_link_to_each_other(self):
        first, second, third = (f"http://testserver/api/block?{page}page_size=2" for page in ("", "page=2&", "page=3&"))
        newest_first = self.block(*self.users(5))[::-1]
        pages = {
            first: (second, None, newest_first[:2]),
            second: (third, first, newest_first[2:4]),
            third: (None, second, newest_first[4:]),
        }
        for page, (following, previous, results) in pages.items():
            with self.subTest(page):
                response = self.alices_client.get(page)

                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.json(), {"count": 5, "next": following, "previous": previous, "results": results})

    def test_has_20_rows_a_page_by_default(self):
        newest_first = self.block(*self.users(21))[::-1]

        first, both = self.alices_client.get("/api/block").json(), self.alices_client.get("/api/block?page_size=100").json()

        self.assertEqual(first["results"], newest_first[:20])
        self.assertEqual(first["next"], "http://testserver/api/block?page=2")
        self.assertEqual(both, {"count": 21, "next": None, "previous": None, "results": newest_first})

    def test_rejects_a_page_that_does_not_exist(self):
        self.block(self.bob)
        for page in ("0", "-1", "x", "2", "1.0", "9" * 15, "9" * 16, "9" * 30):
            with self.subTest(page):
                response = self.alices_client.get(f"/api/block?page={page}")

                self.assertEqual(response.status_code, 404)
                self.assertEqual(response.json(), {"detail": "Invalid page."})

    def test_rejects_a_wrong_url_parameter(self):
        unknown, size = ["Unknown parameter."], ["Must be a whole number from 1 to 100."]
        wrong = {
            "blocked=bob": {"blocked": unknown},
            "before=5": {"before": unknown},
            "Page=1": {"Page": unknown},
            "page_size=0": {"page_size": size},
            "page_size=101": {"page_size": size},
            "page_size=x": {"page_size": size},
            "page=": {"page": ["This parameter may not be empty."]},
            "page=1&page=1": {"page": ["Give this parameter only once."]},
        }
        for query, errors in wrong.items():
            with self.subTest(query):
                response = self.alices_client.get(f"/api/block?{query}")

                self.assertEqual(response.status_code, 400)
                self.assertEqual(response.json(), errors)

    def test_rejects_without_a_token(self):
        response = self.client.get("/api/block")

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})


class UnblockTests(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.block = Block.objects.create(blocker=self.alice, blocked=self.bob)
        self.alices_client = self.as_user(self.alice)

    def unblock(self, name, client=None):
        return (client or self.alices_client).delete(f"/api/block/{name}")

    def assert_not_found(self, response):
        self.assertEqual(response.status_code, 404)
        self.assertEqual(response.json(), {"detail": "Not found."})
        self.assert_still_blocked()

    def assert_still_blocked(self):
        self.assertEqual(Block.objects.get(), self.block)
        self.assertEqual(self.events(), [])

    def test_lets_the_user_write_again(self):
        response = self.unblock("bob")

        self.assertEqual(response.status_code, 204)
        self.assertEqual(response.content, b"")
        self.assertFalse(Block.objects.exists())
        self.assertEqual(self.events(), [("Unblock User", "alice", "bob")])
        sent = self.as_user(self.bob).post("/api/message", {"receiver": "alice", "content": "hello"})
        self.assertEqual(sent.status_code, 201)

    def test_keeps_every_other_block(self):
        others = [
            Block.objects.create(blocker=self.alice, blocked=self.carol),
            Block.objects.create(blocker=self.bob, blocked=self.alice),
            Block.objects.create(blocker=self.carol, blocked=self.bob),
        ]

        self.unblock("bob")

        self.assertEqual(list(Block.objects.order_by("pk")), others)

    def test_allows_a_new_block(self):
        self.unblock("bob")

        response = self.alices_client.post("/api/block", {"blocked": "bob"})

        self.assertEqual(response.status_code, 201)
        self.assertEqual(self.unblock("bob").status_code, 204)
        self.assertEqual([event for event, _, _ in self.events()], ["Unblock User", "Block User", "Unblock User"])

    def test_takes_every_allowed_character_in_a_name(self):
        for name in ("@dave.the+brave-one_", "..d", "7", "d" * 150):
            for path in (name, quote(name, safe="")):
                with self.subTest(path):
                    user, _ = User.objects.get_or_create(username=name)
                    Block.objects.create(blocker=self.alice, blocked=user)

                    response = self.unblock(path)

                    self.assertEqual(response.status_code, 204)
        self.assertEqual(Block.objects.get(), self.block)

    def test_responds_404_for_users_who_are_not_blocked(self):
        for name in ("carol", "alice", "nobody", "bob%20", "%20bob", "bob%0A", str(self.bob.pk), "b" * 5000):
            with self.subTest(name[:20]):
                response = self.unblock(name)

                self.assert_not_found(response)

    def test_responds_404_for_names_that_a_database_rejects(self):
        for name in ("%00", "bob%00", "%ED%A0%80", "bob%ED%B0%80", "bob%FF", "%FF", "bob%2F", "bob/", "%", "bob%C2%AD"):
            with self.subTest(name):
                response = self.unblock(name)

                self.assert_not_found(response)

    def test_responds_404_for_a_block_of_another_user(self):
        for user in (self.bob, self.carol):
            with self.subTest(user):
                response = self.unblock("bob", self.as_user(user))

                self.assert_not_found(response)

    def test_responds_404_for_a_block_already_deleted(self):
        self.unblock("bob")

        response = self.unblock("bob")

        self.assertEqual(response.status_code, 404)
        self.assertEqual(response.json(), {"detail": "Not found."})
        self.assertEqual(self.events(), [("Unblock User", "alice", "bob")])

    def test_rejects_a_url_parameter(self):
        response = self.unblock("bob?blocked=bob")

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"blocked": ["Unknown parameter."]})
        self.assert_still_blocked()

    def test_rejects_without_a_token(self):
        response = self.unblock("bob", self.client)

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})
        self.assert_still_blocked()

    def test_accepts_only_delete(self):
        for method in ("GET", "POST", "PUT", "PATCH"):
            with self.subTest(method):
                response = self.alices_client.generic(method, "/api/block/bob")

                self.assertEqual(response.status_code, 405)
                self.assertEqual(response.json(), {"detail": f'Method "{method}" not allowed.'})
        self.assert_still_blocked()


class ParallelUnblockTests(ConcurrentTestCase):
    def test_only_one_of_many_requests_deletes_the_block(self):
        Block.objects.create(blocker=self.alice, blocked=self.bob)
        clients = [self.as_user(self.alice) for _ in range(8)]

        responses = self.in_parallel(*[partial(client.delete, "/api/block/bob") for client in clients])

        self.assertEqual(sorted(response.status_code for response in responses), [204] + [404] * 7)
        self.assertEqual(
            [response.json() for response in responses if response.status_code == 404], [{"detail": "Not found."}] * 7
        )
        self.assertFalse(Block.objects.exists())
        self.assertEqual(self.events(), [("Unblock User", "alice", "bob")])


class BlockedSenderTests(ApiTestCase):
    """The effect of a block by the receiver on POST /api/message."""

    def setUp(self):
        super().setUp()
        self.earlier = self.send(self.bob, "alice").json()
        Block.objects.create(blocker=self.alice, blocked=self.bob)

    def send(self, sender, receiver, content="hello"):
        return self.as_user(sender).post("/api/message", {"receiver": receiver, "content": content})

    def later_events(self):
        return self.events()[1:]

    def messages(self, user, path="/api/message"):
        page = self.as_user(user).get(path).json()
        self.assertEqual(page["count"], len(page["results"]))
        return page["results"]

    def assert_delivered(self, response):
        self.assertEqual(response.status_code, 201)
        message = response.json()
        self.assertEqual(self.later_events(), [("Successful Message", message["sender"], message["receiver"])])

    def test_rejects_the_message(self):
        response = self.send(self.bob, "alice")

        self.assertEqual(response.status_code, 403)
        self.assertEqual(response.json(), {"detail": "This user does not receive messages from you."})
        self.assertEqual(self.later_events(), [("Blocked Message", "bob", "alice")])

    def test_stores_nothing_and_keeps_earlier_messages_for_both(self):
        self.send(self.bob, "alice")

        for user, path in ((self.alice, "received"), (self.bob, "sent")):
            with self.subTest(path):
                self.assertEqual(self.messages(user), [self.earlier])
                self.assertEqual(self.messages(user, f"/api/message/{path}"), [self.earlier])

    def test_reports_wrong_fields_before_the_block(self):
        response = self.send(self.bob, "alice", content=" ")

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"content": ["This field may not be blank."]})
        self.assertEqual(self.later_events(), [])

    def test_lets_the_blocker_write_to_the_blocked(self):
        response = self.send(self.alice, "bob")

        self.assert_delivered(response)
        self.assertEqual(self.messages(self.bob), [response.json(), self.earlier])

    def test_lets_others_write_to_the_blocker(self):
        response = self.send(self.carol, "alice")

        self.assert_delivered(response)

    def test_lets_a_blocked_user_write_to_others_and_to_themselves(self):
        responses = [self.send(self.bob, "carol"), self.send(self.bob, "bob")]

        self.assertEqual([response.status_code for response in responses], [201, 201])
        self.assertEqual(self.later_events(), [("Successful Message", "bob", "carol"), ("Successful Message", "bob", "bob")])

    def test_lets_the_blocker_write_to_themselves(self):
        response = self.send(self.alice, "alice")

        self.assert_delivered(response)

    def test_holds_in_both_directions_if_both_block(self):
        Block.objects.create(blocker=self.bob, blocked=self.alice)

        responses = [self.send(self.alice, "bob"), self.send(self.bob, "alice")]

        self.assertEqual([response.status_code for response in responses], [403, 403])
        self.assertEqual(self.messages(self.alice), [self.earlier])
        self.assertEqual(self.messages(self.bob), [self.earlier])
