"""What a worker runs a model with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ipc_server import _core, messages
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching, not_batched
from ipc_server.errors import SidecamlError
from ipc_server.settings import ENGINES, Settings
from ipc_server.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from ipc_server.engines.onnx_binding import Loaded

# Engines that run Python functions.
FUNCTIONS = ("python", "torch")
# It is told beside the model's description, where REPLY_ROOM bytes are left.
MOST_RECORD = messages.REPLY_ROOM // 2


@dataclass(frozen=True, slots=True)
class Journal:
    """Where a channel's carried state lies, so that it outlives the worker, and what is committed there."""

    address: int
    # Whether anything is carried when the channel is attached, and the place, 0 or 1, where it then lies.
    carried: bool
    place: int
    # Say in which state the channel is before any request of it runs.
    begin_state: Callable[[int], None]
    # Carry nothing from now on.
    drop: Callable[[], None]


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
    journal: Journal | None = None


@dataclass(frozen=True, slots=True)
class Native:
    """What the native lane can run by itself: the binding, and for which requests.

    In place of a binding it may be a callable that says what went wrong, if anything did.
    """

    binding: _core.Binding | Callable[[], str | None]
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


@dataclass(frozen=True, slots=True)
class Batches:
    """How a loaded model's requests are run together, and by what."""

    batching: Batching
    # What the lane has to run requests with, for these to be batched.
    engine: Engine
    # What makes what runs a batch; there where batches are run at all.
    maker: _core.Session | Callable[..., Callable[[], str | None]] | None = None


def batches_of(engine: Engine, settings: Settings, known: Batching | None = None) -> Batches:
    """Prove how a loaded model may be batched; `known` is taken where it was proven for the same."""
    why = _why_not_batched(engine, settings)
    if why:
        return Batches(not_batched(why, settings.batching), engine)
    from ipc_server.engines.certificate import certify  # noqa: PLC0415

    loaded, batches = _onnx_batches(engine) if settings.engine == "onnx" else _function_batches(engine)
    batching = certify(loaded, settings, known)
    if messages.packed_size(batching.record()) > MOST_RECORD:
        why = "what is to be told of it is too long for a control message"
        batching = not_batched(why, settings.batching)
    return dataclasses.replace(batches, batching=batching) if batching.is_on else Batches(batching, engine)


def _onnx_batches(engine: Engine) -> tuple[Loaded, Batches]:
    from ipc_server.engines.onnx import OnnxEngine  # noqa: PLC0415
    from ipc_server.engines.onnx_session import NativeSession  # noqa: PLC0415

    assert isinstance(engine, OnnxEngine), "only these are native, but for carried state"
    session = engine.loaded.session
    assert isinstance(session, NativeSession), "the native lane has no other"
    return engine.loaded, Batches(Batching(), engine, session.core)


def _function_batches(engine: Engine) -> tuple[Loaded, Batches]:
    from ipc_server.engines.functions import judge_of  # noqa: PLC0415
    from ipc_server.engines.onnx_binding import Loaded  # noqa: PLC0415
    from ipc_server.engines.together import Batcher, EngineSession, TogetherEngine  # noqa: PLC0415

    judge = judge_of(engine.signature)
    loaded = Loaded(EngineSession(engine), judge, engine.signature)
    return loaded, Batches(Batching(), TogetherEngine(engine, judge), Batcher(engine))


def _why_not_batched(engine: Engine, settings: Settings) -> str:
    if settings.batching == "off" or settings.max_batch == 1:
        return "batching is switched off"
    if settings.state:
        return "the state that it carries goes from each request to the next"
    if settings.engine not in {"onnx", *FUNCTIONS}:
        return f"the engine {settings.engine!r} runs requests one by one"
    if settings.engine in FUNCTIONS:
        return "" if _core.NATIVE else "sidecaml was built without the native lane, whose loop batches"
    return "" if engine.native else "the python lane runs requests one by one"


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
