"""`sidecaml bench` against a real daemon: what it counts, never how fast that was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import pytest
from conftest import StartDaemon
from daemon_process import Daemon, RawClient, environment, wait_until
from test_cli import sidecaml

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
LATEST = Path(__file__).resolve().parents[2] / "bench/results/latest.json"
FUNCTIONS = ("fails_every_third", "fails", "drifts", "slow")
BRIEFLY = ("--seconds", "1.5", "--warm-up", "0.05")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the whole file."""
    folder = tmp_path_factory.mktemp("load")
    config = folder / "sidecaml.toml"
    functions = (
        f'[models.{name}]\nengine = "python"\ncallable = "loads:{name}"\npython_path = ["{CALLABLES}"]\n'
        for name in FUNCTIONS
    )
    carries = models.recurrent(folder / "carries.onnx")
    config.write_text(
        "".join(functions) + f'[models.carries]\npath = "{carries}"\nstate = {{ next = "state" }}\n'
    )
    onnx = {
        "small": models.small_mlp(folder / "small.onnx"),
        "dynamic": models.dynamic_mlp(folder / "dynamic.onnx"),
        "words": models.identity("string", ("N",), folder / "words.onnx"),
    }
    running = Daemon(folder, onnx, f"--config={config}")
    yield running
    running.stop()


def bench(served: Daemon, *arguments: str | Path) -> tuple[subprocess.CompletedProcess[str], list[Any]]:
    """Run the command: what it said, and its rows."""
    file = served.log_path.parent / "rows.json"
    file.unlink(missing_ok=True)
    done = sidecaml("bench", *arguments, "--socket", served.socket, "--json", file)
    return done, json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def test_a_closed_loop_of_several_clients_is_measured_and_checked(served: Daemon) -> None:
    done, [row] = bench(
        *(served, "small", "--clients", "3", "--window", "4", "--burst", "2", "--check"),
        # Long enough that each client is run in it.
        *("--seconds", "4", "--warm-up", "0.05"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (row["model"], row["loop"], row["caller"]) == ("small", "closed", "closed-3x4")
    assert set(row["outcomes"]) == {"OK"}
    assert row["n"] == row["outcomes"]["OK"] == sum(client["n"] for client in row["per_client"])
    assert all(client["n"] > 0 for client in row["per_client"])
    assert 0 < row["p50_ns"] <= row["p90_ns"] <= row["p99_ns"] <= row["p999_ns"] <= row["max_ns"]
    assert (row["wrong"], row["failed"], row["unsent"], row["stopped"], row["gone"]) == (0, 0, 0, False, None)
    assert row["served"] > 0
    assert row["client_cpu_ns"] > 0
    assert row["worker_cpu_ns"] is not None
    assert "every answer was, bit for bit" in done.stdout


@pytest.mark.parametrize("priority", ["high", "normal"])
def test_clients_have_the_priority_that_is_asked_for(served: Daemon, priority: str) -> None:
    load = started(served, "--priority", priority)
    with RawClient(served.socket) as control:
        [channel] = control.ok("channels")["channels"]
    assert channel["priority"] == priority
    load.send_signal(signal.SIGINT)
    said, _ = load.communicate()
    assert ("priority high" in said) == (priority == "high")


def test_rows_say_the_priority(served: Daemon) -> None:
    assert [row["priority"] for row in bench(served, "small", *BRIEFLY)[1]] == ["normal"]
    assert [row["priority"] for row in bench(served, "small", "--priority", "high", *BRIEFLY)[1]] == ["high"]


def test_rows_have_the_fields_of_the_benchmark_s_results(served: Daemon) -> None:
    _, [row] = bench(served, "small", *BRIEFLY)
    wanted = json.loads(LATEST.read_text(encoding="utf-8"))[0]
    assert set(wanted) <= set(row)
    assert set(wanted["per_run"][0]) == set(row["per_run"][0])


def test_an_open_loop_sends_the_same_requests_for_the_same_seed(served: Daemon) -> None:
    def sent(*more: str) -> list[int]:
        _, rows = bench(served, "small", "--rates", "200,1000", "--clients", "2", *BRIEFLY, *more)
        assert [(row["loop"], row["offered_per_s"]) for row in rows] == [("open", 200), ("open", 1000)]
        return [row["n"] + row["failed"] + row["unsent"] for row in rows]

    first = sent("--policy", "block")
    assert first == sent("--policy", "spin")
    assert first != sent("--seed", "1")
    assert 0 < first[0] < first[1]


@pytest.mark.parametrize("rate", [(), ("--rate", "2000")])
def test_a_client_loads_several_channels(served: Daemon, rate: tuple[str, ...]) -> None:
    several = ("--clients", "2", "--channels", "3", "--window", "2", "--policy", "spin")
    done, [row] = bench(served, "small", *several, "--check", *rate, *BRIEFLY)
    assert (done.returncode, done.stderr) == (0, "")
    assert (row["clients"], row["channels"], row["window"]) == (2, 3, 2)
    assert row["caller"] == ("open-2000-2x3x2" if rate else "closed-2x3x2")
    assert "2 clients of 3 channels, 2 in flight each" in done.stdout
    assert set(row["outcomes"]) == {"OK"}
    assert row["n"] == row["outcomes"]["OK"] == sum(client["n"] for client in row["per_client"])
    assert row["wrong"] == 0
    assert 0 < row["p50_ns"] <= row["max_ns"]


def test_several_channels_are_open_at_once(served: Daemon) -> None:
    load = started(served, "--channels", "3", "--policy", "spin")
    with RawClient(served.socket) as control:

        def three() -> Any:
            rows = control.ok("channels")["channels"]
            return rows if len(rows) == 3 else None

        found = wait_until("there are three", three)
    assert {channel["client_pid"] for channel in found} == {found[0]["client_pid"]}
    load.send_signal(signal.SIGINT)
    said, _ = load.communicate()
    assert "interrupted" in said


def test_dynamic_dimensions_strings_and_ranges_are_taken(served: Daemon) -> None:
    done, [row] = bench(served, "dynamic", "--dims", "N=3", "--range", "x=1:2", "--check", *BRIEFLY)
    assert (done.returncode, row["dims"], row["wrong"]) == (0, {"N": 3}, 0)
    assert row["n"] > 0
    done, [row] = bench(served, "words", "--dims", "N=5", "--check", "--window", "2", *BRIEFLY)
    assert (done.returncode, row["wrong"]) == (0, 0)
    assert row["n"] > 0


def test_failures_are_counted_by_name(served: Daemon) -> None:
    done, [row] = bench(served, "fails_every_third", "--window", "4", *BRIEFLY)
    assert done.returncode == 0
    assert set(row["outcomes"]) == {"ENGINE", "OK"}
    assert row["failed"] == row["outcomes"]["ENGINE"]
    assert f"ENGINE: {row['failed']:,} requests" in done.stdout


def test_deadlines_that_cannot_be_met_are_counted(served: Daemon) -> None:
    done, [row] = bench(served, "slow", "--rate", "200", "--deadline-us", "1000", *BRIEFLY)
    assert done.returncode == 0
    assert set(row["outcomes"]) <= {"TIMEOUT", "DEADLINE", "OK"}
    assert row["outcomes"].get("TIMEOUT", 0) + row["outcomes"].get("DEADLINE", 0) + row["late"] > 0
    assert row["late"] == row["n"], "the function takes longer than the deadline"


def test_wrong_answers_end_it_with_an_error(served: Daemon) -> None:
    done, [row] = bench(served, "drifts", "--check", *BRIEFLY)
    assert done.returncode == 1
    assert row["wrong"] > 0
    assert "answers differ from those that the same inputs got alone" in done.stderr


def test_the_search_shows_its_curve_and_what_it_found(served: Daemon) -> None:
    done, rows = bench(
        served,
        "slow",
        "--saturation",
        "--bound-us",
        "1",
        "--seconds",
        "0.02",
        "--warm-up",
        "0",
        "--window",
        "2",
    )
    assert done.returncode == 0
    rates = [row["offered_per_s"] for row in rows]
    assert rates[:6] == [1024.0] * 3 + [512.0] * 3, "nothing is within the bound there, however often"
    assert rates[-1] >= 1.0
    assert done.stdout.splitlines()[-1].startswith("saturation: ")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nope"], 1, "no model is called 'nope'"),
        (["small", "--window", "65"], 1, "--window: a channel of model 'small' has at most 64 slots"),
        (["small", "--burst", "2"], 1, "--burst: at most the window, 1, got 2"),
        (["small", "--burst", "2", "--window", "4", "--rate", "9"], 1, "for bursts leave the rate out"),
        (["small", "--burst", "2", "--window", "4", "--rates", "9,8"], 1, "--burst: with a rate"),
        (["small", "--burst", "2", "--saturation"], 1, "--burst: with a rate"),
        (["small", "--channels", "2"], 1, "2 channels take --policy spin, got adaptive: add --policy spin"),
        (["small", "--channels", "0"], 2, "--channels: expected a whole number from 1"),
        (["small", "--priority", "low"], 2, "--priority: invalid choice: 'low'"),
        (["small", "--rate", "0"], 2, "--rate: expected requests a second"),
        (["small", "--dims", "N=1"], 1, "no dynamic dimension"),
        (["dynamic"], 1, "dimension 'N' of the model is dynamic"),
        (["small", "--range", "z=0:1"], 1, "no input 'z'"),
        (["fails"], 1, "it never works"),
        (["carries", "--check"], 1, "carries state"),
    ],
)
def test_what_cannot_be_is_an_error(served: Daemon, arguments: list[str], code: int, says: str) -> None:
    done, rows = bench(served, *arguments, *BRIEFLY)
    assert (done.returncode, rows) == (code, [])
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_no_daemon_is_an_error(tmp_path: Path) -> None:
    done = sidecaml("bench", "small", "--socket", tmp_path / "none.sock")
    assert done.returncode == 1
    assert "no sidecaml daemon answers" in done.stderr


def started(served: Daemon, *arguments: str) -> subprocess.Popen[str]:
    """Start a load that would take an hour, and wait until requests are answered."""
    command = [
        sys.executable,
        "-m",
        "ipc_server.cli",
        "bench",
        "small",
        "--seconds",
        "3600",
        "--warm-up",
        "0",
    ]
    process = subprocess.Popen(
        [*command, "--socket", str(served.socket), *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: list[int] = []

    def has_begun() -> bool:
        """Whether its worker, which had others before, has answered many since this was asked first."""
        seen.extend(answered_by_the_worker(served))
        return bool(seen) and seen[-1] > seen[0] + 1000

    wait_until("the load begins", has_begun)
    return process


def answered_by_the_worker(served: Daemon) -> list[int]:
    """Tell how many requests the worker of the first channel has answered, if there is one."""
    channels = sidecaml("inspect", "--socket", served.socket).stdout.splitlines()
    if not channels or not channels[0].startswith("channel "):
        return []
    shown = sidecaml("inspect", channels[0].split()[1], "--socket", served.socket).stdout
    words = shown.replace(",", "").split()
    return [int(words[words.index("served") - 1])] if "served" in words else []


def test_an_interrupted_load_tells_what_it_measured_until_then(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"small": models.small_mlp(tmp_path / "m.onnx")})
    file = tmp_path / "rows.json"
    process = started(running, "--clients", "2", "--json", str(file))
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, complained) == (130, "")
    [row] = json.loads(file.read_text(encoding="utf-8"))
    assert row["stopped"]
    assert row["n"] > 0
    assert "interrupted" in said


def test_the_end_of_the_daemon_ends_it_with_what_was_measured(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"small": models.small_mlp(tmp_path / "m.onnx")})
    file = tmp_path / "rows.json"
    process = started(running, "--json", str(file))
    running.kill()
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in complained
    [row] = json.loads(file.read_text(encoding="utf-8"))
    assert row["gone"]
    assert row["n"] > 0
