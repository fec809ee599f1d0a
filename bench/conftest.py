"""Options of the benchmark, and the fixtures that measure: each kind once, before its first replay."""

from __future__ import annotations

import os

# Before anything loads ONNX Runtime, here or in a child.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bench import beside, carried, cores, engines, idle, machine, pauses, report, results, ring, rounds, wake
from bench.cast import cast
from bench.cores import Cores
from bench.driver import Samples
from bench.errors import BenchError
from bench.results import Row
from bench.settings import Choice, Settings, settle

T = TypeVar("T")

SETTINGS = pytest.StashKey[Settings]()
MEASURED = pytest.StashKey[bool]()
LATENCY_FIXTURE = "latencies"
# Whose whole distributions are kept, for the plots.
DISTRIBUTION_MODELS = ("small",)
NOT_QUICK = ("test_beside.py", "test_idle.py", "test_pauses.py", "test_staged.py")
NOT_LATENCY = (*NOT_QUICK, "test_wake.py", "test_carried.py", "test_engines.py", "test_ring.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose what is measured."""
    group = parser.getgroup("sidecaml", "what the benchmark measures")
    group.addoption("--quick", action="store_true", help="a first impression in less than a minute")
    for name in ("models", "callers", "paths"):
        group.addoption(f"--{name}", default="", metavar="NAME,...", help=f"only these {name}")
    group.addoption("--runs", type=int, help="how often everything is measured with fresh processes")
    group.addoption("--rounds", type=int, help="how often each path is measured in a run")
    group.addoption("--results", type=Path, help="the folder for the results")


def pytest_configure(config: pytest.Config) -> None:
    """Settle what is measured and where, before anything is collected."""
    option = config.getoption
    listed = {
        name: option(name).split(",") if option(name) else () for name in ("models", "callers", "paths")
    }
    choice = Choice(
        quick=option("quick"),
        runs=option("runs"),
        rounds=option("rounds"),
        results=option("results"),
        **listed,
    )
    try:
        config.stash[SETTINGS] = settle(choice)
    except BenchError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each cell that is measured."""
    settings = metafunc.config.stash[SETTINGS]
    if LATENCY_FIXTURE in metafunc.fixturenames:
        metafunc.parametrize("model", settings.models)
        metafunc.parametrize("caller", settings.callers)
        metafunc.parametrize("path", settings.paths)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a quick benchmark has no time for, and pauses where OCaml has no domains."""
    left_out = set(NOT_QUICK if config.stash[SETTINGS].quick else ())
    if any(config.getoption(name) for name in ("models", "callers", "paths")):
        left_out.update(NOT_LATENCY)
    if not machine.has_domains(machine.ocaml_version()):
        left_out.add("test_pauses.py")
    dropped = [item for item in items if item.path.name in left_out]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Let pytest-benchmark's JSON say what ours says."""
    machine_info["sidecaml"] = machine.lasting(cores.choose())


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> None:
    """Write the report after the last replay, and show the goals."""
    folder = config.stash[SETTINGS].results
    if exitstatus == pytest.ExitCode.OK and MEASURED in config.stash and results.load(folder, results.LATEST):
        terminalreporter.write_line(report.shown(folder))


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> Settings:
    """What is measured; nothing of an earlier, smaller benchmark is left beside it."""
    chosen = request.config.stash[SETTINGS]
    request.config.stash[MEASURED] = True
    if chosen.kind != "full":
        results.clear(chosen.results)
    return chosen


@pytest.fixture(scope="session")
def pair() -> Cores:
    """The two cores; the end of the session where there is only one."""
    return _or_exit(cores.choose)


@pytest.fixture(scope="session")
def measured_on(pair: Cores, settings: Settings) -> dict[str, Any]:
    """The machine before anything is measured."""
    return machine.record(pair, settings)


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Show progress, whatever pytest captures."""
    plugins = request.config.pluginmanager
    terminal, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")

    def tell(text: str) -> None:
        if terminal and capture:
            with capture.global_and_fixture_disabled():
                terminal.ensure_newline()
                terminal.write_line(f"bench: {text}")

    return tell


@pytest.fixture(scope="session")
def latencies(
    settings: Settings, pair: Cores, measured_on: dict[str, Any], tell: Callable[[str], None]
) -> tuple[rounds.Measured, dict[rounds.Cell, Row]]:
    """Every path, model and caller, interleaved; the results are written before they are replayed."""
    measured = _or_exit(lambda: rounds.measure(settings, pair, cast, tell))
    rows = results.rows_of(measured)
    results.save(settings.results, results.LATEST, rows)
    results.save(settings.results, results.MACHINE, measured_on)
    distributions = results.distributions_of(measured, DISTRIBUTION_MODELS)
    results.save(settings.results, results.DISTRIBUTIONS, distributions)
    return measured, results.index(rows)


@pytest.fixture(scope="session")
def wakes(
    settings: Settings, pair: Cores, tell: Callable[[str], None]
) -> tuple[dict[wake.Wake, list[Samples]], list[Row]]:
    """What waking costs."""
    tell("waking")
    found = _or_exit(lambda: wake.measure(settings.runs, pair))
    rows = wake.rows_of(found)
    results.save(settings.results, results.WAKE, rows)
    return found, rows


@pytest.fixture(scope="session")
def pausing(
    settings: Settings, pair: Cores, measured_on: dict[str, Any], tell: Callable[[str], None]
) -> tuple[dict[str, list[Samples]], list[Row]]:
    """Another domain's pauses."""
    tell("another domain's pauses")
    found = _or_exit(lambda: pauses.measure(settings.runs))
    content = pauses.content(found, measured_on)
    results.save(settings.results, results.PAUSES, content)
    return found, content["rows"]


@pytest.fixture(scope="session")
def carrying(
    settings: Settings, pair: Cores, tell: Callable[[str], None]
) -> tuple[dict[str, list[Samples]], list[Row]]:
    """Calls with state."""
    tell("state carried or copied")
    found = _or_exit(lambda: carried.measure(settings.runs, pair))
    rows = carried.rows_of(found)
    results.save(settings.results, results.CARRIED, rows)
    return found, rows


@pytest.fixture(scope="session")
def by_engine(
    settings: Settings, pair: Cores, tell: Callable[[str], None]
) -> tuple[dict[str, list[Samples]], list[Row]]:
    """Calls by every engine."""
    tell("engines")
    found = _or_exit(lambda: engines.measure(settings.runs, pair))
    rows = engines.rows_of(found)
    results.save(settings.results, results.ENGINES, rows)
    return found, rows


@pytest.fixture(scope="session")
def checking(
    settings: Settings, pair: Cores, tell: Callable[[str], None]
) -> tuple[dict[ring.Check, list[Samples]], list[Row]]:
    """Calls of the ring alone, with its checks and without."""
    tell("what checks cost")
    found = _or_exit(lambda: ring.measure_checks(settings.runs, pair))
    rows = ring.rows_of_checks(found)
    results.save(settings.results, results.CHECKS, rows)
    return found, rows


@pytest.fixture(scope="session")
def staging(
    settings: Settings, pair: Cores, tell: Callable[[str], None]
) -> tuple[dict[ring.Stage, list[Samples]], list[Row]]:
    """Calls with tensors in place and staged."""
    tell("what staging costs")
    found = _or_exit(lambda: ring.measure_stages(settings.runs, pair))
    rows = ring.rows_of_stages(found)
    results.save(settings.results, results.STAGING, rows)
    return found, rows


@pytest.fixture(scope="session")
def besides(
    settings: Settings, pair: Cores, tell: Callable[[str], None]
) -> tuple[dict[str, list[Samples]], list[Row]]:
    """Calls beside a busy systhread."""
    tell("beside a busy systhread")
    found = _or_exit(lambda: beside.measure(settings.runs, pair))
    rows = beside.rows_of(found)
    results.save(settings.results, results.BESIDE, rows)
    return found, rows


@pytest.fixture(scope="session")
def idling(settings: Settings, tell: Callable[[str], None]) -> tuple[list[idle.Idle], list[Row]]:
    """A daemon whose clients do nothing."""
    tell("an idle daemon")
    found = _or_exit(lambda: [idle.measure(slots) for slots in idle.SLOTS])
    rows = idle.rows_of(found)
    results.save(settings.results, results.IDLE, rows)
    return found, rows


def _or_exit(measure: Callable[[], T]) -> T:
    """End the session on the first error, instead of repeating it in every test."""
    try:
        return measure()
    except BenchError as error:
        pytest.exit(f"bench: {error}", returncode=1)
