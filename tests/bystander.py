"""A well-behaved client in a process of its own: it checks every bit that it gets while others misbehave."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from daemon_process import wait_until
from users import Child

from ipc_server.client import Channel, open_model

# Of one model: some requests, and all that came back.
Round = Callable[[Channel], bytes]

_FIELDS = struct.Struct("QQ")
_PAUSE_S = 0.002


class Bystander:
    """Runs rounds of requests until it is stopped; each must give what it gave before anybody misbehaved."""

    def __init__(self, path: Path, rounds: Mapping[str, Round], uid: int | None = None) -> None:
        """Start it, and wait until it has been served."""
        # How many rounds it has had, and whether it is to end.
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._path = path
        self._rounds = rounds
        self._child = Child(self._live, uid)
        self.goes_on()

    def goes_on(self) -> None:
        """Fail unless it is served from now on as well: two rounds of each model, begun later."""
        before = self._count()
        wait_until("the bystander is served", lambda: self._count() >= before + 3 or self._is_over(), 60)
        if self._is_over():
            self._child.result()
            raise AssertionError("the bystander ended")

    def stop(self) -> int:
        """End it; how many rounds it had, all of them right."""
        self._write(1, 1)
        rounds: int = self._child.result()
        self._shared.close()
        return rounds

    def kill(self) -> None:
        """End it however it is."""
        self._child.kill()

    def _live(self) -> int:
        with ExitStack() as stack:
            channels = {
                name: stack.enter_context(
                    open_model(name, socket=str(self._path), slots=2, dims=DIMS.get(name))
                )
                for name in self._rounds
            }
            expected = {name: once(channels[name]) for name, once in self._rounds.items()}
            count = 0
            try:
                while not self._read(1):
                    for name, once in self._rounds.items():
                        found = once(channels[name])
                        assert found == expected[name], f"{name}: round {count}: a wrong answer"
                    count += 1
                    self._write(0, count)
                    time.sleep(_PAUSE_S)
            except BaseException:
                self._write(1, 2)
                raise
        return count

    def _count(self) -> int:
        return self._read(0)

    def _is_over(self) -> bool:
        return self._read(1) == 2

    def _read(self, index: int) -> int:
        return int(struct.unpack_from("Q", self._shared, 8 * index)[0])

    def _write(self, index: int, value: int) -> None:
        struct.pack_into("Q", self._shared, 8 * index, value)


DIMS: dict[str, dict[str, int]] = {"mlp": {"N": 3}}


def scalar_round(channel: Channel) -> bytes:
    found = []
    for value in (1.0, -2.5, 1e30):
        channel.input("x", channel.claim())[...] = value
        found.append(channel.output("y", channel.run()).tobytes())
    return b"".join(found)


def mlp_round(channel: Channel) -> bytes:
    found = []
    for rows in (1, 2, 3):
        slot = channel.claim()
        channel.set_dims("x", [rows, 64], slot)
        channel.input("x", slot)[...] = np.arange(rows * 64, dtype=np.float32).reshape(rows, 64) / 64
        found.append(channel.output("y", channel.run()).tobytes())
    return b"".join(found)


def words_round(channel: Channel) -> bytes:
    channel.set_strings("x", ["one", "", "drei\0", "four"], channel.claim())
    return repr(channel.strings("y", channel.run()).tolist()).encode()


def memory_round(channel: Channel) -> bytes:
    channel.reset()
    found = []
    for value in range(4):
        slot = channel.claim()
        channel.input("x", slot)[...] = value
        channel.input("shape", slot)[...] = 8
        found.append(channel.output("y", channel.run()).tobytes())
    return b"".join(found)


def topk_round(channel: Channel) -> bytes:
    channel.input("x", channel.claim())[...] = np.arange(32768, dtype=np.float32) % 4099
    slot = channel.run()
    return channel.output("y", slot).tobytes() + channel.output("places", slot).tobytes()


ROUNDS: dict[str, Round] = {
    "scalar": scalar_round,
    "mlp": mlp_round,
    "words": words_round,
    "memory": memory_round,
    "topk": topk_round,
}
