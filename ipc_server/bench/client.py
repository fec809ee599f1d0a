"""A client process of `sidecaml bench`: `python -m ipc_server.bench.client SAMPLES_FD`.

It reads a line of JSON, what to open, and says when it is ready; then a line for each load, which it answers
with its results. The times of what was answered lie in the shared memory `SAMPLES_FD`. SIGINT ends a load.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipc_server import _core, client
from ipc_server.abi import ErrorCode
from ipc_server.bench import inputs
from ipc_server.bench.plan import Plan, Turn
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature


@dataclass(frozen=True, slots=True)
class Result:
    """What one client measured in one load."""

    # By outcome: "OK", or the error's name.
    outcomes: dict[str, int]
    # Requests that found no free slot before the end.
    unsent: int
    # Answers that differ from those that were given to the same inputs alone.
    wrong: int
    # Answers that the worker had only after their deadline.
    late_by_worker: int
    # Requests that were sent after their deadline, because the client was not run in time.
    sent_late: int
    # Of those of outcome TIMEOUT: not sent, for there was no free slot until their deadline.
    no_slot: int
    # When sending ended, and when the last answer came; 0 for none.
    ended_ns: int
    answered_ns: int
    # Processor time of the load loop while it was measured.
    cpu_ns: int
    stopped: bool
    # There was no room for more samples of a channel.
    full: bool
    # Why a channel is over; "" while none is.
    gone: str

    def to_json(self) -> dict[str, Any]:
        """Give it in a form for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Load:
    """Open channels, with inputs, on which loads are run."""

    def __init__(self, plan: Plan, number: int, samples: mmap.mmap) -> None:
        """Open, draw inputs, and have them answered: all of them for `check`, else one."""
        self._plan = plan
        self._samples = samples
        self._channels = [_open(plan) for _ in range(plan.channels)]
        # The loop in C works on the channels themselves.
        self._cores = [channel._core for channel in self._channels]
        # Inputs are the same for every channel of every client; each sends them in an order of its own.
        sequence = np.random.SeedSequence([plan.seed, number])
        self._seeds = [int(seed) for seed in sequence.generate_state(plan.channels, np.uint64)]
        signature = self._channels[0].model.signature
        _check(plan, signature)
        rng = np.random.default_rng(plan.seed)
        self._inputs = [inputs.draw(self._cores[0], signature, plan.ranges, rng) for _ in range(plan.sets)]
        tried = self._inputs if plan.check else self._inputs[:1]
        answers = [inputs.answer(self._cores[0], signature, row) for row in tried]
        self._answers = answers if plan.check else None

    def run(self, turn: Turn, stop: bytearray) -> Result:
        """Run one load; its samples lie at the start of the shared memory."""
        found = _core.run_load(
            channels=self._cores,
            seeds=self._seeds,
            window=self._plan.window,
            burst=self._plan.burst,
            policy=self._plan.policy,
            rate=turn.rate / self._plan.channels,
            start_ns=turn.start_ns,
            measure_ns=turn.measure_ns,
            end_ns=turn.end_ns,
            deadline_ns=self._plan.deadline_ns,
            inputs=self._inputs,
            answers=self._answers,
            samples=self._samples,
            stop=stop,
        )
        outcomes = {ErrorCode(code).name if code else "OK": count for code, count in sorted(found[0].items())}
        return Result(outcomes, *found[1:-1], self._why(found[-1]))

    def _why(self, code: int) -> str:
        if not code:
            return ""
        told = (channel.gone_error for channel in self._channels)
        return str(next(filter(None, told), None) or SidecamlError(code, ErrorCode(code).name))


def _open(plan: Plan) -> client.Channel:
    return client.open_model(
        plan.model,
        socket=plan.socket,
        slots=plan.window,
        dims=plan.dims,
        policy=plan.policy,
        priority=plan.priority,
    )


def _check(plan: Plan, signature: Signature) -> None:
    inputs.check_ranges(signature.inputs, plan.ranges)
    if plan.check and signature.state:
        raise SidecamlError(
            ErrorCode.INVALID,
            f"--check: model {plan.model!r} carries state, so the same inputs get other answers: "
            "leave it out",
        )


def main(arguments: Sequence[str]) -> None:
    """Talk with the command over standard input and output."""
    stop = bytearray(1)

    def end(_number: int, _frame: object) -> None:
        stop[0] = 1

    signal.signal(signal.SIGINT, end)
    # Whatever writes to it would disturb the conversation.
    words = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _talk(words, mmap.mmap(int(arguments[0]), 0), stop)
    except SidecamlError as error:
        _say(words, {"error": [int(error.code), str(error)]})


def _talk(words: Any, samples: mmap.mmap, stop: bytearray) -> None:
    begin = json.loads(sys.stdin.readline())
    plan = Plan.of_json(begin["plan"])
    if plan.cpus:
        os.sched_setaffinity(0, plan.cpus)
    load = Load(plan, begin["number"], samples)
    _say(words, {"ready": os.getpid()})
    for line in sys.stdin:
        _say(words, {"result": load.run(Turn(**json.loads(line)), stop).to_json()})


def _say(words: Any, what: dict[str, Any]) -> None:
    print(json.dumps(what), file=words, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
