"""Ends a worker that runs one request for longer than its model may."""

from __future__ import annotations

import asyncio
import os
import time

from ipc_server.abi import STATUS_RUNNING_NS_OFFSET
from ipc_server.worker_process import WorkerProcess

# Looks within the longest run: a run is ended at most a quarter of it late, and an idle daemon hardly wakes.
LOOKS = 4
RAREST_LOOK_S = 1.0
# Nor does it do little else, however short the longest run.
SOONEST_LOOK_S = 0.005


async def enforce(worker: WorkerProcess, longest_s: float) -> None:
    """Kill the worker when a request runs for longer; to be cancelled when the worker is gone.

    The worker is not asked: what hangs does not answer. Its status page says since when the request runs.
    """
    while True:
        await asyncio.sleep(min(max(longest_s / LOOKS, SOONEST_LOOK_S), RAREST_LOOK_S))
        since_ns = running_since_ns(worker.status_fd)
        if since_ns and time.monotonic_ns() - since_ns > longest_s * 1e9:
            worker.kill(
                f"was killed, because one request ran for longer than longest_run_s = {longest_s:g}: raise "
                "it if the model needs that long"
            )
            return


def running_since_ns(status_fd: int) -> int:
    """Read when the request that runs was started, of CLOCK_MONOTONIC to its tick; 0 when none runs."""
    return int.from_bytes(os.pread(status_fd, 8, STATUS_RUNNING_NS_OFFSET), "little")
