"""The supervisor dies, is restarted or upgraded under a service manager: workers and channels live on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_process import is_alive, wait_until
from models import slow
from restarting import Calls, Opens, configure, make_folder, serving
from service_manager import ServiceManager

from ipc_server import client
from ipc_server.errors import SidecamlError

StartManager = Callable[..., ServiceManager]

every_end = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path)
    return tmp_path


@pytest.fixture
def manager(nothing_left: None, folder: Path) -> Iterator[StartManager]:
    """Start the daemon of the folder's configuration under a service manager."""
    started: list[ServiceManager] = []

    def start(**options: object) -> ServiceManager:
        command = [sys.executable, "-m", "ipc_server.cli", "serve", f"--config={folder}/sidecaml.toml"]
        running = ServiceManager(folder, command, **options)  # type: ignore[arg-type]
        started.append(running)
        running.start()
        return running

    yield start
    for running in started:
        running.close()
        print(running.log())


@every_end
def test_no_call_fails_when_the_supervisor_is_replaced_again_and_again(
    manager: StartManager, folder: Path, number: signal.Signals
) -> None:
    running = manager()
    with Calls(folder) as calls:
        before = serving(folder)
        for _ in range(3):
            running.restart(number)
            calls.wait(20)
        assert serving(folder) == before
        assert running.log().count("taken up: ") == 3


def test_a_channel_can_be_opened_at_any_time(manager: StartManager, folder: Path) -> None:
    running = manager()
    with Opens(folder), Opens(folder):
        for _ in range(5):
            running.kill()
            time.sleep(0.1)
    wait_until("nothing of them is stored", lambda: not stored(running, "c"))


def stored(running: ServiceManager, kind: str) -> list[str]:
    return [name for name in running.names() if name.startswith(kind) and "." in name]


@every_end
def test_a_worker_that_dies_while_there_is_no_supervisor_is_taken_over(
    manager: StartManager, folder: Path, number: signal.Signals
) -> None:
    running = manager(restarts=False)
    wait_until("standbys", lambda: len(stored(running, "w")) == 8)
    with Calls(folder) as calls:
        before = serving(folder)
        running.send_signal(number)
        wait_until("the supervisor is gone", lambda: not running.state()["pid"])
        os.kill(before["total"], signal.SIGKILL)
        running.start()
        calls.wait(20)
        after = serving(folder)
        assert after["triple"] == before["triple"]
        assert after["total"] != before["total"]


@every_end
def test_what_clients_closed_meanwhile_is_reclaimed(
    manager: StartManager, folder: Path, number: signal.Signals
) -> None:
    running = manager(restarts=False)
    channel = client.open_model("triple", socket=str(folder / "sidecaml.sock"))
    assert stored(running, "c")
    running.send_signal(number)
    wait_until("the supervisor is gone", lambda: not running.state()["pid"])
    channel.close()
    running.start()
    wait_until("nothing is stored of it", lambda: not stored(running, "c") and not stored(running, "k"))


@pytest.mark.parametrize("letter", ["s", "q", "a", "j"])
def test_a_channel_that_was_not_kept_whole_is_gone_and_its_client_told(
    manager: StartManager, folder: Path, letter: str
) -> None:
    running = manager()
    with client.open_model("triple", socket=str(folder / "sidecaml.sock")) as channel:
        # By then it is known that the client has its channel.
        serving(folder)
        (name,) = [name for name in stored(running, "c") if name.endswith(f".{letter}")]
        running.drop(name)
        running.kill()
        channel.submit(30.0)
        with pytest.raises(SidecamlError, match="could not be kept"):
            channel.await_(0)
            channel.submit(30.0)
            channel.await_(0)
    wait_until("nothing is stored of it", lambda: not stored(running, "c") and not stored(running, "k"))


@pytest.mark.parametrize("letter", ["c", "p"])
def test_a_worker_that_was_not_kept_whole_is_replaced(
    manager: StartManager, folder: Path, letter: str
) -> None:
    running = manager()
    wait_until("standbys", lambda: len(stored(running, "w")) == 8)
    with Calls(folder) as calls:
        before = serving(folder)
        for name in stored(running, "w"):
            if name.endswith(f".{letter}"):
                running.drop(name)
        running.kill()
        calls.wait(20)
        assert not set(before.values()) & set(serving(folder).values())
        assert not any(is_alive(pid) for pid in before.values())


def test_a_state_file_that_cannot_be_read_ends_the_channels_and_nothing_else(
    manager: StartManager, folder: Path
) -> None:
    running = manager()
    with client.open_model("triple", socket=str(folder / "sidecaml.sock")) as channel:
        worker = serving(folder)["triple"]
        running.ask("spoil")
        running.kill()
        wait_until("the worker is gone", lambda: not is_alive(worker))
        with pytest.raises(SidecamlError) as failed:
            channel.run(30.0)
        assert failed.value.name == "SERVER_GONE"
    with Calls(folder) as calls:
        calls.wait(5)


def test_a_full_store_refuses_to_open_and_goes_on_when_there_is_room(
    manager: StartManager, folder: Path
) -> None:
    running = manager(most=48)
    wait_until("standbys", lambda: len(stored(running, "w")) == 8)
    opened = []
    try:
        with pytest.raises(SidecamlError, match="FileDescriptorStoreMax is 48") as refused:
            for _ in range(20):
                opened.append(client.open_model("triple", socket=str(folder / "sidecaml.sock")))
        assert refused.value.name == "LIMIT"
        assert opened
        running.kill()
        full = len(running.names())
        opened.pop().close()
        wait_until("what belonged to it is taken from the store", lambda: len(running.names()) < full)
        opened.append(client.open_model("triple", socket=str(folder / "sidecaml.sock")))
        for channel in opened:
            channel.run(30.0)
    finally:
        for channel in opened:
            channel.close()


def test_a_stop_leaves_nothing(manager: StartManager, folder: Path) -> None:
    running = manager()
    with client.open_model("triple", socket=str(folder / "sidecaml.sock")) as channel:
        worker = serving(folder)["triple"]
        os.kill(worker, signal.SIGSTOP)
        running.stop()
        wait_until("the worker has ended", lambda: not is_alive(worker))
        with pytest.raises(SidecamlError) as failed:
            channel.run(30.0)
        assert failed.value.name == "SERVER_GONE"
    assert running.names() == []


def test_sigint_lets_requests_finish(manager: StartManager, folder: Path) -> None:
    slow(folder / "slow.onnx")
    configure(folder, f'[models.slow]\npath = "{folder}/slow.onnx"')
    running = manager(restarts=False)
    with client.open_model("slow", socket=str(folder / "sidecaml.sock")) as channel:
        slot = channel.submit(30.0)
        running.send_signal(signal.SIGINT)
        channel.await_(slot)
        wait_until("the supervisor has ended", lambda: not running.state()["pid"])
        assert running.state()["code"] == 0
    assert running.names() == ["state"]


# --- Another configuration ---


def test_a_model_that_changed_over_a_restart_serves_its_channels_to_the_end(
    manager: StartManager, folder: Path
) -> None:
    running = manager()
    with Calls(folder) as calls:
        old = serving(folder)["triple"]
        configure(folder, triple="fivefold.onnx")
        running.restart()
        calls.wait(20)
        with client.open_model("triple", socket=str(folder / "sidecaml.sock")) as channel:
            channel.input("x")[...] = 1
            channel.run(30.0)
            assert channel.output("y")[0] == 6
        calls.wait(20)
        assert is_alive(old)
    wait_until("the old worker has ended", lambda: not is_alive(old))


def test_an_upgrade_to_another_abi_serves_old_channels_to_the_end_without_successors(
    manager: StartManager, folder: Path
) -> None:
    running = manager(restarts=False)
    with client.open_model("triple", socket=str(folder / "sidecaml.sock")) as channel:
        old = serving(folder)["triple"]
        running.send_signal(signal.SIGKILL)
        wait_until("the supervisor is gone", lambda: not running.state()["pid"])
        running.ask("age")
        running.start()
        channel.run(30.0)
        assert serving(folder)["triple"] == old
        with Calls(folder) as calls:
            calls.wait(5)
        os.kill(old, signal.SIGKILL)
        with pytest.raises(SidecamlError) as failed:
            channel.run(30.0)
            channel.run(30.0)
        assert failed.value.name == "SERVER_GONE"


def test_a_reload_adds_changes_and_removes_models(manager: StartManager, folder: Path) -> None:
    running = manager()
    with Calls(folder) as calls:
        before = serving(folder)
        configure(folder, f'[models.fivefold]\npath = "{folder}/fivefold.onnx"')
        reload(running)
        with client.open_model("fivefold", socket=str(folder / "sidecaml.sock")) as channel:
            channel.input("x")[...] = 1
            channel.run(30.0)
            assert channel.output("y")[0] == 6
            configure(folder, triple="fivefold.onnx")
            reload(running)
            channel.run(30.0)
        calls.wait(20)
        assert serving(folder) == before
        with pytest.raises(SidecamlError, match="no model is called"):
            client.open_model("fivefold", socket=str(folder / "sidecaml.sock"))
        with client.open_model("triple", socket=str(folder / "sidecaml.sock")) as channel:
            channel.run(30.0)
            assert channel.output("y")[0] == 1
        said = running.state()["said"]
        assert any(line.startswith("RELOADING=1") for line in said)


@pytest.mark.parametrize("text", ["[models", "[limits]\nmax_slots = 0\n"])
def test_a_reload_that_cannot_be_used_changes_nothing(manager: StartManager, folder: Path, text: str) -> None:
    running = manager()
    with Calls(folder) as calls:
        (folder / "sidecaml.toml").write_text(text)
        running.send_signal(signal.SIGHUP)
        running.wait_logged("the configuration stays as it was")
        calls.wait(20)
        wait_until("READY=1 again", lambda: running.state()["said"].count("READY=1") == 2)


def reload(running: ServiceManager) -> None:
    times = running.log().count("the configuration is")
    running.send_signal(signal.SIGHUP)
    running.wait_logged("the configuration is", times + 1)


def test_the_fixture_plays_the_restart_as_told(folder: Path) -> None:
    script = "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if 'LISTEN' in k}))"
    with ServiceManager(folder, [sys.executable, "-c", script], restarts=False) as playing:
        playing.start(ready=False)
        wait_until("it has run", lambda: playing.state()["code"] == 0 and playing.log())
        assert json.loads(playing.log()) == {}
