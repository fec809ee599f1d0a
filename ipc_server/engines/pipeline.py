"""The engine `pipeline`: several models, run one after the other, are one model to the client.

What a step makes for a later one lies in memory that is the worker's own, once for each slot, and both steps
are bound to it: nothing is copied between them. It is not part of the segment, where a client could change it
while a kernel that has checked a value reads it again, and where it would cost shared memory.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipc_server.abi import Dtype, ErrorCode
from ipc_server.engines import Engine, Runner, ServedChannel, string_arrays
from ipc_server.engines.functions import judge_of, room_missing, shape_text
from ipc_server.engines.wiring import Step, Wiring, wire
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.settings import Settings
from ipc_server.signature import Signature, Tensor, TensorSpec
from ipc_server.tensor import size_of

Dims = tuple[int, ...]

# Address space for a tensor whose size only the run can tell: it costs memory only where it is written.
MOST_BYTES = 2**34
# The same for text, which no size tells either.
MOST_TEXT = 2**32
# Of <asm-generic/mman.h>; Python names it from 3.13 on only.
_MAP_NORESERVE = 0x4000


@dataclass(frozen=True)
class Part:
    """One step, loaded."""

    label: str
    engine: Engine
    # The pipeline's names of its tensors, inputs first.
    names: tuple[str, ...]


class PipelineEngine:
    """Models that make one."""

    native = False

    def __init__(self, settings: Settings, load: Callable[[Settings], Engine]) -> None:
        """Load every step, by `load`, and wire them."""
        labels = [_label(number, step) for number, step in enumerate(settings.steps, 1)]
        engines = [_loaded(label, step, load) for label, step in zip(labels, settings.steps, strict=True)]
        self._wiring = wire(
            [
                Step(label, engine.signature, step.rename)
                for label, engine, step in zip(labels, engines, settings.steps, strict=True)
            ],
            settings.keep,
        )
        self._parts = [
            Part(label, engine, names)
            for label, engine, names in zip(labels, engines, self._wiring.names, strict=True)
        ]
        self._judge = judge_of(self._wiring.signature)

    @property
    def signature(self) -> Signature:
        """What the first steps need and the last ones make."""
        return self._wiring.signature

    def attach(self, channel: ServedChannel) -> Sequence[Runner]:
        """Prepare every slot."""
        return [
            PipelineSlot(self._wiring, self._parts, self._judge, channel, slot)
            for slot in range(channel.slots)
        ]

    def explain(self, error: Exception) -> str:
        """Say what went wrong outside of the steps."""
        return f"{type(error).__name__}: {error}"


class PipelineSlot:
    """Runs the requests of one slot, step by step."""

    native = None
    run_again = None

    def __init__(
        self, wiring: Wiring, parts: Sequence[Part], judge: Any, channel: ServedChannel, slot: int
    ) -> None:
        """Make room for what lies between the steps, and prepare each of them."""
        self._channel = channel
        self._slot = slot
        self._wiring = wiring
        self._judge = judge
        signature = wiring.signature
        self._numbers = {
            tensor.name: number for number, tensor in enumerate((*signature.inputs, *signature.outputs))
        }
        self._dynamic = [number for number, tensor in enumerate(signature.inputs) if tensor.dynamic]
        self._places = {name: _Private(wiring, name, channel) for name in sorted(wiring.inner)}
        self._fixed = {
            name: tuple(dim for dim in tensor.shape if isinstance(dim, int))
            for name, tensor in wiring.tensors.items()
            if not tensor.dynamic
        }
        # Of every tensor that has been made, or came, in the request that runs.
        self._dims: dict[str, Dims] = {}
        self._named: dict[str, int] = {}
        # Of what a step made that had no room.
        self._needed: dict[str, Dims] = {}
        # What a later step and the client both get is copied: the client can change its own.
        self._copied = [name for name in self._numbers if name in wiring.inner]
        self._steps = [(part, part.engine.attach(self._channel_of(part))[0]) for part in parts]

    def run(self) -> None:
        """Run the request that is in the slot."""
        self._begin()
        for part, runner in self._steps:
            try:
                runner.run()
            except SidecamlError as error:
                raise SidecamlError(self._code_of(error), f"{part.label}: {error}") from error
            except Exception as error:
                raise SidecamlError(
                    ErrorCode.ENGINE, f"{part.label}: {part.engine.explain(error)}"
                ) from error
        self._copy_outputs()

    def _begin(self) -> None:
        inputs = self._wiring.signature.inputs
        given = [self._channel.get_dims(number) for number in self._dynamic]
        if given:
            self._judge.request_dims(given)
        self._dims = dict(self._fixed)
        self._named, self._needed = {}, {}
        for number, dims in zip(self._dynamic, given, strict=True):
            self._dims[inputs[number].name] = dims
            shape = inputs[number].shape
            self._named |= {
                name: size for name, size in zip(shape, dims, strict=True) if isinstance(name, str)
            }

    def _copy_outputs(self) -> None:
        for name in self._copied:
            number = self._numbers[name]
            most = self._channel.tensors[number].max_dims
            if error := room_missing(self._judge.check_output, number, self._dims[name], most):
                self._tell_needed()
                raise error
            if self._wiring.tensors[name].dtype is Dtype.STRING:
                self._check_text(name)
        for name in self._copied:
            self._copy(name)

    def _copy(self, name: str) -> None:
        number, dims, tensor = self._numbers[name], self._dims[name], self._wiring.tensors[name]
        if tensor.dynamic:
            self._channel.set_dims(number, dims)
        address = self._channel.address(self._slot, number)
        if tensor.dtype is Dtype.STRING:
            string_arrays.write(address, self._channel.tensors[number], self._texts(name))
            return
        ctypes.memmove(address, self._places[name].address, size_of(tensor.dtype, dims))

    def _texts(self, name: str) -> list[bytes]:
        place = self._places[name]
        return string_arrays.encoded(
            place.spec, string_arrays.read(place.address, place.spec, self._dims[name])
        )

    def _check_text(self, name: str) -> None:
        number, size = self._numbers[name], sum(map(len, self._texts(name)))
        room = self._channel.tensors[number].text_bytes
        if error := room_missing(self._judge.check_text, number, size, room):
            self._tell_needed()
            self._channel.set_text_needed(size)
            raise error

    def _code_of(self, error: SidecamlError) -> ErrorCode:
        """Tell what a step's failure is to the client, for whom only its own outputs can be opened larger."""
        if error.code is not ErrorCode.OUTPUT_TOO_LARGE:
            return error.code
        self._tell_needed()
        return ErrorCode.ENGINE if self._needed.keys() <= self._places.keys() else error.code

    def _tell_needed(self) -> None:
        """Say how large every output is as far as the steps have come; the others keep the room they have."""
        found = {**self._dims, **self._needed}
        for name, number in self._numbers.items():
            tensor, most = self._wiring.tensors[name], self._channel.tensors[number].max_dims
            if tensor.dynamic and number >= len(self._wiring.signature.inputs):
                shape = zip(tensor.shape, most, strict=True)
                likely = tuple(self._named.get(str(dim), room) for dim, room in shape)
                self._channel.set_needed(number, found.get(name, likely))

    def _channel_of(self, part: Part) -> ServedChannel:
        """Give a step a channel of one slot, whose tensors lie where the pipeline has them."""
        signature = part.engine.signature
        own = (*signature.inputs, *signature.outputs)
        count = len(signature.inputs)

        def set_dims(number: int, dims: Dims) -> None:
            self._set_dims(part.names[number], dims)

        def set_needed(number: int, dims: Dims) -> None:
            self._needed[part.names[number]] = tuple(dims)

        return dataclasses.replace(
            self._channel,
            slots=1,
            tensors=tuple(
                dataclasses.replace(
                    self._spec(name), name=tensor.name, output=number >= count, dynamic=tensor.dynamic
                )
                for number, (tensor, name) in enumerate(zip(own, part.names, strict=True))
            ),
            address=lambda _slot, number: self._address(part.names[number]),
            get_dims=lambda number: self._dims[part.names[number]],
            set_dims=set_dims,
            set_needed=set_needed,
            required_dims=lambda number: self._required(part.names[number]),
        )

    def _spec(self, name: str) -> TensorSpec:
        place = self._places.get(name)
        return place.spec if place else self._channel.tensors[self._numbers[name]]

    def _address(self, name: str) -> int:
        place = self._places.get(name)
        return place.address if place else self._channel.address(self._slot, self._numbers[name])

    def _required(self, name: str) -> Dims | None:
        """Tell what size an output must have: a step may know less of it than the pipeline does."""
        tensor = self._wiring.tensors[name]
        if not tensor.dynamic:
            return tuple(dim for dim in tensor.shape if isinstance(dim, int))
        if name in self._places or name not in self._numbers:
            return None
        return self._channel.required_dims(self._numbers[name])

    def _set_dims(self, name: str, dims: Dims) -> None:
        tensor = self._wiring.tensors[name]
        for dim, size in zip(tensor.shape, dims, strict=True):
            expected = self._named.setdefault(dim, size) if isinstance(dim, str) else dim
            if size != expected:
                raise SidecamlError(
                    ErrorCode.ENGINE,
                    f"it made {shown(name)} {shape_text(dims)}: in the pipeline it is {tensor.type_text}"
                    + (f", and {shown(dim)} is {expected} in this request" if isinstance(dim, str) else ""),
                )
        self._dims[name] = tuple(dims)
        if not tensor.dynamic or name in self._places:
            return
        number = self._numbers[name]
        most = self._channel.tensors[number].max_dims
        if error := room_missing(self._judge.check_output, number, dims, most):
            self._needed[name] = tuple(dims)
            raise error
        self._channel.set_dims(number, dims)


class _Private:
    """Memory of the worker's own for one tensor of one slot."""

    def __init__(self, wiring: Wiring, name: str, channel: ServedChannel) -> None:
        tensor = wiring.tensors[name]
        given = {dim for tensor in wiring.signature.inputs for dim in tensor.shape}
        max_dims = _max_dims(tensor, {dim: most for dim, most in channel.maxima.items() if dim in given})
        text_bytes = MOST_TEXT if tensor.dtype is Dtype.STRING else 0
        self.spec = TensorSpec(name, tensor.dtype, True, tensor.dynamic, max_dims, text_bytes)
        size = max(size_of(tensor.dtype, max_dims) + text_bytes, 1)
        try:
            self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        except OSError as error:
            raise SidecamlError(
                ErrorCode.NO_MEMORY,
                f"{size} bytes for {shown(tensor.name)} between two steps: {error.strerror}",
            ) from error
        self._start = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(self._start)


def _max_dims(tensor: Tensor, maxima: Mapping[str, int]) -> Dims:
    """Give each dimension its maximum: that of an input, or what room there is for one that the run tells."""
    known = [maxima.get(dim) if isinstance(dim, str) else dim for dim in tensor.shape]
    unknown = sum(dim is None for dim in known)
    if not unknown:
        return tuple(dim for dim in known if dim is not None)
    one = size_of(tensor.dtype, [1]) * math.prod(max(dim, 1) for dim in known if dim is not None)
    share = max(int((MOST_BYTES // one) ** (1 / unknown)), 1)
    return tuple(share if dim is None else dim for dim in known)


def _label(number: int, step: Settings) -> str:
    return f"step {number} ({step.path.name if step.path else step.callable})"


def _loaded(label: str, step: Settings, load: Callable[[Settings], Engine]) -> Engine:
    try:
        return load(step)
    except SidecamlError as error:
        raise SidecamlError(error.code, f"{label}: {error}") from error
