"""Clients of other users: who is served, what they are given, and what they may take. All of it as root."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import pytest
from channels import double, open_channel, serves_others
from daemon_process import REPOSITORY, Daemon, RawClient, wait_until
from users import STRANGER, STRANGER_GROUP, as_user, is_root, open_folder

from ipc_server import client
from ipc_server.abi import ABI_VERSION, ErrorCode, Policy
from ipc_server.errors import SidecamlError

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
CALLABLES = REPOSITORY / "tests/callables"
PROBE = REPOSITORY / "_build/default/ocaml_lib/bin/probe.exe"
START = Callable[..., Daemon]

# CI is root, and allows no test to be skipped.
pytestmark = pytest.mark.skipif(not is_root(), reason="only root can be another user")


@pytest.fixture
def start(nothing_left: None) -> Iterator[START]:
    """Start a daemon that everybody can reach, with these lines of [access]."""
    running: list[Daemon] = []
    with open_folder() as folder:

        def daemon(access: str, **environment: str) -> Daemon:
            place = folder / str(len(running))
            place.mkdir(mode=0o755)
            config = place / "access.toml"
            config.write_text(f"[access]\nsocket_mode = '0666'\n{access}\n")
            scalar = models.scalar(place / "scalar.onnx")
            running.append(Daemon(place, {"scalar": scalar}, f"--config={config}", env=environment))
            return running[-1]

        yield daemon
        for one in running:
            assert one.stop() == 0
            assert "Traceback" not in one.log(), one.log()


def first_words(path: Path) -> Callable[[], Any]:
    """What the daemon says to a hello."""

    def ask() -> Any:
        with RawClient(path, hello=False) as raw:
            body = raw.next().body if raw.readable(1) else raw.ask("hello", abi=ABI_VERSION, client="x").body
            return body, raw.at_end() if body["ok"] is False else False

    return ask


def opened(path: Path) -> Callable[[], dict[str, Any]]:
    """What the descriptors of an open are, and what a run through them gives."""

    def ask() -> dict[str, Any]:
        raw = RawClient(path)
        message = raw.open("scalar")
        segment, _, answer, status = message.fds
        found = {
            "sealed": fcntl.fcntl(segment, fcntl.F_GET_SEALS) & SEALS == SEALS,
            "socket": stat.S_ISSOCK(os.fstat(answer).st_mode),
            "mode": stat.S_IMODE(os.fstat(segment).st_mode),
            "reopened": [_can_write(fd) for fd in (segment, status)],
        }
        message.close_fds()
        raw.close()
        for policy in ("spin", "adaptive", "block"):
            with open_channel(path, "scalar", 2, policy) as channel:
                found[policy] = [double(channel, float(value)) for value in range(50)]
        return found

    return ask


def _can_write(fd: int) -> bool:
    """Whether the file that a descriptor is of can be opened for writing by whoever has it."""
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
    except PermissionError:
        return False
    return True


RIGHT = [2.0 * value for value in range(50)]


def test_a_stranger_is_told_who_it_is_and_what_to_configure(start: START) -> None:
    running = start("")
    body, ended = as_user(STRANGER, first_words(running.socket))
    assert (body["error"], ended) == ("DENIED", True)
    assert f"uid {STRANGER}" in body["message"]
    assert "[access]" in body["message"]
    assert serves_others(running)


def test_the_client_library_shows_what_the_stranger_is_told(start: START) -> None:
    running = start("")

    def refused() -> str:
        with pytest.raises(SidecamlError) as caught:
            client.open_model("scalar", socket=str(running.socket))
        return f"{caught.value.name}: {caught.value}"

    assert as_user(STRANGER, refused).startswith(
        f"DENIED: the user with uid {STRANGER} may not use this daemon"
    )


@pytest.mark.parametrize(
    ("access", "groups"),
    [
        (f"users = [{STRANGER}]", []),
        (f"groups = [{STRANGER_GROUP}]", []),
        ("groups = [54321]", [777, 54321]),
        ("groups = [54321]", [*range(2000, 2400), 54321]),
    ],
)
def test_who_may_connect_is_served_on_sealed_memory(start: START, access: str, groups: list[int]) -> None:
    running = start(access)
    found = as_user(STRANGER, opened(running.socket), groups)
    assert found == {
        "sealed": True,
        "socket": True,
        "mode": 0o600,
        "reopened": [False, False],
        "spin": RIGHT,
        "adaptive": RIGHT,
        "block": RIGHT,
    }
    assert serves_others(running)


def test_who_is_trusted_has_doorbells_as_the_daemon_s_own_user(start: START) -> None:
    running = start(f"trusted_users = [{STRANGER}]")
    found = as_user(STRANGER, opened(running.socket))
    assert (found["sealed"], found["socket"], found["block"]) == (True, False, RIGHT)


@pytest.mark.parametrize(("access", "sealed"), [("", False), ("segments = 'sealed'", True)])
def test_the_own_user_s_segments_are_sealed_when_asked_for(start: START, access: str, sealed: bool) -> None:
    found = opened(start(access).socket)()
    assert (found["sealed"], found["socket"]) == (sealed, False)
    assert found["adaptive"] == RIGHT


def test_the_python_client_runs_many_requests_of_another_user(start: START) -> None:
    running = start(f"users = [{STRANGER}]")

    def run() -> list[float]:
        found = []
        with client.open_model("scalar", socket=str(running.socket), slots=3, policy=Policy.BLOCK) as model:
            for value in range(200):
                model.input("x", model.claim())[...] = value
                slot = model.run()
                found.append(float(model.output("y", slot)[()]))
        return found

    assert as_user(STRANGER, run) == [2.0 * value for value in range(200)]


def test_an_ocaml_program_is_refused_and_served_like_any_other(start: START) -> None:
    refusing = start("")
    # Where it was built, the other user may not look.
    program = shutil.copy(PROBE, refusing.socket.parent)

    def probe(running: Daemon, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *command, f"--socket={running.socket}"],
            user=STRANGER,
            group=STRANGER_GROUP,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = probe(refusing, "run", "scalar")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"DENIED: the user with uid {STRANGER} may not use this daemon" in done.stderr
    refusing.stop()
    done = probe(start(f"users = [{STRANGER}]"), "run", "scalar")
    assert (done.returncode, done.stdout) == (0, "y float32[]\n  0\n"), done.stderr


def test_a_user_sees_its_own_channels_only_and_root_sees_all(start: START) -> None:
    running = start(f"users = [{STRANGER}]")

    def look(number: int) -> tuple[list[Any], tuple[str, str]]:
        with RawClient(running.socket) as raw:
            return raw.ok("channels")["channels"], raw.refused("inspect", channel=number)

    with open_channel(running.socket, "scalar"), RawClient(running.socket) as root:
        (row,) = root.ok("channels")["channels"]
        rows, (name, sentence) = as_user(STRANGER, lambda: look(row["channel"]))
    assert rows == []
    assert (name, sentence) == ("DENIED", f"channel {row['channel']} belongs to another user")


def test_a_high_priority_is_for_users_who_are_trusted(start: START) -> None:
    def ask() -> tuple[str, str]:
        with RawClient(running.socket) as raw:
            raw.open("scalar", priority="normal").close_fds()
            message = raw.ask("open", model="scalar", slots=1, priority="high")
            message.close_fds()
            return message.body.get("error", ""), message.body.get("message", "")

    running = start(f"users = [{STRANGER}]")
    name, sentence = as_user(STRANGER, ask)
    assert (name, "trusted_users" in sentence) == ("DENIED", True)
    with RawClient(running.socket) as root:
        message = root.open("scalar", priority="high")
        (row,) = root.ok("channels")["channels"]
        message.close_fds()
    assert row["priority"] == "high"
    running = start(f"trusted_users = [{STRANGER}]")
    assert as_user(STRANGER, ask) == ("", "")


def test_memory_of_a_closed_channel_is_given_back_though_its_client_keeps_it(start: START) -> None:
    running = start(f"users = [{STRANGER}]")

    def keep() -> tuple[bool, bytes]:
        with RawClient(running.socket) as raw:
            message = raw.open("scalar")
            kept = message.fds[0]
            had = os.fstat(kept).st_blocks > 0
            raw.ok("close", channel=message.body["channel"])
            wait_until("its pages are gone", lambda: os.fstat(kept).st_blocks == 0)
            found = os.pread(kept, 8, 0)
            message.close_fds()
        return had, found

    assert as_user(STRANGER, keep) == (True, bytes(8))


def refused_until(raw: RawClient, most: int) -> tuple[str, str]:
    """Open and close until that is refused; what is said then."""
    for _ in range(most):
        message = raw.ask("open", model="scalar", slots=1)
        message.close_fds()
        if not message.body["ok"]:
            return message.body["error"], message.body["message"]
        raw.ok("close", channel=message.body["channel"])
    raise AssertionError(f"{most} opens were allowed")


def test_one_user_s_limits_are_not_another_s(start: START) -> None:
    running = start(
        f"users = [{STRANGER}]",
        SIDECAML_MAX_CHANNELS_PER_USER="2",
        SIDECAML_MAX_BYTES_PER_USER="65536",
        SIDECAML_MAX_OPENS_PER_SECOND="3",
        SIDECAML_MAX_CONNECTIONS_PER_USER="2",
    )

    def take_all() -> dict[str, tuple[str, str]]:
        said = {}
        with RawClient(running.socket) as one, RawClient(running.socket):
            with RawClient(running.socket, hello=False) as third:
                # Told at once: who says hello first may find nobody there any more.
                told = third.next().body
                said["max_connections_per_user is 2"] = (told["error"], told["message"])
            numbers = []
            for _ in range(2):
                message = one.open("scalar")
                message.close_fds()
                numbers.append(message.body["channel"])
            said["max_channels_per_user is 2"] = one.refused("open", model="scalar", slots=1)
            one.ok("close", channel=numbers[0])
            said["max_bytes_per_user is 65536"] = one.refused("open", model="scalar", slots=64)
            said["max_opens_per_second, which is 3"] = refused_until(one, 1000)
        return said

    for limit, (name, sentence) in as_user(STRANGER, take_all).items():
        assert (name, limit in sentence) == ("LIMIT", True), sentence
    with open_channel(running.socket, "scalar") as channel:
        assert double(channel, 4.0) == 8.0


def test_who_keeps_killing_workers_over_one_channel_after_the_other_is_stopped(start: START) -> None:
    limits = "[limits]\nmax_attempts = 1\nmax_poisoned_per_channel = 2"
    model = f'[models.bad]\nengine = "python"\ncallable = "hooks:ends"\npython_path = ["{CALLABLES}"]'
    running = start(f"users = [{STRANGER}]\n{limits}\n{model}")

    def keep_killing() -> str:
        for _ in range(1000):
            try:
                with client.open_model("bad", socket=str(running.socket)) as channel:
                    channel.input("x", channel.claim())[...] = 1
                    channel.run(60)
            except SidecamlError as error:
                if error.code is ErrorCode.LIMIT:
                    return str(error)
        raise AssertionError("without end")

    said = as_user(STRANGER, keep_killing)
    # By the requests, or by the deaths, where a channel was closed before the daemon heard of its request.
    assert f"the user with uid {STRANGER}" in said
    assert said.startswith(
        ("6 requests of the user", "7 workers of model 'bad' died while they ran requests")
    )
    with client.open_model("bad", socket=str(running.socket)) as channel:
        channel.input("x", channel.claim())[...] = 0
        channel.run(60)
    assert as_user(STRANGER, opened(running.socket))["adaptive"] == RIGHT
