"""Shows that the image and compose.yaml do what docs/deploy.md says of them, and runs the blocks of its section.

Podman is used in place of Docker. The two images that Dockerfile and compose.yaml name are not pulled but made of packages
of Debian: one with Python, one with PostgreSQL and an entrypoint that does what compose.yaml needs of the official image.
They stay in benchmarks/data/container, with Podman's storage. All containers run in a network without connection to others;
pip's packages are fetched before. Needs root, and Debian's podman, aardvark-dns, runc and debootstrap.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.proofs.checks import check, download_packages, expect, require_root_and_programs, shell, wait_until
from benchmarks.proofs.clients import PASSWORD, as_text, request_bytes
from benchmarks.proofs.deploy import IN_A_CONTAINER
from benchmarks.proofs.pages import steps
from benchmarks.proofs.processes import Node, enter_own_network
from config.testing.service import ROOT

DATA = ROOT / "benchmarks" / "data" / "container"
PYTHON = re.search("^FROM (python:([0-9.]+)-slim-(.*)) AS", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
POSTGRES = re.search("image: (postgres:([0-9]+)-.*)", (ROOT / "compose.yaml").read_text())
PRIVATE = "# for this clone alone"  # the content of files in a clone that no image may contain
FILES = (".env", ".secret_key", "db.sqlite3", "logs/requests.log", "config/testing/private", "private.pem")
LONGEST_START = 180  # seconds
IN_FLIGHT = 10  # requests
SETTINGS = ("-e", "DATABASE_URL_FILE=/secrets/database_url", "-e", "SECRET_KEY_FILE=/secrets/secret_key")

# Works without systemd, and in a sandbox that limits open files and processes.
CONTAINERS = f"""
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
tmp_dir = "{DATA}/podman"
[network]
network_backend = "netavark"
network_config_dir = "{DATA}/networks"
"""
STORAGE = f"""
[storage]
driver = "overlay"
graphroot = "{DATA}/storage"
runroot = "{DATA}/run"
"""
DOCKER = f"""
docker() {{
    shift
    {Path(sys.executable).with_name("podman-compose")} --podman-build-args="
        --network none --volume {DATA}/packages:/packages:ro --volume {DATA}/pip.conf:/etc/pip.conf:ro" "$@"
}}
"""
POSTGRES_SETUP = """
usermod --uid 999 postgres
chown postgres /var/run/postgresql
cat > /usr/local/bin/entrypoint <<'END'
#!/bin/sh
set -eu
if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -m 700 "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --clear-groups "$0"
fi
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    initdb --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE"
    pg_ctl start --wait --options "-c listen_addresses=''"
    createdb --username "$POSTGRES_USER" "$POSTGRES_USER"
    pg_ctl stop
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c "listen_addresses=*"
END
chmod +x /usr/local/bin/entrypoint
"""
POSTGRES_OPTIONS = (
    f"ENV PATH=/usr/lib/postgresql/{POSTGRES[2]}/bin:/usr/local/bin:/usr/bin:/bin",
    "ENV PGDATA=/var/lib/postgresql/data",
    "ENV LANG=C.UTF-8",
    "STOPSIGNAL SIGINT",
    'ENTRYPOINT ["entrypoint"]',
)


class Container(Node):
    """The service in a container whose port 8000 is `port` of this machine."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.host, self.port, self.url = name, "127.0.0.1", port, f"http://127.0.0.1:{port}"

    def run(self, script: str) -> str:
        return podman("exec", self.name, "sh", "-euc", script)

    def wait_until_healthy(self) -> None:
        health = ("podman", "healthcheck", "run", self.name)
        try:
            wait_until(lambda: succeeds(*health), LONGEST_START, "the container is healthy")
        except SystemExit:
            sys.exit(podman("logs", self.name))

    def workers(self) -> int:
        return podman("top", self.name, "args").count("python -m config.server") - 1

    def read_logs(self) -> tuple[list[dict[str, Any]], str]:
        """Return the log lines on standard output, and the text on standard error."""
        output = subprocess.run(["podman", "logs", self.name], capture_output=True, text=True)
        return [json.loads(line) for line in output.stdout.splitlines()], output.stderr

    def post_slowly(self, token: str, body: bytes) -> Iterator[bytes]:
        """Send the head of a request and yield what comes back; then send its body and yield what comes back."""
        headers = (f"Content-Length: {len(body)}", "Expect: 100-continue")
        with socket.create_connection((self.host, self.port), timeout=30) as connection:
            connection.sendall(request_bytes("POST", "/api/message", token, *headers))
            yield connection.recv(65_536)
            connection.sendall(body)
            yield b"".join(iter(lambda: connection.recv(65_536), b""))


class Proof:
    def __init__(self, clone: Path) -> None:
        self.clone, self.service, self.second = clone, Container("messages_service_1", 8000), Container("second", 8001)
        self.blocks = [block.content for block in steps("deploy.md", IN_A_CONTAINER)]

    def build(self) -> None:
        for name in FILES:
            (self.clone / name).write_text(f"{PRIVATE}\n")
        with (self.clone / ".env").open("a") as settings:
            settings.write("PASSWORD_MIN_LENGTH=9\n")
        self.follow("docker compose build")
        [image] = json.loads(podman("image", "inspect", "messages"))
        with tempfile.TemporaryDirectory() as folder:
            podman("save", "--format", "docker-dir", "--output", folder, "messages")
            saved = [*Path(folder).iterdir()]  # the layers, and their description with their history
            leaks = [file for file in saved if PRIVATE.encode() in file.read_bytes()]
            code = [file for file in saved if b"def wait_for_database" in file.read_bytes()]
        files = podman("run", "--rm", "messages", "find", ".").splitlines()
        tests = [file for file in files if re.search("^./(?!dev/).*/test", file)]
        check(
            f"image of {image['Size'] / 1e6:,.0f} MB; none of its {len(image['RootFS']['Layers'])} layers holds one of "
            f"{len(FILES)} private files, none of its {len(files):,} files is a test; user {image['User']}",
            len(code) == 1,
            not leaks,
            not tests,
            image["User"] == "10001:0",
            "/healthz" in json.dumps(image["Healthcheck"]),
        )

    def start(self) -> None:
        began = time.monotonic()
        self.follow(self.blocks[0])
        self.service.wait_until_healthy()
        seconds = time.monotonic() - began
        readme = shell(sys.executable, str(ROOT / ".ci" / "readme.py")).strip()
        static = shell("curl", "-sSf", "--head", "--compressed", f"{self.service.url}/static/admin/css/base.css")
        lines, errors = self.service.read_logs()
        addresses = {line["address"] for line in lines if line["log"] == "activity"}
        check(
            f"compose up, healthy after {seconds:.1f} s. {readme}. Standard output: {len(lines)} log lines and nothing "
            f"else; the address of all clients: {', '.join(addresses)}; a static file is compressed",
            {line["log"] for line in lines} == {"requests", "activity"},
            errors.startswith("Docs "),
            len(addresses) == 1,
            "content-encoding: gzip" in static.lower(),
        )

    def confinement(self) -> None:
        forbidden = ("touch /srv/messages/x", "touch /x", "touch /secrets/x", "cat /secrets/database_password")
        done = [script for script in forbidden if succeeds("podman", "exec", self.service.name, "sh", "-c", script)]
        modes = self.service.run("stat -c '%n %a %u:%g' /secrets/*").splitlines()
        identity = self.service.run("id -u; grep CapEff /proc/1/status; echo $PASSWORD_MIN_LENGTH").split()
        check(
            f"user {identity[0]} without capabilities, and with the setting in .env; it can write nowhere; "
            f"{', '.join(modes)}",
            not done,
            identity == ["10001", "CapEff:", "0" * 16, "9"],
            modes
            == ["/secrets/database_password 600 999:0", "/secrets/database_url 440 0:0", "/secrets/secret_key 440 0:0"],
        )

    def commands(self) -> None:
        self.follow(self.blocks[1])
        dump = (self.clone / "messages.dump").read_bytes()
        check(f"the commands of docs/deploy.md succeed; a backup of {len(dump):,} bytes", dump.startswith(b"PGDMP"))

    def other_user_and_cpus(self) -> None:
        network = ("--network", "messages_default", "--publish", f"127.0.0.1:{self.second.port}:8000")
        limits = ("--user", "12345:0", "--read-only", "--cap-drop", "ALL", "--cpus", "0.5", "--stop-timeout", "40")
        secrets = ("--volume", "messages_secrets:/secrets:ro", *SETTINGS, "-e", "TRUSTED_PROXIES=1")
        podman("run", "--detach", "--name", self.second.name, *network, *limits, *secrets, "messages")
        self.second.wait_until_healthy()
        user = self.second.run("id -u").strip()
        self.second.request("GET", "/api/conversation", **{"X-Forwarded-For": "203.0.113.7"})
        wait_until(
            lambda: "conversation" in str(self.second.read_logs()), 10, "the line of a request is in the container's log"
        )
        lines, _ = self.second.read_logs()
        cpus = len(os.sched_getaffinity(0))
        check(
            f"a second container as user {user} with half a CPU has {self.second.workers()} worker, the first one "
            f"{self.service.workers()} on {cpus} CPUs; behind a proxy, a client has its own address: {lines[-1]['address']}",
            user == "12345",
            self.second.workers() == 1,
            self.service.workers() == cpus,
            lines[-1]["address"] == "203.0.113.7",
        )

    def stop_and_restart(self) -> None:
        token = self.service.post("/api/auth/register", {"username": "restart", "password": PASSWORD})["token"]
        body = json.dumps({"receiver": "restart", "content": "in flight"}).encode()
        before = self.service.run("sha256sum /secrets/database_url /secrets/secret_key")
        requests = [self.service.post_slowly(token, body) for _ in range(IN_FLIGHT)]
        begun = {next(request) for request in requests}
        expect(begun == {b"HTTP/1.1 100 Continue\r\n\r\n"}, "They should be in flight")
        with ThreadPoolExecutor(1) as thread:
            stop = thread.submit(podman, "stop", "--time", "40", self.service.name)
            time.sleep(1)
            responses = [next(request).split(b"\r\n")[0].decode() for request in requests]
            stop.result()
        [state] = json.loads(podman("inspect", self.service.name))
        code = state["State"]["ExitCode"]
        podman("rm", "--force", self.second.name)
        self.follow(self.blocks[2])
        self.service.wait_until_healthy()
        count = self.service.get("/api/message/sent", token)["count"]
        after = self.service.run("sha256sum /secrets/database_url /secrets/secret_key")
        check(
            f"SIGTERM with {IN_FLIGHT} requests in flight: {as_text(Counter(responses))}; exit code {code}. After compose "
            f"down and up the secrets are the same, and the {count} messages are there",
            {*responses} == {"HTTP/1.1 201 Created"},
            code == 0,
            count == IN_FLIGHT,
            before == after,
        )

    def follow(self, script: str) -> None:
        shell("bash", "-euc", DOCKER + script, cwd=self.clone)


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def podman(*arguments: str) -> str:
    return shell("podman", *arguments)


def make_image(name: str, package: str, setup: str, *options: str) -> None:
    """Make an image of Debian with the package, if it does not exist yet. `setup` is a script that runs in it.

    `options` are lines of a Dockerfile.
    """
    if succeeds("podman", "image", "exists", name):
        return
    print(f"Making the image {name} …", flush=True)
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        root, archive = f"{folder}/root", f"{folder}/root.tar"
        shell("debootstrap", "--variant=minbase", f"--include={package}", PYTHON[3], root)
        shell("chroot", root, "sh", "-euc", setup)
        shell("tar", "--directory", root, "--create", "--file", archive, ".")
        podman("import", "--quiet", *(f"--change={option}" for option in options), archive, name)


@contextmanager
def proof_in_a_clone() -> Iterator[Proof]:
    """Yield a proof on a clone of this repository. Its containers and volumes are removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        shell("git", "clone", "--quiet", str(ROOT), folder)
        remove_containers()  # of a run that was killed
        try:
            yield Proof(Path(folder))
        finally:
            remove_containers()


def remove_containers() -> None:
    for kind in ("pod", "container", "volume"):
        podman(kind, "rm", "--all", "--force")


def main() -> None:
    require_root_and_programs({name: name for name in ("podman", "runc", "debootstrap", "curl")})
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / "containers.conf").write_text(CONTAINERS)
    (DATA / "storage.conf").write_text(STORAGE)
    (DATA / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /packages\n")
    os.environ["CONTAINERS_CONF"] = f"{DATA}/containers.conf"
    os.environ["CONTAINERS_STORAGE_CONF"] = f"{DATA}/storage.conf"
    os.environ["BUILDAH_FORMAT"] = "docker"
    make_image(PYTHON[1], "python3-venv", "ln -s /usr/bin/python3 /usr/local/bin/python")
    make_image(POSTGRES[1], f"postgresql-{POSTGRES[2]}", POSTGRES_SETUP, *POSTGRES_OPTIONS)
    download_packages(DATA / "packages", "--python-version", PYTHON[2], "--only-binary", ":all:")
    enter_own_network()
    with proof_in_a_clone() as proof:
        proof.build()
        proof.start()
        proof.confinement()
        proof.commands()
        proof.other_user_and_cpus()
        proof.stop_and_restart()


if __name__ == "__main__":
    main()
