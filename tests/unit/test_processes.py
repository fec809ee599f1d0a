"""What a worker's forked children do by themselves."""

from __future__ import annotations

import subprocess
import sys

from daemon_process import environment, is_alive, wait_until

# A worker forks, and dies before its child has asked to be told, which takes the child half a second here.
PROGRAM = """
import ctypes, os, socket, time
from ipc_server import processes

library = ctypes.CDLL(None)

class Late:
    def prctl(self, *arguments):
        time.sleep(0.5)
        return library.prctl(*arguments)

processes.ctypes.CDLL = lambda _: Late()
mine, _ = socket.socketpair()
processes.settle_in(mine)
child = os.fork()
if child == 0:
    time.sleep(600)
os.write(2, str(child).encode())
os._exit(0)
"""


def test_a_child_whose_worker_dies_before_it_asked_to_be_told_ends_too() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment(), stderr=subprocess.PIPE, timeout=30, check=True
    )
    child = int(ended.stderr)
    wait_until("the child ends", lambda: not is_alive(child))
