"""Runs of an engine of Python functions wherever its tensors lie: in a slot, or side by side for a batch.

The engine sees a channel of one slot whose memory and dimensions are those. So whatever runs single requests
runs batches, with the same views, checks and words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipc_server import _core
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.engines import Engine, Native, Runner, ServedChannel
from ipc_server.engines.onnx_session import Description, IoBinding, Value
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature, TensorSpec
from ipc_server.tensor import size_of

Dims = tuple[int, ...]
# What was said of a run that failed; None of one that did not.
Run = Callable[[], str | None]


def run_at(engine: Engine, addresses: Sequence[int], dims: Sequence[Dims]) -> Run:
    """Prepare runs on tensors that lie there, inputs first, all of known dimensions."""
    signature = engine.signature
    count = len(signature.inputs)
    tensors = tuple(
        TensorSpec(tensor.name, tensor.dtype, number >= count, tensor.dynamic, dims[number])
        for number, tensor in enumerate((*signature.inputs, *signature.outputs))
    )
    channel = ServedChannel(
        slots=1,
        tensors=tensors,
        address=lambda _, tensor: addresses[tensor],
        get_dims=lambda tensor: dims[tensor],
        # They are known, and told by whoever completes the requests.
        set_dims=lambda *_: None,
        set_needed=lambda *_: None,
        set_text_needed=lambda *_: None,
    )
    (runner,) = engine.attach(channel)

    def run() -> str | None:
        try:
            runner.run()
        except SidecamlError as error:
            return str(error)
        except Exception as error:
            return engine.explain(error)
        return None

    return run


class Batcher:
    """Makes what runs a batch, for the C loop: from each tensor's address and dims, filled up with zeros."""

    def __init__(self, engine: Engine) -> None:
        """Know how many dims count."""
        self._engine = engine
        signature = engine.signature
        self._ranks = [len(tensor.shape) for tensor in (*signature.inputs, *signature.outputs)]

    def __call__(self, places: Sequence[tuple[int, Dims]]) -> Run:
        """Prepare runs there."""
        dims = [dims[:rank] for (_, dims), rank in zip(places, self._ranks, strict=True)]
        return run_at(self._engine, [address for address, _ in places], dims)


class TogetherEngine:
    """An engine whose requests the C loop runs, each kind from the second on, so that it can batch them."""

    native = True

    def __init__(self, engine: Engine, judge: _core.Tensors) -> None:
        """Have the engine run the first request of each kind."""
        self._engine = engine
        self._judge = judge

    @property
    def signature(self) -> Signature:
        """The engine's."""
        return self._engine.signature

    def attach(self, channel: ServedChannel) -> Sequence[Runner]:
        """Prepare every slot."""
        runners = self._engine.attach(channel)
        return [TogetherSlot(self._engine, self._judge, channel, *slot) for slot in enumerate(runners)]

    def explain(self, error: Exception) -> str:
        """Say it in the engine's words."""
        return self._engine.explain(error)


class TogetherSlot:
    """One slot: what ran a request well is handed to the C loop for all of its dimensions."""

    # A function may do what must not be done twice.
    run_again = None

    def __init__(
        self, engine: Engine, judge: _core.Tensors, channel: ServedChannel, slot: int, runner: Runner
    ) -> None:
        """Know who runs it."""
        self.native: Native | None = None
        self._engine = engine
        self._judge = judge
        self._channel = channel
        self._slot = slot
        self._runner = runner
        self._dynamic = [n for n, tensor in enumerate(engine.signature.inputs) if tensor.dynamic]

    def run(self) -> None:
        """Run a request that the C loop does not know yet."""
        self.native = None
        given = [self._channel.get_dims(number) for number in self._dynamic]
        self._runner.run()
        self.native = self._found(given)

    def _found(self, given: Sequence[Dims]) -> Native | None:
        signature = self._engine.signature
        tensors = (*signature.inputs, *signature.outputs)
        found = self._judge.request_dims(given)
        dims = [known for known in found if known is not None]
        if len(dims) < len(found):
            return None
        addresses = [self._channel.address(self._slot, number) for number in range(len(tensors))]
        told = [(number, dims[number]) for number, tensor in enumerate(tensors) if tensor.dynamic]
        return Native(run_at(self._engine, addresses, dims), tuple(told))


class EngineSession:
    """An engine in the form of a session of ONNX Runtime, so that it is tested in the same way."""

    def __init__(self, engine: Engine) -> None:
        """Know the engine."""
        self.engine = engine
        self.inputs: Sequence[Description] = ()
        self.outputs: Sequence[Description] = ()

    def bind(self) -> IoBinding:
        """Bind nothing yet."""
        return EngineBinding(self.engine)

    def explain(self, error: Exception) -> str:
        """Say in one line what went wrong."""
        return str(error)


class EngineBinding:
    """An engine's tensors bound to memory."""

    def __init__(self, engine: Engine) -> None:
        """Bind nothing yet."""
        self._engine = engine
        self._places: dict[str, tuple[Dtype, Dims, int]] = {}
        self._run: Run | None = None

    def bind_input(self, name: str, dtype: Dtype, dims: Sequence[int], address: int) -> None:
        """Read an input from there."""
        self._places[name] = dtype, tuple(dims), address
        self._run = None

    bind_output = bind_input

    def bind_output_anywhere(self, name: str) -> None:
        """Never called: every output has a place."""
        raise AssertionError(name)

    def bind_strings(self, name: str, dims: Sequence[int], address: int, most: int, text_bytes: int) -> None:
        """Never called: strings are not batched."""
        raise AssertionError(name)

    def copy_strings(self, output: int, name: str, address: int, most: int, text_bytes: int) -> None:
        """Never called: strings are not batched."""
        raise AssertionError(name)

    def run(self) -> None:
        """Run the model on what is bound; ENGINE when that fails."""
        if self._run is None:
            signature = self._engine.signature
            places = [self._places[tensor.name] for tensor in (*signature.inputs, *signature.outputs)]
            addresses, dims = [place[2] for place in places], [place[1] for place in places]
            self._run = run_at(self._engine, addresses, dims)
        if failure := self._run():
            raise SidecamlError(ErrorCode.ENGINE, failure)

    def outputs(self) -> Sequence[Value]:
        """Tell where the outputs are: where they were bound to."""
        places = (self._places[tensor.name] for tensor in self._engine.signature.outputs)
        return [(dims, address, size_of(dtype, dims)) for dtype, dims, address in places]
