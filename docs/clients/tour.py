"""Uses the client that openapi-python-client generates. docs/clients.md shows how to run it."""

import sys
import uuid
from http import HTTPStatus

from offline_messaging_api_client import AuthenticatedClient, Client
from offline_messaging_api_client.api.accounts import register
from offline_messaging_api_client.api.blocking import block_user
from offline_messaging_api_client.api.messages import list_messages, list_received_messages, send_message
from offline_messaging_api_client.models import (
    Block,
    BlockRequest,
    Detail,
    Message,
    PaginatedMessageList,
    RegisterRequest,
    SendRequest,
    Session,
)

url, run = sys.argv[1], uuid.uuid4().hex[:8]
alice, bob = f"alice-{run}", f"bob-{run}"


def sign_up(username: str) -> AuthenticatedClient:
    body = RegisterRequest(username, "a long secret", email=f"{username}@example.com")
    session = register.sync(client=Client(url), body=body)
    assert isinstance(session, Session), session
    return AuthenticatedClient(url, session.token)


def send(client: AuthenticatedClient, receiver: str, content: str) -> Message:
    response = send_message.sync(client=client, body=SendRequest(receiver, content), idempotency_key=uuid.uuid4().hex)
    assert isinstance(response, Message), response
    return response


as_alice, as_bob = sign_up(alice), sign_up(bob)
hello = send(as_alice, bob, "Hello, bob 👋")
page = list_messages.sync(client=as_bob)
assert isinstance(page, PaginatedMessageList), page
assert [message.id for message in page.results] == [hello.id]

still_there = send(as_alice, bob, "Still there?")
page = list_received_messages.sync(client=as_bob, after=hello.id)
assert isinstance(page, PaginatedMessageList), page
assert page.results == [still_there]

assert isinstance(block_user.sync(client=as_bob, body=BlockRequest(alice)), Block)
rejection = send_message.sync_detailed(client=as_alice, body=SendRequest(bob, "Bob?"))
assert rejection.status_code == HTTPStatus.FORBIDDEN
assert isinstance(rejection.parsed, Detail), rejection
print(f"{bob} got {still_there.content!r}; then {alice} got a 403: {rejection.parsed.detail}")
