"""The query counts of the API. They must not grow with the rows in the database."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.urls import resolve

from accounts.authentication import issue_token
from blocking.models import Block
from config.testing.cases import PASSWORD, ApiTestCase, api_paths, make_user
from messageservice.testing import QUERIES_TO_STORE, make_message

METHODS = ("get", "post", "put", "patch", "delete")
DAY = datetime(2020, 1, 5, 12, tzinfo=UTC)
DATE = f"date={DAY:%Y-%m-%d}"
RANGE = "since=2020-01-05T15:00:00+03:00&until=2020-01-06T00:00:00Z"


class Call(NamedTuple):
    """A request of alice; `{first}`, `{middle}` and `{last}` in its path and body are ids of her messages with bob.

    `{session}` is the id of a session of hers.
    """

    method: str
    path: str
    queries: int
    status: int = 200
    body: dict[str, Any] | None = None
    key: str | None = None


def send(receiver: str, queries: int, status: int = 201, **fields: str) -> Call:
    return Call("post", "/api/message", queries, status, {"receiver": receiver, "content": "hi"}, **fields)


CALLS = (
    Call("get", "/healthz", 0),
    Call("get", "/readyz", 1),
    Call("get", "/api/schema", 0),
    Call("get", "/api/docs", 0),
    # Register reads no token: the name; counting in the tally takes five; user, token, and two around them.
    Call("post", "/api/auth/register", 10, 201, {"username": "dave", "password": PASSWORD}),
    Call("post", "/api/auth/register", 1, 400, {"username": "Bob", "password": PASSWORD}),
    # Login reads no token: the tallies, the user; with the right password the tallies again, the new token.
    Call("post", "/api/auth/login", 4, 200, {"username": "Alice", "password": PASSWORD}),
    # With a wrong password: counting in four tallies takes five; the same for an unknown name.
    Call("post", "/api/auth/login", 7, 400, {"username": "alice", "password": "wrong"}),
    Call("post", "/api/auth/login", 7, 400, {"username": "nobody", "password": PASSWORD}),
    # From here on the first query reads the token.
    Call("post", "/api/auth/logout", 2, 204),
    Call("post", "/api/auth/logoutall", 2, 204),
    Call("get", "/api/auth/session", 3),  # the token, the rows, the count
    Call("get", "/api/auth/session?page=2&page_size=1", 3),
    Call("delete", "/api/auth/session/{session}", 2, 204),
    Call("delete", "/api/auth/session/" + "0" * 32, 2, 404),
    Call("delete", "/api/auth/session/x", 1, 404),
    Call("get", "/api/auth/user", 1),
    # The tally, before and after the check; password and tokens, and two around them. Wrong password: counting in the tally.
    Call("post", "/api/auth/password", 7, 204, {"current_password": PASSWORD, "new_password": "another long secret"}),
    Call("post", "/api/auth/password", 7, 400, {"current_password": "wrong", "new_password": "another long secret"}),
    # The tallies twice; locking the mailbox, the user, tokens, groups, permissions, blocks, and two around them.
    Call("post", "/api/auth/user/delete", 11, 204, {"current_password": PASSWORD}),
    Call("post", "/api/auth/user/delete", 7, 400, {"current_password": "wrong"}),
    # Send: the token, the receiver, both mailboxes with the block, and two around what is stored.
    send("newcomer", 7 + QUERIES_TO_STORE),  # creates the receiver's mailbox, then locks both
    send("stranger", 5 + QUERIES_TO_STORE),  # has a mailbox, but no conversation with alice
    send("Bob", 5 + QUERIES_TO_STORE),
    send("alice", 5 + QUERIES_TO_STORE),
    send("bob", 6 + QUERIES_TO_STORE, key="new"),
    send("bob", 6, key="used"),
    send("stranger", 7, 422, key="used"),
    send("blocker", 6, 403),
    send("nobody", 2, 400),
    send("nobody", 3, 400, key="new"),
    send("nobody", 3, 422, key="used"),
    # Lists: the token, and one statement for the rows and the count, or for the rows and whether there are more.
    *(
        Call("get", f"{path}{query}", 2)
        for path in ("/api/message", "/api/message/sent", "/api/message/received")
        for query in (
            "",
            "?page=2&page_size=1",
            "?before={middle}",
            "?after={middle}",
            f"?{DATE}",
            f"?{DATE}&page=2&page_size=1",
            f"?{DATE}&before={{last}}",
            f"?{DATE}&after={{first}}",
            f"?{RANGE}",
            f"?{RANGE}&page=2&page_size=1",
            f"?{RANGE}&before={{last}}",
            f"?{RANGE}&after={{first}}",
        )
    ),
    *(  # and one for the user in the filter
        Call("get", f"{path}=bob{query}", 3)
        for path in ("/api/message?user", "/api/message/sent?receiver", "/api/message/received?sender")
        for query in (
            "",
            "&page=2&page_size=1",
            "&before={last}",
            "&after={first}",
            f"&{DATE}",
            f"&{DATE}&before={{last}}",
            f"&{DATE}&after={{first}}",
            f"&{RANGE}&{DATE}",
            f"&{RANGE}&after={{first}}",
        )
    ),
    Call("get", "/api/message/received?unread=true", 2),
    Call("get", "/api/message/received?unread=false", 2),
    Call("get", "/api/message/received?unread=true&page=2&page_size=1", 2),
    Call("get", "/api/message/received?unread=true&sender=bob", 3),
    Call("get", "/api/message/received?unread=true&before={last}", 2),
    Call("get", "/api/message/received?unread=true&after={first}", 2),
    Call("get", f"/api/message/received?unread=true&{DATE}", 2),
    Call("get", f"/api/message/received?unread=true&{DATE}&sender=bob", 3),
    Call("get", f"/api/message/received?unread=true&{DATE}&sender=bob&after={{first}}", 3),
    Call("get", "/api/message/{middle}", 2),
    Call("get", "/api/message/0", 2, 404),
    Call("get", "/api/conversation", 2),
    Call("get", "/api/conversation?page=2&page_size=1", 2),
    Call("get", "/api/conversation?unread=true", 2),
    Call("get", "/api/conversation?unread=true&page=2&page_size=1", 2),
    Call("get", "/api/conversation?unread=false", 2),
    Call("get", "/api/conversation?before={last}&page_size=1", 2),
    Call("get", "/api/conversation?before={last}&unread=true", 2),
    # Mark as read: token, conversation, mailbox, message; three to mark and count, one to read the count, two around them.
    Call("post", "/api/conversation/Bob/read", 10, 200, {"up_to": "{last}"}),
    Call("post", "/api/conversation/bob/read", 10, 200, {"up_to": "{first}"}),  # nothing is left to mark
    Call("post", "/api/conversation/bob/read", 7, 400, {"up_to": str(2**63 - 1)}),
    Call("post", "/api/conversation/stranger/read", 2, 404, {"up_to": "{last}"}),
    Call("get", "/api/block", 3),  # the token, the rows, the count
    Call("get", "/api/block?page=2&page_size=1", 3),
    # The token, the user, both users locked, the block, and two around it; if already blocked three.
    Call("post", "/api/block", 6, 201, {"blocked": "bob"}),
    Call("post", "/api/block", 7, 400, {"blocked": "partner0"}),
    Call("delete", "/api/block/Partner0", 3, 204),
    Call("delete", "/api/block/bob", 2, 404),
)


class QueryTests(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.as_user(self.alice)
        self.session = issue_token(self.alice)[0].digest[:32]
        self.ids = []
        make_user("newcomer")
        stranger, blocker = make_user("stranger"), make_user("blocker")
        make_message(stranger, stranger)
        make_message(blocker, blocker)
        Block.objects.create(blocker=blocker, blocked=self.alice)

    def fill(self, rows: int) -> None:
        """Add rows to everything that alice has: messages in both directions, conversations, blocks, tokens."""
        for _ in range(rows):
            partner = make_user(f"partner{Block.objects.created_by(self.alice).count()}")
            make_message(partner, self.alice, created=DAY)
            Block.objects.create(blocker=self.alice, blocked=partner)
            issue_token(self.alice)
            make_message(self.alice, self.alice, created=DAY)
            for ends in ((self.alice, self.bob), (self.bob, self.alice), (self.alice, self.bob)):
                self.ids.append(make_message(*ends, created=DAY).pk)

    def make(self, call: Call):
        numbers = {"first": self.ids[0], "middle": self.ids[len(self.ids) // 2], "last": self.ids[-1]}
        numbers["session"] = self.session
        body = call.body and {name: value.format(**numbers) for name, value in call.body.items()}
        headers = {"idempotency-key": call.key} if call.key else {}
        return getattr(self.client, call.method)(call.path.format(**numbers), body, headers=headers)

    def test_number_of_queries_does_not_grow_with_rows(self):
        self.client.post("/api/message", {"receiver": "bob", "content": "hi"}, headers={"idempotency-key": "used"})

        for more in (2, 30):
            self.fill(more)
            for call in CALLS:
                with self.subTest(call=call, rows=len(self.ids)), transaction.atomic():
                    with self.assertNumQueries(call.queries):
                        response = self.make(call)

                    self.assertEqual(response.status_code, call.status, response.content)
                    transaction.set_rollback(True)  # so that each request finds the same rows

    def test_no_endpoint_is_left_out(self):
        served = {
            (method, view.route)
            for view in map(resolve, (*api_paths(), "/healthz", "/readyz"))
            for method in METHODS
            if hasattr(view.func.view_class, method)
        }

        counted = {
            (call.method, resolve(call.path.partition("?")[0].format(middle=1, session=1)).route)
            for call in CALLS
            if call.status < 400
        }

        self.assertEqual(counted, served)
