"""How much memory can be taken before the kernel kills somebody: of the machine and its control groups.

Shared memory is memory. Where it has a limit of its own (/dev/shm), that is often larger than what is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# What is never handed out, so that daemon and workers go on: this part of it, and at most so much.
SPARE_PART = 32
MOST_SPARE_BYTES = 64 * 2**20

_UNLIMITED = 2**62
# Of memory.stat: pages of files, which the kernel takes back before it kills.
_RECLAIMABLE = {"active_file", "inactive_file", "total_active_file", "total_inactive_file"}


def available(process: Path = Path("/proc/self"), machine: Path = Path("/proc/meminfo")) -> int:
    """Count the bytes that can be taken; what cannot be found out does not count as a limit."""
    least = _of_machine(machine)
    for folder in _control_groups(process):
        least = min(least, _of_group(folder))
    return max(0, least)


def _of_machine(path: Path) -> int:
    fields = _fields(path)
    free, total = fields.get("MemAvailable:"), fields.get("MemTotal:", 0)
    return _UNLIMITED if free is None else free * 1024 - _spare(total * 1024)


def _of_group(folder: Path) -> int:
    """Count what a group's limit leaves; version 2 of control groups, else version 1."""
    limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
    used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= _UNLIMITED:
        return _UNLIMITED
    statistics = _fields(folder / "memory.stat")
    # Version 1 counts the groups within only in its totals, which are there besides the others.
    names = [name for name in _RECLAIMABLE & statistics.keys() if name.startswith("total_")]
    reclaimable = sum(statistics[name] for name in names or _RECLAIMABLE & statistics.keys())
    return limit - used + reclaimable - _spare(limit)


def _spare(total: int) -> int:
    return min(total // SPARE_PART, MOST_SPARE_BYTES)


def _control_groups(process: Path) -> Iterator[Path]:
    """Give the folders of the memory groups that the process is in, innermost first."""
    groups = dict(_memberships(process / "cgroup"))
    for kind, root, mount in _mounts(process / "mountinfo"):
        path = groups.get(kind)
        if path is None:
            continue
        # What lies outside of the mount cannot be looked at.
        inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        folder = mount / inside
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(mount))


def _memberships(path: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield "cgroup2", group
        elif "memory" in controllers.split(","):
            yield "cgroup", group


def _mounts(path: Path) -> Iterator[tuple[str, str, Path]]:
    for line in _lines(path):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            _, _, _, root, mount, *_ = before.split(" ")
            yield kind, root, Path(mount)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _fields(path: Path) -> dict[str, int]:
    fields = {}
    for line in _lines(path):
        name, value, *_ = [*line.split(), "", ""]
        if value.isdigit():
            fields[name] = int(value)
    return fields


def _number(*paths: Path) -> int | None:
    """Read the first of these files that holds a number."""
    for path in paths:
        lines = _lines(path)
        if lines and lines[0].isdigit():
            return int(lines[0])
    return None
