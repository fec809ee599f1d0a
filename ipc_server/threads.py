"""Threads that are there before they are needed: on a full machine, none can be had later."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

# So many segments are reserved at a time, which takes seconds for gigabytes.
THREADS = 4


def started_pool(threads: int = THREADS) -> ThreadPoolExecutor:
    """Make a pool whose threads all run; LIMIT when the system has not so many.

    A pool starts a thread when there is more to do than before, and where that fails, it has taken what there
    is to do all the same.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pool")
    all_run = threading.Barrier(threads)
    try:
        for _ in range(threads):
            pool.submit(all_run.wait)
    except RuntimeError as error:
        all_run.abort()
        pool.shutdown()
        raise SidecamlError(
            ErrorCode.LIMIT,
            f"the daemon needs {threads} threads and cannot start them ({error}): raise its limit of "
            "processes (TasksMax=, ulimit -u)",
        ) from error
    return pool
