"""Checks, and commands that must succeed: each of these functions ends the proof if something is not as it must be."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.testing.service import ROOT


def expect(holds: bool, what: str) -> None:
    """End the proof and print `what` if the condition does not hold."""
    if not holds:
        sys.exit(what[:3000])


def check(finding: str, *conditions: bool) -> None:
    """Print the finding, and end the proof if one of the conditions does not hold."""
    print(f"- {finding}", flush=True)
    expect(all(conditions), "That is not what is promised.")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until the condition holds, and return the seconds that it took. Ends the proof after `seconds`."""
    began = time.monotonic()
    while not condition():
        expect(time.monotonic() - began < seconds, f"Not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def shell(*command: str, **options: Any) -> str:
    """Return what the command prints. Ends the proof if it fails."""
    options |= {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    result = subprocess.run(command, text=True, **options)
    expect(result.returncode == 0, f"{shlex.join(command)} failed: {result.stdout[-2000:]}")
    return result.stdout


def program(name: str, package: str, *folders: Path) -> str:
    """Return the path of a program. If it is missing, ends the proof and prints how to install it."""
    found = shutil.which(name, path=":".join([os.environ["PATH"], "/usr/sbin", *map(str, folders)]))
    return found or sys.exit(f"{name} is missing; on Debian and Ubuntu: sudo apt install {package}")


def require_root_and_programs(packages: dict[str, str]) -> None:
    """End the proof if this user is not root, or if a program is missing. `packages` has the package of each program."""
    expect(os.geteuid() == 0, f"Only root can do this: sudo {shlex.join(sys.orig_argv)}")
    for name, package in packages.items():
        program(name, package)


def download_packages(folder: Path, *options: str) -> None:
    """Download the packages of requirements.txt into the folder, with these options of `pip download`."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder))
    shell(*pip, "--requirement", str(ROOT / "requirements.txt"), *options)
