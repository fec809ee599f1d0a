"""The paths that are compared: what drives each, which sides spin, how many cores it uses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

ROOT = Path(__file__).resolve().parent.parent
# Built as opam builds what users install.
OCAML = ROOT / "build/dune-release/default/bench"
BUILD_C = "make -C bench/drivers"
BUILD_OCAML = "make bench-tools"
BUILD_PYML = BUILD_OCAML

BENCH_C = ROOT / "build/bench/bench_c"
OCAML_DRIVER = OCAML / "ocaml/driver.exe"
PYML_DRIVER = OCAML / "pyml/driver.exe"
PYTHON_DRIVER = ROOT / "bench/drivers/pyclient.py"

FLOOR = "floor"
FFI_LOCKED = "ffi-locked"


@dataclass(frozen=True)
class PathSpec:
    """One path: a driver process, and the model that the daemon serves for it, if it uses the daemon."""

    name: str
    driver: Path
    build: str
    policy: str
    """How its sides wait: spin, adaptive, block; `none` where nobody waits for another process."""
    spinning: tuple[str, ...]
    """The sides that spin while they wait: `client`, `server`."""
    cores: int
    served: str | None = None
    """LANE-POLICY of the daemon's model."""

    @property
    def command(self) -> list[str]:
        """The driver's command, without arguments. Raises BenchError when it has not been built."""
        check_built(self.driver, self.build)
        return [sys.executable, str(self.driver)] if self.driver.suffix == ".py" else [str(self.driver)]

    def served_name(self, model: str) -> str | None:
        """Name the daemon's model of this path."""
        return f"{model}--{self.served}" if self.served else None


def check_built(program: Path, build: str) -> None:
    """Raise BenchError, saying how to build it, when a program is missing."""
    if not program.is_file():
        raise BenchError(
            f"{program} does not exist: build it with `{build}`, or everything with `make bench`"
        )


_BOTH = ("client", "server")

PATHS: dict[str, PathSpec] = {
    spec.name: spec
    for spec in (
        PathSpec(FLOOR, BENCH_C, BUILD_C, "spin", _BOTH, 2),
        PathSpec("floor-block", BENCH_C, BUILD_C, "block", (), 2),
        PathSpec("c-inprocess", BENCH_C, BUILD_C, "none", (), 1),
        PathSpec(FFI_LOCKED, OCAML_DRIVER, BUILD_OCAML, "none", (), 1),
        PathSpec("ffi-released", OCAML_DRIVER, BUILD_OCAML, "none", (), 1),
        PathSpec("ffi-helper-spin", OCAML_DRIVER, BUILD_OCAML, "spin", _BOTH, 2),
        PathSpec("ipc-native-spin", OCAML_DRIVER, BUILD_OCAML, "spin", _BOTH, 2, "native-spin"),
        PathSpec("ipc-native-adaptive", OCAML_DRIVER, BUILD_OCAML, "adaptive", _BOTH, 2, "native-adaptive"),
        PathSpec("ipc-native-block", OCAML_DRIVER, BUILD_OCAML, "block", (), 2, "native-block"),
        PathSpec("ipc-python-spin", OCAML_DRIVER, BUILD_OCAML, "spin", _BOTH, 2, "python-spin"),
        PathSpec("ipc-python-block", OCAML_DRIVER, BUILD_OCAML, "block", (), 2, "python-block"),
        PathSpec("pyclient", PYTHON_DRIVER, BUILD_C, "spin", _BOTH, 2, "native-spin"),
        PathSpec("pyml", PYML_DRIVER, BUILD_PYML, "none", (), 1),
        PathSpec("uds-msgpack", BENCH_C, BUILD_C, "block", (), 2),
    )
}


def chosen(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Check names that a user chose, and give them in the order of those known; all when none was chosen."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BenchError(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(name for name in known if name in names or not names)
