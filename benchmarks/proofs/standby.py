"""Shows that a node on a hot standby responds to every read, and with 503 to the rest, until the standby is promoted.

One node uses the primary of two PostgreSQL servers, a second node the standby. Every operation of the schema is tried on the
second node. Then the proof measures how often it shows an old state. At the end the primary is killed and the standby is
promoted, while the node runs.
"""

import json
import re
from contextlib import ExitStack

import psycopg

from benchmarks.proofs.checks import check, expect, wait_until
from benchmarks.proofs.clients import PASSWORD, connect, register
from benchmarks.proofs.processes import Cluster, Node, running, running_cluster, running_node

ROUNDS = 60
WITHIN = 10  # seconds
READS = {"get", "head", "options"}


def try_every_operation(node: Node, token: str, message: int) -> None:
    """Check that reads succeed, and that other operations get a 503 with Retry-After, request id and log line."""
    session = node.get("/api/auth/session", token)["results"][0]["id"]
    values = {"id": message, "username": "bob", "session_id": session}
    reads, rejected = [], {}
    for path, operations in node.get("/api/schema")["paths"].items():
        filled = re.sub(r"{(\w+)}", lambda name: str(values[name[1]]), path)
        for method in (method for method in operations if method != "parameters"):
            connection = connect(node.url)
            headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
            connection.request(method.upper(), filled, None if method in READS else "{}", headers)
            response = connection.getresponse()
            content, name = json.loads(response.read()), f"{method.upper()} {path}"
            if method in READS:
                expect(response.status == 200, f"{name}: {response.status} {content}")
                reads.append(name)
            else:
                expect(response.status == 503 and "only reads" in content["detail"], f"{name}: {response.status} {content}")
                expect(response.headers["Retry-After"] == "5", f"{name} has no Retry-After")
                rejected[response.headers["X-Request-ID"]] = name
    for path in ("/api/docs", "/admin/login/", "/static/admin/css/base.css"):
        connection = connect(node.url)
        connection.request("GET", path)
        expect(connection.getresponse().status == 200, f"GET {path}")
    lines = {line["request_id"]: line["status"] for line in node.log_lines("requests")}
    check(
        f"on the standby {len(reads)} reads succeeded, {len(rejected)} other operations got a 503 with Retry-After, request "
        f"id and log line; debug.log has {len(node.log_lines('debug'))} lines",
        all(lines[request_id] == 503 for request_id in rejected),
        not node.log_lines("debug"),
    )


def measure_lag(primary: Node, second: Node, tokens: dict[str, str]) -> None:
    """Measure how often a read right after a write does not show it yet, and how long that takes."""
    unseen, alive, seconds = 0, 0, []

    def status(path: str, token: str) -> int:
        return second.request("GET", path, token=token)[0]

    def wait_for(expected: int, path: str, token: str) -> None:
        seconds.append(wait_until(lambda: status(path, token) == expected, WITHIN, f"GET {path} gets a {expected}"))

    for _ in range(ROUNDS):
        message = primary.post("/api/message", {"receiver": "bob", "content": "hi"}, tokens["alice"])
        path, token = f"/api/message/{message['id']}", tokens["alice"]
        unseen += status(path, token) == 404
        wait_for(200, path, token)
        token = primary.post("/api/auth/login", {"username": "alice", "password": PASSWORD})["token"]
        wait_for(200, "/api/auth/user", token)
        primary.post("/api/auth/logout", token=token)
        alive += status("/api/auth/user", token) == 200
        wait_for(401, "/api/auth/user", token)
    check(
        f"{unseen} of {ROUNDS} messages were not shown right after the send, {alive} of {ROUNDS} tokens were still valid "
        f"right after the logout; after {max(seconds):.2f} s at most the standby had it"
    )


def main() -> None:
    with running_cluster() as cluster, ExitStack() as stack:
        first = stack.enter_context(running_node(cluster.folder, cluster.url))
        standby = stack.enter_context(running(Cluster(cluster.folder, primary=cluster)))
        second = Node(cluster.folder, standby.url)
        migrated = second.manage("migrate", "--verbosity", "0")
        check(f"manage.py migrate on the standby: {migrated.strip()}", migrated.count("\n") == 1)
        stack.enter_context(running(second))
        tokens = register(first, ["alice", "bob"])
        message = first.post("/api/message", {"receiver": "bob", "content": "hi"}, tokens["alice"])["id"]
        path = f"/api/message/{message}"
        wait_until(
            lambda: second.request("GET", path, token=tokens["alice"])[0] == 200, WITHIN, "the standby has the message"
        )
        ready = [node.get("/readyz") for node in (first, second)]
        check(f"/readyz of both nodes: {ready}", [response["writable"] for response in ready] == [True, False])
        try_every_operation(second, tokens["alice"], message)
        measure_lag(first, second, tokens)
        workers = second.workers()
        first.kill()
        cluster.kill()
        with psycopg.connect(standby.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        new = {"receiver": "bob", "content": "to the new primary"}
        seconds = wait_until(
            lambda: second.request("POST", "/api/message", new, tokens["alice"])[0] == 201, WITHIN, "the node sends"
        )
        for _ in range(20):
            second.post("/api/message", new, tokens["alice"])
            second.post("/api/auth/login", {"username": "alice", "password": PASSWORD})
        ready = second.get("/readyz")
        check(
            f"{seconds:.2f} s after the promotion the node on it sent a message, without a restart; /readyz: {ready}",
            second.workers() == workers,
            ready["writable"],
        )


if __name__ == "__main__":
    main()
