"""The control socket of a real daemon: every request, and what a client is told."""

from __future__ import annotations

import mmap
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import models
import pytest
from channels import attach, double, open_channel, serves_others, submit_slow
from conftest import StartDaemon
from daemon_process import Daemon, RawClient, open_descriptors, wait_until

from ipc_server import __version__, decode, messages
from ipc_server.abi import ABI_VERSION, ErrorCode
from ipc_server.errors import SidecamlError

LONG_RUN = 10_000_000


@pytest.fixture
def served(daemon: StartDaemon, tmp_path: Path) -> Daemon:
    return daemon(
        {
            "scalar": models.scalar(tmp_path / "scalar.onnx"),
            "mlp": models.dynamic_mlp(tmp_path / "mlp.onnx"),
            "slow": models.slow(tmp_path / "slow.onnx"),
        }
    )


@pytest.fixture
def client(served: Daemon) -> Iterator[RawClient]:
    with RawClient(served.socket) as connected:
        yield connected


def test_hello_tells_who_answers(served: Daemon) -> None:
    with RawClient(served.socket, hello=False) as client:
        reply = client.ok("hello", abi=ABI_VERSION, client="tests", unknown="ignored")
    assert reply == {
        "id": 1,
        "ok": True,
        "abi": ABI_VERSION,
        "server": f"sidecaml {__version__}",
        "pid": served.process.pid,
    }


def test_describe_gives_every_model_by_name(client: RawClient) -> None:
    reply = client.ok("describe")
    assert [model["name"] for model in reply["models"]] == ["mlp", "scalar", "slow"]
    assert reply["more"] is False
    mlp = reply["models"][0]
    assert mlp.pop("fingerprint") > 0
    batching = mlp.pop("batching")
    assert 2 <= batching.pop("rest_from") <= batching.pop("gather_from") <= batching.pop("most") <= 32
    # Runs were timed while other tests ran.
    assert isinstance(batching.pop("why"), str)
    assert batching == {"dim": "N", "policy": "exact", "in_place": True, "shared": [], "sizes": {}}
    assert mlp == {
        "name": "mlp",
        "engine": "onnx",
        "state": "ready",
        "problem": "",
        "max_slots": 64,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 64]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["N", 10]}],
        "carried": [],
        "instances": 1,
        "served": 1,
    }


def test_describe_gives_one_model(client: RawClient) -> None:
    assert [model["name"] for model in client.ok("describe", model="slow")["models"]] == ["slow"]
    assert [model["name"] for model in client.ok("describe", after="mlp")["models"]] == ["scalar", "slow"]


def test_describe_comes_in_pages_that_fit_a_message(daemon: StartDaemon, tmp_path: Path) -> None:
    # A failed model's description is the longest that comes cheap: its problem names the path.
    folder = tmp_path / ("long-" * 40) / ("longer-" * 30)
    missing = {f"m{number:03}": folder / f"{number}.onnx" for number in range(12)}
    running = daemon({name: path for name, path in missing.items()})
    with RawClient(running.socket) as client:
        names, more = [], True
        while more:
            reply = client.ok("describe", **({"after": names[-1]} if names else {}))
            more = reply["more"]
            names += [model["name"] for model in reply["models"]]
    assert names == sorted(missing)


def test_open_gives_a_segment_two_doorbells_and_a_read_only_page(client: RawClient) -> None:
    message = client.open("mlp", 3, dims={"N": 5})
    segment, request, answer, status = message.fds
    try:
        body = message.body
        assert (body["slots"], body["model"]["name"]) == (3, "mlp")
        assert body["fingerprint"] == body["model"]["fingerprint"]
        assert os.fstat(segment).st_size == body["segment_bytes"]
        decoded = decode.decode_segment(os.pread(segment, body["segment_bytes"], 0))
        assert decoded.header.fingerprint == body["fingerprint"]
        assert [list(tensor.max_dims) for tensor in decoded.tensors] == [[5, 64], [5, 10]]
        assert len(decoded.slots) == 3
        assert all(open_descriptors()[fd] == "anon_inode:[eventfd]" for fd in (request, answer))
        with pytest.raises(PermissionError):
            mmap.mmap(status, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        assert decode.decode_status(os.pread(status, 4096, 0)).channels == 1
    finally:
        message.close_fds()


def test_close_and_ping_are_idempotent(client: RawClient) -> None:
    message = client.open("scalar")
    message.close_fds()
    number = message.body["channel"]
    assert [client.ok("close", channel=number) for _ in range(2)]
    assert client.ok("close", channel=987654321)
    first, second = client.ok("ping")["time_ns"], client.ok("ping")["time_ns"]
    assert first <= second


def test_channels_are_listed_while_they_are_open(served: Daemon, client: RawClient) -> None:
    assert client.ok("channels")["channels"] == []
    message = client.open("scalar", 2)
    message.close_fds()
    (row,) = client.ok("channels")["channels"]
    assert row["worker_pid"] in served.workers()
    assert row == {
        "channel": message.body["channel"],
        "model": "scalar",
        "slots": 2,
        "priority": "normal",
        "segment_bytes": message.body["segment_bytes"],
        "client_pid": os.getpid(),
        "worker_pid": row["worker_pid"],
    }
    assert client.ok("channels", after=message.body["channel"])["channels"] == []
    client.ok("close", channel=message.body["channel"])
    assert client.ok("channels")["channels"] == []


def test_the_numbers_of_closed_channels_are_not_used_again(client: RawClient) -> None:
    numbers = []
    for _ in range(3):
        message = client.open("scalar")
        message.close_fds()
        numbers.append(message.body["channel"])
        client.ok("close", channel=numbers[-1])
    assert len(set(numbers)) == 3


def test_inspect_gives_descriptors_that_cannot_write(served: Daemon, client: RawClient) -> None:
    with open_channel(served.socket, "scalar") as channel:
        assert double(channel, 1.0) == 2.0
        number = client.ok("channels")["channels"][0]["channel"]
        for _ in range(2):
            message = client.ask("inspect", channel=number)
            segment, status = message.fds
            assert message.body["model"] == "scalar"
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(segment, b"x", 0)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(status, b"x", 0)
            message.close_fds()


def test_many_channels_on_one_connection_and_one_worker(client: RawClient) -> None:
    opened = [client.open("scalar") for _ in range(10)]
    for message in opened:
        message.close_fds()
    assert len({message.body["channel"] for message in opened}) == 10
    assert len(client.ok("channels")["channels"]) == 10


def test_everything_a_client_held_is_given_back_when_it_leaves(served: Daemon) -> None:
    assert serves_others(served)
    worker_fds = {pid: len(open_descriptors(pid)) for pid in served.workers()}
    before = len(served.fds())
    for _ in range(20):
        with RawClient(served.socket) as client:
            for model in ("scalar", "slow"):
                client.open(model).close_fds()
            client.ask("inspect", channel=client.ok("channels")["channels"][0]["channel"]).close_fds()
    wait_until("the supervisor's descriptors are closed", lambda: len(served.fds()) <= before)
    for pid, count in worker_fds.items():
        wait_until("the worker's are", lambda pid=pid, count=count: len(open_descriptors(pid)) <= count)


def test_a_client_that_leaves_while_its_open_is_under_way_leaves_nothing(served: Daemon) -> None:
    assert serves_others(served)
    before = len(served.fds())
    for _ in range(30):
        with RawClient(served.socket) as client:
            messages.send(client.sock, {"id": 9, "op": "open", "model": "scalar", "slots": 4})
    wait_until("the supervisor's descriptors are closed", lambda: len(served.fds()) <= before)
    with RawClient(served.socket) as client:
        wait_until("the channels are gone", lambda: not client.ok("channels")["channels"])
    assert serves_others(served)


def test_a_model_that_fails_to_load_leaves_the_others_served(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx"), "missing": tmp_path / "missing.onnx"})
    assert "failed: missing" in running.log()
    with RawClient(running.socket) as client:
        described = client.ok("describe", model="missing")["models"][0]
        assert (described["state"], described["inputs"], described["outputs"]) == ("failed", [], [])
        assert "missing.onnx" in described["problem"]
        name, sentence = client.refused("open", model="missing", slots=1)
        assert name == "MODEL_FAILED"
        assert "missing.onnx" in sentence
    assert serves_others(running)


def test_an_open_waits_for_a_model_that_loads(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")}, ready=False)
    running.wait_logged("listens on")
    assert serves_others(running)


def test_a_worker_that_dies_is_replaced_and_its_channels_stay(served: Daemon, client: RawClient) -> None:
    message = client.open("scalar")
    message.close_fds()
    worker = client.ok("channels")["channels"][0]["worker_pid"]
    os.kill(worker, signal.SIGKILL)
    reopened = client.open("scalar")
    reopened.close_fds()
    rows = client.ok("channels")["channels"]
    assert [row["channel"] for row in rows] == [message.body["channel"], reopened.body["channel"]]
    assert worker not in {row["worker_pid"] for row in rows}
    assert serves_others(served)


def test_a_model_that_cannot_be_loaded_again_sends_each_channel_its_event(
    served: Daemon, client: RawClient, tmp_path: Path
) -> None:
    message = client.open("scalar")
    message.close_fds()
    (tmp_path / "scalar.onnx").unlink()
    os.kill(client.ok("channels")["channels"][0]["worker_pid"], signal.SIGKILL)
    event = client.next().body
    assert "scalar.onnx" in event.pop("message")
    assert event == {"event": "gone", "channel": message.body["channel"], "code": int(ErrorCode.SERVER_GONE)}


def test_a_stopped_daemon_finishes_what_runs_and_says_goodbye(served: Daemon) -> None:
    with open_channel(served.socket, "slow") as channel:
        slot = submit_slow(channel, 2000)
        served.process.send_signal(signal.SIGTERM)
        channel.wait(slot)
        channel.release(slot)
        assert served.process.wait(30) == 0
        with pytest.raises(SidecamlError) as caught:
            channel.wait(submit_slow(channel, 0))
        assert caught.value.code is ErrorCode.SERVER_GONE
    assert not served.socket.exists()


def test_a_stopped_daemon_sends_each_channel_its_event(served: Daemon, client: RawClient) -> None:
    message = client.open("scalar")
    message.close_fds()
    served.process.send_signal(signal.SIGTERM)
    event = client.next().body
    assert (event["event"], event["channel"]) == ("gone", message.body["channel"])
    assert event["code"] == int(ErrorCode.SHUTTING_DOWN)
    assert client.at_end()
    assert served.process.wait(30) == 0


def test_a_run_that_does_not_end_is_cut_off_at_the_time_configured(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    slow = models.slow(tmp_path / "slow.onnx")
    running = daemon({"slow": slow}, env={"SIDECAML_SHUTDOWN_TIMEOUT_S": "0.2"})
    with open_channel(running.socket, "slow") as channel:
        slot = submit_slow(channel, LONG_RUN)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(SidecamlError) as caught:
            channel.wait(slot)
        assert caught.value.code is ErrorCode.SERVER_GONE
    assert running.process.wait(30) == 0
    assert "still runs after 0.2 s: it is killed" in running.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(served: Daemon, number: signal.Signals) -> None:
    with open_channel(served.socket, "slow") as channel:
        slot = submit_slow(channel, LONG_RUN)
        served.process.send_signal(number)
        served.wait_logged("finishing what runs")
        served.process.send_signal(number)
        with pytest.raises(SidecamlError):
            channel.wait(slot)
    assert served.process.wait(30) == 0


def test_a_name_that_a_killed_daemon_left_is_removed(daemon: StartDaemon, tmp_path: Path) -> None:
    left = Path(f"/dev/shm/sidecaml-{secrets.token_hex(12)}")
    left.touch()
    try:
        daemon({"scalar": models.scalar(tmp_path / "scalar.onnx")})
        assert not left.exists()
    finally:
        left.unlink(missing_ok=True)


def test_opens_are_refused_while_the_daemon_ends(daemon: StartDaemon, tmp_path: Path) -> None:
    slow = models.slow(tmp_path / "slow.onnx")
    running = daemon({"slow": slow}, env={"SIDECAML_SHUTDOWN_TIMEOUT_S": "60"})
    with open_channel(running.socket, "slow") as channel, RawClient(running.socket) as client:
        submit_slow(channel, LONG_RUN)
        running.process.send_signal(signal.SIGTERM)
        running.wait_logged("finishing what runs")
        assert client.refused("open", model="slow", slots=1)[0] == "SHUTTING_DOWN"
        # It need not be waited for.
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0


def test_a_busy_worker_lets_an_open_wait_and_the_others_open(served: Daemon) -> None:
    with open_channel(served.socket, "slow") as channel:
        slot = submit_slow(channel, 5000)
        assert serves_others(served)
        second = attach(RawClient(served.socket), "slow")
        second.close()
        channel.wait(slot)
        channel.release(slot)
