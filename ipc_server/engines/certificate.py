"""Whether a model's requests may be run together: f([x, y, ...])[i] against f([x]), at every size and start.

Random items are run alone and then in batches of every size up to the largest, each at every alignment that
neighbouring slots can have; NaN, infinities, zeros and denormals among others in small batches, too. Only
what leaves every answer as it is, as far as the policy says, is batched:

    exact   the same bits
    ulp N   floats at most N units in the last place apart; what the neighbours are must change no bit
    any     whatever the operator says: nothing is compared

That takes BUDGET_S of processor time; the largest size that was proven by then is the limit. While others
have the processor nothing is proven, and a model that is loaded on a busy machine is to be batched like on
any other: the clock ends it at LONGEST_S only, for models that wait, or are run by other threads.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ipc_server.batching import LEAST_BATCH, Batching, not_batched
from ipc_server.engines.batch_items import EXTREME_ROWS, Array, same_answers, same_bits, ulps_apart
from ipc_server.engines.batch_plan import NotBatched, Plan, plan_for
from ipc_server.engines.batch_trial import LARGEST_BYTES, Pool, RunFailed, Starts, Trial
from ipc_server.engines.onnx_binding import Loaded
from ipc_server.engines.onnx_native import PACKAGE
from ipc_server.settings import Settings

log = logging.getLogger(__name__)

# What runs functions; models it is ONNX Runtime that runs. What else a function imports is not known.
RUN_BY = {"python": ("numpy",), "torch": ("torch", "numpy")}

# Of the thread that runs the model, and by the clock.
BUDGET_S = 2.0
LONGEST_S = 10.0
SEED = 6
# Whole numbers are random below the first of these with which the model can be run at all: many are indices.
SPANS = (100, 2, 1)
# Rows on which it is tried first whether answers depend on where a slot begins.
FIRST_ROWS = 4

# Whether two answers are the same.
Same = Callable[[Array, Array], bool]


class _OutOfTime(Exception):
    """The time for proving is over: says which."""


class _Differs(Exception):
    """An answer was another one than alone: says how."""


@dataclass(frozen=True)
class _End:
    """When the time for proving is over: of this thread's processor time, and by the clock."""

    spent_s: float
    clock_s: float
    is_shared: bool

    @classmethod
    def of_all(cls, *, is_shared: bool) -> _End:
        """Begin now; where it is shared, the texts say so."""
        return cls(time.thread_time() + BUDGET_S, time.monotonic() + LONGEST_S, is_shared)

    def share(self, count: int) -> _End:
        """Give one of so many equal parts of what is left."""
        spent_s, clock_s = time.thread_time(), time.monotonic()
        return _End(
            spent_s + (self.spent_s - spent_s) / count,
            clock_s + (self.clock_s - clock_s) / count,
            self.is_shared,
        )

    def check(self) -> None:
        """Raise _OutOfTime when it is over."""
        if time.thread_time() >= self.spent_s:
            raise _OutOfTime(f"{self._of()}{BUDGET_S:g} s of processor time")
        if time.monotonic() >= self.clock_s:
            raise _OutOfTime(f"{self._of()}{LONGEST_S:g} s")

    def _of(self) -> str:
        return "its part of " if self.is_shared else ""


def certify(model: Loaded, settings: Settings, known: Batching | None = None) -> Batching:
    """Prove how a model may be batched; `known` is taken where it was proven for the same."""
    key = key_of(settings)
    if known and known.key == key:
        return known
    try:
        plan = plan_for(model.signature, settings)
    except NotBatched as error:
        return not_batched(str(error), settings.batching, key=key)
    began = time.monotonic()
    try:
        found = _certified(model, plan, settings)
    except NotBatched as error:
        found = not_batched(str(error), settings.batching, dim=plan.dim, shared=plan.shared)
    log.info("batching, after %.2f s: %s", time.monotonic() - began, sentence(found))
    return replace(found, key=key)


def sentence(batching: Batching) -> str:
    """Say what was found, in one line."""
    if not batching.is_on:
        return f"requests run one by one: {batching.why}"
    limit = f" ({batching.why})" if batching.why else ""
    return f"up to {batching.most} rows of {batching.dim} in one run, {batching.policy}{limit}"


def key_of(settings: Settings) -> dict[str, Any]:
    """Name all that a proof holds for: the file, what runs it, the processor, and what was asked for."""
    files = [path.stat() for path in (settings.path, settings.weights, _module_of(settings)) if path]
    asked = (
        *(settings.threads, settings.max_batch, settings.batching, settings.batch_dim),
        *sorted((name, list(sizes)) for name, sizes in settings.batch_at.items()),
    )
    return {
        "files": [[status.st_size, status.st_mtime_ns, status.st_ino] for status in files],
        "library": _library(settings.engine),
        "processor": _processor(),
        "settings": repr(asked),
    }


def _library(engine: str) -> str:
    packages = RUN_BY.get(engine, (PACKAGE,))
    versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    return ", ".join(versions if engine == "onnx" else [f"Python {platform.python_version()}", *versions])


def _module_of(settings: Settings) -> Path | None:
    module = sys.modules.get(settings.callable.partition(":")[0])
    file = getattr(module, "__file__", None)
    return Path(file) if settings.callable and file else None


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Give the processor's name and what tells its abilities, by which kernels are chosen."""
    found: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    name = found.get("model name") or found.get("CPU part", "unknown")
    abilities = found.get("flags") or found.get("Features", "")
    return f"{name} {hashlib.sha256(abilities.encode()).hexdigest()[:16]}"


def _certified(model: Loaded, plan: Plan, settings: Settings) -> Batching:
    places = list(plan.places())
    end = _End.of_all(is_shared=len(places) > 1)
    every = []
    for number, at in enumerate(places, 1):
        # Each place has its share of what is left.
        share = end.share(len(places) - number + 1)
        trial = Trial(model, plan, at, settings.max_batch)
        found = _certified_at(trial, plan, settings, share)
        every.append((found, trial.lies_in_place or settings.batching == "any"))
    if not every:
        raise NotBatched("batch_at leaves no size to batch at: name one at least")
    # Where no slots can lie side by side, nothing was seen that is against it.
    in_place = all(found.in_place for found, _ in every) and any(able for _, able in every)
    found = functools.reduce(_both, (found for found, _ in every))
    # Where copying what cannot lie in place takes too long, nothing is run where it lies.
    found = replace(found, in_place=in_place and (found.rest_from > 0 or settings.batching == "any"))
    if not found.in_place and not found.gather_from:
        raise NotBatched("copying requests together takes longer than running them apart")
    return replace(found, sizes={} if settings.batching == "any" else plan.sizes)


def _both(one: Batching, other: Batching) -> Batching:
    """Give what holds at both places."""
    least = min(one, other, key=lambda found: found.most)
    costs = tuple(map(max, zip(one.costs_ns, other.costs_ns, strict=False)))
    return replace(
        least,
        gather_from=_from_both(one.gather_from, other.gather_from),
        rest_from=_from_both(one.rest_from, other.rest_from),
        costs_ns=costs,
    )


def _from_both(one: int, other: int) -> int:
    return 0 if 0 in (one, other) else max(one, other)


def _certified_at(trial: Trial, plan: Plan, settings: Settings, end: _End) -> Batching:
    failure = ""
    for span in SPANS:
        proof = _Proof(trial, settings, span, end)
        try:
            proof.try_alone()
        except RunFailed as error:
            failure = f"it could not be tested, because it fails on random items{trial.at.text}: {error}"
            continue
        except _OutOfTime as error:
            raise NotBatched(f"{error} did not suffice to run some items one by one") from None
        proven, why = proof.proven()
        return _worth(plan, proof, proven, why)
    raise NotBatched(failure)


class _Proof:
    """Items, their answers alone, and the comparison with their answers in batches."""

    def __init__(self, trial: Trial, settings: Settings, span: int, end: _End) -> None:
        self.trial = trial
        self.policy = settings.batching
        self.most = trial.most
        self._is_limited = trial.most < settings.max_batch
        # Unless answers are seen to depend on where a slot begins.
        self.in_place = True
        self._end = end
        random = np.random.default_rng(SEED)
        unevens = (False,) if self.policy == "any" else (False, True)
        self._pools = [trial.pool(random, self.most, span, uneven=uneven) for uneven in unevens]
        self._ordinary = range(len(self._pools))
        if self.policy != "any":
            self._pools.append(trial.pool(random, EXTREME_ROWS, span, extreme=True))
        # Of each pool: the answers of its rows alone, as far as they were needed.
        self._alone: list[list[list[Array]]] = [[] for _ in self._pools]

    def try_alone(self) -> None:
        """Run some items alone, wherever slots can begin. RunFailed; notes whether that changes answers."""
        for pool in self._ordinary:
            for row in range(min(FIRST_ROWS, self.most)):
                expected = self._answer(pool, row)
                for starts in self._other_starts:
                    if not self._agree(self._run(pool, [row], starts), expected):
                        self.in_place = False
        self._try_extremes()

    def _try_extremes(self) -> None:
        """Do without what the model refuses to run alone: a batch in which that is fails as well."""
        try:
            for pool in self._extremes:
                self._expected(pool, range(EXTREME_ROWS))
        except RunFailed:
            del self._pools[len(self._ordinary) :]

    def ordinary(self, rows: int) -> list[Array]:
        """Give the inputs of so many rows together, none of them extreme."""
        return self._pools[0].batch(range(rows), self.trial.axes)

    @property
    def _extremes(self) -> range:
        return range(len(self._ordinary), len(self._pools))

    def proven(self) -> tuple[int, str]:
        """Find the most rows up to which every size is proven, and what is wrong with more."""
        for rows in range(LEAST_BATCH, self.most + 1):
            many = f"{rows} rows{self.trial.at.text}"
            try:
                self._prove(rows)
            except _Differs as error:
                return rows - 1, f"in a run of {many}, {error}"
            except RunFailed as error:
                return rows - 1, f"a run of {many} fails: {error}"
            except _OutOfTime as error:
                return rows - 1, f"{error} did not suffice to prove a run of {many}"
        too_large = (
            f"more than {self.most} rows take more than the {LARGEST_BYTES} bytes that are tested with"
        )
        return self.most, too_large if self._is_limited else ""

    @property
    def _other_starts(self) -> Sequence[Starts]:
        return self.trial.starts[1:] if self.in_place and self.policy != "any" else ()

    def _prove(self, rows: int) -> None:
        together = list(range(rows))
        for pool in self._ordinary:
            expected = self._expected(pool, together)
            for starts in (self.trial.gathered, *self._other_starts):
                self._check(self._run(pool, together, starts), expected)
        # What leaks shows in small batches already.
        if rows <= EXTREME_ROWS:
            self._prove_extremes(rows)
        if self.policy.startswith("ulp"):
            self._refuse_mixing(rows)

    def _prove_extremes(self, rows: int) -> None:
        """Have each of them be in a batch of this size, beside an ordinary row."""
        for pool in self._extremes:
            for first in range(0, EXTREME_ROWS, rows):
                together = [(first + row) % EXTREME_ROWS for row in range(rows)]
                got = self._run(pool, together, self.trial.gathered)
                self._check(got, self._expected(pool, together), same=same_answers)

    def _expected(self, pool: int, rows: Sequence[int]) -> list[Array]:
        answers = [self._answer(pool, row) for row in rows]
        axes = self.trial.axes[-len(answers[0]) :]
        return [
            np.concatenate([answer[number] for answer in answers], axis) for number, axis in enumerate(axes)
        ]

    def _answer(self, pool: int, row: int) -> list[Array]:
        alone = self._alone[pool]
        while len(alone) <= row:
            alone.append(self._run(pool, [len(alone)], self.trial.gathered))
        return alone[row]

    def _run(self, pool: int | Pool, rows: Sequence[int], starts: Starts) -> list[Array]:
        self._end.check()
        items = self._pools[pool] if isinstance(pool, int) else pool
        return self.trial.run(items.batch(rows, self.trial.axes), len(rows), starts)

    def _check(self, got: Sequence[Array], expected: Sequence[Array], same: Same = same_bits) -> None:
        if not self._agree(got, expected, same):
            raise _Differs(f"answers are not those that they are alone ({self.policy})")

    def _agree(self, got: Sequence[Array], expected: Sequence[Array], same: Same = same_bits) -> bool:
        if self.policy == "any":
            return True
        if self.policy == "exact":
            return all(map(same, got, expected))
        most = int(self.policy.split()[1])
        outputs = self.trial.tensors[-len(got) :]
        return all(
            ulps_apart(tensor.dtype, *pair) <= most
            for tensor, pair in zip(outputs, zip(got, expected, strict=True), strict=True)
        )

    def _refuse_mixing(self, rows: int) -> None:
        """Change every other item: no bit of the others' answers may change."""
        axes = self.trial.axes
        first, second = (self._pools[pool] for pool in self._ordinary)
        together = list(range(rows))
        before = self._run(first, together, self.trial.gathered)
        for parity in (0, 1):
            after = self._run(first.mixed(second, parity, axes), together, self.trial.gathered)
            others = [row for row in together if row % 2 != parity]
            for got, was, axis in zip(after, before, axes[-len(before) :], strict=True):
                if not same_bits(np.take(got, others, axis), np.take(was, others, axis)):
                    raise _Differs("an item's answer depends on its neighbours")


def _worth(plan: Plan, proof: _Proof, proven: int, why: str) -> Batching:
    """Measure what runs cost, and give what is worth to be run together of what is proven."""
    if proven < LEAST_BATCH:
        raise NotBatched(why)
    trial = proof.trial
    times = [(0, 0), *(trial.time(proof.ordinary(rows), rows) for rows in range(1, proven + 1))]
    # What the processor was taken away for belongs to no size.
    costs = [shortest for shortest, _ in times]
    cheaper = [rows for rows in range(LEAST_BATCH, proven + 1) if costs[rows] < rows * costs[1]]
    if not cheaper:
        raise NotBatched("running requests together takes no less time than running them apart")
    most = cheaper[-1]
    if most < proven:
        why = f"a run of more than {most} rows takes no less time than running them apart"
    gather_from, rest_from = (
        next((rows for rows in cheaper if costs[rows] + rows * copying < rows * costs[1]), 0)
        for copying in trial.time_copying()
    )
    return Batching(
        dim=plan.dim,
        policy=proof.policy,
        most=most,
        why=why,
        gather_from=gather_from,
        rest_from=rest_from,
        in_place=proof.in_place,
        axes=plan.axes,
        shared=plan.shared,
        costs_ns=tuple(median for _, median in times[: most + 1]),
    )
