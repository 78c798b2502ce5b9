"""Every case comes as a new user, so that those which log out or change the password spoil no other.

bob, to whom the description's examples write, is there from the first case on.
"""

import itertools
import uuid

import requests
import schemathesis

RUN = uuid.uuid4().hex[:8]
numbers = itertools.count(1)


@schemathesis.auth(refresh_interval=None)
class NewUser:
    def __init__(self):
        self.bob_is_there = False

    def get(self, case, context):
        url = case.operation.base_url.rstrip("/")
        if not self.bob_is_there:
            self.bob_is_there = self.register(url, "bob").status_code in (201, 400)
        return self.register(url, f"{RUN}-{next(numbers)}").json()["token"]

    def register(self, url, username):
        body = {"username": username, "password": "a long secret"}
        return requests.post(f"{url}/api/auth/register", json=body, timeout=30)

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"
