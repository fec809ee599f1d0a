"""How requests of a model are run together: what counts them, what was proven of it, and what it costs.

A worker finds it out when it loads the model (`engines/certificate.py`) and tells the supervisor, which hands
it to the workers that come after and shows it to clients. Nothing in here touches a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ipc_server import orders
from ipc_server.abi import DTYPE_BITS, Dtype
from ipc_server.messages import shorten
from ipc_server.signature import Signature, Tensor, TensorSpec

# Where neighbouring slots lie side by side, each begins on so many bytes: results may depend on alignment.
ITEM_ALIGN = 16
MOST_WHY = 400
# Rows: fewer are no batch.
LEAST_BATCH = 2
# Of a tensor that every request of a batch has the same.
SHARED = -1


@dataclass(frozen=True, slots=True)
class Batching:
    """What is known of running a model's requests together. Rows are counted along the batch's dimension."""

    # Its name; "" where nothing counts requests.
    dim: str = ""
    # `exact`, `ulp N`, `any` or `off`.
    policy: str = "off"
    # Rows that one run takes at most. 1: requests run one by one, and `why`.
    most: int = 1
    # What limits it; "" where nothing does but the configuration.
    why: str = ""
    # Fewest rows for which copying them together and apart again beats running them apart; 0: it never does.
    gather_from: int = 0
    # Fewest neighbouring rows for which copying what does not lie in place does; 0: it never does.
    rest_from: int = 0
    # Whether slots may lie side by side, and be run where they lie.
    in_place: bool = False
    # By tensor, inputs first: the axis of the dimension, or SHARED.
    axes: tuple[int, ...] = ()
    shared: tuple[str, ...] = ()
    # Sizes of the other dynamic dimensions at which it holds; of one that is not named, every size.
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # Nanoseconds of a run, by its rows; 0 where not known.
    costs_ns: tuple[int, ...] = ()
    # What it holds for: another file, library, processor or setting needs another proof.
    key: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_on(self) -> bool:
        """Whether requests are ever run together."""
        return self.most > 1

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form of what clients are told."""
        return {
            "dim": self.dim,
            "policy": self.policy,
            "most": self.most,
            "why": self.why,
            "gather_from": self.gather_from,
            "rest_from": self.rest_from,
            "in_place": self.in_place,
            "shared": list(self.shared),
            "sizes": {name: list(sizes) for name, sizes in self.sizes.items()},
        }

    def record(self) -> dict[str, Any]:
        """Give all of it, as `batching_of` reads it."""
        return self.describe() | {
            "axes": list(self.axes),
            "costs_ns": list(self.costs_ns),
            "key": dict(self.key),
        }

    def packed(self, signature: Signature, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """Mark the tensors of a channel whose slots lie side by side, so that neighbours are one tensor."""
        if not self.is_on or not self.in_place:
            return tuple(specs)
        tensors = (*signature.inputs, *signature.outputs)
        return tuple(
            replace(spec, packed=lies_in_rows(tensor, axis) and is_aligned(spec.dtype, spec.max_dims, axis))
            for tensor, spec, axis in zip(tensors, specs, self.axes, strict=True)
        )

    def holds_for(self, signature: Signature, dims: Sequence[tuple[int, tuple[int, ...]]]) -> bool:
        """Whether requests of these dimensions may be batched: of each dynamic tensor, by its number."""
        tensors = (*signature.inputs, *signature.outputs)
        named = {
            name: size
            for number, sizes in dims
            for name, size in zip(tensors[number].shape, sizes, strict=True)
            if isinstance(name, str)
        }
        return all(named.get(name) in sizes for name, sizes in self.sizes.items())


def not_batched(why: str, policy: str = "off", **known: Any) -> Batching:
    """Give what is said of a model whose requests run one by one."""
    return Batching(policy=policy, why=shorten(why, MOST_WHY), **known)


def lies_in_rows(tensor: Tensor, axis: int) -> bool:
    """Whether its items follow each other in memory: nothing but dimensions of 1 comes before the batch's."""
    return axis != SHARED and all(dim == 1 for dim in tensor.shape[:axis])


def item_bytes(dtype: Dtype, dims: Sequence[int], axis: int) -> int:
    """Count the bytes of one row of a tensor."""
    return math.prod((*dims[:axis], *dims[axis + 1 :])) * DTYPE_BITS[dtype] // 8


def is_aligned(dtype: Dtype, dims: Sequence[int], axis: int) -> bool:
    """Whether rows that lie side by side each begin where results do not depend on it."""
    size = item_bytes(dtype, dims, axis)
    return size > 0 and size % ITEM_ALIGN == 0


def batching_of(body: Mapping[str, Any]) -> Batching:
    """Read what `record` or `describe` gave; PROTOCOL when it is neither."""
    return Batching(
        dim=orders.optional(body, "dim", ""),
        policy=orders.optional(body, "policy", "off"),
        most=orders.count(body, "most"),
        why=orders.optional(body, "why", ""),
        gather_from=orders.count(body, "gather_from"),
        rest_from=orders.optional(body, "rest_from", 0),
        in_place=orders.optional(body, "in_place", False),
        axes=orders.numbers(body, "axes", least=SHARED),
        shared=orders.texts(orders.optional(body, "shared", []), "shared"),
        sizes=orders.sizes(body, "sizes"),
        costs_ns=orders.numbers(body, "costs_ns"),
        key=orders.optional(body, "key", {}),
    )
