"""What the engine `onnx` needs of ONNX Runtime: one interface, and a way to reach it for each lane."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ipc_server import _core
from ipc_server.abi import Dtype
from ipc_server.engines.onnx_native import open_library
from ipc_server.errors import SidecamlError

log = logging.getLogger(__name__)

# A tensor's name (bytes when it, or a dimension's, is not UTF-8), its type as ONNX Runtime writes it, and its
# shape: None where it has neither size nor name.
Description = tuple[str | bytes, str, tuple[int | str | None, ...]]
# An output's dimensions, address and size in bytes; strings have the address 0, and the size of their text.
Value = tuple[tuple[int, ...], int, int]


class IoBinding(Protocol):
    """A session's tensors bound to memory that is somebody else's."""

    def bind_input(self, name: str, dtype: Dtype, dims: Sequence[int], address: int, /) -> None:
        """Read an input from there."""

    def bind_output(self, name: str, dtype: Dtype, dims: Sequence[int], address: int, /) -> None:
        """Write an output there."""

    def bind_output_anywhere(self, name: str, /) -> None:
        """Write an output where ONNX Runtime allocates it."""

    def bind_strings(
        self, name: str, dims: Sequence[int], address: int, most: int, text_bytes: int, /
    ) -> None:
        """Read an input from the strings that lie there now; BAD_STRINGS says what is wrong with them."""

    def copy_strings(self, output: int, name: str, address: int, most: int, text_bytes: int, /) -> None:
        """Write an output of strings, by its number, to a place with room for it."""

    @property
    def run(self) -> Callable[[], object]:
        """Run the model on what is bound."""

    def outputs(self) -> Sequence[Value]:
        """Tell where the last run left its outputs, in the order in which they were bound first."""


class Session(Protocol):
    """A loaded model. What ONNX Runtime refuses to run is an exception, for `explain`."""

    @property
    def inputs(self) -> Sequence[Description]:
        """Its inputs."""

    @property
    def outputs(self) -> Sequence[Description]:
        """Its outputs."""

    def bind(self) -> IoBinding:
        """Bind nothing yet."""

    def explain(self, error: Exception) -> str:
        """Say in one line what went wrong."""


class NativeSession:
    """A model, loaded with the library that is open: its failures are sentences already."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load and judge: MODEL_FAILED, UNSUPPORTED."""
        self.core = _core.Session(path, threads)
        self.inputs: Sequence[Description] = self.core.inputs
        self.outputs: Sequence[Description] = self.core.outputs
        self.bind = self.core.bind

    def explain(self, error: Exception) -> str:
        """Say in one line what went wrong."""
        return str(error) or type(error).__name__


def is_native(lane: str) -> bool:
    """Whether a model of this lane runs in the native one; MODEL_FAILED when it must and cannot."""
    if lane == "python":
        return False
    try:
        log.info("native lane: ONNX Runtime %s", open_library())
    except SidecamlError as error:
        if lane == "native":
            raise
        log.warning("python lane, because there is no native one: %s", error)
        return False
    return True


def create_session(path: Path, threads: int, native: bool) -> Session:
    """Load a model; MODEL_FAILED with what is wrong with it."""
    try:
        if native:
            return NativeSession(path, threads)
        # Not beside the native lane's: it is a second copy of the library.
        from ipc_server.engines.onnx_runtime import PythonSession  # noqa: PLC0415

        return PythonSession(path, threads)
    except SidecamlError:
        raise
    except Exception as error:
        _core.model_not_loaded(path, words_of(error))


def words_of(error: Exception) -> str | bytes:
    """Give ONNX Runtime's own words, which name what the model names, be it UTF-8 or not."""
    return error.object if isinstance(error, UnicodeDecodeError) else str(error)
