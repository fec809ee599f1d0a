"""How the steps of a pipeline fit together: by the names of their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.signature import Signature, Tensor
from ipc_server.suggest import hint


@dataclass(frozen=True)
class Step:
    """One step, before it is wired."""

    label: str
    signature: Signature
    rename: Mapping[str, str]


@dataclass(frozen=True)
class Wiring:
    """A pipeline's signature, and which of its tensors each step has, inputs first."""

    signature: Signature
    names: tuple[tuple[str, ...], ...]
    # Every tensor by its name in the pipeline.
    tensors: Mapping[str, Tensor]
    # Tensors that a step makes for a later one, or for nobody.
    inner: frozenset[str]


def wire(steps: Sequence[Step], keep: Sequence[str]) -> Wiring:
    """Find out which tensor is which; MODEL_FAILED names the step that does not fit."""
    wires = _Wires()
    names = tuple(wires.add(step) for step in steps)
    outputs = wires.outputs(keep)
    tensors = {name: wires.unified(name) for name in wires.tensors}
    signature = Signature(
        tuple(tensors[name] for name in wires.inputs), tuple(tensors[name] for name in outputs)
    )
    return Wiring(
        signature,
        names,
        tensors,
        frozenset(wires.taken & wires.makers.keys() | wires.makers.keys() - set(outputs)),
    )


class _Wires:
    """What the steps so far have made of the pipeline."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        self.makers: dict[str, str] = {}
        self.taken: set[str] = set()
        # What a name of a dimension stands for, where that is a size or another name.
        self._same: dict[str, int | str] = {}

    def add(self, step: Step) -> tuple[str, ...]:
        """Add a step; the pipeline's names of its tensors."""
        own = [tensor.name for tensor in (*step.signature.inputs, *step.signature.outputs)]
        for name in step.rename:
            if name not in own:
                raise _failed(step, f"it has no tensor {shown(name)} to rename: {hint(name, own)}")
        names = tuple(step.rename.get(name, name) for name in own)
        count = len(step.signature.inputs)
        for name, tensor in zip(names[:count], step.signature.inputs, strict=True):
            self._take(step, name, tensor)
        for name, tensor in zip(names[count:], step.signature.outputs, strict=True):
            self._make(step, name, tensor)
        if len(set(names[:count])) < count:
            raise _failed(step, "two of its inputs have one name in the pipeline: rename them apart")
        return names

    def outputs(self, keep: Sequence[str]) -> Sequence[str]:
        """Choose what the pipeline gives."""
        for name in keep:
            if name not in self.makers:
                raise SidecamlError(
                    ErrorCode.MODEL_FAILED, f"keep: no step makes {shown(name)}: {hint(name, self.makers)}"
                )
        if len(set(keep)) < len(keep):
            raise SidecamlError(ErrorCode.MODEL_FAILED, "keep: a tensor is named twice")
        return keep or [name for name in self.makers if name not in self.taken]

    def unified(self, name: str) -> Tensor:
        """Give a tensor with its name and its dimensions as the whole pipeline has them."""
        tensor = self.tensors[name]
        return Tensor(name, tensor.dtype, tuple(self._resolved(dim) for dim in tensor.shape))

    def _take(self, step: Step, name: str, tensor: Tensor) -> None:
        if name not in self.tensors:
            self.inputs.append(name)
            self.tensors[name] = tensor
            return
        if name in self.makers:
            self.taken.add(name)
        known = self.tensors[name]
        if known.dtype != tensor.dtype or len(known.shape) != len(tensor.shape):
            raise self._unfit(step, name, tensor)
        for ours, theirs in zip(known.shape, tensor.shape, strict=True):
            if not self._unify(ours, theirs):
                raise self._unfit(step, name, tensor)

    def _make(self, step: Step, name: str, tensor: Tensor) -> None:
        if name in self.tensors:
            maker = self.makers.get(name, "an input of the pipeline")
            raise _failed(step, f"it makes {shown(name)}, which there is already ({maker}): rename one")
        self.tensors[name] = tensor
        self.makers[name] = step.label

    def _unify(self, one: int | str, other: int | str) -> bool:
        one, other = self._resolved(one), self._resolved(other)
        if isinstance(other, str) and one != other:
            self._same[other] = one
        elif isinstance(one, str) and one != other:
            self._same[one] = other
        return isinstance(one, str) or isinstance(other, str) or one == other

    def _resolved(self, dim: int | str) -> int | str:
        while isinstance(dim, str) and dim in self._same:
            dim = self._same[dim]
        return dim

    def _unfit(self, step: Step, name: str, tensor: Tensor) -> SidecamlError:
        known = self.unified(name)
        maker = self.makers.get(name, "an earlier step takes it so")
        return _failed(
            step, f"it takes {shown(name)} as {tensor.type_text}, which is {known.type_text} ({maker})"
        )


def _failed(step: Step, why: str) -> SidecamlError:
    return SidecamlError(ErrorCode.MODEL_FAILED, f"{step.label}: {why}")
