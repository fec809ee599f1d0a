"""A model's signature: its inputs and outputs, and what an open makes of their named dimensions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from ipc_server.abi import MAX_RANK, MAX_TENSORS, Dtype, ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.suggest import hint

# Keeps every product of an open's dims far from wrapping where C computes with 64 bits.
LARGEST_DIM = 2**40
# Room for text that a channel gets which does not say how much it needs.
TEXT_BYTES_OF_ONE = 64
LEAST_TEXT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output; a dimension that is a string is dynamic and named so."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]

    @property
    def dynamic(self) -> bool:
        """Whether some dimension may differ from request to request."""
        return any(isinstance(dim, str) for dim in self.shape)

    @property
    def type_text(self) -> str:
        """Its type as people write it: `float32[N,64]`."""
        return f"{self.dtype.name.lower()}[{','.join(map(str, self.shape))}]"

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form."""
        return {"name": self.name, "dtype": self.dtype.name.lower(), "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of one channel: its dimensions have their maxima."""

    name: str
    dtype: Dtype
    output: bool
    dynamic: bool
    max_dims: tuple[int, ...]
    # Room for the text of a string tensor in one slot; 0 for every other type.
    text_bytes: int = 0
    # Whether slots lie close together, as parts of one tensor, where their size allows it.
    packed: bool = False

    @property
    def for_layout(self) -> tuple[str, int, bool, bool, tuple[int, ...], int, bool]:
        """Give what `_core.Layout` takes of it."""
        dtype, max_dims = int(self.dtype), self.max_dims
        return self.name, dtype, self.output, self.dynamic, max_dims, self.text_bytes, self.packed


@dataclass(frozen=True, slots=True)
class StatePair:
    """An output that the worker keeps, and gives to an input with the channel's next request."""

    output: str
    # The input, with the size that both have.
    tensor: Tensor

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form."""
        return {**self.tensor.describe(), "output": self.output}


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a model that a client sees, in its order, and the state that is carried."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    state: tuple[StatePair, ...] = ()

    @property
    def fingerprint(self) -> int:
        """First 8 bytes of the SHA-256 of a canonical encoding: the same on every machine."""
        tensors = [
            [[tensor.name, int(tensor.dtype), list(tensor.shape)] for tensor in group]
            for group in (self.inputs, self.outputs)
        ]
        return int.from_bytes(hashlib.sha256(msgpack.packb(tensors)).digest()[:8], "little")

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs, outputs, and what is carried."""
        return (*self.inputs, *self.outputs, *(pair.tensor for pair in self.state))

    @property
    def dim_names(self) -> list[str]:
        """Names of the dynamic dimensions, each once, in order of appearance."""
        dims = (dim for tensor in self.tensors for dim in tensor.shape)
        return list(dict.fromkeys(dim for dim in dims if isinstance(dim, str)))

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form: `inputs`, `outputs` and `carried`."""
        return {
            "inputs": [tensor.describe() for tensor in self.inputs],
            "outputs": [tensor.describe() for tensor in self.outputs],
            "carried": [pair.describe() for pair in self.state],
        }

    def _advice(self, missing: Sequence[str]) -> str:
        """Say of which dimensions without maximum nobody may know one."""
        asked = (*self.inputs, *(pair.tensor for pair in self.state))
        known = {dim for tensor in asked for dim in tensor.shape}
        guessed = ", ".join(shown(name) for name in missing if name not in known)
        if not guessed:
            return ""
        grows = "where the client grows (OCaml's run_growing)"
        return f"; only outputs have {guessed}: a small guess will do {grows}"

    def bind(self, maxima: Mapping[str, int], text_bytes: int | None = None) -> tuple[TensorSpec, ...]:
        """Give every dynamic dimension its maximum: the channel's tensors, inputs first.

        Each string tensor gets room for `text_bytes` of text, or what usually suffices.

        Raises BAD_DIMS for a dimension without maximum, a maximum without dimension, and an unusable number.
        """
        names = self.dim_names
        if maxima and not names:
            first = shown(next(iter(maxima)))
            raise _bad_dims(f"the model has no dynamic dimension: `dims` must be empty, got {first}")
        for name, most in maxima.items():
            if name not in names:
                raise _bad_dims(f"no dimension of the model is called {shown(name)}: {hint(name, names)}")
            if not 1 <= most <= LARGEST_DIM:
                raise _bad_dims(
                    f"dimension {shown(name)}: expected a maximum from 1 to {LARGEST_DIM}, got {most}"
                )
        missing = [name for name in names if name not in maxima]
        if missing:
            listed = ", ".join(shown(name) for name in missing)
            told = f"dimension {listed} of the model is dynamic: give its maximum in `dims` at open"
            raise _bad_dims(told + self._advice(missing))
        return tuple(
            _spec(tensor, output, maximum_dims(tensor, maxima), text_bytes)
            for output, group in ((False, self.inputs), (True, self.outputs))
            for tensor in group
        )

    def bind_state(self, maxima: Mapping[str, int]) -> tuple[TensorSpec, ...]:
        """Give carried tensors their largest size, once `bind` has found nothing wrong."""
        carried = (pair.tensor for pair in self.state)
        return tuple(
            TensorSpec(tensor.name, tensor.dtype, False, tensor.dynamic, maximum_dims(tensor, maxima))
            for tensor in carried
        )


def signature_of(body: Mapping[str, Any]) -> Signature:
    """Read `inputs`, `outputs` and `carried` in the protocol's form; PROTOCOL when they are not."""
    signature = Signature(
        tensors_of(body.get("inputs")), tensors_of(body.get("outputs")), _pairs(body.get("carried", []))
    )
    count = len(signature.inputs) + len(signature.outputs)
    if count > MAX_TENSORS:
        raise SidecamlError(
            ErrorCode.UNSUPPORTED,
            f"the model has {count} inputs and outputs: a channel carries at most {MAX_TENSORS}",
        )
    return signature


def tensors_of(value: object) -> tuple[Tensor, ...]:
    """Read one of them; PROTOCOL when it is not in the protocol's form."""
    if not isinstance(value, list):
        raise _bad_form("a list of tensors", value)
    return tuple(_tensor(item) for item in value)


def _pairs(value: object) -> tuple[StatePair, ...]:
    if not isinstance(value, list):
        raise _bad_form("a list of carried tensors", value)
    return tuple(map(_pair, value))


def _pair(value: object) -> StatePair:
    if not isinstance(value, dict) or not isinstance(value.get("output"), str):
        raise _bad_form("a carried tensor with its output", value)
    return StatePair(value["output"], _tensor(value))


def _tensor(value: object) -> Tensor:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise _bad_form("a tensor with a name", value)
    if "\0" in value["name"]:
        raise SidecamlError(
            ErrorCode.UNSUPPORTED,
            f"the tensor's name {shown(value['name'])} holds a NUL: rename it in the model",
        )
    try:
        dtype = Dtype[str(value.get("dtype")).upper()]
    except KeyError:
        raise _bad_form(f"the dtype of tensor {shown(value['name'])}", value.get("dtype")) from None
    return Tensor(value["name"], dtype, _shape(value["name"], value.get("shape")))


def _shape(name: str, value: object) -> tuple[int | str, ...]:
    if not isinstance(value, list) or not all(_is_dim(dim) for dim in value):
        raise _bad_form(f"the shape of tensor {shown(name)}", value)
    if len(value) > MAX_RANK:
        raise SidecamlError(
            ErrorCode.UNSUPPORTED,
            f"tensor {shown(name)} has {len(value)} dimensions: at most {MAX_RANK} are carried",
        )
    return tuple(value)


def _is_dim(dim: object) -> bool:
    if isinstance(dim, str):
        return bool(dim)
    return isinstance(dim, int) and not isinstance(dim, bool) and 0 <= dim <= LARGEST_DIM


def _spec(tensor: Tensor, output: bool, max_dims: tuple[int, ...], text_bytes: int | None) -> TensorSpec:
    if tensor.dtype is not Dtype.STRING:
        text_bytes = 0
    elif text_bytes is None:
        text_bytes = max(TEXT_BYTES_OF_ONE * math.prod(max_dims), LEAST_TEXT_BYTES)
    return TensorSpec(tensor.name, tensor.dtype, output, tensor.dynamic, max_dims, text_bytes)


def maximum_dims(tensor: Tensor, maxima: Mapping[str, int]) -> tuple[int, ...]:
    """Give every dynamic dimension its maximum."""
    return tuple(maxima[dim] if isinstance(dim, str) else dim for dim in tensor.shape)


def _bad_dims(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.BAD_DIMS, what)


def _bad_form(expected: str, found: object) -> SidecamlError:
    return SidecamlError(ErrorCode.PROTOCOL, f"a model's signature: expected {expected}, got {shown(found)}")


def text_of(tensors: Iterable[Tensor]) -> str:
    """Show tensors on one line for people: `x float32[1,64], n int64[]`."""
    return ", ".join(f"{tensor.name} {tensor.type_text}" for tensor in tensors) or "none"
