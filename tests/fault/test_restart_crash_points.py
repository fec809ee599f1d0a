"""The supervisor killed and stopped at every point of what it keeps for a successor, and takes up of another.

No call and no open fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from crash_build import OF_THE_STORE, Orders, build, of_side
from daemon_process import wait_until
from restarting import Calls, Opens, make_folder, serving
from service_manager import ServiceManager

# Of a supervisor that finds what another left.
OF_SUCCESSORS = {"supervisor.store.taking-up", "supervisor.store.taken-up"}
POINTS = [name for name in of_side("supervisor") if name.startswith(OF_THE_STORE)]


@pytest.mark.parametrize("action", ["KILL", "STOP"])
@pytest.mark.parametrize("point", POINTS)
def test_no_call_fails_whose_supervisor_is_lost_at(
    nothing_left: None, tmp_path: Path, point: str, action: str
) -> None:
    make_folder(tmp_path)
    orders = Orders(tmp_path / "orders")
    command = [sys.executable, "-m", "ipc_server.cli", "serve", f"--config={tmp_path}/sidecaml.toml"]
    with ServiceManager(tmp_path, command, env=orders.environment(build())) as manager:
        manager.start()
        with Calls(tmp_path) as calls, Opens(tmp_path):
            before = serving(tmp_path)
            orders.give(point, action)
            if point in OF_SUCCESSORS:
                manager.kill(ready=False)
            victim = wait_until(f"it came past {point}", lambda: orders.victim(point))
            if action == "STOP":
                calls.wait(20)
                manager.kill()
            wait_until("another one", lambda: manager.state()["pid"] not in (0, victim))
            manager.wait_ready()
            calls.wait(20)
            assert serving(tmp_path) == before
        wait_until("nothing is kept of channels", lambda: not kept_of_channels(manager))


def kept_of_channels(manager: ServiceManager) -> list[str]:
    return [name for name in manager.names() if name[0] in "ck" and "." in name]
