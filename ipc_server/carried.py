"""Which tensors of a model are its state, and what is left for clients to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.signature import Signature, StatePair, Tensor
from ipc_server.suggest import hint


@dataclass(frozen=True)
class Carried:
    """A model's signature, whole and as clients see it.

    Where nothing else is said, tensors are numbered as in the whole one, inputs first.
    """

    whole: Signature
    visible: Signature
    # Of a tensor that clients see, its number for them.
    seen: Mapping[int, int]
    # Of one that is carried, the index of its pair.
    pair_of: Mapping[int, int]
    # The carried inputs.
    inputs: frozenset[int]

    @property
    def dynamic_inputs(self) -> list[int]:
        """Number the inputs whose dimensions clients give, as clients do."""
        return [number for number, tensor in enumerate(self.visible.inputs) if tensor.dynamic]


def carry(whole: Signature, pairs: Mapping[str, str]) -> Carried:
    """Take the pairs, from output to input, out of a signature: MODEL_FAILED where that cannot be."""
    _refuse_twice(list(pairs.values()))
    found = sorted(
        (taken, given)
        for given, taken in [
            (_index("output", whole.outputs, given), _index("input", whole.inputs, taken))
            for given, taken in pairs.items()
        ]
    )
    state = tuple(_pair(whole.outputs[given], whole.inputs[taken]) for taken, given in found)
    first_output = len(whole.inputs)
    pair_of = {taken: index for index, (taken, _) in enumerate(found)}
    pair_of |= {first_output + given: index for index, (_, given) in enumerate(found)}
    numbers = range(first_output + len(whole.outputs))
    visible = Signature(
        tuple(tensor for number, tensor in enumerate(whole.inputs) if number not in pair_of),
        tuple(tensor for number, tensor in enumerate(whole.outputs, first_output) if number not in pair_of),
        state,
    )
    seen = {number: place for place, number in enumerate(n for n in numbers if n not in pair_of)}
    return Carried(whole, visible, seen, pair_of, frozenset(taken for taken, _ in found))


def _pair(output: Tensor, taken: Tensor) -> StatePair:
    if "STRING" in (output.dtype.name, taken.dtype.name):
        raise _bad(
            f"output {shown(output.name)} to input {shown(taken.name)}: strings are not carried, for their "
            "size is never known beforehand"
        )
    agree = output.dtype is taken.dtype and len(output.shape) == len(taken.shape)
    if not agree or not all(map(_fit, output.shape, taken.shape)):
        raise _bad(
            f"output {shown(output.name)} is {shown(output.type_text)} and input {shown(taken.name)} is "
            f"{shown(taken.type_text)}: both must have the same element type and the same dimensions"
        )
    # Where either says how large it is, both are.
    shape = tuple(map(_known, taken.shape, output.shape))
    return StatePair(output.name, Tensor(taken.name, taken.dtype, shape))


def _fit(one: int | str, other: int | str) -> bool:
    return isinstance(one, str) or isinstance(other, str) or one == other


def _known(taken: int | str, given: int | str) -> int | str:
    return given if isinstance(taken, str) and isinstance(given, int) else taken


def _index(kind: str, tensors: Sequence[Tensor], name: str) -> int:
    names = [tensor.name for tensor in tensors]
    if name not in names:
        raise _bad(f"no {kind} of the model is called {shown(name)}: {hint(name, names)}")
    return names.index(name)


def _refuse_twice(inputs: Sequence[str]) -> None:
    for name in inputs:
        if inputs.count(name) > 1:
            raise _bad(f"input {shown(name)} is named twice: it can be the state of one output only")


def _bad(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.MODEL_FAILED, f"state: {what}")
