"""Tensors are written, run and read where they are: no copy of them exists, in any process."""

from __future__ import annotations

import mmap
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import channels
import models
import numpy as np
import pytest
from conftest import StartDaemon
from served import LANES

from ipc_server import _core, client, segment
from ipc_server.abi import Dtype
from ipc_server.engines.onnx import OnnxEngine
from ipc_server.engines.onnx_session import IoBinding
from ipc_server.lane import lane_for
from ipc_server.signature import TensorSpec

MIB = 2**20
SHAPE = (16, 1024, 1024)  # of float32: 64 MiB
CALLS = 1000
GROWTH_MIB = 1.0


def resident_mib(pid: int) -> dict[str, float]:
    """Read a process's resident memory by kind."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("RssAnon", "RssShmem", "VmRSS")))
    return {name.rstrip(":"): int(kib) / 1024 for name, kib, _ in fields}


def mapped_range(inode: int) -> tuple[int, int]:
    """Find where this process has mapped the object with that inode."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, _, _, _, found, *_ = line.split()
        if int(found) == inode:
            start, end = (int(part, 16) for part in where.split("-"))
            return start, end
    raise AssertionError(f"inode {inode} is not mapped")


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.timeout(600)
def test_neither_process_grows_with_64_mib_in_and_64_mib_out(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    running = daemon({"copy": models.identity("float32", SHAPE, tmp_path / "copy.onnx")}, lane=lane)
    (worker,) = running.workers()
    private = resident_mib(worker)["RssAnon"]
    with client.open_model("copy", socket=str(running.socket)) as model:
        x, y = model.input("x"), model.output("y")
        assert x.nbytes == y.nbytes == 64 * MIB
        x[...] = np.random.default_rng(7).standard_normal(SHAPE, np.float32)
        for _ in range(10):
            model.run()
        assert x.tobytes() == y.tobytes()
        before = resident_mib(os.getpid()), resident_mib(worker)
        for call in range(CALLS):
            x[0, 0, 0] = call
            model.run()
            assert y[0, 0, 0] == call
        after = resident_mib(os.getpid()), resident_mib(worker)
        for who, then, now in zip(("client", "worker"), before, after, strict=True):
            grown = now["VmRSS"] - then["VmRSS"]
            print(f"{who}: {grown:+.2f} MiB in {CALLS} calls")
            assert grown <= GROWTH_MIB, (who, then, now)
        # Not even one copy: a private input or output would be 64 MiB more.
        assert after[1]["RssAnon"] - private < 32, (private, after[1])


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("slots", [1, 3])
def test_the_addresses_that_the_engine_gets_lie_inside_the_segment(
    tmp_path: Path, slots: int, lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[tuple[str, int]] = []

    class Watched:
        """A lane's binding, and a note of each address that it is given."""

        def __init__(self, binding: IoBinding) -> None:
            self._binding = binding
            self.run = binding.run

        def bind_input(self, name: str, *where: Any) -> None:
            bound.append((name, where[-1]))
            self._binding.bind_input(name, *where)

        def bind_output(self, name: str, *where: Any) -> None:
            bound.append((name, where[-1]))
            self._binding.bind_output(name, *where)

        def bind_output_anywhere(self, name: str) -> None:
            raise AssertionError(f"output {name} is left for ONNX Runtime to allocate")

    engine = OnnxEngine(models.identity("float32", SHAPE, tmp_path / "copy.onnx"), 1, lane)
    session = engine._session
    monkeypatch.setattr(engine, "_session", SimpleNamespace(bind=lambda: Watched(session.bind())))
    specs = [TensorSpec(n, Dtype.FLOAT32, n == "y", False, SHAPE) for n in ("x", "y")]
    layout = _core.Layout([s.for_layout for s in specs], slots, 0)
    memory = segment.create_segment(layout.segment_bytes)
    inode = os.fstat(memory).st_ino
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        core = _core.Worker(segment.create_status_page(), ours.fileno(), _core.BLOCK)
        loop = lane_for(core, engine)
        journal = segment.create_segment(mmap.PAGESIZE)
        fds = [memory, segment.create_doorbell(), segment.create_doorbell(), journal]
        loop.attach(fds, specs, layout, {})
        start, end = mapped_range(inode)
        assert sorted(name for name, _ in bound) == ["x"] * slots + ["y"] * slots
        for _, address in bound:
            assert start <= address and address + 64 * MIB <= end
        assert len({address for _, address in bound}) == 2 * slots
        loop.close()


def test_what_the_client_maps_is_what_the_worker_maps(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"copy": models.identity("float32", (4,), tmp_path / "copy.onnx")})
    (worker,) = running.workers()
    with channels.open_channel(running.socket, "copy") as channel:
        inode = os.fstat(channel.segment_fd).st_ino
        maps = Path(f"/proc/{worker}/maps").read_text().splitlines()
        assert any(line.split()[4] == str(inode) for line in maps)
        assert mapped_range(inode)[1] - mapped_range(inode)[0] >= mmap.PAGESIZE
