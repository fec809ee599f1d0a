"""A model at another configuration: opens go to the new edition, open channels stay with the old one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import models
import pytest
from daemon_process import is_alive

from ipc_server import config
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching
from ipc_server.channel import Channel, Channels
from ipc_server.edition import Edition
from ipc_server.errors import SidecamlError
from ipc_server.model import Model

PATIENCE_S = 60


@dataclass
class Owner:
    """A connection that only remembers what it is told."""

    pid: int = field(default_factory=os.getpid)
    uid: int = field(default_factory=os.getuid)
    trusted: bool = True
    sealed: bool = False
    told: list[SidecamlError] = field(default_factory=list)

    def channel_gone(self, channel: Channel, error: SidecamlError) -> None:
        self.told.append(error)


class Served:
    """A model of this process, and its channels."""

    def __init__(self, folder: Path, standbys: int) -> None:
        self.file = folder / "m.toml"
        self.path = models.scalar(folder / "m.onnx")
        self.standbys = standbys
        self.channels = Channels()
        self.owner = Owner()
        self.model = Model(self.read().models["m"], self.read(), self.channels)

    def read(self, path: Path | None = None, policy: str = "adaptive") -> config.Config:
        text = f'[models.m]\npath = "{path or self.path}"\npolicy = "{policy}"\nstandbys = {self.standbys}\n'
        self.file.write_text(text)
        return config.load(self.file, environment={})

    async def replace(self, new: config.Config) -> bool:
        return await self.model.replace(new.models["m"], new)

    async def open(self) -> tuple[Edition, Channel]:
        channel = self.channels.new("m", 1, self.owner)
        edition = await self.model.usable_edition()
        instance = edition.join(channel)
        channel.measure(instance.signature, Batching(), {}, None, config.Limits())
        await channel.create()
        await edition.attach(channel)
        return edition, channel


def pid_of(edition: Edition) -> int:
    return edition.instances[0].worker_pid


def run(folder: Path, body: Callable[[Served], Awaitable[None]], standbys: int = 0) -> None:
    async def main() -> None:
        served = Served(folder, standbys)
        life = asyncio.create_task(served.model.run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await served.model.settled.wait()
                await body(served)
        finally:
            served.model.kill()
            await life
            for channel in served.channels.all():
                served.channels.end(channel)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("standbys", [0, 1])
def test_open_channels_stay_and_opens_go_to_the_new_one(tmp_path: Path, standbys: int) -> None:
    async def body(served: Served) -> None:
        old, kept = await served.open()
        first = pid_of(old)
        assert await served.replace(served.read(policy="block"))
        new, opened = await served.open()
        assert (old is new, served.model.config.policy) == (False, "block")
        assert served.model.editions == [new, old]
        assert {pid_of(old), pid_of(new)} == {first, pid_of(new)}
        served.channels.end(kept)
        await until(lambda: served.model.editions == [new])
        await until(lambda: not is_alive(first))
        assert new.instances[0].channels == {opened.number: opened}
        assert not served.owner.told

    run(tmp_path, body, standbys)


def test_what_cannot_be_loaded_leaves_all_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(served: Served) -> None:
        old, _ = await served.open()
        assert not await served.replace(served.read(path=tmp_path / "missing.onnx"))
        assert served.model.current is old
        assert "the new configuration is not used" in caplog.text
        assert "missing.onnx" in caplog.text
        again, _ = await served.open()
        assert again is old

    run(tmp_path, body)


def test_an_edition_without_channels_ends_at_once(tmp_path: Path) -> None:
    async def body(served: Served) -> None:
        first = pid_of(served.model.current)
        assert await served.replace(served.read(policy="spin"))
        await until(lambda: not is_alive(first))
        await until(lambda: len(served.model.editions) == 1)

    run(tmp_path, body)


def test_a_retiring_edition_is_taken_over_like_any_other(tmp_path: Path) -> None:
    async def body(served: Served) -> None:
        old, kept = await served.open()
        first = pid_of(old)
        assert await served.replace(served.read(policy="block"))
        os.kill(first, 9)
        await until(lambda: pid_of(old) not in (0, first))
        served.channels.end(kept)
        await until(lambda: len(served.model.editions) == 1)

    run(tmp_path, body)


def test_all_editions_end_with_the_model_and_tell_their_channels(tmp_path: Path) -> None:
    async def body(served: Served) -> None:
        await served.open()
        assert await served.replace(served.read(policy="block"))
        await served.open()
        await served.model.stop(5)
        await until(lambda: len(served.owner.told) == 2)
        assert {error.code for error in served.owner.told} == {ErrorCode.SHUTTING_DOWN}
        with pytest.raises(SidecamlError) as caught:
            await served.open()
        assert caught.value.code is ErrorCode.SHUTTING_DOWN

    run(tmp_path, body)
