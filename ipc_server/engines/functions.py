"""Functions run on arrays that lie in the slots: what the engines `python` and `torch` have in common."""

from __future__ import annotations

import dataclasses
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from ipc_server import _core
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.engines import Runner, ServedChannel, string_arrays
from ipc_server.engines.calls import MismatchError, Plan, answers
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.signature import Signature, Tensor

# Views kept of a slot, one set for each set of dimensions that requests came with.
MOST_VIEWS = 32

Dims = tuple[int, ...]
T = TypeVar("T")


class Arrays(Protocol):
    """How a library sees memory as arrays of its own."""

    def view(self, address: int, tensor: Tensor, dims: Dims, writable: bool) -> Any:
        """See a slot's place as an array."""

    def dims_of(self, value: Any, tensor: Tensor, known: Dims | None) -> Dims:
        """Give the dimensions of what was returned; MismatchError when it is no array of that type.

        `known` are those that it must have, where that is known, for types whose arrays do not tell.
        """

    def copy(self, place: Any, value: Any) -> None:
        """Copy what was returned to its place, of the same dimensions and type."""


@dataclass(frozen=True)
class Called:
    """A function that runs a model."""

    function: Callable[..., Any]
    plan: Plan
    signature: Signature
    judge: _core.Tensors
    arrays: Arrays
    # What becomes of an exception of the function: one sentence.
    explain: Callable[[BaseException], str]

    @cached_property
    def string_inputs(self) -> list[int]:
        """Inputs that have no view, because each request brings its own text."""
        return [n for n, tensor in enumerate(self.signature.inputs) if tensor.dtype is Dtype.STRING]

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs, then outputs."""
        return (*self.signature.inputs, *self.signature.outputs)

    def runners(self, channel: ServedChannel) -> Sequence[Runner]:
        """Prepare every slot of a channel."""
        return [FunctionSlot(self, channel, slot) for slot in range(channel.slots)]


@dataclass(frozen=True)
class Views:
    """A slot's tensors as arrays, for requests of certain dimensions."""

    by_place: list[Any]
    by_name: dict[str, Any]
    # Of the outputs whose dimensions are known before the run.
    places: Mapping[int, Any]
    dims: Sequence[Dims | None]
    # What a dynamic output's dimensions will be.
    told: Sequence[tuple[int, Dims]]


class FunctionSlot:
    """Runs the requests of one slot."""

    native = None
    run_again = None

    def __init__(self, model: Called, channel: ServedChannel, slot: int) -> None:
        """See nothing yet: the first request will tell the dimensions."""
        self._model = model
        self._channel = channel
        self._slot = slot
        self._pid = os.getpid()
        self._dynamic = [number for number, tensor in enumerate(model.signature.inputs) if tensor.dynamic]
        self._views: OrderedDict[tuple[Dims, ...], Views] = OrderedDict()

    def run(self) -> None:
        """Run the request that is in the slot."""
        views = self._find_views()
        for number, dims in views.told:
            self._channel.set_dims(number, dims)
        result = self._call(views if not self._model.string_inputs else self._with_strings(views))
        try:
            self._store(result, views)
        except MismatchError as error:
            raise SidecamlError(ErrorCode.ENGINE, self._model.explain(error)) from error

    def _call(self, views: Views) -> Any:
        model = self._model
        try:
            return model.function(*views.by_place, **views.by_name)
        # SystemExit and its like are not the worker's to obey.
        except BaseException as error:
            raise SidecamlError(ErrorCode.ENGINE, model.explain(error)) from error
        finally:
            # A child that the function forked and that returns from it must not answer in its parent's place.
            if os.getpid() != self._pid:
                os._exit(0)
            # It may have installed a handler of its own: before anything else of the client's is touched.
            _core.guard_again()

    def _with_strings(self, views: Views) -> Views:
        """Put this request's strings among the arguments."""
        model, tensors = self._model, self._channel.tensors
        arrays = {
            number: string_arrays.read(
                self._channel.address(self._slot, number), tensors[number], views.dims[number] or ()
            )
            for number in model.string_inputs
        }
        by_place = zip(model.plan.by_place, views.by_place, strict=True)
        by_name = ((name, number, views.by_name[name]) for name, number in model.plan.by_name.items())
        return dataclasses.replace(
            views,
            by_place=[arrays.get(number, array) for number, array in by_place],
            by_name={name: arrays.get(number, array) for name, number, array in by_name},
        )

    def _find_views(self) -> Views:
        get_dims = self._channel.get_dims
        key = tuple([get_dims(number) for number in self._dynamic])
        views = self._views.get(key)
        if views is None:
            views = self._see(key)
            self._views[key] = views
            if len(self._views) > MOST_VIEWS:
                self._views.popitem(last=False)
        else:
            self._views.move_to_end(key)
        return views

    def _see(self, given: Sequence[Dims]) -> Views:
        model, channel = self._model, self._channel
        dims = model.judge.request_dims(given)
        count = len(model.signature.inputs)
        arrays = {
            number: model.arrays.view(channel.address(self._slot, number), tensor, known, number >= count)
            for number, (tensor, known) in enumerate(zip(model.tensors, dims, strict=True))
            if known is not None and tensor.dtype is not Dtype.STRING
        }
        return Views(
            by_place=[arrays.get(number) for number in model.plan.by_place],
            by_name={name: arrays.get(number) for name, number in model.plan.by_name.items()},
            places={number: array for number, array in arrays.items() if number >= count},
            dims=dims,
            told=[
                (number, known)
                for number, (tensor, known) in enumerate(zip(model.tensors, dims, strict=True))
                if number >= count and tensor.dynamic and known is not None
            ],
        )

    def _store(self, result: Any, views: Views) -> None:
        model, channel = self._model, self._channel
        tensors = model.tensors
        returned = answers(result, model.plan, tensors, views.places)
        found = [
            (number, value, model.arrays.dims_of(value, tensors[number], views.dims[number]))
            for number, value in returned
        ]
        texts = {
            number: string_arrays.encoded(tensors[number], value)
            for number, value, _ in found
            if tensors[number].dtype is Dtype.STRING
        }
        self._check_dims(found, views)
        self._check_text(texts, found, views)
        for number, value, dims in found:
            if number in texts:
                address = channel.address(self._slot, number)
                string_arrays.write(address, channel.tensors[number], texts[number])
                continue
            place = views.places.get(number)
            if place is None:
                address = channel.address(self._slot, number)
                place = model.arrays.view(address, tensors[number], dims, True)
            model.arrays.copy(place, value)

    def _check_dims(self, found: Sequence[tuple[int, Any, Dims]], views: Views) -> None:
        """Check the dimensions of what was returned, and tell those that the run alone could tell."""
        tensors, channel, check = self._model.tensors, self._channel, self._model.judge.check_output
        named = {
            name: size
            for tensor, dims in zip(tensors, views.dims, strict=True)
            if dims is not None
            for name, size in zip(tensor.shape, dims, strict=True)
        }
        too_large = None
        for number, _, dims in found:
            _check_known(tensors[number], views.dims[number], dims)
            if views.dims[number] is not None:
                continue
            if channel.required_dims(number) is not None:
                channel.set_dims(number, dims)
            too_large = too_large or room_missing(check, number, dims, channel.tensors[number].max_dims)
            _check_named(tensors[number], dims, named)
        if too_large:
            self._tell_needed(found, views)
            raise too_large
        for number, _, dims in found:
            if views.dims[number] is None:
                channel.set_dims(number, dims)

    def _check_text(
        self, texts: Mapping[int, list[bytes]], found: Sequence[tuple[int, Any, Dims]], views: Views
    ) -> None:
        """Check that strings have room for their text."""
        sizes = {number: sum(map(len, items)) for number, items in texts.items()}
        for number, size in sizes.items():
            room = self._channel.tensors[number].text_bytes
            if error := room_missing(self._model.judge.check_text, number, size, room):
                self._tell_needed(found, views)
                self._channel.set_text_needed(max(sizes.values()))
                raise error

    def _tell_needed(self, found: Sequence[tuple[int, Any, Dims]], views: Views) -> None:
        """Say how large every dynamic output is, those that would have room included."""
        for number, dims in (*views.told, *((number, dims) for number, _, dims in found)):
            if self._model.tensors[number].dynamic:
                self._channel.set_needed(number, dims)


def room_missing(check: Callable[[int, T, T], None], number: int, dims: T, most: T) -> SidecamlError | None:
    """Judge an output's dimensions or text; OUTPUT_TOO_LARGE is given back, so that more can be said."""
    try:
        check(number, dims, most)
    except SidecamlError as error:
        if error.code is not ErrorCode.OUTPUT_TOO_LARGE:
            raise
        return error
    return None


def _check_known(tensor: Tensor, known: Dims | None, dims: Dims) -> None:
    if known is not None and dims != known:
        raise MismatchError(
            f"it returned {shape_text(dims)} for the output {shown(tensor.name)}: expected "
            f"{tensor.type_text}, which is {shape_text(known)} with this request's dimensions"
        )


def _check_named(tensor: Tensor, dims: Dims, named: dict[int | str, int]) -> None:
    for name, size in zip(tensor.shape, dims, strict=True):
        if isinstance(name, str) and named.setdefault(name, size) != size:
            raise MismatchError(
                f"it returned {shape_text(dims)} for the output {shown(tensor.name)} {tensor.type_text}: "
                f"{shown(name)} is {named[name]} in this request"
            )


def shape_text(dims: Dims) -> str:
    """Write dimensions as a shape."""
    return f"[{','.join(map(str, dims))}]"


def judge_of(signature: Signature) -> _core.Tensors:
    """Make the judge of a signature's requests; UNSUPPORTED for what no channel carries."""
    return _core.Tensors(
        *(
            [(tensor.name, _type_name(tensor.dtype), tensor.shape) for tensor in group]
            for group in (signature.inputs, signature.outputs)
        )
    )


def _type_name(dtype: Dtype) -> str:
    """Write an element type as ONNX Runtime does."""
    other = {Dtype.FLOAT32: "float", Dtype.FLOAT64: "double"}
    return f"tensor({other.get(dtype, dtype.name.lower())})"
