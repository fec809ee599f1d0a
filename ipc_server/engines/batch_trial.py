"""Runs of a model on items in private memory: together or alone, wherever slots could lie."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc_server.batching import ITEM_ALIGN, LEAST_BATCH, SHARED, is_aligned, item_bytes, lies_in_rows
from ipc_server.engines.batch_items import Array, extreme_items, random_items
from ipc_server.engines.batch_plan import At, NotBatched, Plan
from ipc_server.engines.onnx_binding import Loaded
from ipc_server.engines.onnx_session import IoBinding
from ipc_server.messages import shown
from ipc_server.signature import Tensor
from ipc_server.tensor import NUMPY_DTYPE, size_of

# Every array of a segment begins on it, and so does what is gathered.
ARRAY_ALIGN = 64
# What a batch's inputs and outputs may take in the test, which holds them some five times over.
LARGEST_BYTES = 2**26
# A run is timed so often, or for so long, and never less than LEAST_TIMED.
TIMED_RUNS = 9
LEAST_TIMED = 3
TIMED_NS = 20_000_000

# By tensor: how far behind a multiple of ARRAY_ALIGN it begins.
Starts = tuple[int, ...]


class RunFailed(Exception):
    """The model could not be run on what it was given."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Random items of every batched input, and one value of each shared one, by the input's number."""

    items: Sequence[Array]

    def batch(self, rows: Sequence[int], axes: Sequence[int]) -> list[Array]:
        """Put rows together."""
        return [
            whole if axis == SHARED else np.concatenate([whole[row] for row in rows], axis)
            for whole, axis in zip(self.items, axes, strict=False)
        ]

    def mixed(self, other: Pool, parity: int, axes: Sequence[int]) -> Pool:
        """Give a pool that has every other row of another one."""
        items = [
            mine if axis == SHARED else np.where(_is_odd(mine) == parity, theirs, mine)
            for mine, theirs, axis in zip(self.items, other.items, axes, strict=False)
        ]
        return Pool(items)


def _is_odd(items: Array) -> NDArray[np.bool_]:
    odd: NDArray[np.bool_] = np.array([row % 2 == 1 for row in range(len(items))])
    return odd.reshape(-1, *[1] * (items.ndim - 1))


class Trial:
    """A model at certain sizes of its other dimensions, in memory of its own for `most` rows or fewer."""

    def __init__(self, model: Loaded, plan: Plan, at: At, most: int) -> None:
        """Make the memory, for as many rows as LARGEST_BYTES hold.

        NotBatched where only a run can tell the size of an output, and for rows that are too large.
        """
        self._model = model
        self._plan = plan
        self.at = at
        signature = model.signature
        self.tensors: tuple[Tensor, ...] = (*signature.inputs, *signature.outputs)
        self.axes = plan.axes
        self._inputs = len(signature.inputs)
        self._dims_of: dict[int, list[tuple[int, ...]]] = {}
        self._item_dims = self._dims(1)
        self.most = min(most, self._most_rows())
        if self.most < LEAST_BATCH:
            raise NotBatched(f"two rows of it take more than the {LARGEST_BYTES} bytes that are tested with")
        self._memory = [
            np.zeros(size_of(tensor.dtype, dims) + 2 * ARRAY_ALIGN, np.uint8)
            for tensor, dims in zip(self.tensors, self._dims(self.most), strict=True)
        ]

    def _most_rows(self) -> int:
        rows = zip(self.tensors, self._item_dims, self.axes, strict=True)
        size = sum(item_bytes(tensor.dtype, dims, axis) for tensor, dims, axis in rows if axis != SHARED)
        return LARGEST_BYTES // max(size, 1)

    def _dims(self, rows: int) -> list[tuple[int, ...]]:
        """Give the dims of every tensor."""
        if rows not in self._dims_of:
            self._dims_of[rows] = self._dims_with(rows)
        return self._dims_of[rows]

    def _dims_with(self, rows: int) -> list[tuple[int, ...]]:
        sizes = {**self.at.sizes, self._plan.dim: rows}
        given = [
            tuple(sizes[dim] if isinstance(dim, str) else dim for dim in tensor.shape)
            for tensor in self._model.signature.inputs
        ]
        dynamic = [
            dims for tensor, dims in zip(self._model.signature.inputs, given, strict=True) if tensor.dynamic
        ]
        known = self._model.tensors.request_dims(dynamic)[len(given) :]
        for tensor, dims in zip(self._model.signature.outputs, known, strict=True):
            if dims is None:
                raise NotBatched(f"the size of its output {shown(tensor.name)} is known only after a run")
            given.append(dims)
        return given

    # --- Where tensors may begin ----------------------------------------------------------------------------

    @cached_property
    def starts(self) -> list[Starts]:
        """Give every way in which they can begin, the one where all of them are gathered first."""
        steps = [
            item_bytes(tensor.dtype, dims, axis) if lies else 0
            for tensor, dims, axis, lies in zip(
                self.tensors, self._item_dims, self.axes, self._lie_in_place, strict=True
            )
        ]
        together = [
            tuple(slot * step % ARRAY_ALIGN for step in steps) for slot in range(ARRAY_ALIGN // ITEM_ALIGN)
        ]
        # One whose places are not full is gathered while others lie in place.
        apart = [] if not self._plan.sizes else [_halves(starts, self._inputs) for starts in together]
        every = [*together, *(starts for pair in apart for starts in pair)]
        return list(dict.fromkeys(every))

    @property
    def gathered(self) -> Starts:
        """Give the way in which they begin after copying."""
        return self.starts[0]

    @property
    def lies_in_place(self) -> bool:
        """Whether some tensor's slots may lie side by side at all, at these sizes."""
        return any(self._lie_in_place)

    @cached_property
    def _lie_in_place(self) -> list[bool]:
        return [
            lies_in_rows(tensor, axis) and is_aligned(tensor.dtype, dims, axis)
            for tensor, dims, axis in zip(self.tensors, self._item_dims, self.axes, strict=True)
        ]

    # --- Items ----------------------------------------------------------------------------------------------

    def pool(
        self,
        random: np.random.Generator,
        rows: int,
        span: int,
        *,
        uneven: bool = False,
        extreme: bool = False,
    ) -> Pool:
        """Draw items for so many rows."""
        items = []
        for tensor, dims, axis in zip(self.tensors[: self._inputs], self._item_dims, self.axes, strict=False):
            if tensor.name in self.at.values:
                items.append(np.full(dims, self.at.values[tensor.name], NUMPY_DTYPE[tensor.dtype]))
            elif axis == SHARED:
                items.append(random_items(random, tensor.dtype, (1, *dims), span, uneven=False)[0])
            elif extreme:
                items.append(extreme_items(random, tensor.dtype, (rows, *dims), span))
            else:
                items.append(random_items(random, tensor.dtype, (rows, *dims), span, uneven=uneven))
        return Pool(items)

    # --- Runs -----------------------------------------------------------------------------------------------

    def run(self, arrays: Sequence[Array], rows: int, starts: Starts) -> list[Array]:
        """Run once; the outputs, copied. RunFailed."""
        binding = self._filled(arrays, rows, starts)
        self._run(binding)
        self._check_place(binding, rows, starts)
        return [self._seen(number, rows, starts).copy() for number in range(self._inputs, len(self.tensors))]

    def time(self, arrays: Sequence[Array], rows: int) -> tuple[int, int]:
        """Measure some runs, in nanoseconds: the shortest, and the median.

        On ordinary numbers: denormals among them take some processors ten times as long.
        """
        binding = self._filled(arrays, rows, self.gathered)
        times: list[int] = []
        while len(times) < LEAST_TIMED or (len(times) < TIMED_RUNS and sum(times) < TIMED_NS):
            began = time.perf_counter_ns()
            self._run(binding)
            times.append(time.perf_counter_ns() - began)
        return min(times), sorted(times)[len(times) // 2]

    def time_copying(self) -> tuple[float, float]:
        """Measure the copying of one row to or from a slot of its own, in nanoseconds.

        Of every tensor, and of those alone that do not lie in place when slots are neighbours.
        """
        times = [
            0.0 if axis == SHARED else _copying_ns(tensor, dims, axis)
            for tensor, dims, axis in zip(self.tensors, self._item_dims, self.axes, strict=True)
        ]
        rest = sum(took for took, lies in zip(times, self._lie_in_place, strict=True) if not lies)
        return sum(times), rest

    def _filled(self, arrays: Sequence[Array], rows: int, starts: Starts) -> IoBinding:
        binding = self._bind(rows, starts)
        for number, array in enumerate(arrays):
            self._seen(number, rows, starts)[...] = array
        return binding

    def _bind(self, rows: int, starts: Starts) -> IoBinding:
        binding = self._model.session.bind()
        for number, (tensor, dims) in enumerate(zip(self.tensors, self._dims(rows), strict=True)):
            bind = binding.bind_input if number < self._inputs else binding.bind_output
            bind(tensor.name, tensor.dtype, dims, self._address(number, starts))
        return binding

    def _run(self, binding: IoBinding) -> None:
        try:
            binding.run()
        except Exception as error:
            raise RunFailed(self._model.session.explain(error)) from error

    def _check_place(self, binding: IoBinding, rows: int, starts: Starts) -> None:
        values = binding.outputs()
        for number, (dims, address, size) in enumerate(values, self._inputs):
            tensor = self.tensors[number]
            if size and address != self._address(number, starts):
                raise NotBatched(f"its output {shown(tensor.name)} is not written where it is told to")
            if dims != self._dims(rows)[number]:
                raise NotBatched(f"its output {shown(tensor.name)} has other dimensions than declared")

    def _address(self, number: int, starts: Starts) -> int:
        return self._offset(number, starts) + self._memory[number].ctypes.data

    def _offset(self, number: int, starts: Starts) -> int:
        return -self._memory[number].ctypes.data % ARRAY_ALIGN + starts[number]

    def _seen(self, number: int, rows: int, starts: Starts) -> Array:
        """See a tensor of so many rows where it lies."""
        tensor, dims = self.tensors[number], self._dims(rows)[number]
        offset = self._offset(number, starts)
        data = self._memory[number][offset : offset + size_of(tensor.dtype, dims)]
        return data.view(NUMPY_DTYPE[tensor.dtype]).reshape(dims)


def _halves(starts: Starts, inputs: int) -> tuple[Starts, Starts]:
    """Give inputs in place with outputs gathered, and the other way round."""
    zeros = (0,) * len(starts)
    return (*starts[:inputs], *zeros[inputs:]), (*zeros[:inputs], *starts[inputs:])


def _copying_ns(tensor: Tensor, dims: tuple[int, ...], axis: int) -> float:
    """Time how long one row of many takes, whose slots are further apart than the row is long."""
    rows = 32
    kind = NUMPY_DTYPE[tensor.dtype]
    outer, inner = int(np.prod(dims[:axis])), int(np.prod(dims[axis + 1 :]))
    slots: NDArray[Any] = np.zeros((rows, outer, inner + ARRAY_ALIGN), kind)
    together: NDArray[Any] = np.zeros((outer, rows, inner), kind)
    source = slots[:, :, :inner].transpose(1, 0, 2)
    times = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter_ns()
        together[...] = source
        times.append(time.perf_counter_ns() - began)
    return sorted(times)[len(times) // 2] / rows
