"""The number of CPUs that this process may use."""

import math
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable_cpus(system: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may run on, or the quota of its control groups if that is less.

    Containers and systemd set such quotas, as Docker does with `--cpus`. `system` holds proc/ and sys/.
    """
    with suppress(AttributeError):  # macOS has no affinity
        return math.ceil(min(len(os.sched_getaffinity(0)), *map(_quota, _control_groups(system))))
    return os.cpu_count() or 1


def _control_groups(system: Path) -> list[Path]:
    """Return the folders of this process's control groups, of version 1 or 2. In a container some may not exist."""
    mounts = system / "sys/fs/cgroup"
    groups = [mounts]
    with suppress(OSError):
        for line in (system / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                mount = mounts / "cpu" if controllers else mounts
                groups += [mount / str(group)[1:] for group in (PurePosixPath(path), *PurePosixPath(path).parents)]
    return groups


def _quota(group: Path) -> float:
    """Return how many CPUs' time a control group may use."""
    with suppress(OSError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError):
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return math.inf if quota < 0 else quota / period
    return math.inf
