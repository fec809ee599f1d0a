"""Other servers beside this one: eight clients of the same model, and what a request costs the server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.daemon import clean_environment, wait_for
from bench.errors import BenchError
from bench.paths import ROOT
from bench.process import LineProcess
from bench.results import Row
from bench.throughput.loads import CLIENTS, MODEL, NS, WINDOW
from bench.throughput.outcomes import Outcome
from bench.throughput.serving import Serving
from ipc_server.bench.cost import cpu_ns

PYTHON = ROOT / "build/peers/bin/python"
SERVERS = ROOT / "bench/throughput/servers"
SECONDS = 3.0
READY_S = 120.0
HEAD_START_NS = 200_000_000
GOAL = 20.0


@dataclass(frozen=True)
class Peer:
    """How to start one, and where its clients go."""

    name: str
    # With FILE, PORT and SOCKET to be filled in.
    command: Sequence[str]
    address: str


PEERS = (
    Peer("msgpack", ["msgpack_server.py", "FILE", "SOCKET"], "SOCKET"),
    Peer("mosec", ["mosec_server.py", "--port", "PORT", "--address", "127.0.0.1"], "PORT"),
    Peer("triton", ["triton_server.py", "FILE", "PORT"], "PORT"),
)


def outcomes(serving: Serving, folder: Path, runs: int) -> list[Outcome]:
    """Compare with the best of the peers, with one request in flight and with a window of them."""
    if not PYTHON.exists():
        raise BenchError(f"there is no {PYTHON}: make it with scripts/peers-environment")
    detail: list[Row] = []
    ratios: dict[int, list[float]] = {1: [], WINDOW: []}
    for _ in range(runs):
        rows = [measure(peer, serving.files[MODEL], folder) for peer in PEERS]
        best = max(row["per_core_s"] for row in rows)
        for window, found in ratios.items():
            plan = serving.plan(
                MODEL, clients=CLIENTS, window=window, burst=max(1, window // 2), seconds=SECONDS
            )
            row = serving.load(plan)[0]
            found.append(per_core(row) / best)
            detail.append({"path": "sidecaml", "window": window, "per_core_s": per_core(row), "load": row})
        detail += rows
    what = (
        f"{MODEL}: {CLIENTS} clients over the best of {', '.join(peer.name for peer in PEERS)}, requests a "
    )
    what += "second of the server's processor time"
    return [
        Outcome(f"{what}, one in flight each", ratios[1], GOAL, detail=detail),
        Outcome(f"{what}, windows of {WINDOW}", ratios[WINDOW], GOAL),
    ]


def per_core(row: Row) -> float:
    """Give the requests a second of the daemon's and its worker's processor time."""
    return NS / float(row["worker_cpu_ns"] + (row["daemon_cpu_ns"] or 0.0))


def measure(peer: Peer, file: Path, folder: Path) -> Row:
    """Run one server with its clients."""
    with _server(peer, file, folder) as (pid, address):
        running = [
            LineProcess(
                f"client of {peer.name}",
                [str(PYTHON), str(SERVERS / "peer_client.py"), peer.name, address],
                log=folder / f"{peer.name}-client{number}.log",
            )
            for number in range(CLIENTS)
        ]
        try:
            answered, spent_ns = _called(running, pid)
        finally:
            for client in running:
                client.kill()
    return {
        "path": peer.name,
        "model": MODEL,
        "clients": CLIENTS,
        "answered_per_s": answered / SECONDS,
        "server_cpu_ns": spent_ns / answered,
        "per_core_s": answered * NS / spent_ns,
    }


def _called(running: Sequence[LineProcess], server: int) -> tuple[int, int]:
    """Have all clients call at once: how many calls were answered, and the server's processor time."""
    for client in running:
        _word(client, "ready")
    start_ns = time.monotonic_ns() + HEAD_START_NS
    for client in running:
        client.send(f"{start_ns} {SECONDS}")
    before = _tree_cpu_ns(server)
    counts = [int(_word(client, "done")) for client in running]
    # Which is counted in ticks.
    return sum(counts), max(_tree_cpu_ns(server) - before, int(NS / os.sysconf("SC_CLK_TCK")))


def _word(client: LineProcess, wanted: str) -> str:
    word, _, rest = client.line(READY_S, f"answer {wanted!r}").partition(" ")
    if word != wanted:
        raise client.failure(rest)
    return rest


@contextlib.contextmanager
def _server(peer: Peer, file: Path, folder: Path) -> Iterator[tuple[int, str]]:
    """Start a server and wait until its clients can connect."""
    places = {"FILE": str(file), "PORT": str(_free_port()), "SOCKET": str(folder / f"{peer.name}.sock")}
    script, *words = peer.command
    command = [str(PYTHON), str(SERVERS / script), *(places.get(word, word) for word in words)]
    log = folder / f"{peer.name}.log"
    Path(places["SOCKET"]).unlink(missing_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env={**clean_environment(), "PEER_MODEL": str(file)},
            start_new_session=True,
            cwd=folder,
        )
    address = places[peer.address]
    try:
        wait_for(process, log, peer.name, lambda: _is_answering(peer, address, folder), READY_S)
        yield process.pid, address
    finally:
        # A group of its own, so that its children end with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    """Find a port that is free now, and two after it most likely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_answering(peer: Peer, address: str, folder: Path) -> bool:
    """Whether a client is answered."""
    client = LineProcess(
        f"client of {peer.name}",
        [str(PYTHON), str(SERVERS / "peer_client.py"), peer.name, address],
        log=folder / "probe.log",
    )
    try:
        return client.line(READY_S, "answer 'ready'") == "ready"
    except BenchError:
        return False
    finally:
        client.kill()


def _tree_cpu_ns(pid: int) -> int:
    """Add up the processor time of a process and all below it, of those that ended as well."""
    return sum(spent for each in _tree(pid) if (spent := cpu_ns(each)) is not None)


def _tree(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            children += map(int, (task / "children").read_text(encoding="ascii").split())
    return [pid, *(each for child in children for each in _tree(child))]
