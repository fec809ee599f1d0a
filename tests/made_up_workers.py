"""An edition with workers that do what a test says: what is asked of which, order by order."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipc_server import config
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.batching import Batching
from ipc_server.channel import Channel, Channels
from ipc_server.edition import Edition
from ipc_server.errors import SidecamlError
from ipc_server.instance import Instance
from ipc_server.signature import Signature, Tensor

PATIENCE_S = 30
SIGNATURE = Signature((Tensor("x", Dtype.FLOAT32, (1,)),), (Tensor("y", Dtype.FLOAT32, (1,)),))
OTHER = Signature((Tensor("x", Dtype.FLOAT32, (2,)),), (Tensor("y", Dtype.FLOAT32, (2,)),))
Order = tuple[str, dict[str, Any], asyncio.Future[dict[str, Any]]]


class FakeWorker:
    """Keeps what it is asked until the test answers."""

    pids = itertools.count(2**22 + 1)

    def __init__(self, signature: Signature = SIGNATURE) -> None:
        self.pid = next(self.pids)
        self.signature = signature
        self.batching = Batching()
        self.loaded = True
        self.serves = False
        self.gone = asyncio.Event()
        self.over = asyncio.Event()
        self.ending = "was killed by the test"
        self.on_event: Callable[[dict[str, Any]], None] = lambda _: None
        self.orders: list[Order] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.killed_for = ""
        self.backlog = 0

    def ask(self, op: str, fds: Sequence[int] = (), **fields: Any) -> asyncio.Future[dict[str, Any]]:
        if self.gone.is_set():
            raise SidecamlError(ErrorCode.WORKER_CRASHED, "it is gone")
        assert all(os.fstat(fd) for fd in fds)
        reply = asyncio.get_running_loop().create_future()
        self.orders.append((op, fields, reply))
        return reply

    def tell(self, op: str, then: Callable[[], None] = lambda: None, **fields: Any) -> None:
        self.told.append((op, fields))
        then()

    def kill(self, why: str = "") -> None:
        self.killed_for = self.killed_for or why or "no reason"

    async def wait_exited(self) -> None:
        await self.over.wait()

    def when_known(self, act: Callable[[], None]) -> None:
        act()

    # --- What the test does ---------------------------------------------------------------------------------

    def unanswered(self) -> list[Order]:
        return [order for order in self.orders if not order[2].done()]

    async def answer(self, problem: SidecamlError | None = None) -> None:
        """Answer what it was asked first and has not answered."""
        _, _, reply = self.unanswered()[0]
        if problem:
            reply.set_exception(problem)
        else:
            reply.set_result({"ok": True})
        await asyncio.sleep(0)

    async def answer_all(self) -> None:
        while self.unanswered():
            await self.answer()
            await settle()

    def attaches(self) -> list[tuple[int, bool]]:
        return [(fields["channel"], fields["resume"]) for op, fields, _ in self.orders if op == "attach"]

    async def die(self, edition: Edition) -> None:
        """End, as the crew would tell it."""
        self.gone.set()
        self.over.set()
        edition.lost(self)  # type: ignore[arg-type]
        for _, _, reply in self.unanswered():
            reply.set_exception(SidecamlError(ErrorCode.WORKER_CRASHED, "it died"))
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@dataclass
class Owner:
    pid: int = 1
    uid: int = 0
    trusted: bool = True
    sealed: bool = False
    told: list[tuple[int, SidecamlError]] = field(default_factory=list)

    def channel_gone(self, channel: Channel, error: SidecamlError) -> None:
        self.told.append((channel.number, error))


class Bench:
    """An edition, its channels, and no crew."""

    def __init__(self, chosen: config.Config, instances: int = 1) -> None:
        self.channels = Channels()
        self.daemon = chosen
        model = dataclasses.replace(chosen.models["m"], instances=instances)
        self.edition = Edition(model, chosen, self.channels)
        self.edition.prepare()
        self.owner = Owner()

    @property
    def instance(self) -> Instance:
        return self.edition.instances[0]

    def worker(self, signature: Signature = SIGNATURE) -> FakeWorker:
        made = FakeWorker(signature)
        self.edition.loaded(made, 0.1)  # type: ignore[arg-type]
        return made

    async def active(self) -> FakeWorker:
        made = self.worker()
        await made.answer_all()
        return made

    async def opening(self) -> tuple[Channel, asyncio.Task[None]]:
        channel = self.channels.new("m", 1, self.owner)
        self.edition.join(channel)
        channel.measure(SIGNATURE, Batching(), {}, None, config.Limits())
        await channel.create()
        task = asyncio.create_task(self.edition.attach(channel))
        await settle()
        return channel, task

    async def open(self, worker: FakeWorker) -> Channel:
        channel, task = await self.opening()
        await worker.answer()
        await task
        return channel

    def close(self) -> None:
        for channel in self.channels.all():
            self.channels.end(channel)
        self.edition.status.close()
        self.channels.crowd.close()


Body = Callable[[Bench], Awaitable[None]]


def run_with(folder: Path, body: Body, instances: int = 1) -> None:
    """Run a test's body on an event loop of its own, within its time."""
    file = folder / "m.toml"
    file.write_text('[limits]\nmax_poisoned_per_channel = 2\n[models.m]\npath = "m.onnx"\n')
    chosen = config.load(file, environment={})

    async def main() -> None:
        bench = Bench(chosen, instances)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await body(bench)
        finally:
            bench.close()

    asyncio.run(main())
