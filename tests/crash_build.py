"""A build of sidecaml whose processes die or stop at named points, on order: c_shim/src/crash_point.h."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from daemon_process import REPOSITORY, is_alive, is_stopped

BUILDS = REPOSITORY / "build" / "crash-points"
EXTENSION = "ipc_server/_core.abi3.so"
# A client in C, whose handshake is that of OCaml programs.
CLIENT = "tests/crash_client.c"
C_SOURCES = ("c_shim/include/**/*", "c_shim/src/*", "c_shim/python/*", "c_shim/ort/*", "setup.py", CLIENT)
IN_C = re.compile(r'\bCRASH_POINT\("([^"]+)"\)')
IN_PYTHON = re.compile(r'\bpoint\("([^"]+)"\)')
# How the names begin of those that have tests of their own: of a client's open, in C and in Python; of a
# supervisor that keeps things for its successor, or takes them up.
OF_AN_OPEN = "client.open."
OF_THE_STORE = "supervisor.store."


@functools.cache
def points() -> list[str]:
    """Find every point in the sources; those of an open are in both clients."""
    found: list[str] = []
    for folder, pattern, shape in (("c_shim/src", "*.c", IN_C), ("ipc_server", "**/*.py", IN_PYTHON)):
        for path in sorted((REPOSITORY / folder).glob(pattern)):
            if path.name != "crash_points.py":
                found += shape.findall(path.read_text(encoding="utf-8"))
    return found


def of_side(side: str) -> list[str]:
    """List the points of one side: client, worker or supervisor."""
    return [name for name in dict.fromkeys(points()) if name.startswith(f"{side}.")]


def build() -> Path:
    """Make it, or find it made; the folder for PYTHONPATH."""
    files = sorted({path for pattern in C_SOURCES for path in REPOSITORY.glob(pattern) if path.is_file()})
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    extension = BUILDS / digest.hexdigest()[:16] / EXTENSION
    if not extension.is_file():
        _compile(extension.parent.parent)
    folder = BUILDS / "tree"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        REPOSITORY / "ipc_server",
        folder / "ipc_server",
        ignore=shutil.ignore_patterns("__pycache__", "*.so"),
    )
    shutil.copy(extension, folder / EXTENSION)
    shutil.copy(extension.parent.parent / "crash_client", folder)
    return folder


def _compile(out: Path) -> None:
    shutil.rmtree(BUILDS, ignore_errors=True)
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    # Unoptimized: it is the order of the steps that is tested, and this takes seconds less.
    env = {**os.environ, "SIDECAML_BUILD": "crash-points", "CFLAGS": "-O0"}
    folders = [f"--build-lib={out}", f"--build-temp={BUILDS / 'objects'}"]
    subprocess.run([*command, *folders], cwd=REPOSITORY, env=env, check=True, capture_output=True)
    _compile_client(out / "crash_client")


def _compile_client(out: Path) -> None:
    sources = [CLIENT, *(str(path) for path in sorted(REPOSITORY.glob("c_shim/src/*.c")))]
    flags = ["-std=gnu11", "-O0", "-DSIDECAML_CRASH_POINTS", "-Ic_shim/include", "-Ic_shim/src", "-pthread"]
    libraries = [*_of_msgpack("--libs"), "-lm"]
    command = ["cc", *flags, *_of_msgpack("--cflags"), *sources, *libraries, "-o", str(out)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)


def _of_msgpack(what: str) -> list[str]:
    # Named in two ways, as c_shim/Makefile knows.
    for name in ("msgpack-c", "msgpack"):
        found = subprocess.run(["pkg-config", what, name], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout.split()
    raise AssertionError("pkg-config knows no msgpack-c: run scripts/system-packages core")


class Orders:
    """What is to happen at which point: the next process that comes past takes the order, and no other."""

    def __init__(self, folder: Path) -> None:
        """Give no order yet."""
        self.folder = folder
        self._hit = folder / "hit"
        self._next = folder / "next"
        for made in (self._hit, self._next, folder / "taken"):
            made.mkdir(parents=True)

    def give(self, point: str, *actions: str) -> None:
        """Have the next one killed (KILL) or stopped (STOP); two actions are for the next two, one each."""
        first, *others = actions
        for action in others:
            self._write(self._next / point, action)
        self._write(self.folder / point, first)

    def take_back(self, point: str) -> None:
        """Forget an order that nobody took."""
        (self.folder / point).unlink(missing_ok=True)

    def _write(self, path: Path, action: str) -> None:
        draft = self.folder / ".draft"
        draft.write_text(action, encoding="ascii")
        draft.rename(path)

    def victim(self, point: str) -> int | None:
        """Whose process obeyed the order, since the last time it was asked for; None while nobody has."""
        for hit in self._hit.glob(f"{point}.*"):
            pid = int(hit.suffix[1:])
            # It is about to: one that is told to go on before it has stopped would stop for ever.
            if hit.read_text(encoding="ascii") == "STOP" and is_alive(pid) and not is_stopped(pid):
                return None
            hit.unlink()
            return pid
        return None

    def environment(self, build: Path) -> dict[str, str]:
        """What a process needs to have the points and to see the orders."""
        return {"PYTHONPATH": str(build), "SIDECAML_CRASH_POINTS": str(self.folder)}
