"""What pyproject.toml cannot say: how the extension `ipc_server._core` is built from the C core."""

from pathlib import Path

from setuptools import Extension, setup

# The client's handshake is for C and OCaml; Python has its own, and so needs no msgpack-c.
NOT_FOR_PYTHON = {"control.c"}


def c_files(*patterns: str) -> list[str]:
    """Find files of the C core, in an order that does not depend on the file system."""
    here = Path(__file__).parent
    found = {path.relative_to(here) for pattern in patterns for path in (here / "c_shim").glob(pattern)}
    return [str(path) for path in sorted(found) if path.name not in NOT_FOR_PYTHON]


core = Extension(
    "ipc_server._core",
    sources=c_files("python/*.c", "src/*.c"),
    depends=c_files("include/sidecaml/*", "python/*.h", "src/*.h"),
    include_dirs=["c_shim/include", "c_shim/src"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
    py_limited_api=True,
)

setup(
    ext_modules=[core],
    # Objects of another build may be newer than the sources of this one, so they are never reused.
    options={"bdist_wheel": {"py_limited_api": "cp311"}, "build_ext": {"force": True}},
)
