"""Clients that do what they should not, of the daemon's own user and of another: it costs them their channel.

A bystander on the same workers sees no wrong answer and no stall, no worker dies, nothing is left. The
tests run as root, so that there is another user; as anybody else they do the own user's part.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import mmap
import os
import random
import re
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bystander
import models
import numpy as np
import pytest
from bystander import DIMS, Bystander
from channels import attach
from conftest import StartDaemon
from daemon_process import Daemon, RawClient, open_descriptors, wait_until
from users import STRANGER, Child, is_root, open_folder

from ipc_server import _core, messages
from ipc_server.abi import CONTROL_BYTES, State
from ipc_server.errors import SidecamlError

SEED = 20261127
USERS = {"own user": None, "other user": STRANGER} if is_root() else {"own user": None}
MODELS = tuple(bystander.ROUNDS)
# How long each of them misbehaves.
WHILE_S = 1.0
LIBC = ctypes.CDLL(None)
# What a child keeps until it ends.
KEPT: list[Grip] = []

Act = Callable[[Path, random.Random], object]


def config_of(folder: Path) -> str:
    return f"""
[access]
users = [{STRANGER}]
socket_mode = "0666"

[limits]
max_opens_per_second = 100

[models.memory]
path = "{models.recurrent(folder / "memory.onnx")}"
state = {{ next = "state" }}
"""


@pytest.fixture(scope="module")
def one_daemon() -> Iterator[Daemon]:
    """One daemon for all of them: whatever one does to it, the next ones find out."""
    with open_folder() as folder:
        config = folder / "hostile.toml"
        config.write_text(config_of(folder))
        running = Daemon(
            folder,
            {
                "scalar": models.scalar(folder / "scalar.onnx"),
                "mlp": models.dynamic_mlp(folder / "mlp.onnx"),
                "words": models.identity("string", [4], folder / "words.onnx"),
                "topk": models.topk(folder / "topk.onnx"),
            },
            f"--config={config}",
            "--log-level=debug",
        )
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log(), running.log()
        # A name of shared memory is nobody's business, not even for the moment that it exists.
        assert not re.search(r"sidecaml-[0-9a-f]{24}", running.log())


@pytest.fixture(params=USERS.values(), ids=USERS.keys())
def uid(request: pytest.FixtureRequest) -> int | None:
    """Who misbehaves."""
    found: int | None = request.param
    return found


class Scene:
    """The daemon, its bystander, and what both must still have at the end."""

    def __init__(self, running: Daemon) -> None:
        self.running = running
        self.bystander = Bystander(running.socket, bystander.ROUNDS)
        self._held = len(running.fds())
        self._of_workers = {pid: len(open_descriptors(pid)) for pid in running.workers()}

    def suffers(self, act: Act, uid: int | None, seed: int = SEED) -> None:
        """Have a process of its own do this to the daemon, and see that nobody else notices."""
        print(f"seed {seed}")
        path = self.running.socket
        Child(lambda: act(path, random.Random(seed)), uid).result()
        self.is_as_before()

    def is_as_before(self) -> None:
        """Nothing died, nothing is left, and the bystander goes on."""
        self.bystander.goes_on()
        assert set(self.running.workers()) == set(self._of_workers), self.running.log()
        wait_until("the supervisor's descriptors are closed", lambda: len(self.running.fds()) <= self._held)
        for pid, count in self._of_workers.items():
            wait_until("a worker's are", lambda pid=pid, count=count: len(open_descriptors(pid)) <= count)


@pytest.fixture
def scene(one_daemon: Daemon) -> Iterator[Scene]:
    """The daemon and its bystander; afterwards the proof that every answer was right."""
    one = Scene(one_daemon)
    try:
        yield one
        assert one.bystander.stop() > 0
    except BaseException:
        one.bystander.kill()
        raise
    wait_until("every channel is gone", lambda: not channels_of(one_daemon))


def channels_of(running: Daemon) -> list[object]:
    with RawClient(running.socket) as client:
        return list(client.ok("channels")["channels"])


class Grip:
    """A channel by its parts: what the C core needs, and the same memory again, to do as one likes with."""

    def __init__(self, path: Path, model: str, slots: int = 2) -> None:
        raw = RawClient(path)
        message = raw.open(model, slots, dims=DIMS.get(model, {}))
        self.fds = [os.dup(fd) for fd in message.fds]
        self.memory = mmap.mmap(self.fds[0], message.body["segment_bytes"])
        self.core = _core.Channel(
            *message.fds, raw.sock.detach(), message.body["fingerprint"], _core.ADAPTIVE
        )

    def submit(self) -> None:
        """Submit where that is possible, wait a little, and give the slot back."""
        with contextlib.suppress(SidecamlError):
            slot = self.core.claim()
            self.core.submit()
            self.core.wait(slot, time.monotonic_ns() + 2_000_000)
            self.core.release(slot)


def until(seconds: float) -> Iterator[int]:
    """Count while there is time."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield count
        count += 1


# --- Memory -------------------------------------------------------------------------------------------


def scribble(model: str) -> Act:
    """Write over all of the segment, at any time: noise, and what looks like something."""

    def act(path: Path, noise: random.Random) -> None:
        grip = Grip(path, model)
        words = len(grip.memory) // 8
        for count in until(WHILE_S):
            if count % 50 == 0:
                grip.memory[:] = noise.randbytes(len(grip.memory))
            for _ in range(20):
                struct.pack_into("<Q", grip.memory, 8 * noise.randrange(words), likely(noise))
            os.eventfd_write(grip.fds[1], 1)
            grip.submit()

    return act


def likely(noise: random.Random) -> int:
    """Make a number that some field could have: a slot's word, a size, an offset, or none of them."""
    return noise.choice(
        (
            noise.randrange(64) << 3 | noise.choice(list(State)),
            noise.randrange(2**61) << 3 | noise.choice(list(State)),
            noise.randrange(8),
            noise.randrange(2**16),
            2**64 - 1 - noise.randrange(16),
            noise.getrandbits(64),
        )
    )


@pytest.mark.parametrize("model", MODELS)
def test_who_scribbles_over_every_byte_ruins_nobody_else(scene: Scene, uid: int | None, model: str) -> None:
    scene.suffers(scribble(model), uid)


def only_words(path: Path, noise: random.Random) -> None:
    """Move the words of the slots to and fro, as if many requests came at the same time."""
    grip = Grip(path, "scalar", 64)
    first = struct.unpack_from("<Q", grip.memory, 64)[0]
    for _ in until(WHILE_S):
        for _ in range(200):
            word = noise.randrange(256) << 3 | noise.choice((State.SUBMITTED, State.RUNNING, State.ABANDONED))
            struct.pack_into("<Q", grip.memory, first + 512 * noise.randrange(64), word)
        os.eventfd_write(grip.fds[1], 1)


def test_who_moves_the_words_of_its_slots_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    scene.suffers(only_words, uid)


def take_pages_away(path: Path, noise: random.Random) -> None:
    """Do it again and again; each time in a process of its own, which may die of it."""
    for count in until(3 * WHILE_S):
        model, seed = MODELS[count % len(MODELS)], noise.getrandbits(32)
        Child(lambda model=model, seed=seed: take_pages_away_once(path, model, random.Random(seed))).result()


def take_pages_away_once(path: Path, model: str, noise: random.Random) -> None:
    """Punch holes into the segment and, where that is allowed, make it shorter; requests run meanwhile."""
    grip = Grip(path, model)
    size = len(grip.memory)
    for _ in range(noise.randrange(4)):
        grip.submit()
    with contextlib.suppress(SidecamlError):
        grip.core.claim()
        grip.core.submit()
    for _ in range(noise.randrange(20)):
        first = noise.randrange(size)
        punch(grip.fds[0], first, noise.randrange(1, size - first + 1))
    # From here on this process must not touch its own mapping, not even when it ends.
    KEPT.append(grip)
    with contextlib.suppress(PermissionError):
        os.ftruncate(grip.fds[0], noise.choice((0, 4096, size // 2, size - 1)))
    os.eventfd_write(grip.fds[1], 1)
    time.sleep(noise.random() * 0.01)


def punch(fd: int, first: int, size: int) -> None:
    """Give pages back: what lay there is zeros."""
    keep_size_punch_hole = 3
    LIBC.fallocate(fd, keep_size_punch_hole, ctypes.c_long(first), ctypes.c_long(size))


def test_who_takes_pages_away_loses_its_channel_only(scene: Scene, uid: int | None) -> None:
    scene.suffers(take_pages_away, uid)


def change_inputs(path: Path, noise: random.Random) -> None:
    """Rewrite an input all the time while a kernel looks at it again and again."""
    grip = Grip(path, "topk", 1)
    inputs = np.frombuffer(grip.core.tensor(0, 0), np.float32)
    others = [np.frombuffer(noise.randbytes(4 * len(inputs)), np.float32) for _ in range(4)]
    others += [np.full(len(inputs), value, np.float32) for value in (np.nan, -np.inf, 0)]
    for _ in until(2 * WHILE_S):
        with contextlib.suppress(SidecamlError):
            slot = grip.core.claim()
            grip.core.submit()
            while not grip.core.poll(slot):
                inputs[:] = noise.choice(others)
            grip.core.release(slot)
        if grip.core.gone:
            break


def test_who_changes_its_inputs_during_a_run_and_is_not_trusted_harms_no_worker(scene: Scene) -> None:
    if is_root():
        scene.suffers(change_inputs, STRANGER)


def test_who_is_trusted_and_changes_its_inputs_costs_workers_and_nobody_an_answer(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon({"topk": models.topk(tmp_path / "topk.onnx")}, standbys=1)
    watching = Bystander(running.socket, {"topk": bystander.topk_round})
    try:
        path = running.socket

        def harms() -> bool:
            Child(lambda: change_inputs(path, random.Random(SEED))).result()
            return "was killed by SIG" in running.log()

        # Had the kernel survived, the test before this one would show nothing.
        wait_until("a change comes while the kernel looks", harms)
        watching.goes_on()
        assert watching.stop() > 0
    except BaseException:
        watching.kill()
        raise


# --- Slots and doorbells ------------------------------------------------------------------------------


def test_who_holds_its_slots_for_ever_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    def act(path: Path, _noise: random.Random) -> None:
        grips = [Grip(path, model) for model in MODELS]
        for grip in grips:
            for _ in range(2):
                grip.core.claim()
                grip.core.submit()
        time.sleep(WHILE_S)

    scene.suffers(act, uid)


def test_who_floods_its_doorbells_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    def act(path: Path, _noise: random.Random) -> None:
        grip = Grip(path, "scalar")
        _, request, answer, _ = grip.fds
        # Its flags are theirs as well as ours.
        for fd in (request, answer):
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        with contextlib.suppress(OSError):
            os.set_blocking(answer, False)
            os.eventfd_write(answer, 2**64 - 2)
        os.set_blocking(answer, True)
        for count in until(WHILE_S):
            os.eventfd_write(request, 1 + count % 1000)
            # Its flag up, so that each answer is announced on a doorbell that nobody empties.
            if count % 10 == 0:
                with contextlib.suppress(SidecamlError):
                    slot = grip.core.claim()
                    grip.core.submit()
                    grip.core.arm(slot)
                    wait_until("an answer", lambda slot=slot: grip.core.poll(slot))
                    grip.core.release(slot)

    scene.suffers(act, uid)


def test_who_fills_its_request_doorbell_to_the_brim_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    def act(path: Path, _noise: random.Random) -> None:
        grip = Grip(path, "mlp")
        os.eventfd_write(grip.fds[1], 2**64 - 2)
        time.sleep(WHILE_S)

    scene.suffers(act, uid)


# --- Control sockets ----------------------------------------------------------------------------------


def test_who_opens_and_closes_in_a_loop_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    def act(path: Path, _noise: random.Random) -> None:
        with RawClient(path) as raw:
            for count in until(3 * WHILE_S):
                message = raw.ask(
                    "open", model=MODELS[count % 2], slots=1, dims=DIMS.get(MODELS[count % 2], {})
                )
                message.close_fds()
                if message.body["ok"]:
                    raw.ok("close", channel=message.body["channel"])
                else:
                    assert message.body["error"] == "LIMIT", message.body

    scene.suffers(act, uid)


def test_who_connects_and_leaves_in_a_loop_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    def act(path: Path, noise: random.Random) -> None:
        for _ in until(WHILE_S):
            with RawClient(path, hello=noise.random() < 0.5) as raw, contextlib.suppress(OSError):
                raw.sock.setblocking(False)
                for op in noise.sample(("open", "describe", "channels", "nonsense"), 2):
                    messages.send(raw.sock, {"id": 9, "op": op, "model": "scalar", "slots": 1})

    scene.suffers(act, uid)


def wrong_message(noise: random.Random) -> bytes:
    """Make a message that is empty, huge, wrong, or right but for some bytes."""
    right = bytearray(messages.pack({"id": 7, "op": "open", "model": "scalar", "slots": 1, "dims": {"N": 3}}))
    for _ in range(noise.randrange(6)):
        right[noise.randrange(len(right))] = noise.randrange(256)
    return noise.choice(
        (
            b"",
            bytes(right),
            noise.randbytes(noise.randrange(1, 200)),
            bytes(right) + noise.randbytes(noise.randrange(1, CONTROL_BYTES + 1000)),
            messages.pack({"id": 7, "op": "describe", "model": "x" * noise.randrange(60000)}),
            b"\xdf" + noise.randbytes(100),
            b"\x81" * noise.randrange(1, 5000),
        )
    )


def test_who_sends_empty_huge_and_wrong_messages_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    def act(path: Path, noise: random.Random) -> None:
        for _ in until(2 * WHILE_S):
            with RawClient(path, hello=noise.random() < 0.8) as raw, contextlib.suppress(OSError):
                raw.sock.setblocking(False)
                for _ in range(noise.randrange(1, 20)):
                    raw.sock.send(wrong_message(noise))

    scene.suffers(act, uid)


def test_who_passes_descriptors_gets_rid_of_them_and_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    def act(path: Path, noise: random.Random) -> None:
        with Path(os.devnull).open("rb") as null, RawClient(path) as raw, lingering() as connection:
            fds = [null.fileno(), raw.sock.fileno(), connection, *raw.open("scalar").fds]
            for number in range(200):
                passed = array.array("i", noise.choices(fds, k=noise.randrange(1, 8)))
                request = messages.pack({"id": number, "op": noise.choice(("ping", "inspect", "open"))})
                with contextlib.suppress(PermissionError):
                    raw.sock.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
                    raw.next().close_fds()

    scene.suffers(act, uid)


@contextlib.contextmanager
def lingering() -> Iterator[int]:
    """Make a connection whose last close would take an hour."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        taken, _ = server.accept()
        with taken, sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(bytes(65536))
            yield sender.fileno()
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))


# --- Ends ---------------------------------------------------------------------------------------------


def test_who_forks_and_dies_leaves_no_channel_with_its_child(scene: Scene, uid: int | None) -> None:
    with contextlib.closing(Orphan()) as orphan:

        def act(path: Path, _noise: random.Random) -> None:
            grips = [Grip(path, model) for model in MODELS]
            if os.fork() == 0:
                # Holds sockets, segments and doorbells, and does not say so.
                orphan.is_here()
                os.kill(os.getpid(), signal.SIGSTOP)
                os._exit(0)
            assert grips

        scene.suffers(act, uid)
        wait_until("the grandchild is there", orphan.pid)
        assert orphan.lives()


class Orphan:
    """A grandchild, known by the page that it shares with us."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def is_here(self) -> None:
        struct.pack_into("i", self._page, 0, os.getpid())

    def pid(self) -> int:
        return int(struct.unpack_from("i", self._page)[0])

    def lives(self) -> bool:
        return bool(self.pid()) and Path(f"/proc/{self.pid()}").exists()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.pid():
                os.kill(self.pid(), signal.SIGKILL)
        self._page.close()


def lives_in_full(path: Path, noise: random.Random) -> None:
    """Connect, open, run, close: again and again, on any model, until somebody ends it."""
    while True:
        model = noise.choice(MODELS)
        with contextlib.suppress(SidecamlError, AssertionError, OSError):
            channel = attach(RawClient(path), model, 2, dims=DIMS.get(model, {}))
            for _ in range(noise.randrange(4)):
                slot = channel.claim()
                channel.submit()
                if noise.random() < 0.7:
                    channel.wait(slot)
                    channel.release(slot)
            channel.close()


def test_who_is_killed_between_any_two_instructions_leaves_nothing(scene: Scene, uid: int | None) -> None:
    noise = random.Random(SEED)
    print(f"seed {SEED}")
    for number in range(60):
        victims = [
            Child(lambda seed=number * 2 + i: lives_in_full(scene.running.socket, random.Random(seed)), uid)
            for i in range(2)
        ]
        for victim in victims:
            time.sleep(noise.expovariate(1 / 0.02))
            victim.kill()
    scene.is_as_before()


def test_who_is_stopped_in_the_middle_of_anything_holds_nobody_up(scene: Scene, uid: int | None) -> None:
    noise = random.Random(SEED)
    victims = [
        Child(lambda seed=seed: lives_in_full(scene.running.socket, random.Random(seed)), uid)
        for seed in range(6)
    ]
    try:
        for victim in victims:
            time.sleep(noise.expovariate(1 / 0.05))
            os.kill(victim.pid, signal.SIGSTOP)
        scene.bystander.goes_on()
    finally:
        for victim in victims:
            victim.kill()
    scene.is_as_before()


def test_there_is_another_user_where_there_can_be_one() -> None:
    assert is_root() == ("other user" in USERS)
