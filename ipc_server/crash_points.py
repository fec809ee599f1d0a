"""Named places where the fault suite can have a process die or stop: `point("supervisor.open.created")`.

They are nothing unless the extension was built with them: c_shim/src/crash_point.h says how they work.
"""

from __future__ import annotations

from collections.abc import Callable

from ipc_server import _core


def _nothing(_name: str) -> None:
    """Go on."""


point: Callable[[str], None] = getattr(_core, "crash_point", _nothing)
