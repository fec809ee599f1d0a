"""State that the worker carries from request to request, for every engine.

An output becomes an input of the channel's next request: both lie in the channel's journal, two places for
each pair, and no client sees them. One of the two is read and the other written, so that nothing is copied
and a run that fails changes nothing: only after one that succeeded does the other become the one to read.
Which one it is, is committed with the answer, so a successor of this worker goes on from there; what the dead
one may have written to the other place is written again.

The engine is attached once for each of the two ways round. What the channel's state is to the lane is a
number: its lowest bit says which place is read, the rest stands for the sizes that the state has, 0 while it
is all zeros and may get any. Where nothing but that bit changes, the native lane goes on by itself.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ipc_server.abi import MAX_RANK, TENSOR_ALIGN, ErrorCode
from ipc_server.carried import Carried, carry
from ipc_server.engines import Engine, Journal, Native, Runner, ServedChannel
from ipc_server.errors import SidecamlError
from ipc_server.journal import state_layout
from ipc_server.messages import shown
from ipc_server.signature import Signature, StatePair, TensorSpec, maximum_dims

Dims = tuple[int, ...]

# Sizes of state that are told apart at a time; what came before them gets a new number when it comes again.
MOST_SIZES = 32


class StatefulEngine:
    """An engine whose model has state; clients see the rest of its tensors."""

    def __init__(self, engine: Engine, pairs: Mapping[str, str]) -> None:
        """Check that the pairs can be carried: MODEL_FAILED."""
        self._engine = engine
        self._carried = carry(engine.signature, pairs)

    @property
    def signature(self) -> Signature:
        """What is visible of the model."""
        return self._carried.visible

    @property
    def native(self) -> bool:
        """Whether the engine itself may be."""
        return self._engine.native

    def attach(self, channel: ServedChannel) -> Sequence[Runner]:
        """Prepare every slot, both ways round."""
        state = ChannelState(self._carried, channel)
        ways = [self._engine.attach(state.channel_reading(place)) for place in (0, 1)]
        return [StatefulRunner(state, slot_ways) for slot_ways in zip(*ways, strict=True)]

    def explain(self, error: Exception) -> str:
        """Say it in the engine's words."""
        return self._engine.explain(error)


class ChannelState:
    """The state of one channel, and what its requests make of it."""

    def __init__(self, carried: Carried, channel: ServedChannel) -> None:
        """Begin with zeros. MemoryError when there is no room."""
        self._carried = carried
        self._channel = channel
        self._memory = _Memory(carried.visible.bind_state(channel.maxima), channel.journal)
        # The sizes that the state has; None while it is all zeros.
        self._dims: tuple[Dims, ...] | None = None
        self._numbers: OrderedDict[tuple[Dims, ...], int] = OrderedDict()
        self._latest_number = 0
        # Of the request that runs, each read once.
        self._inputs: dict[int, Dims] = {}
        self._wanted: tuple[Dims, ...] = ()
        if channel.journal:
            self._go_on(channel.journal)

    def _go_on(self, journal: Journal) -> None:
        """Begin where a predecessor left the channel; with zeros if it is new."""
        number = 0
        if journal.carried:
            self._dims = self._wanted = self._memory.read_dims()
            number = self._number()
        else:
            self._memory.clear(journal.place)
        journal.begin_state(number << 1 | journal.place)

    def channel_reading(self, place: int) -> ServedChannel:
        """Give the engine a channel with all of the model's tensors, where state is read at that place."""
        carried = self._carried

        def address(slot: int, number: int) -> int:
            seen = carried.seen.get(number)
            if seen is not None:
                return self._channel.address(slot, seen)
            index = carried.pair_of[number]
            return self._memory.address(index, place if number in carried.inputs else 1 - place)

        return dataclasses.replace(
            self._channel,
            tensors=self._tensors(),
            address=address,
            get_dims=self._get_dims,
            set_dims=self._set_dims,
            set_needed=self._set_needed,
            required_dims=self._required_dims,
        )

    def begin(self) -> int:
        """Look at the request that runs; the place where it reads state. BAD_DIMS where that does not fit."""
        state = self._channel.get_state()
        if self._channel.resets():
            state &= 1
            if self._channel.journal:
                self._channel.journal.drop()
            self._memory.clear(state)
            self._dims = None
            self._channel.set_state(state)
        get_dims = self._channel.get_dims
        self._inputs = {number: get_dims(number) for number in self._carried.dynamic_inputs}
        self._wanted = self._dims_of_request()
        if self._dims is not None and self._dims != self._wanted:
            raise self._other_dims()
        return state & 1

    def advance(self, place: int) -> tuple[int, int]:
        """Go on after a run that succeeded: the state that it began in, and the one it led to."""
        if self._dims is None:
            # While nothing is carried they mean nothing; from the answer on, which commits, they count.
            self._memory.write_dims(self._wanted)
        self._dims = self._wanted
        begun = self._number() << 1 | place
        self._channel.set_state(begun ^ 1)
        return begun, begun ^ 1

    def place(self) -> int:
        """Tell where the channel's next request has to read state."""
        return self._channel.get_state() & 1

    def seen_dims(self, native: Native) -> tuple[tuple[int, Dims], ...]:
        """Leave out what the channel does not have."""
        seen = self._carried.seen
        return tuple((seen[number], dims) for number, dims in native.dims if number in seen)

    def _number(self) -> int:
        """Find the number of the sizes that the state has, or give them the next one."""
        dims = self._wanted
        if dims not in self._numbers:
            self._latest_number += 1
            self._numbers[dims] = self._latest_number
            if len(self._numbers) > MOST_SIZES:
                self._numbers.popitem(last=False)
        self._numbers.move_to_end(dims)
        return self._numbers[dims]

    def _tensors(self) -> tuple[TensorSpec, ...]:
        carried, specs = self._carried, []
        inputs = len(carried.whole.inputs)
        for number, tensor in enumerate((*carried.whole.inputs, *carried.whole.outputs)):
            seen = carried.seen.get(number)
            if seen is not None:
                specs.append(self._channel.tensors[seen])
                continue
            most = self._memory.max_dims(carried.pair_of[number])
            specs.append(TensorSpec(tensor.name, tensor.dtype, number >= inputs, tensor.dynamic, most))
        return tuple(specs)

    def _dims_of_request(self) -> tuple[Dims, ...]:
        """Take the sizes of state from the request's inputs by name, else the largest."""
        sizes = dict(self._channel.maxima)
        for number, dims in self._inputs.items():
            shape = self._carried.visible.inputs[number].shape
            sizes |= {name: size for name, size in zip(shape, dims, strict=True) if isinstance(name, str)}
        return tuple(maximum_dims(pair.tensor, sizes) for pair in self._carried.visible.state)

    # --- What the engine asks -------------------------------------------------------------------------------

    def _get_dims(self, number: int) -> Dims:
        seen = self._carried.seen.get(number)
        if seen is None:
            return self._wanted[self._carried.pair_of[number]]
        return self._inputs[seen] if seen in self._inputs else self._channel.get_dims(seen)

    def _set_dims(self, number: int, dims: Dims) -> None:
        seen = self._carried.seen.get(number)
        if seen is not None:
            self._channel.set_dims(seen, dims)
            return
        index = self._carried.pair_of[number]
        if tuple(dims) != self._wanted[index]:
            raise _grew(self._carried.visible.state[index], dims, self._wanted[index])

    def _set_needed(self, number: int, dims: Dims) -> None:
        seen = self._carried.seen.get(number)
        if seen is not None:
            self._channel.set_needed(seen, dims)

    def _required_dims(self, number: int) -> Dims | None:
        index = self._carried.pair_of.get(number)
        if index is None:
            return self._channel.required_dims(self._carried.seen[number])
        # Before any request, only state whose size is fixed is asked for.
        return self._wanted[index] if self._wanted else self._memory.max_dims(index)

    def _other_dims(self) -> SidecamlError:
        state = zip(self._carried.visible.state, self._dims or (), self._wanted, strict=True)
        pair, had, wanted = next((pair, had, wanted) for pair, had, wanted in state if had != wanted)
        return SidecamlError(
            ErrorCode.BAD_DIMS,
            f"the state of input {shown(pair.tensor.name)} is {_text(had)} and this request's dims make it "
            f"{_text(wanted)}: reset the channel before its dims change",
        )


class StatefulRunner:
    """Runs the requests of one slot, each by the runner that reads state where it is."""

    def __init__(self, state: ChannelState, ways: Sequence[Runner]) -> None:
        """Know both."""
        self._state = state
        self._ways = ways
        self._latest: tuple[Runner, int, int] | None = None

    def run(self) -> None:
        """Run the request, and let the state go on."""
        self._latest = None
        place = self._state.begin()
        runner = self._ways[place]
        runner.run()
        self._latest = runner, *self._state.advance(place)

    @property
    def native(self) -> Native | None:
        """What the native lane can run in that state."""
        if self._latest is None:
            return None
        runner, begun, reached = self._latest
        native = runner.native
        return native and Native(native.binding, self._state.seen_dims(native), begun, reached)

    @property
    def run_again(self) -> Callable[[], object] | None:
        """Run the request anew where the runner that failed has another way."""
        return self.run if self._ways[self._state.place()].run_again else None


class _Memory:
    """Two places for each tensor, aligned as tensors in a segment are, and the dimensions that they have."""

    def __init__(self, specs: Sequence[TensorSpec], journal: Journal | None) -> None:
        self._specs = specs
        self._layout = state_layout(specs)
        self._private = None if journal else np.zeros(self._layout.bytes + TENSOR_ALIGN, np.uint8)
        self._base = journal.address if journal else _first_aligned(self._private)
        self._dims = ((ctypes.c_uint64 * MAX_RANK) * len(specs)).from_address(self._base)

    def max_dims(self, index: int) -> Dims:
        return self._specs[index].max_dims

    def address(self, index: int, place: int) -> int:
        return self._base + self._layout.offsets[index][place]

    def clear(self, place: int) -> None:
        for index, size in enumerate(self._layout.sizes):
            ctypes.memset(self.address(index, place), 0, size)

    def write_dims(self, dims: Sequence[Dims]) -> None:
        for row, wanted in zip(self._dims, dims, strict=True):
            row[: len(wanted)] = wanted

    def read_dims(self) -> tuple[Dims, ...]:
        return tuple(
            tuple(row[: len(spec.max_dims)]) for row, spec in zip(self._dims, self._specs, strict=True)
        )


def _first_aligned(memory: NDArray[np.uint8] | None) -> int:
    return -(-memory.ctypes.data // TENSOR_ALIGN) * TENSOR_ALIGN if memory is not None else 0


def _grew(pair: StatePair, dims: Sequence[int], wanted: Sequence[int]) -> SidecamlError:
    return SidecamlError(
        ErrorCode.ENGINE,
        f"output {shown(pair.output)} came out as {_text(dims)} and input {shown(pair.tensor.name)}, whose "
        f"state it is, went in as {_text(wanted)}: state must keep its size",
    )


def _text(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"
