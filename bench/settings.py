"""What is measured, how often, and where the results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.models import MODELS
from bench.paths import PATHS, ROOT, chosen

# Bytes of its own memory that a caller touches between two calls.
CALLERS: dict[str, int] = {
    "tight": 0,
    "touch-256k": 256 * 1024,
    "touch-1m": 1024 * 1024,
    "touch-4m": 4 * 1024 * 1024,
}
SEEDS = 4
RESULTS = ROOT / "bench/results"
QUICK_RESULTS = ROOT / "build/bench/quick"
PARTIAL_RESULTS = ROOT / "build/bench/partial"
LEAST_RUNS = 3
LONG_MODELS = ("id16m",)
QUICK_MODELS = ("id16", "small")
QUICK_CALLERS = ("tight", "touch-1m")


@dataclass(frozen=True)
class Settings:
    """One benchmark."""

    models: tuple[str, ...]
    callers: tuple[str, ...]
    paths: tuple[str, ...]
    runs: int
    rounds: int
    calls: int
    budget_ns: int
    kind: str
    """`full`, `quick` or `partial`."""
    results: Path

    def rounds_of(self, model: str) -> int:
        """How often each path of a model is measured in a run: a call of the largest takes milliseconds."""
        return max(2, self.rounds // 4) if model in LONG_MODELS else self.rounds

    @property
    def quick(self) -> bool:
        """Whether it is the one for a first impression."""
        return self.kind == "quick"


@dataclass(frozen=True)
class Choice:
    """What a user asked for: nothing of a kind means all of it."""

    quick: bool = False
    models: Sequence[str] = ()
    callers: Sequence[str] = ()
    paths: Sequence[str] = ()
    runs: int | None = None
    rounds: int | None = None
    results: Path | None = None


def settle(choice: Choice) -> Settings:
    """Check what was asked for and fill in the rest. Raises BenchError.

    Only the full benchmark writes into bench/results, unless another folder is named.
    """
    for what, number in (("runs", choice.runs), ("rounds", choice.rounds)):
        if number is not None and number < 1:
            raise BenchError(f"--{what}: expected a whole number from 1, got {number}")
    narrowed = any((choice.models, choice.callers, choice.paths, choice.runs, choice.rounds))
    kind = "quick" if choice.quick else "partial" if narrowed else "full"
    folders = {"quick": QUICK_RESULTS, "partial": PARTIAL_RESULTS, "full": RESULTS}
    models = choice.models or (QUICK_MODELS if choice.quick else ())
    callers = choice.callers or (QUICK_CALLERS if choice.quick else ())
    return Settings(
        models=chosen(models, tuple(MODELS), "model"),
        callers=chosen(callers, tuple(CALLERS), "caller"),
        paths=chosen(choice.paths, tuple(PATHS), "path"),
        runs=choice.runs or (LEAST_RUNS if choice.quick else 5),
        rounds=choice.rounds or (6 if choice.quick else 10),
        calls=150 if choice.quick else 250,
        budget_ns=8_000_000 if choice.quick else 15_000_000,
        kind=kind,
        results=choice.results or folders[kind],
    )
