"""Debian machines made of namespaces, on which proofs run the blocks of pages in docs/.

A machine has the files of the machine that the proof runs on, but keeps changes in memory and discards them. Processes and a
systemd are its own. Needs root, and Debian 12 with the packages that the page installs. A machine has no internet access,
so the proof downloads Python's packages first.
"""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.proofs.checks import expect, wait_until
from benchmarks.proofs.clients import PASSWORD
from benchmarks.proofs.pages import Block

PROMPTS = {"Username": "operator", "Email": "", "Password": PASSWORD, "again": PASSWORD}  # of createsuperuser

# Nothing has an effect outside the namespaces: the kernel's settings are read-only, harmful devices are missing, and the
# rights to set the clock or to load modules are dropped. The host's own units and package sources are removed.
BOOT = r"""
set -eu
folder=$1 disk=$2
mkdir -p "$folder/machine"
mount -t tmpfs tmpfs "$folder/machine"
cd "$folder/machine"
mkdir changes work root
mount -t overlay -o lowerdir=/,upperdir=changes,workdir=work overlay root
cd root
for empty in dev run tmp srv var/lib/postgresql var/log; do mount -t tmpfs -o mode=755 tmpfs $empty; done
chmod 1777 tmp
mkdir dev/pts dev/shm var/log/nginx var/log/postgresql
for path in opt var/lib/etcd var/lib/postgresql; do [ ! -e "$disk/$path" ] || mount --bind "$disk/$path" $path; done
chown postgres: var/lib/postgresql var/log/postgresql
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind "$folder" mnt
mount --bind "$folder/hosts" etc/hosts
rm -rf etc/systemd/system/*.wants etc/postgresql/* etc/nginx/sites-enabled/* etc/apt/sources.list* var/lib/apt/lists/*
rm -rf etc/xdg/pip root/.config/pip root/.pip
ln -s ../sites-available/default etc/nginx/sites-enabled/default
cp --remove-destination mnt/pip.conf etc/pip.conf
cp --remove-destination mnt/gitconfig etc/gitconfig
pivot_root . mnt/machine
umount -l mnt/machine
exec setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-syslog,-mknod,-audit_control,-audit_read,-wake_alarm \
    env -i container=proof PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target
"""
ENTER = """
echo $$ > "$1/cgroup.procs"
exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --uts --ipc --cgroup sh -c "$2" boot "$3" "$4"
"""


class Machine:
    """A Debian machine on which the blocks of a page are run.

    Call `prepare(folder)` first. The files in `<name>/opt`, `<name>/var/lib/etcd` and `<name>/var/lib/postgresql` below the
    folder stay when the machine is killed. The machine is in the network of this process, or in the network that the command
    `enter_network` enters.
    """

    def __init__(self, folder: Path, name: str, *enter_network: str) -> None:
        self.folder, self.name, self.enter_network, self.done = folder, name, enter_network, 0
        self.disk = folder / name
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        self.control_group = Path(next(mount[1] for mount in mounts if mount[2] == "cgroup2")) / f"{name}-{os.getpid()}"

    def start(self) -> None:
        self.control_group.mkdir()
        enter = ["sh", "-euc", ENTER, "enter", str(self.control_group), BOOT, str(self.folder), str(self.disk)]
        self.process = psutil.Popen([*self.enter_network, *enter], stdin=subprocess.DEVNULL)
        wait_until(self.is_up, 30, "a systemd of its own runs")

    def is_up(self) -> bool:
        expect(self.process.poll() is None, "A systemd of its own does not start in namespaces of this machine.")
        up = ("running", "degraded")
        return bool(self.process.children()) and self.attempt("systemctl is-system-running").stdout.strip() in up

    def kill(self) -> None:
        self.process.kill()  # and with it all processes of its namespace
        self.process.wait(timeout=10)
        wait_until(self.is_gone, 10, "the processes of the machine have ended")

    def is_gone(self) -> bool:
        with suppress(OSError):
            for group in [*sorted(self.control_group.rglob("*/"), reverse=True), self.control_group]:
                group.rmdir()
        return not self.control_group.exists()

    def command(self, script: str) -> list[str]:
        """Return the command that runs the script on the machine, as if it was pasted into root's shell."""
        init = self.process.children()[0].pid
        enter = f"nsenter --target {init} --mount --uts --ipc --net --pid --cgroup --root --wdns=/root"
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = f"env --ignore-environment HOME=/root TERM=dumb LANG=C.UTF-8 PATH={path}"
        return [*enter.split(), *environment.split(), "bash", "-ec", script]

    def attempt(self, script: str) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(script), stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def run(self, script: str) -> str:
        """Return what the script prints. Ends the proof if one of its commands fails."""
        result = self.attempt(script)
        if result.returncode:
            journal = self.attempt("journalctl --no-pager --lines 40").stdout
            sys.exit(f"{script}\nfailed: {result.stdout[-2000:]} {result.stderr[-2000:]}\n{journal[-4000:]}")
        return result.stdout

    def run_with_answers(self, script: str) -> None:
        """Run the script at a terminal, and type what it asks for."""
        command = self.command(script)
        process, terminal = pty.fork()
        if process == 0:
            os.execvp(command[0], command)  # noqa: S606 - no shell is involved
        for prompt, typed in PROMPTS.items():
            seen = ""
            while prompt not in seen:
                seen += os.read(terminal, 1000).decode()
            os.write(terminal, f"{typed}\n".encode())
        _, status = os.waitpid(process, 0)
        expect(status == 0, f"{script} failed")

    def follow(self, *blocks: Block) -> None:
        """Write the blocks that are files, and run the others."""
        for block in blocks:
            if "createsuperuser" in block.content:
                self.run_with_answers(block.content)
            else:
                self.run(block.script())
            self.done += 1


def prepare(folder: Path, hosts: str) -> None:
    """Write what machines need into their folder. The caller puts Python's packages into `<folder>/packages`."""
    folder.chmod(0o755)
    (folder / "hosts").write_text(hosts)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /mnt/packages\n")
    (folder / "gitconfig").write_text(
        '[url "/mnt/repository"]\ninsteadOf = https://git.example.com/messaging.git\n[safe]\ndirectory = *\n'
    )
