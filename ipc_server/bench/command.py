"""`sidecaml bench`: loads, one after the other, and their results."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from ipc_server import client
from ipc_server.abi import ErrorCode, Policy
from ipc_server.bench import report, saturation
from ipc_server.bench.clients import Clients
from ipc_server.bench.cost import Cost, Look, Server
from ipc_server.bench.plan import Plan
from ipc_server.config import client_socket
from ipc_server.errors import SidecamlError

_OPEN_WINDOW = 32
_SECONDS = 5.0
_SECONDS_OF_ONE = 2.0

Print = Callable[[str], None]


class WrongAnswers(SidecamlError):
    """INVALID: an answer differs from the one that the same inputs got alone."""


class Bench:
    """The loads of one command."""

    def __init__(self, plan: Plan, bound_ns: int, show: Print) -> None:
        """Have results shown by `show` as they come."""
        self._plan = plan
        self._bound_ns = bound_ns
        self._show = show
        self._clients: Clients | None = None
        self.rows: list[report.Row] = []
        self.interrupted = False

    @property
    def is_over(self) -> bool:
        """Whether there is no sense in another load: it was interrupted, or the daemon is gone."""
        return self.interrupted or any(row["gone"] is not None for row in self.rows)

    def interrupt(self) -> None:
        """End the load that runs; the second time everything, by KeyboardInterrupt."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        if self._clients:
            self._clients.interrupt()

    def run(self, rates: list[float] | None) -> None:
        """Run a load for each rate, 0 for a closed loop, or search for the highest."""
        self._show(report.title(self._plan))
        with Clients(self._plan) as self._clients:
            self._show(report.head())
            if rates is None:
                self._search()
            for rate in rates or []:
                if not self.is_over:
                    self._measure(rate)

    def _search(self) -> None:
        found = saturation.highest_rate(self._sustains)
        if self.is_over:
            return
        bound = f"99 of 100 requests are answered within {self._bound_ns / 1e3:g} us"
        if found is None:
            self._show(f"saturation: not even at {saturation.LEAST_RATE:g} requests a second {bound}")
        else:
            self._show(f"saturation: at {found:,.0f} requests a second {bound}")

    def _sustains(self, rate: float) -> bool:
        # The search goes on to its end, but nothing is measured any more.
        return not self.is_over and self._measure(rate)

    def _measure(self, rate: float) -> bool:
        assert self._clients
        turn = self._clients.begin(rate)
        # After the order to begin, or it would come too late for who is interrupted in between.
        if self.interrupted:
            self._clients.interrupt()
        self._clients.wait(turn.measure_ns)
        with _server(self._plan, self._clients.pids) as server:
            before = _look(server)
            self._clients.wait(turn.end_ns)
            cost = _cost(server, before, _look(server))
        results = self._clients.results()
        row = report.row_of(self._plan, rate, turn, results, cost)
        sustained = report.is_sustained([samples for _, samples in results], row, self._bound_ns)
        self.rows.append(row | {"bound_ns": self._bound_ns, "sustained": sustained} if rate else row)
        self._show(report.line(row))
        for remark in report.remarks(row):
            self._show(f"    {remark}")
        return sustained


@contextlib.contextmanager
def _server(plan: Plan, pids: list[int]) -> Iterator[Server | None]:
    """Look at the daemon's side while it is there: what it costs is no reason to lose the rest."""
    try:
        server = Server(Path(plan.socket), pids)
    except SidecamlError:
        yield None
        return
    try:
        yield server
    finally:
        server.close()


def _look(server: Server | None) -> Look | None:
    return server.look() if server else None


def _cost(server: Server | None, before: Look | None, after: Look | None) -> Cost | None:
    return server.between(before, after) if server and before and after else None


def bench(options: argparse.Namespace, show: Print) -> bool:
    """Run the command; whether it came to its end. Raises for what is wrong with the load or its answers."""
    plan = _plan(options)
    running = Bench(plan, round(options.bound_us * 1e3), show)
    before = signal.signal(signal.SIGINT, lambda *_: running.interrupt())
    try:
        running.run(None if options.saturation else options.rates or [options.rate or 0.0])
    finally:
        signal.signal(signal.SIGINT, before)
    if options.json:
        _write(options.json, running.rows)
    judge(running.rows)
    return not running.interrupted


def _plan(options: argparse.Namespace) -> Plan:
    socket = client_socket(options.socket)
    model = client.describe(options.model, str(socket))
    if model.state == "failed":
        raise SidecamlError(ErrorCode.MODEL_FAILED, model.problem)
    is_open = bool(options.rate or options.rates or options.saturation)
    most = model.max_slots
    window = options.window or (min(_OPEN_WINDOW, most) if is_open else 1)
    if window > most:
        raise SidecamlError(
            ErrorCode.TOO_MANY_SLOTS,
            f"--window: a channel of model {model.name!r} has at most {most} slots (max_slots), got {window}",
        )
    _check_burst(options.burst, window, is_open)
    _check_channels(options.channels, options.policy)
    several = options.rates or options.saturation
    return Plan(
        model=options.model,
        socket=str(socket),
        clients=options.clients,
        window=window,
        burst=options.burst,
        seconds=options.seconds or (_SECONDS_OF_ONE if several else _SECONDS),
        warm_up=options.warm_up,
        policy=Policy[options.policy.upper()],
        seed=options.seed,
        sets=options.inputs,
        check=options.check,
        deadline_ns=round(options.deadline_us * 1e3) if options.deadline_us else 0,
        dims=dict(options.dims),
        ranges=dict(options.range),
        priority=options.priority,
        channels=options.channels,
    )


def _check_burst(burst: int, window: int, is_open: bool) -> None:
    if is_open and burst > 1:
        raise SidecamlError(
            ErrorCode.INVALID,
            "--burst: with a rate each request is handed over when it arrives, none is held back for others, "
            f"got {burst}: leave --burst out, or for bursts leave the rate out and have a closed loop",
        )
    if burst > window:
        raise SidecamlError(ErrorCode.INVALID, f"--burst: at most the window, {window}, got {burst}")


def _check_channels(channels: int, policy: str) -> None:
    if channels > 1 and policy != "spin":
        raise SidecamlError(
            ErrorCode.INVALID,
            f"--channels: a client that sleeps waits for one channel, so {channels} channels take "
            f"--policy spin, got {policy}: add --policy spin, "
            "or have as many --clients with one channel each",
        )


def _write(path: Path, rows: list[report.Row]) -> None:
    try:
        path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")
    except OSError as error:
        raise SidecamlError(
            ErrorCode.SYSTEM, f"--json: {path} cannot be written: {error.strerror}"
        ) from error


def judge(rows: list[report.Row]) -> None:
    """Raise when the channel ended, or an answer was wrong."""
    gone = next((row["gone"] for row in rows if row["gone"] is not None), None)
    if gone is not None:
        raise SidecamlError(ErrorCode.SERVER_GONE, gone)
    wrong = sum(row["wrong"] for row in rows)
    if wrong:
        raise WrongAnswers(
            ErrorCode.INVALID, f"{wrong} answers differ from those that the same inputs got alone"
        )
