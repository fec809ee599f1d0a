"""ONNX Runtime bound to the memory of slots: in place wherever a size is known beforehand."""

from __future__ import annotations

import ctypes
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ipc_server import _core
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.engines import Native, Runner, ServedChannel
from ipc_server.engines.onnx_session import Session, Value
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature, Tensor

# Bindings kept of a slot, one for each set of dimensions that requests came with.
MOST_BINDINGS = 32

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in a session, and the judge of its requests."""

    session: Session
    tensors: _core.Tensors
    signature: Signature


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor of a slot lies; without dims when the run alone can tell them."""

    number: int
    tensor: Tensor
    dims: Dims | None
    address: int
    max_dims: Dims
    # Of strings.
    text_bytes: int = 0

    @property
    def is_strings(self) -> bool:
        """Whether it has a table and text."""
        return self.tensor.dtype is Dtype.STRING

    @property
    def strings(self) -> tuple[int, int, int]:
        """Give where the strings lie, how many at most, and their room for text."""
        return self.address, math.prod(self.max_dims), self.text_bytes


class Binding:
    """A session's tensors bound to places. `run` is replaced once it is known what must be copied."""

    def __init__(
        self,
        model: Loaded,
        channel: ServedChannel,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
    ) -> None:
        """Bind; the channel is told the dimensions of dynamic outputs that only the run could tell."""
        self._io = model.session.bind()
        self._check_output = model.tensors.check_output
        self._check_text = model.tensors.check_text
        self._outputs = outputs
        self._channel = channel
        self._in_place = {
            place.number for place in outputs if place.dims is not None and not place.is_strings
        }
        # Read anew for each request.
        self._strings = [place for place in inputs if place.is_strings]
        for place in inputs:
            if not place.is_strings:
                self._io.bind_input(place.tensor.name, place.tensor.dtype, place.dims or (), place.address)
        self._bind_outputs()
        self._direct = self._read_and_run if self._strings else self._io.run
        # Places and sizes are the same for every request.
        self.run_again = None
        self._is_direct = False
        self.run: Callable[[], object] = self._first_run

    @property
    def native(self) -> Native | None:
        """What the native lane can run by itself, as soon as it is known that nothing is copied."""
        io = self._io
        return Native(io) if self._is_direct and isinstance(io, _core.Binding) else None

    def _read_and_run(self) -> None:
        for place in self._strings:
            self._io.bind_strings(place.tensor.name, place.dims or (), *place.strings)
        self._io.run()

    def _bind_outputs(self) -> None:
        for place in self._outputs:
            if place.number in self._in_place:
                self._io.bind_output(place.tensor.name, place.tensor.dtype, place.dims or (), place.address)
            else:
                self._io.bind_output_anywhere(place.tensor.name)

    def _first_run(self) -> None:
        self._run_or_unbound(self._run_and_copy)
        # An input that is at once an output is handed back where it is: the bound place is left as it was.
        values = self._io.outputs()
        for place, value in zip(self._outputs, values, strict=True):
            if place.number in self._in_place and not _lies_at(value, place.address):
                self._in_place.discard(place.number)
                self._check([place], values)
                self._copy(place, value)
        self.run = self._settled()

    def _settled(self) -> Callable[[], object]:
        """Choose how to run from now on, by what must be copied and what may still prove wrong."""
        in_place = len(self._in_place) == len(self._outputs)
        self._is_direct = in_place and not self._strings
        run = self._direct if in_place else self._run_and_copy
        # Any request may be the first that shows that a declared name is not kept to.
        named = any(place.number in self._in_place and place.tensor.dynamic for place in self._outputs)
        return partial(self._run_or_unbound, run) if named else run

    def _run_or_unbound(self, run: Callable[[], object]) -> None:
        try:
            run()
        except SidecamlError:
            raise
        except Exception:
            self._run_unbound()
            self.run = self._settled()

    def _run_unbound(self) -> None:
        """Run once more with no output bound: the model may not keep to the shapes that it declares."""
        in_place, self._in_place = self._in_place, set()
        try:
            self._run_and_copy()
        except BaseException:
            self._in_place = in_place
            self._bind_outputs()
            raise

    def _run_and_copy(self) -> None:
        copied = [index for index, place in enumerate(self._outputs) if place.number not in self._in_place]
        for index in copied:
            # Anew each time: what the last run allocated would be taken for a place of that size.
            self._io.bind_output_anywhere(self._outputs[index].tensor.name)
        self._direct()
        values = self._io.outputs()
        self._check([self._outputs[index] for index in copied], values)
        for index in copied:
            if self._outputs[index].is_strings:
                self._copy_strings(index, values[index])
            else:
                self._copy(self._outputs[index], values[index])

    def _check(self, copied: Sequence[Place], values: Sequence[Value]) -> None:
        """Check what is to be copied; when some has no room, say how much room all would need."""
        pairs = list(zip(self._outputs, values, strict=True))
        all_dims = {place.number: dims for place, (dims, _, _) in pairs}
        texts = {place.number: size for place, (_, _, size) in pairs if place.is_strings}
        try:
            for place in copied:
                if self._channel.required_dims(place.number) is not None:
                    self._channel.set_dims(place.number, all_dims[place.number])
                self._check_output(place.number, all_dims[place.number], place.max_dims)
            for place in copied:
                if place.is_strings:
                    self._check_text(place.number, texts[place.number], place.text_bytes)
        except SidecamlError as error:
            if error.code is ErrorCode.OUTPUT_TOO_LARGE:
                for place in self._outputs:
                    if place.tensor.dynamic and len(all_dims[place.number]) == len(place.max_dims):
                        self._channel.set_needed(place.number, all_dims[place.number])
                rooms = {place.number: place.text_bytes for place in self._outputs}
                if any(size > rooms[number] for number, size in texts.items()):
                    self._channel.set_text_needed(max(texts.values()))
            raise

    def _copy_strings(self, index: int, value: Value) -> None:
        place = self._outputs[index]
        if place.tensor.dynamic:
            self._channel.set_dims(place.number, value[0])
        self._io.copy_strings(index, place.tensor.name, *place.strings)

    def _copy(self, place: Place, value: Value) -> None:
        dims, address, size = value
        if place.tensor.dynamic:
            self._channel.set_dims(place.number, dims)
        if size:
            ctypes.memmove(place.address, address, size)


class DynamicSlot:
    """A slot whose requests bring dimensions of their own: a binding for each set, the latest kept."""

    def __init__(self, model: Loaded, channel: ServedChannel, slot: int) -> None:
        """Bind nothing yet: the first request will tell the dimensions."""
        self._latest: tuple[tuple[Dims, ...], Binding, list[tuple[int, Dims]]] | None = None
        self._model = model
        self._channel = channel
        self._slot = slot
        self._dynamic = [number for number, tensor in enumerate(model.signature.inputs) if tensor.dynamic]
        self._bindings: OrderedDict[tuple[Dims, ...], tuple[Binding, list[tuple[int, Dims]]]] = OrderedDict()

    @property
    def native(self) -> Native | None:
        """What the native lane can run where requests have the dimensions of the last one."""
        if self._latest is None:
            return None
        key, binding, outputs = self._latest
        native = binding.native
        dims = (*zip(self._dynamic, key, strict=True), *outputs)
        return native and Native(native.binding, dims)

    @property
    def run_again(self) -> Callable[[], object]:
        """Run the request anew: it may be the first to show that the model does not keep to its shapes."""
        return self.run

    def run(self) -> None:
        """Run the request by its dimensions."""
        self._latest = None
        get_dims, set_dims = self._channel.get_dims, self._channel.set_dims
        key = tuple([get_dims(number) for number in self._dynamic])
        entry = self._bindings.get(key)
        if entry is None:
            entry = self._bind(key)
            self._bindings[key] = entry
            if len(self._bindings) > MOST_BINDINGS:
                self._bindings.popitem(last=False)
        else:
            self._bindings.move_to_end(key)
        binding, outputs = entry
        # Before the run: an output that it places elsewhere than declared has its true dims set by the copy.
        for number, dims in outputs:
            set_dims(number, dims)
        binding.run()
        self._latest = key, binding, outputs

    def _bind(self, given: Sequence[Dims]) -> tuple[Binding, list[tuple[int, Dims]]]:
        signature = self._model.signature
        dims = known_dims(self._model, self._channel, given)
        count = len(signature.inputs)
        told = [
            (number, known)
            for number, (tensor, known) in enumerate(zip(signature.outputs, dims[count:], strict=True), count)
            if tensor.dynamic and known is not None
        ]
        return bind(self._model, self._channel, self._slot, dims), told


def slot_runner(model: Loaded, channel: ServedChannel, slot: int) -> Runner:
    """Prepare one slot: bound for good when no input is dynamic."""
    if any(tensor.dynamic for tensor in model.signature.inputs):
        return DynamicSlot(model, channel, slot)
    return bind(model, channel, slot, known_dims(model, channel, ()))


def known_dims(model: Loaded, channel: ServedChannel, given: Sequence[Dims]) -> list[Dims | None]:
    """Tell the dims of every tensor from those of the dynamic inputs, and from what an output must have."""
    dims = list(model.tensors.request_dims(given))
    for number in range(len(model.signature.inputs), len(dims)):
        required = channel.required_dims(number)
        dims[number] = dims[number] if required is None else required
    return dims


def bind(model: Loaded, channel: ServedChannel, slot: int, dims: Sequence[Dims | None]) -> Binding:
    """Bind one slot's tensors, with the dims of each where they are known."""
    signature = model.signature
    places = [
        Place(number, tensor, dims[number], channel.address(slot, number), spec.max_dims, spec.text_bytes)
        for number, (tensor, spec) in enumerate(
            zip((*signature.inputs, *signature.outputs), channel.tensors, strict=True)
        )
    ]
    count = len(signature.inputs)
    return Binding(model, channel, places[:count], places[count:])


def _lies_at(value: Value, address: int) -> bool:
    _, found, size = value
    return found == address or size == 0
