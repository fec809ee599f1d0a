"""What pyproject.toml cannot say: how the extension `ipc_server._core` is built from the C core."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent
# The client's handshake is for C and OCaml; Python has its own, and so needs no msgpack-c.
NOT_FOR_PYTHON = {"backoff.c", "control.c", "handshake.c"}
# What the native lane adds, where ONNX Runtime's header is there.
NATIVE = {"onnxruntime.c", "callable.c"}
HEADER = "onnxruntime_c_api.h"


def c_files(*patterns: str) -> list[str]:
    """Find files of the C core, in an order that does not depend on the file system."""
    found = {path.relative_to(HERE) for pattern in patterns for path in (HERE / "c_shim").glob(pattern)}
    return [str(path) for path in sorted(found) if path.name not in NOT_FOR_PYTHON]


def include_folders() -> Iterator[Path]:
    """Name the folders where ONNX Runtime's header may be, best first."""
    if chosen := os.environ.get("SIDECAML_ONNXRUNTIME_INCLUDE"):
        yield Path(chosen)
        return
    try:
        command = ["pkg-config", "--cflags-only-I", "libonnxruntime"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        found = ""
    yield from (Path(flag.removeprefix("-I")) for flag in shlex.split(found))
    for prefix in ("/usr/local/include", "/usr/include"):
        yield from (Path(prefix, name) for name in ("onnxruntime", "onnxruntime/core/session", "."))
    # Where scripts/onnxruntime-header puts it.
    yield HERE / "build/onnxruntime/include"


def native_include() -> Path | None:
    """Find the folder of ONNX Runtime's header."""
    folder = next((folder for folder in include_folders() if (folder / HEADER).is_file()), None)
    if folder is None:
        print(f"sidecaml: no {HEADER}: built without the native lane", file=sys.stderr)
    return folder


include = native_include()
sources = c_files("python/*.c", "src/*.c", *(["ort/*.c"] if include else []))
core = Extension(
    "ipc_server._core",
    sources=[source for source in sources if include or Path(source).name not in NATIVE],
    # A source archive holds all of these, whether or not the machine that makes it has the header.
    depends=c_files("include/sidecaml/*", "python/*", "src/*.h", "ort/*"),
    libraries=["m"],
    include_dirs=["c_shim/include", "c_shim/src", *([str(include)] if include else [])],
    define_macros=[
        ("Py_LIMITED_API", "0x030B0000"),
        *([("SIDECAML_NATIVE", None)] if include else []),
        # For the fault suite only: tests/crash_build.py.
        *([("SIDECAML_CRASH_POINTS", None)] if os.environ.get("SIDECAML_BUILD") == "crash-points" else []),
    ],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
    py_limited_api=True,
)

setup(
    ext_modules=[core],
    # Objects of another build may be newer than the sources of this one, so they are never reused.
    options={"bdist_wheel": {"py_limited_api": "cp311"}, "build_ext": {"force": True}},
)
