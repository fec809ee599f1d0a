"""A full machine: each shortage is a named error at open or load, and is over when there is room again.

Descriptors of the supervisor: test_exhaustion.py. The daemon gets shared memory of its own here, and limits.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import models
import pytest
from channels import attach, double, open_channel, serves_others
from conftest import SHARED_MEMORY, StartDaemon
from daemon_process import Daemon, RawClient, open_descriptors, wait_until

from ipc_server.abi import ErrorCode
from ipc_server.client import Channel, open_model
from ipc_server.errors import SidecamlError

KIB = 2**10
MIB = 2**20
NOBODY = 65534
# Of shared memory: room for a few small channels.
ROOM = 256 * KIB

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
PATIENCE_S = 60


def served_models(folder: Path) -> dict[str, Path]:
    return {"scalar": models.scalar(folder / "scalar.onnx"), "mlp": models.dynamic_mlp(folder / "mlp.onnx")}


def shell(line: str) -> list[str]:
    """Start the daemon by a shell that prepares something; it is then the daemon itself."""
    return ["sh", "-c", f'{line} exec "$@"', "sh"]


def own_memory_at(place: Path, size: int) -> list[str]:
    """Give the daemon a small file system of its own, in memory; it ends with the daemon."""
    alone = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *alone, "--mount", *shell(f"mount -t tmpfs -o size={size} tmpfs {place} &&")]


class Filler:
    """A file that takes all the room that such a file system has."""

    def __init__(self, daemon: Daemon, place: Path = SHARED_MEMORY) -> None:
        self._path = Path(f"/proc/{daemon.process.pid}/root{place}/filler")

    def __enter__(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            for size in (64 * KIB, 4 * KIB):
                while _written(file.fileno(), size):
                    pass

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


def _written(fd: int, size: int) -> bool:
    try:
        return os.write(fd, bytes(size)) > 0
    except OSError:
        return False


def limit(pid: int, kind: int, soft: int) -> int:
    """Set a process's soft limit; what it was."""
    before, most = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (soft, most))
    return before


def worker_of(daemon: Daemon, model: str) -> int:
    """Find the worker that serves a model, by an open channel of it."""
    with RawClient(daemon.socket) as client:
        rows = client.ok("channels")["channels"]
    return next(int(row["worker_pid"]) for row in rows if row["model"] == model)


SMALL_SHARED_MEMORY = own_memory_at(SHARED_MEMORY, ROOM)


# --- Shared memory ------------------------------------------------------------------------------------------


def test_an_open_without_shared_memory_is_refused_until_there_is_some(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon(served_models(tmp_path), prefix=SMALL_SHARED_MEMORY)
    with open_channel(running.socket, "scalar") as bystander, RawClient(running.socket) as client:
        with Filler(running):
            for _ in range(3):
                name, said = client.refused("open", model="scalar", slots=1)
                assert name == "NO_SPACE", said
                assert "/dev/shm" in said
            assert double(bystander, 3.0) == 6.0
        client.open("scalar").close_fds()
    assert serves_others(running)


def test_channels_fill_shared_memory_and_nobody_notices_but_who_is_refused(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon(served_models(tmp_path), prefix=SMALL_SHARED_MEMORY)
    with RawClient(running.socket) as client:
        held = []
        while (message := client.ask("open", model="scalar", slots=1)).body["ok"]:
            message.close_fds()
            held.append(message.body["channel"])
        assert message.body["error"] == "NO_SPACE", message.body
        assert held
        client.ok("close", channel=held[0])
        client.open("scalar").close_fds()
    assert serves_others(running)


def test_a_worker_is_replaced_while_shared_memory_is_full(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon(served_models(tmp_path), prefix=SMALL_SHARED_MEMORY)
    with open_channel(running.socket, "scalar") as channel:
        assert double(channel, 1.0) == 2.0
        victim = worker_of(running, "scalar")
        with Filler(running):
            os.kill(victim, signal.SIGKILL)
            assert double(channel, 4.0) == 8.0
    assert serves_others(running)


def test_a_daemon_that_starts_without_shared_memory_serves_when_there_is_some(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    full = shell("dd if=/dev/zero of=/dev/shm/filler bs=4k count=1000 2>/dev/null;")
    running = daemon(served_models(tmp_path), prefix=[*SMALL_SHARED_MEMORY, *full], ready=False)
    running.wait_logged("no worker could be started: ", times=6)
    with RawClient(running.socket) as client:
        name, said = client.refused("open", model="scalar", slots=1)
        assert name == "MODEL_FAILED", said
        assert "no worker could be started: " in said
        assert "/dev/shm has 0" in said
    Path(f"/proc/{running.process.pid}/root/dev/shm/filler").unlink()
    running.wait_logged("model scalar: ready")
    assert serves_others(running)


# --- Descriptors and memory of a worker ---------------------------------------------------------------------


def test_an_open_on_a_worker_without_descriptors_is_refused_until_it_has_some(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon(served_models(tmp_path))
    with open_channel(running.socket, "scalar") as bystander, RawClient(running.socket) as client:
        worker = worker_of(running, "scalar")
        before = limit(worker, resource.RLIMIT_NOFILE, len(open_descriptors(worker)) + 2)
        for _ in range(3):
            name, said = client.refused("open", model="scalar", slots=1)
            assert name == "LIMIT", said
            assert "the worker can hold no more descriptors" in said
        assert double(bystander, 3.0) == 6.0
        limit(worker, resource.RLIMIT_NOFILE, before)
        client.open("scalar").close_fds()
        assert worker_of(running, "scalar") == worker


def test_a_channel_larger_than_a_workers_memory_is_refused(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon(served_models(tmp_path))
    with open_channel(running.socket, "mlp", dims={"N": 1}) as bystander:
        worker = worker_of(running, "mlp")
        taken = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * resource.getpagesize()
        before = limit(worker, resource.RLIMIT_AS, taken + 16 * MIB)
        with RawClient(running.socket) as client:
            name, said = client.refused("open", model="mlp", slots=64, dims={"N": 4096})
            assert name in ("NO_MEMORY", "SYSTEM"), said
            assert "memory" in said
        # It goes on with what it has.
        slot = bystander.claim()
        bystander.submit()
        bystander.wait(slot)
        bystander.release(slot)
        limit(worker, resource.RLIMIT_AS, before)
        attach(RawClient(running.socket), "mlp", 64, dims={"N": 4096}).close()
        assert worker_of(running, "mlp") == worker


@contextmanager
def memory_group(pid: int, most: int) -> Iterator[None]:
    """Put a process where it may take so much more memory; in the end the memory killer must have come."""
    # As the two versions of control groups name them: the limit, and what counts the killed.
    versions = {"memory/memory.limit_in_bytes": "memory.oom_control", "memory.max": "memory.events"}
    for limit, counts in versions.items():
        group = Path("/sys/fs/cgroup", limit).parent / f"sidecaml-{secrets.token_hex(4)}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / Path(limit).name).exists():
                (group / Path(limit).name).write_text(str(most))
                (group / "cgroup.procs").write_text(str(pid))
                yield
                assert "oom_kill 1\n" in (group / counts).read_text()
                return
        finally:
            wait_until("the group is empty", lambda group=group: removed(group))
    pytest.skip(
        "no control group that limits memory can be made here, which root can where they are writable"
    )


def removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("standbys", [0, 1])
def test_a_worker_that_the_memory_killer_took_is_a_slow_call(
    daemon: StartDaemon, tmp_path: Path, standbys: int
) -> None:
    config = tmp_path / "eats.toml"
    config.write_text(
        f'[models.bad]\nengine = "python"\ncallable = "hooks:eats"\npython_path = ["{CALLABLES}"]\n'
    )
    running = daemon({}, f"--config={config}", standbys=standbys)
    with open_model("bad", socket=str(running.socket)) as channel:
        assert ask(channel, 1) == 1
        with memory_group(worker_of(running, "bad"), 64 * MIB):
            assert ask(channel, 256) == 256
    running.wait_logged("was killed by SIGKILL")


SCARCE = """
import contextlib, os, pathlib
from ipc_server.typed import Float32

lack = pathlib.Path(__file__).with_name("lack")
with contextlib.suppress(FileNotFoundError):
    exec(lack.read_text())


def same(x: Float32[1]) -> Float32[1]:
    return x
"""
LACKS = {
    "memory": ("raise MemoryError", "MemoryError"),
    "descriptors": ("os.open('/', os.O_RDONLY); raise OSError(24, 'Too many open files')", "Too many open"),
    "disk": ("raise OSError(28, 'No space left on device')", "No space left"),
    "a library's words": ("raise RuntimeError('std::bad_alloc')", "bad_alloc"),
    "killed": ("os.kill(os.getpid(), 9)", "was killed by SIGKILL while it loaded"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_what_a_worker_lacks_as_it_loads_ends_no_channel_and_is_tried_again(
    daemon: StartDaemon, tmp_path: Path, lack: str
) -> None:
    """More often than a model is tried at which workers die by themselves, from the start and later."""
    code, problem = LACKS[lack]
    (tmp_path / "scarce.py").write_text(SCARCE)
    lacks = tmp_path / "lack"
    config = tmp_path / "scarce.toml"
    config.write_text(
        f'[models.scarce]\nengine = "python"\ncallable = "scarce:same"\npython_path = ["{tmp_path}"]\n'
    )
    lacks.write_text(code)
    running = daemon({}, f"--config={config}", standbys=0, ready=False)
    running.wait_logged(problem, times=4)
    with RawClient(running.socket) as client:
        name, said = client.refused("open", model="scarce", slots=1)
    assert name == "MODEL_FAILED", said
    assert problem in said
    lacks.unlink()
    running.wait_logged("model scarce: ready")
    with open_model("scarce", socket=str(running.socket)) as channel:
        assert ask(channel, 1) == 1
        lacks.write_text(code)
        os.kill(worker_of(running, "scarce"), signal.SIGKILL)
        running.wait_logged(problem, times=8)
        lacks.unlink()
        assert ask(channel, 2) == 2


# --- Processes ----------------------------------------------------------------------------------------------


def unprivileged() -> list[str]:
    """Run the daemon as somebody whose processes are counted, which root's are not."""
    if os.geteuid() != 0:
        return []
    # Files of root's are still to be read, and the socket to be made where only root may.
    keeps = "+dac_override,+dac_read_search"
    return [
        "setpriv",
        f"--reuid={NOBODY}",
        "--clear-groups",
        f"--bounding-set=-all,{keeps}",
        f"--inh-caps=-all,{keeps}",
        f"--ambient-caps=-all,{keeps}",
    ]


def limit_processes(daemon: Daemon, most: str) -> str:
    """Limit how many processes and threads the daemon's user may have, as only that user can; what it was."""
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    (before,) = (line.split()[2] for line in limits.splitlines() if line.startswith("Max processes"))
    command = ["prlimit", f"--pid={daemon.process.pid}", f"--nproc={most}:"]
    subprocess.run([*unprivileged(), *command], check=True)
    return before


def test_without_processes_a_dead_worker_is_replaced_as_soon_as_there_are_some(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon(served_models(tmp_path), prefix=unprivileged())
    with open_channel(running.socket, "scalar") as channel:
        assert double(channel, 1.0) == 2.0
        victim = worker_of(running, "scalar")
        before = limit_processes(running, "1")
        os.kill(victim, signal.SIGKILL)
        running.wait_logged("no worker could be started", times=4)
        with RawClient(running.socket) as client:
            name, said = client.refused("open", model="scalar", slots=1)
            assert name == "MODEL_FAILED", said
            assert "no worker could be started: " in said
        # The other model goes on, threads and all.
        with open_channel(running.socket, "mlp", dims={"N": 2}):
            pass
        limit_processes(running, before)
        assert double(channel, 4.0) == 8.0
    assert serves_others(running)


@pytest.mark.parametrize("standbys", [0, 1])
def test_a_worker_is_replaced_when_the_daemon_has_descriptors_again(
    daemon: StartDaemon, tmp_path: Path, standbys: int
) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "scalar.onnx")}, standbys=standbys)
    with open_channel(running.socket, "scalar") as channel:
        if standbys:
            running.wait_logged("is warm")
        victim = worker_of(running, "scalar")
        before = limit(running.process.pid, resource.RLIMIT_NOFILE, 3)
        os.kill(victim, signal.SIGKILL)
        if standbys:
            # It has all that it takes.
            assert double(channel, 3.0) == 6.0
        running.wait_logged("Too many open files", times=4)
        limit(running.process.pid, resource.RLIMIT_NOFILE, before)
        assert double(channel, 4.0) == 8.0
    assert serves_others(running)
    wait_until("all workers are there", lambda: len(running.workers()) == 1 + standbys)


# --- Disks --------------------------------------------------------------------------------------------------


def listens(running: Daemon) -> bool:
    try:
        RawClient(running.socket).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def test_a_log_that_cannot_be_written_stops_nothing(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon(served_models(tmp_path), prefix=shell("exec 2>/dev/full;"), ready=False)
    wait_until("the daemon listens", lambda: listens(running))
    assert serves_others(running)
    with open_channel(running.socket, "scalar") as channel:
        victim = worker_of(running, "scalar")
        os.kill(victim, signal.SIGKILL)
        assert double(channel, 4.0) == 8.0
    with RawClient(running.socket) as client:
        assert client.refused("open", model="nobody", slots=1)[0] == "UNKNOWN_MODEL"
    assert running.stop() == 0


def test_inputs_that_cannot_be_kept_are_told_of_and_cost_nothing(daemon: StartDaemon, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    config = tmp_path / "bad.toml"
    config.write_text(
        f'quarantine = "{disk / "kept"}"\n[models.bad]\nengine = "python"\n'
        f'callable = "hooks:ends"\npython_path = ["{CALLABLES}"]\n'
    )
    running = daemon({}, f"--config={config}", standbys=1, prefix=own_memory_at(disk, 16 * KIB))
    with open_model("bad", socket=str(running.socket)) as channel:
        with Filler(running, disk):
            assert "its inputs are in" not in fails(channel)
            running.wait_logged("cannot be kept in")
            assert ask(channel, 0) == 0
        assert "its inputs are in" in fails(channel)
        assert ask(channel, 0) == 0


HANGS = """
import os, time

mkdir = os.mkdir


def hang(path, *arguments, **named):
    if "hung" in str(path):
        time.sleep(3600)
    return mkdir(path, *arguments, **named)


os.mkdir = hang
"""


def hindered(start: StartDaemon, folder: Path, how: str) -> Daemon:
    """Start a daemon with a model that dies, whose workers are hindered in keeping its inputs."""
    (folder / "sitecustomize.py").write_text(how)
    config = folder / "bad.toml"
    config.write_text(
        f'quarantine = "{folder / "hung"}"\n[models.bad]\nengine = "python"\nlongest_run_s = 8\n'
        f'callable = "hooks:ends"\npython_path = ["{CALLABLES}"]\n'
    )
    path = shell(f'export PYTHONPATH="{folder}:$PYTHONPATH";')
    return start({}, f"--config={config}", standbys=1, prefix=path)


def test_inputs_whose_disk_never_answers_cost_nothing_but_the_wait(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = hindered(daemon, tmp_path, HANGS)
    with open_model("bad", socket=str(running.socket)) as channel:
        assert "its inputs are in" not in fails(channel)
        assert ask(channel, 0) == 0
    running.wait_logged("its disk has not answered")
    assert "longest_run_s" not in running.log()


DIES = HANGS.replace("time.sleep(3600)", "os.kill(os.getpid(), 9)")


def test_a_worker_that_dies_as_it_keeps_inputs_is_the_only_one(daemon: StartDaemon, tmp_path: Path) -> None:
    running = hindered(daemon, tmp_path, DIES)
    with open_model("bad", socket=str(running.socket)) as channel:
        assert "its inputs are in" not in fails(channel)
        assert ask(channel, 0) == 0
    running.wait_logged("a worker died as it kept the inputs of its request")
    running.wait_logged("exited with code 7", times=2)
    assert running.log().count("exited with code 7") == 2
    running.wait_logged("was killed by SIGKILL")


def ask(channel: Channel, value: float) -> float:
    channel.input("x", channel.claim())[...] = value
    slot = channel.run(PATIENCE_S)
    return float(channel.output("output", slot).reshape(-1)[0])


def fails(channel: Channel) -> str:
    with pytest.raises(SidecamlError) as caught:
        ask(channel, 1)
    assert caught.value.code is ErrorCode.WORKER_CRASHED
    return str(caught.value)
