"""Bad input gets a clear error and costs nobody else anything: each test ends with others being served."""

from __future__ import annotations

import array
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import msgpack
import numpy as np
import pytest
from channels import attach, double, open_channel, products_of, serves_others, submit_running
from conftest import StartDaemon
from daemon_process import Daemon, RawClient, environment, wait_until

from ipc_server import messages
from ipc_server.abi import ABI_VERSION, CONTROL_BYTES, ErrorCode
from ipc_server.errors import SidecamlError

SEED = 20261123


@pytest.fixture(scope="module")
def one_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all: whatever one test does to it, the next ones find out."""
    folder = tmp_path_factory.mktemp("daemon")
    running = Daemon(
        folder,
        {
            "scalar": models.scalar(folder / "scalar.onnx"),
            "mlp": models.dynamic_mlp(folder / "mlp.onnx"),
            "picky": models.fails_inside(folder / "picky.onnx"),
            "slow": models.slow(folder / "slow.onnx"),
        },
        env={
            "SIDECAML_MAX_CONNECTIONS": "8",
            "SIDECAML_MAX_CHANNELS": "6",
            "SIDECAML_MAX_CHANNELS_PER_CONNECTION": "4",
            "SIDECAML_MAX_SEGMENT_BYTES": str(2**40),
            "SIDECAML_MAX_BYTES_PER_USER": str(2**41),
            "SIDECAML_HELLO_TIMEOUT_S": "3",
            "SIDECAML_SEND_TIMEOUT_S": "5",
        },
    )
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def served(one_daemon: Daemon) -> Iterator[Daemon]:
    """The daemon, and after the test the proof that it still serves and holds nothing more."""
    running = one_daemon
    # Held all the while: nothing that the test does may disturb it.
    with open_channel(running.socket, "scalar") as bystander:
        before = len(running.fds())
        workers = running.workers()
        yield running
        assert double(bystander, 3.0) == 6.0
        wait_until("room for another client", lambda: _is_served(running))
        wait_until("the supervisor's descriptors are closed", lambda: len(running.fds()) <= before)
        assert running.workers() == workers, running.log()
    wait_until("nothing is open", lambda: _channels(running) == 0)


def _channels(running: Daemon) -> int:
    with RawClient(running.socket) as client:
        return len(client.ok("channels")["channels"])


def _is_served(running: Daemon) -> bool:
    try:
        return serves_others(running)
    except (AssertionError, OSError):
        # Clients that were sent away are given a moment to read why: their places are not free before.
        return False


@pytest.fixture
def client(served: Daemon) -> Iterator[RawClient]:
    with RawClient(served.socket) as connected:
        yield connected


def test_an_unknown_model_gets_the_nearest_name(client: RawClient) -> None:
    for op, fields in (("open", {"slots": 1}), ("describe", {})):
        name, sentence = client.refused(op, model="Scaler", **fields)
        assert (name, sentence) == ("UNKNOWN_MODEL", "no model is called 'Scaler': did you mean 'scalar'?")
    name, sentence = client.refused("open", model="zzzzzz", slots=1)
    assert sentence == "no model is called 'zzzzzz': there is 'mlp', 'picky', 'scalar', 'slow'"


def test_an_unknown_op_gets_the_nearest_name(client: RawClient) -> None:
    assert client.refused("opne", model="scalar", slots=1) == (
        "PROTOCOL",
        "unknown op 'opne': did you mean 'open'?",
    )


@pytest.mark.parametrize("priority", ["urgent", "", 1, None, ["high"]])
def test_an_unknown_priority_is_refused(client: RawClient, priority: object) -> None:
    name, sentence = client.refused("open", model="scalar", slots=1, priority=priority)
    assert (name, "priority: expected one of normal, high, got" in sentence) == ("PROTOCOL", True)


def test_an_op_before_hello_is_refused(served: Daemon) -> None:
    with RawClient(served.socket, hello=False) as client:
        for op in ("open", "describe", "close", "ping", "channels", "inspect"):
            name, sentence = client.refused(op)
            assert (name, "begins with hello" in sentence) == ("PROTOCOL", True)
        client.ok("hello", abi=ABI_VERSION, client="late")
        client.ok("ping")


@pytest.mark.parametrize("abi", [0, ABI_VERSION + 1, 2**32])
def test_another_abi_version_is_told_both_and_sent_away(served: Daemon, abi: int) -> None:
    with RawClient(served.socket, hello=False) as client:
        name, sentence = client.refused("hello", abi=abi, client="old")
        assert name == "ABI_MISMATCH"
        assert f"the client speaks ABI version {abi} " in sentence
        assert f"version {ABI_VERSION}" in sentence


def test_too_many_slots_are_refused_with_the_limit(client: RawClient) -> None:
    name, sentence = client.refused("open", model="scalar", slots=65)
    assert (name, "allows 64 slots" in sentence, "65" in sentence) == ("TOO_MANY_SLOTS", True, True)
    assert client.refused("open", model="scalar", slots=0)[0] == "INVALID"
    assert client.refused("open", model="scalar", slots=2**64 - 1)[0] == "TOO_MANY_SLOTS"


def test_a_segment_too_large_for_shared_memory_says_what_was_wanted_and_what_is_there(
    client: RawClient,
) -> None:
    room = os.statvfs("/dev/shm")
    rows = room.f_blocks * room.f_frsize // 256 + 1
    name, sentence = client.refused("open", model="mlp", slots=1, dims={"N": rows})
    assert name == "NO_SPACE"
    assert "bytes" in sentence
    # Of the two, the one that has less.
    assert "/dev/shm has" in sentence or "memory has" in sentence


def test_a_segment_beyond_all_numbers_is_refused(client: RawClient) -> None:
    name, sentence = client.refused("open", model="mlp", slots=64, dims={"N": 2**40})
    assert (name in ("LIMIT", "NO_SPACE"), bool(sentence)) == (True, True)


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ({}, "dimension 'N' of the model is dynamic: give its maximum"),
        ({"n": 4}, "no dimension of the model is called 'n': did you mean 'N'?"),
        ({"N": 0}, "expected a maximum from 1 to"),
        ({"N": 4, "M": 4}, "no dimension of the model is called 'M'"),
    ],
)
def test_wrong_dims_at_open_are_named(client: RawClient, dims: dict[str, int], expected: str) -> None:
    name, sentence = client.refused("open", model="mlp", slots=1, dims=dims)
    assert (name, expected in sentence) == ("BAD_DIMS", True), sentence


WRONG_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("open", {}, "model: expected a model's name, got nothing"),
    ("open", {"model": 7, "slots": 1}, "model: expected a model's name, got 7"),
    ("open", {"model": b"scalar", "slots": 1}, "model: expected a model's name, got b'scalar'"),
    ("open", {"model": "scalar"}, "slots: expected an unsigned integer, got nothing"),
    ("open", {"model": "scalar", "slots": True}, "slots: expected an unsigned integer, got True"),
    ("open", {"model": "scalar", "slots": -1}, "slots: expected an unsigned integer, got -1"),
    ("open", {"model": "scalar", "slots": 1.5}, "slots: expected an unsigned integer, got 1.5"),
    ("open", {"model": "scalar", "slots": "1"}, "slots: expected an unsigned integer, got '1'"),
    ("open", {"model": "mlp", "slots": 1, "dims": [4]}, "dims: expected a map"),
    ("open", {"model": "mlp", "slots": 1, "dims": {"N": True}}, "dims: expected an unsigned integer for 'N'"),
    ("open", {"model": "mlp", "slots": 1, "dims": {"N": -4}}, "dims: expected an unsigned integer for 'N'"),
    ("open", {"model": "mlp", "slots": 1, "dims": {b"N": 4}}, "dims: expected an unsigned integer for b'N'"),
    ("close", {}, "channel: expected an unsigned integer, got nothing"),
    ("close", {"channel": None}, "channel: expected an unsigned integer, got None"),
    ("inspect", {"channel": [1, 2]}, "channel: expected an unsigned integer, got a list of 2 values"),
    ("describe", {"model": None}, "model: expected a model's name, got None"),
    ("describe", {"after": 3}, "after: expected a model's name, got 3"),
    ("channels", {"after": "x"}, "after: expected an unsigned integer, got 'x'"),
    ("hello", {"abi": "1", "client": "x"}, "abi: expected an unsigned integer, got '1'"),
    ("hello", {"abi": 1}, "client: expected a string, got nothing"),
]


def test_a_field_of_the_wrong_type_is_named_and_the_connection_goes_on(client: RawClient) -> None:
    for op, fields, expected in WRONG_FIELDS:
        name, sentence = client.refused(op, **fields)
        assert (name, expected in sentence) == ("PROTOCOL", True), sentence
    for op in (7, None, b"ping", ["ping"], {}):
        messages.send(client.sock, {"id": 5, "op": op})
        assert client.next().body["error"] == "PROTOCOL"
    client.ok("ping")


GARBAGE = {
    "empty": b"",
    "random": random.Random(SEED).randbytes(1000),
    "a number": msgpack.packb(1),
    "a list": msgpack.packb(["ping"]),
    "two messages": messages.pack({"id": 1, "op": "ping"}) * 2,
    "deep": b"\x82\xa2id\x01\xa2op" + b"\x91" * 60000 + b"\xc0",
    "oversized": messages.pack({"id": 1, "op": "x" * 60000}) + b"x" * (CONTROL_BYTES - 60000),
    "lying about its length": b"\xdf\xff\xff\xff\xff",
    "without an id": msgpack.packb({"op": "ping"}),
    "an id that is a bool": msgpack.packb({"id": True, "op": "ping"}),
    "an id that is negative": msgpack.packb({"id": -1, "op": "ping"}),
    "an id that is a text": msgpack.packb({"id": "1", "op": "ping"}),
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")),
}


@pytest.mark.parametrize("hello", [False, True], ids=["before hello", "after hello"])
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_gets_an_error_and_the_end(served: Daemon, data: bytes, hello: bool) -> None:
    with RawClient(served.socket, hello=hello) as client:
        client.sock.send(data)
        reply = client.next().body
        assert (reply["ok"], reply["error"], "id" in reply) == (False, "PROTOCOL", False)
        assert client.at_end()


def test_the_channels_of_a_client_that_sends_garbage_end_with_it(served: Daemon) -> None:
    with RawClient(served.socket) as client, RawClient(served.socket) as other:
        client.open("mlp", dims={"N": 1}).close_fds()
        assert len(other.ok("channels")["channels"]) == 2
        client.sock.send(b"\xc1")
        wait_until("the channel ended", lambda: len(other.ok("channels")["channels"]) == 1)


def test_descriptors_that_a_client_sends_are_closed(client: RawClient) -> None:
    read, write = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write] * 8))]
    ping = messages.pack({"id": 77, "op": "ping"})
    try:
        client.sock.sendmsg([ping], rights)
    except PermissionError:
        # From Linux 6.16 on they do not even get there.
        client.sock.send(ping)
    os.close(write)
    assert client.next().body["ok"] is True
    # End-of-file: the daemon holds no copy.
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_client_that_never_reads_is_sent_away(served: Daemon) -> None:
    with RawClient(served.socket) as client:
        client.sock.settimeout(60)
        request = messages.pack({"id": 1, "op": "describe"})
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                client.sock.send(request)
        assert "it does not read its replies" in served.log()


def test_a_client_that_never_says_hello_is_sent_away(served: Daemon) -> None:
    with RawClient(served.socket, hello=False) as client:
        reply = client.next().body
        assert (reply["error"], reply["message"]) == ("PROTOCOL", "no hello within 3 s")
        assert client.at_end()


def test_more_connections_than_allowed_are_told_so(served: Daemon) -> None:
    clients = []
    try:
        # The bystander is the eighth.
        clients = [RawClient(served.socket) for _ in range(7)]
        for _ in range(3):
            with RawClient(served.socket, hello=False) as refused:
                # Told at once: who says hello first may find nobody there any more.
                told = refused.next().body
                assert (told["error"], "max_connections is 8" in told["message"]) == ("LIMIT", True)
        clients.pop().close()
        wait_until("its place is free", lambda: _is_served(served))
    finally:
        for client in clients:
            client.close()


def test_a_flood_of_connections_is_survived(served: Daemon) -> None:
    for _ in range(5):
        socks = []
        for _ in range(100):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # Blocking: it waits while the daemon's queue is full, which a timeout would make an error.
            sock.connect(str(served.socket))
            socks.append(sock)
        for sock in socks:
            sock.close()


def test_more_channels_than_allowed_are_refused(served: Daemon, client: RawClient) -> None:
    opened = [client.open("scalar") for _ in range(4)]
    name, sentence = client.refused("open", model="scalar", slots=1)
    assert (name, "max_channels_per_connection is 4" in sentence) == ("LIMIT", True)
    with RawClient(served.socket) as other:
        # The bystander's is the sixth.
        opened.append(other.open("scalar"))
        name, sentence = other.refused("open", model="scalar", slots=1)
        assert (name, "max_channels is 6" in sentence) == ("LIMIT", True)
    client.ok("close", channel=opened[0].body["channel"])
    opened.append(client.open("scalar"))
    for message in opened:
        message.close_fds()


def test_a_request_that_the_model_refuses_fails_alone(served: Daemon) -> None:
    with open_channel(served.socket, "picky") as channel:
        for shape, works in (
            ([2, 3], True),
            ([4, 4], False),
            ([3, 2], True),
            ([-1, -1], False),
            ([6, 1], True),
        ):
            slot = channel.claim()
            np.frombuffer(channel.tensor(slot, 0), np.float32)[:] = 1
            np.frombuffer(channel.tensor(slot, 1), np.int64)[:] = shape
            channel.submit()
            if works:
                channel.wait(slot)
                assert np.frombuffer(channel.tensor(slot, 2), np.float32).tolist() == [7.0] * 6
            else:
                with pytest.raises(SidecamlError) as caught:
                    channel.wait(slot)
                assert caught.value.code is ErrorCode.ENGINE
            channel.release(slot)


def test_a_client_that_scribbles_over_its_segment_ruins_nobody_else(served: Daemon) -> None:
    with RawClient(served.socket) as client:
        message = client.open("mlp", 2, dims={"N": 3})
        segment, request = message.fds[:2]
        noise = random.Random(SEED)
        for _ in range(50):
            os.pwrite(segment, noise.randbytes(message.body["segment_bytes"]), 0)
            os.eventfd_write(request, 1)
        message.close_fds()
        client.ok("ping")


def test_a_client_that_truncates_its_segment_leaves_the_daemon_serving(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    scalar = models.scalar(tmp_path / "scalar.onnx")
    running = daemon({"scalar": scalar, "victim": scalar})
    with open_channel(running.socket, "scalar") as bystander, RawClient(running.socket) as client:
        message = client.open("victim")
        os.ftruncate(message.fds[0], 0)
        os.eventfd_write(message.fds[1], 1)
        message.close_fds()
        assert double(bystander, 3.0) == 6.0
        # Its own model's worker may have died of it, and is replaced then.
        wait_until("the model is served", lambda: _opens(running, "victim"))
    assert serves_others(running)


def _opens(running: Daemon, model: str) -> bool:
    with RawClient(running.socket) as client:
        message = client.ask("open", model=model, slots=1)
        message.close_fds()
        return message.body["ok"] is True


def test_a_second_daemon_on_the_same_socket_is_refused_by_name(served: Daemon, tmp_path: Path) -> None:
    done = _serve_again(served, tmp_path)
    assert done.returncode == 1
    assert f"process {served.process.pid} serves this socket already" in done.stderr
    assert served.socket.is_socket()


def test_two_daemons_that_race_for_a_stale_socket_leave_one(daemon: StartDaemon, tmp_path: Path) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    scalar = models.scalar(tmp_path / "scalar.onnx")
    running = [daemon({"scalar": scalar}, f"--socket={path}", ready=False) for _ in range(3)]
    wait_until("all but one have ended", lambda: sum(r.process.poll() is None for r in running) == 1)
    (winner,) = [r for r in running if r.process.poll() is None]
    winner.socket = path
    winner.wait_ready()
    assert serves_others(winner)
    assert sorted(r.process.returncode for r in running if r is not winner) == [1, 1]


def _serve_again(served: Daemon, folder: Path) -> subprocess.CompletedProcess[str]:
    model = models.scalar(folder / "again.onnx")
    return subprocess.run(
        [sys.executable, "-m", "ipc_server.cli", "serve", f"--socket={served.socket}", f"--model=m={model}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_stale_socket_is_replaced(daemon: StartDaemon, tmp_path: Path) -> None:
    scalar = models.scalar(tmp_path / "scalar.onnx")
    first = daemon({"scalar": scalar})
    first.kill()
    assert first.socket.is_socket()
    second = daemon({"scalar": scalar}, f"--socket={first.socket}")
    second.socket = first.socket
    assert serves_others(second)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "garbage", "cut short", "unreadable"])
def test_a_missing_or_broken_model_file_is_named(daemon: StartDaemon, tmp_path: Path, kind: str) -> None:
    good = models.small_mlp(tmp_path / "good.onnx")
    path = tmp_path / "broken.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "garbage":
        path.write_bytes(random.Random(SEED).randbytes(4096))
    elif kind == "cut short":
        path.write_bytes(good.read_bytes()[:-1000])
    elif kind == "unreadable":
        # A link to itself: root, who runs tests in containers, reads a file of mode 0.
        path.symlink_to(path)
    running = daemon({"scalar": models.scalar(tmp_path / "scalar.onnx"), "broken": path})
    with RawClient(running.socket) as client:
        name, sentence = client.refused("open", model="broken", slots=1)
    assert (name, "broken.onnx" in sentence) == ("MODEL_FAILED", True), sentence
    assert serves_others(running)


def test_what_a_model_has_that_is_no_tensor_is_named(daemon: StartDaemon, tmp_path: Path) -> None:
    split = models.splits(tmp_path / "split.onnx")
    running = daemon({"scalar": models.scalar(tmp_path / "scalar.onnx"), "split": split})
    with RawClient(running.socket) as client:
        described = client.ok("describe", model="split")["models"][0]
    assert described["state"] == "failed"
    assert "output 'y' is a seq(tensor(float))" in described["problem"], described
    assert serves_others(running)


def test_requests_that_come_faster_than_answers_wait_their_turn(served: Daemon) -> None:
    with RawClient(served.socket) as client:
        flood = threading.Thread(
            target=lambda: [messages.send(client.sock, {"id": i, "op": "ping"}) for i in range(2, 5002)]
        )
        flood.start()
        assert [client.next().body["id"] for _ in range(5000)] == list(range(2, 5002))
        flood.join()


def test_a_channel_that_opens_while_the_worker_dies_gets_the_next_one(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    (worker,) = running.workers()
    os.kill(worker, signal.SIGSTOP)
    with RawClient(running.socket) as client:
        messages.send(client.sock, {"id": 50, "op": "open", "model": "scalar", "slots": 1})
        assert not client.readable(0.3)
        os.kill(worker, signal.SIGKILL)
        reply = client.next()
        reply.close_fds()
        assert (reply.body["id"], reply.body["ok"]) == (50, True)
        assert worker not in {row["worker_pid"] for row in client.ok("channels")["channels"]}
    assert serves_others(running)


def test_an_open_that_a_busy_worker_does_not_get_to_times_out(daemon: StartDaemon, tmp_path: Path) -> None:
    models_of = {
        "slow": models.slow(tmp_path / "slow.onnx"),
        "scalar": models.scalar(tmp_path / "scalar.onnx"),
    }
    running = daemon(models_of, env={"SIDECAML_OPEN_TIMEOUT_S": "5"})
    with open_channel(running.socket, "slow") as channel, RawClient(running.socket) as client:
        slot = submit_running(channel, products_of(channel, 12.0))
        name, sentence = client.refused("open", model="slow", slots=1)
        assert (name, "is busy with a request" in sentence) == ("TIMEOUT", True)
        assert serves_others(running)
        channel.wait(slot)
        channel.release(slot)
        # What came too late was taken back.
        wait_until("only one channel is attached", lambda: len(client.ok("channels")["channels"]) == 1)
        attach(RawClient(running.socket), "slow").close()
