"""Which dimension of a model counts the requests of a batch, and at which sizes of others that is tested."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ipc_server.abi import Dtype
from ipc_server.batching import SHARED
from ipc_server.messages import shown
from ipc_server.settings import Settings
from ipc_server.signature import Signature, Tensor
from ipc_server.suggest import hint
from ipc_server.tensor import is_packed


class NotBatched(Exception):
    """Says why a model's requests run one by one."""


@dataclass(frozen=True, slots=True)
class At:
    """Where a test is made: sizes of the other dynamic dimensions, values of shared inputs, by name."""

    sizes: Mapping[str, int]
    values: Mapping[str, int]

    @property
    def text(self) -> str:
        """Say it, after a verb; empty where there is nothing to say."""
        chosen = {**self.sizes, **self.values}
        return "".join(f", {name} = {value}" for name, value in chosen.items())


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be tested."""

    dim: str
    # By tensor, inputs first.
    axes: tuple[int, ...]
    # Inputs that all requests of a batch have the same.
    shared: tuple[str, ...]
    # Sizes of the other dynamic dimensions of inputs; values of shared inputs that are not random.
    sizes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, tuple[int, ...]]

    def places(self) -> Iterator[At]:
        """Give every combination."""
        for sizes in itertools.product(*self.sizes.values()):
            for values in itertools.product(*self.values.values()):
                yield At(
                    dict(zip(self.sizes, sizes, strict=True)), dict(zip(self.values, values, strict=True))
                )


def plan_for(signature: Signature, settings: Settings) -> Plan:
    """Find it out from the names of dimensions and what the configuration says; NotBatched."""
    tensors = (*signature.inputs, *signature.outputs)
    for tensor in tensors:
        if tensor.dtype is Dtype.STRING or is_packed(tensor.dtype):
            kind = tensor.dtype.name.lower()
            raise NotBatched(
                f"{shown(tensor.name)} is of type {kind}, whose items are no whole bytes in place"
            )
    dim = _dimension(signature, settings.batch_dim)
    axes = tuple(tensor.shape.index(dim) if dim in tensor.shape else SHARED for tensor in tensors)
    shared = tuple(tensor.name for tensor in signature.inputs if dim not in tensor.shape)
    others = _names(signature.inputs, but=dim)
    _refuse_unknown(settings.batch_at, (*others, *shared))
    return Plan(
        dim,
        axes,
        shared,
        {name: _sizes(name, settings) for name in others},
        {name: settings.batch_at[name] for name in shared if name in settings.batch_at},
    )


def _dimension(signature: Signature, wanted: str) -> str:
    names = _names((*signature.inputs, *signature.outputs))
    if not names:
        raise NotBatched(
            "no dimension of it is dynamic: export it with one that counts requests, such as float32[N,64]"
        )
    able = [name for name in names if _counts_items(name, signature)]
    if wanted:
        if wanted in able:
            return wanted
        if wanted not in names:
            raise NotBatched(f"batch_dim: no dimension is called {shown(wanted)}: {hint(wanted, names)}")
        raise NotBatched(f"batch_dim: {shown(wanted)} does not stand {_EVERYWHERE}")
    first = [name for name in able if _comes_first(name, signature)]
    chosen = first if len(first) == 1 else able
    if not chosen:
        raise NotBatched(f"none of its dynamic dimensions stands {_EVERYWHERE}")
    if len(chosen) > 1:
        listed = " or ".join(map(shown, chosen))
        raise NotBatched(f"{listed} may count requests: say which by batch_dim")
    return chosen[0]


_EVERYWHERE = "once in every output and in some input, and in no tensor twice"


def _counts_items(name: str, signature: Signature) -> bool:
    """Whether every output has one item for each size of it, and some input, too."""
    inputs = [tensor.shape.count(name) for tensor in signature.inputs]
    outputs = [tensor.shape.count(name) for tensor in signature.outputs]
    return bool(outputs) and set(outputs) == {1} and 1 in inputs and max(inputs) == 1


def _comes_first(name: str, signature: Signature) -> bool:
    return all(
        tensor.shape[0] == name for tensor in (*signature.inputs, *signature.outputs) if name in tensor.shape
    )


def _names(tensors: Sequence[Tensor], but: str = "") -> list[str]:
    dims = (dim for tensor in tensors for dim in tensor.shape if isinstance(dim, str) and dim != but)
    return list(dict.fromkeys(dims))


def _sizes(name: str, settings: Settings) -> tuple[int, ...]:
    if name in settings.batch_at:
        return settings.batch_at[name]
    if settings.batching == "any":
        return (1,)
    raise NotBatched(
        f"its dimension {shown(name)} is dynamic as well: say at which sizes to batch, "
        f"batch_at = {{ {name} = [...] }}"
    )


def _refuse_unknown(given: Mapping[str, object], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise NotBatched(
                f"batch_at: {shown(name)} is neither another dynamic dimension of its inputs nor an input "
                f"that is shared: {hint(name, known)}"
            )
