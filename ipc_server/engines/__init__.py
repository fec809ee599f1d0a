"""What a worker runs a model with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.settings import ENGINES, Settings
from ipc_server.signature import Signature, TensorSpec


@dataclass(frozen=True, slots=True)
class ServedChannel:
    """A channel as an engine sees it: tensors by their number, inputs first."""

    slots: int
    tensors: tuple[TensorSpec, ...]
    # Start of a tensor's place: of (slot, tensor).
    address: Callable[[int, int], int]
    # Dimensions of an input, or for an output, of the request that runs.
    get_dims: Callable[[int], tuple[int, ...]]
    set_dims: Callable[[int, tuple[int, ...]], None]
    # For a request that fails with OUTPUT_TOO_LARGE: the true dimensions of every dynamic output, and the
    # most text that a string output has.
    set_needed: Callable[[int, tuple[int, ...]], None]
    set_text_needed: Callable[[int], None]
    # Dimensions that an output must have, whatever the names in the model tell; None for any. `set_dims` says
    # what is wrong with others.
    required_dims: Callable[[int], tuple[int, ...] | None] = lambda _: None
    # The largest size of every dynamic dimension, by its name.
    maxima: Mapping[str, int] = field(default_factory=dict)
    # Of the request that runs: whether the client wants carried state to start anew; the number of the
    # channel's state, by which the native lane chooses what to run, and another one.
    resets: Callable[[], bool] = lambda: False
    get_state: Callable[[], int] = lambda: 0
    set_state: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Native:
    """What the native lane can run by itself: the binding, and for which requests."""

    binding: _core.Binding
    # Of each dynamic tensor, by its number: of inputs as they have to come, of outputs as they are told.
    dims: tuple[tuple[int, tuple[int, ...]], ...] = ()
    # The channel's state in which it may run, and the one after it.
    state: int = 0
    next_state: int = 0


class Runner(Protocol):
    """Runs the requests of one slot."""

    @property
    def run(self) -> Callable[[], object]:
        """Run the request that is in the slot. Looked up anew each time, so that a runner may replace it."""

    @property
    def native(self) -> Native | None:
        """What the native lane can run for requests like the last one; None when `run` must be called."""

    @property
    def run_again(self) -> Callable[[], object] | None:
        """Run what failed in the native lane, which no longer has the slot; None when it failed for good."""


class Engine(Protocol):
    """A loaded model."""

    @property
    def signature(self) -> Signature:
        """Its inputs and outputs."""

    @property
    def native(self) -> bool:
        """Whether its runners may ever be native."""

    def attach(self, channel: ServedChannel) -> Sequence[Runner]:
        """Prepare every slot of a channel: a runner each."""

    def explain(self, error: Exception) -> str:
        """Say in one line what went wrong in a run."""


def load(settings: Settings) -> Engine:
    """Load a model and warm it up; its state is carried where the settings say so.

    Raises MODEL_FAILED with the cause, or UNSUPPORTED.
    """
    engine = _load(settings)
    if not settings.state:
        return engine
    from ipc_server.engines.state import StatefulEngine  # noqa: PLC0415

    return StatefulEngine(engine, settings.state)


def _load(settings: Settings) -> Engine:
    """Import an inference library only here: nothing else of the daemon should load it."""
    if settings.engine == "onnx" and settings.path:
        from ipc_server.engines.onnx import OnnxEngine  # noqa: PLC0415

        return OnnxEngine(settings.path, settings.threads, settings.lane)
    if settings.engine == "python":
        from ipc_server.engines.python import PythonEngine  # noqa: PLC0415

        return PythonEngine(settings)
    if settings.engine == "torch":
        return _torch_engine(settings)
    if settings.engine == "pipeline":
        from ipc_server.engines.pipeline import PipelineEngine  # noqa: PLC0415

        return PipelineEngine(settings, _load)
    raise SidecamlError(
        ErrorCode.MODEL_FAILED, f"there is no engine {settings.engine!r}: expected {', '.join(ENGINES)}"
    )


def _torch_engine(settings: Settings) -> Engine:
    try:
        from ipc_server.engines.torch import TorchEngine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SidecamlError(
            ErrorCode.MODEL_FAILED,
            "the engine 'torch' needs PyTorch, which is not installed: pip install 'sidecaml[torch]'",
        ) from error
    return TorchEngine(settings)
