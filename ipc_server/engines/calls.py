"""How a function is called with tensors: which parameter is which, and what its answer holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipc_server.messages import shown
from ipc_server.signature import Signature, Tensor
from ipc_server.suggest import hint

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


@dataclass(slots=True)
class Plan:
    """Tensors by their number, inputs first: given by place, given by name, and expected in the answer."""

    by_place: list[int] = field(default_factory=list)
    by_name: dict[str, int] = field(default_factory=dict)
    returned: list[int] = field(default_factory=list)

    @property
    def given(self) -> set[int]:
        """All tensors that are parameters."""
        return {*self.by_place, *self.by_name.values()}


class MismatchError(Exception):
    """A function and a signature that do not fit, or an answer that is not as the signature says."""


def plan(function: Callable[..., Any], signature: Signature) -> Plan:
    """Find out which parameter gets which tensor; an output that is a parameter is written in place."""
    numbers = {tensor.name: number for number, tensor in enumerate((*signature.inputs, *signature.outputs))}
    count = len(signature.inputs)
    chosen = Plan()
    for parameter in _parameters(function):
        _place(parameter, numbers, count, chosen)
    missing = [tensor for number, tensor in enumerate(signature.inputs) if number not in chosen.given]
    if missing:
        raise MismatchError(f"it has no parameter for the input {shown(missing[0].name)}")
    chosen.returned = [number for number in range(count, len(numbers)) if number not in chosen.given]
    return chosen


def _parameters(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # What is written in C need not say what it takes.
        return [inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)]


def _place(parameter: inspect.Parameter, numbers: Mapping[str, int], inputs: int, chosen: Plan) -> None:
    left = [number for number in range(inputs) if number not in chosen.given]
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        chosen.by_place += left
    elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
        chosen.by_name |= {name: numbers[name] for name in numbers if numbers[name] in left}
    elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY and left:
        chosen.by_place.append(left[0])
    elif parameter.name in numbers and parameter.kind not in _BY_PLACE:
        chosen.by_name[parameter.name] = numbers[parameter.name]
    elif parameter.default is inspect.Parameter.empty:
        raise MismatchError(
            f"its parameter {shown(parameter.name)} is neither an input nor an output: "
            f"{hint(parameter.name, numbers)}"
        )


def answers(
    result: Any, chosen: Plan, tensors: Sequence[Tensor], places: Mapping[int, Any]
) -> list[tuple[int, Any]]:
    """Give what was returned for each output that is not written in place; MismatchError says what is wrong.

    `places` has the views of outputs, by number: whoever returns one of those has nothing more to say.
    """
    wanted = chosen.returned
    if isinstance(result, Mapping):
        found = _by_name(result, {*wanted, *places}, tensors)
    elif isinstance(result, tuple | list):
        found = _in_order(result, chosen, tensors)
    elif result is None:
        found = {}
    elif len(wanted) == 1 or not wanted:
        found = {(wanted or [len(tensors) - 1])[0]: result}
    else:
        raise MismatchError(
            f"it returned {kind_of(result)}: expected {len(wanted)} arrays, {_names(wanted, tensors)}"
        )
    for number in wanted:
        if number not in found:
            said = "nothing (None)" if result is None else "no such output"
            raise MismatchError(f"it returned {said}: expected {_named(tensors[number])}")
    for number, value in found.items():
        if number not in wanted and value is not places.get(number):
            raise MismatchError(
                f"it returned {kind_of(value)} for the output {shown(tensors[number].name)}, which is a "
                "parameter of it: expected that it writes it in place and returns nothing"
            )
    return [(number, found[number]) for number in wanted]


def _by_name(result: Mapping[Any, Any], outputs: Iterable[int], tensors: Sequence[Tensor]) -> dict[int, Any]:
    numbers = {tensors[number].name: number for number in outputs}
    for name in result:
        if name not in numbers:
            raise MismatchError(f"it returned {shown(name)}, which is no output: {hint(str(name), numbers)}")
    return {numbers[name]: value for name, value in result.items()}


def _in_order(result: Sequence[Any], chosen: Plan, tensors: Sequence[Tensor]) -> dict[int, Any]:
    wanted = chosen.returned
    if len(result) != len(wanted):
        raise MismatchError(
            f"it returned {len(result)} values: expected {len(wanted)}, {_names(wanted, tensors) or 'none'}"
        )
    return dict(zip(wanted, result, strict=True))


def kind_of(value: Any) -> str:
    """Say what a value is."""
    return f"a {type(value).__name__}"


def _named(tensor: Tensor) -> str:
    return f"the output {shown(tensor.name)} {tensor.type_text}"


def _names(numbers: Sequence[int], tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{tensors[number].name} {tensors[number].type_text}" for number in numbers)
