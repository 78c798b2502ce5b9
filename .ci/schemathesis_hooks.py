"""One user sends all requests, except those that end tokens, change a password or delete an account: each has its own user.

alice, to whom the schema's examples write, and bob, whom they block, are registered before the first request.
"""

import itertools
import uuid
from functools import cache

import requests
import schemathesis

RUN = uuid.uuid4().hex[:8]
NEED_OWN_USER = ("log_out", "log_out_everywhere", "change_password", "delete_account")
numbers = itertools.count(1)


def register(url, username):
    body = {"username": username, "password": "a long secret"}
    return requests.post(f"{url}/api/auth/register", json=body, timeout=30)


@cache
def common_token(url):
    register(url, "alice")
    register(url, "bob")
    return register(url, f"{RUN}-0").json()["token"]


@schemathesis.auth(refresh_interval=None)
class Users:
    def get(self, case, context):
        url = case.operation.base_url.rstrip("/")
        if case.operation.definition.raw["operationId"] in NEED_OWN_USER:
            return register(url, f"{RUN}-{next(numbers)}").json()["token"]
        return common_token(url)

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def filter_case(context, case):
    """Leave out cursors beyond the 64 bits that the schema tells clients to use: the service accepts any whole number."""
    cursors = (str((case.query or {}).get(name)) for name in ("before", "after"))
    return not any(cursor.isdecimal() and int(cursor) >= 2**63 for cursor in cursors)
