"""What the benchmark counts of an idle daemon. Times are not asserted: memory is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from daemon_process import wait_until

from bench import idle, report
from bench.errors import BenchError
from bench.processes import family, usage
from ipc_server import segment

MIB = 2**20
HOLDER = "import sys; kept = b'x' * %d; print('held', flush=True); sys.stdin.read()"


def test_memory_descriptors_and_processor_time_of_a_family_are_counted() -> None:
    fd = segment.create_segment(MIB, sealed=True)
    command = [sys.executable, "-c", HOLDER % (64 * MIB)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd])
    assert holder.stdin and holder.stdout
    try:
        assert holder.stdout.readline() == b"held\n"
        assert holder.pid in family(os.getpid())
        found = usage([holder.pid])
        assert found.private_bytes >= 64 * MIB

        def is_counted_once() -> bool:
            """Whether what two hold is; threads of other tests may end and close theirs meanwhile."""
            with contextlib.suppress(BenchError):
                both = usage([holder.pid, os.getpid()]).shared_bytes
                return both - usage([os.getpid()]).shared_bytes == 0
            return False

        wait_until("it is counted once", is_counted_once)
        assert found.shared_bytes == MIB
        assert found.fds >= 4
        assert found.cpu_ns > 0
        holder.stdin.close()
        holder.wait()
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
        os.close(fd)


def test_a_channel_takes_less_than_a_mebibyte_beyond_its_tensors() -> None:
    found = idle.measure(32, channels=16, seconds=2)
    (row,) = idle.rows_of([found])
    assert 0 < row["bytes_per_channel"] < idle.BYTES_A_CHANNEL
    assert row["shared_bytes_per_channel"] > row["tensor_bytes_per_channel"] == 32 * (64 + 10) * 4
    assert row["fds_per_channel"] >= 4
    assert (row["n"], len(found.samples)) == (2, 2)
    assert "| 16 channels of 32 slots |" in report.idle_section([row])
    assert report.idle_section(None) == ""
