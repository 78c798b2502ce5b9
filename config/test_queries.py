"""The number of queries of each endpoint. It must not grow with the rows in the database."""

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


class Request(NamedTuple):
    """A request of alice and its number of queries.

    In its path and body, `{first}`, `{middle}` and `{last}` are ids of messages between alice and bob, `{session}` is the id
    of a session of alice.
    """

    method: str
    path: str
    queries: int
    status: int = 200
    body: dict[str, Any] | None = None
    key: str | None = None


def message(receiver: str, queries: int, status: int = 201, **fields: str) -> Request:
    """Return the request that sends a message to the receiver."""
    return Request("post", "/api/message", queries, status, {"receiver": receiver, "content": "hi"}, **fields)


REQUESTS = (
    Request("get", "/healthz", 0),
    Request("get", "/readyz", 1),
    Request("get", "/api/schema", 0),
    Request("get", "/api/docs", 0),
    # Register reads no token: the name; five to count in the tally; user, token, and two for the transaction.
    Request("post", "/api/auth/register", 10, 201, {"username": "dave", "password": PASSWORD}),
    Request("post", "/api/auth/register", 1, 400, {"username": "Bob", "password": PASSWORD}),
    # Login reads no token: the tallies, the user; with the correct password the tallies again, the new token.
    Request("post", "/api/auth/login", 4, 200, {"username": "Alice", "password": PASSWORD}),
    # With a wrong password: five to count in four tallies; the same for an unknown name.
    Request("post", "/api/auth/login", 7, 400, {"username": "alice", "password": "wrong"}),
    Request("post", "/api/auth/login", 7, 400, {"username": "nobody", "password": PASSWORD}),
    # The first query of all following requests reads the token.
    Request("post", "/api/auth/logout", 2, 204),
    Request("post", "/api/auth/logoutall", 2, 204),
    Request("get", "/api/auth/session", 3),  # the token, the rows, the count
    Request("get", "/api/auth/session?page=2&page_size=1", 3),
    Request("delete", "/api/auth/session/{session}", 2, 204),
    Request("delete", "/api/auth/session/" + "0" * 32, 2, 404),
    Request("delete", "/api/auth/session/x", 1, 404),
    Request("get", "/api/auth/user", 1),
    # The tally, before and after the check; password, tokens, two for the transaction. Wrong password: five to count.
    Request("post", "/api/auth/password", 7, 204, {"current_password": PASSWORD, "new_password": "another long secret"}),
    Request("post", "/api/auth/password", 7, 400, {"current_password": "wrong", "new_password": "another long secret"}),
    # The tallies twice; the lock of the mailbox, user, tokens, groups, permissions, blocks, two for the transaction.
    Request("post", "/api/auth/user/delete", 11, 204, {"current_password": PASSWORD}),
    Request("post", "/api/auth/user/delete", 7, 400, {"current_password": "wrong"}),
    # Send: the token, the receiver, both mailboxes with the block, and two for the transaction.
    message("newcomer", 7 + QUERIES_TO_STORE),  # creates the receiver's mailbox, then locks both
    message("stranger", 5 + QUERIES_TO_STORE),  # has a mailbox, but no conversation with alice
    message("Bob", 5 + QUERIES_TO_STORE),
    message("alice", 5 + QUERIES_TO_STORE),
    message("bob", 6 + QUERIES_TO_STORE, key="new"),
    message("bob", 6, key="used"),
    message("stranger", 7, 422, key="used"),
    message("blocker", 6, 403),
    message("nobody", 2, 400),
    message("nobody", 3, 400, key="new"),
    message("nobody", 3, 422, key="used"),
    # Lists: the token, and one statement for the rows and the count, or for the rows and whether there are more.
    *(
        Request("get", f"{path}{query}", 2)
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
    *(  # one more for the user in the filter
        Request("get", f"{path}=bob{query}", 3)
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
    Request("get", "/api/message/received?unread=true", 2),
    Request("get", "/api/message/received?unread=false", 2),
    Request("get", "/api/message/received?unread=true&page=2&page_size=1", 2),
    Request("get", "/api/message/received?unread=true&sender=bob", 3),
    Request("get", "/api/message/received?unread=true&before={last}", 2),
    Request("get", "/api/message/received?unread=true&after={first}", 2),
    Request("get", f"/api/message/received?unread=true&{DATE}", 2),
    Request("get", f"/api/message/received?unread=true&{DATE}&sender=bob", 3),
    Request("get", f"/api/message/received?unread=true&{DATE}&sender=bob&after={{first}}", 3),
    Request("get", "/api/message/{middle}", 2),
    Request("get", "/api/message/0", 2, 404),
    Request("get", "/api/conversation", 2),
    Request("get", "/api/conversation?page=2&page_size=1", 2),
    Request("get", "/api/conversation?unread=true", 2),
    Request("get", "/api/conversation?unread=true&page=2&page_size=1", 2),
    Request("get", "/api/conversation?unread=false", 2),
    Request("get", "/api/conversation?before={last}&page_size=1", 2),
    Request("get", "/api/conversation?before={last}&unread=true", 2),
    # Mark as read: token, conversation, mailbox, message; three to mark and count; the count; two for the transaction.
    Request("post", "/api/conversation/Bob/read", 10, 200, {"up_to": "{last}"}),
    Request("post", "/api/conversation/bob/read", 10, 200, {"up_to": "{first}"}),  # no message is unread
    Request("post", "/api/conversation/bob/read", 7, 400, {"up_to": str(2**63 - 1)}),
    Request("post", "/api/conversation/stranger/read", 2, 404, {"up_to": "{last}"}),
    Request("get", "/api/block", 3),  # the token, the rows, the count
    Request("get", "/api/block?page=2&page_size=1", 3),
    # The token, the user, both users locked, the block, two for the transaction; three if already blocked.
    Request("post", "/api/block", 6, 201, {"blocked": "bob"}),
    Request("post", "/api/block", 7, 400, {"blocked": "partner0"}),
    Request("delete", "/api/block/Partner0", 3, 204),
    Request("delete", "/api/block/bob", 2, 404),
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
            for pair in ((self.alice, self.bob), (self.bob, self.alice), (self.alice, self.bob)):
                self.ids.append(make_message(*pair, created=DAY).pk)

    def send(self, request: Request):
        """Send the request as alice, and return the response."""
        numbers = {"first": self.ids[0], "middle": self.ids[len(self.ids) // 2], "last": self.ids[-1]}
        numbers["session"] = self.session
        body = request.body and {name: value.format(**numbers) for name, value in request.body.items()}
        headers = {"idempotency-key": request.key} if request.key else {}
        return getattr(self.client, request.method)(request.path.format(**numbers), body, headers=headers)

    def test_number_of_queries_does_not_grow_with_rows(self):
        self.client.post("/api/message", {"receiver": "bob", "content": "hi"}, headers={"idempotency-key": "used"})

        for rows in (2, 30):
            self.fill(rows)
            for request in REQUESTS:
                with self.subTest(request=request, rows=len(self.ids)), transaction.atomic():
                    with self.assertNumQueries(request.queries):
                        response = self.send(request)

                    self.assertEqual(response.status_code, request.status, response.content)
                    transaction.set_rollback(True)  # so that the rows are the same for each request

    def test_table_has_every_endpoint(self):
        served = {
            (method, view.route)
            for view in map(resolve, (*api_paths(), "/healthz", "/readyz"))
            for method in METHODS
            if hasattr(view.func.view_class, method)
        }

        counted = {
            (request.method, resolve(request.path.partition("?")[0].format(middle=1, session=1)).route)
            for request in REQUESTS
            if request.status < 400
        }

        self.assertEqual(counted, served)
