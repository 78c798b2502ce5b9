"""The number of CPUs, which is the default number of worker processes."""

import os
import tempfile
from pathlib import Path
from unittest import mock, skipUnless

from django.test import SimpleTestCase

from config.cpus import usable_cpus

GROUP = "system.slice/messages.service"


@skipUnless(hasattr(os, "sched_getaffinity"), "only Linux has control groups")
class UsableCpusTests(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.system = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch("os.sched_getaffinity", return_value={*range(8)}))

    def usable_cpus_with(self, membership, **files):
        """Return the number of usable CPUs if /proc/self/cgroup and these files of /sys/fs/cgroup have this content."""
        (self.system / "proc/self").mkdir(parents=True, exist_ok=True)
        (self.system / "proc/self/cgroup").write_text(membership)
        for name, content in files.items():
            file = self.system / "sys/fs/cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return usable_cpus(self.system)

    def test_counts_the_cpus_of_the_affinity(self):
        with mock.patch("os.sched_getaffinity", return_value={1, 3}):
            self.assertEqual(usable_cpus(self.system), 2)

    def test_quota_is_rounded_up(self):
        for quota, expected in (("max", 8), ("1000", 1), ("100000", 1), ("150000", 2), ("200000", 2), ("900000", 8)):
            with self.subTest(quota=quota):
                self.assertEqual(self.usable_cpus_with("0::/\n", **{"cpu.max": f"{quota} 100000\n"}), expected)

    def test_uses_the_smallest_quota_of_all_groups(self):
        files = {f"{GROUP}/cpu.max": "max 100000", "system.slice/cpu.max": "300000 100000", "cpu.max": "500000 100000"}

        self.assertEqual(self.usable_cpus_with(f"0::/{GROUP}\n", **files), 3)

    def test_reads_quotas_of_control_groups_version_1(self):
        membership = f"5:memory:/other\n4:cpu,cpuacct:/{GROUP}\n0::/\n"
        for quota, expected in (("-1", 8), ("250000", 3)):
            files = {f"cpu/{GROUP}/cpu.cfs_quota_us": f"{quota}\n", f"cpu/{GROUP}/cpu.cfs_period_us": "100000\n"}

            with self.subTest(quota=quota):
                self.assertEqual(self.usable_cpus_with(membership, **files), expected)

    def test_reads_version_1_in_a_container_that_has_the_path_of_the_host(self):
        files = {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}

        self.assertEqual(self.usable_cpus_with("4:cpu,cpuacct:/docker/0123456789ab\n", **files), 2)
