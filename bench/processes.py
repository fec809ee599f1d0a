"""What processes use, as the kernel counts it: processor time, wake-ups, memory and descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

KIB = 1024
# Of stat(2): what st_blocks counts in.
BLOCK = 512
_SHARED = ("/dev/shm/", "/memfd:")


@dataclass(frozen=True)
class Usage:
    """Of some processes together, at one moment."""

    cpu_ns: int
    wakeups: int
    """How often their threads went to sleep."""
    private_bytes: int
    """Memory that is not of any file."""
    shared_bytes: int
    """Shared memory that they hold, however many hold it: each counts once."""
    fds: int


def family(pid: int) -> list[int]:
    """List a process and its children, theirs too."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in _read(children).split()]
    return found


def usage(pids: Iterable[int]) -> Usage:
    """Read what the processes have used and hold. Raises BenchError when one is gone."""
    wanted = list(pids)
    threads = [thread for pid in wanted for thread in Path(f"/proc/{pid}/task").iterdir()]
    return Usage(
        cpu_ns=sum(int(_read(thread / "schedstat").split()[0]) for thread in threads),
        wakeups=sum(_field(thread / "status", "voluntary_ctxt_switches") for thread in threads),
        private_bytes=sum(_field(Path(f"/proc/{pid}/smaps_rollup"), "Anonymous") for pid in wanted) * KIB,
        shared_bytes=sum(_shared_files(wanted).values()),
        fds=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in wanted),
    )


def _shared_files(pids: Iterable[int]) -> dict[tuple[int, int], int]:
    """Give the bytes of each file of shared memory that some process has open."""
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target, status = str(entry.readlink()), entry.stat()
            except FileNotFoundError:
                continue
            if target.startswith(_SHARED):
                found[status.st_dev, status.st_ino] = status.st_blocks * BLOCK
    return found


def _field(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise BenchError(f"{path} does not say {name}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise BenchError(f"{path} is gone: its process ended while it was measured") from None
