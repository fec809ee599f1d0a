"""The Python client: an open model's tensors as numpy arrays in shared memory.

    from ipc_server import client

    with client.open_model("digits") as digits:
        digits.input("image")[:] = 0.5
        digits.run()
        print(digits.output("scores"))

A channel has slots, used in turn: the one that `claim` gives is filled, then submitted. With one slot, which
is the default, that is always slot 0. A channel belongs to one thread at a time; different channels are
independent.

Tensors of strings are no arrays in place: `set_strings` writes them, `strings` reads them.

Every failure is a `SidecamlError` with its `code`. What numpy lacks is seen as its bits: bfloat16 as uint16,
the kinds of float8 as uint8; int4, uint4, float4e2m1, int2 and uint2 as their packed bytes, in one dimension.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket as sockets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from ipc_server import _core, messages
from ipc_server.abi import Dtype, ErrorCode, Policy
from ipc_server.ask import PATIENCE_S, Conversation, converse
from ipc_server.batching import Batching, batching_of
from ipc_server.config import client_socket
from ipc_server.crash_points import point
from ipc_server.errors import OutputTooLarge, SidecamlError
from ipc_server.messages import Message, shown
from ipc_server.signature import Signature, Tensor, signature_of
from ipc_server.strings import encoded, object_array, strings_array
from ipc_server.suggest import hint
from ipc_server.tensor import view
from ipc_server.window import Item, Result, Window, results

# Longer than a daemon lets an open wait while the model loads, so that its own words arrive.
OPEN_PATIENCE_S = 6 * PATIENCE_S
# Thirty years, which 64 bits of nanoseconds carry.
LONGEST_TIMEOUT_S = 1e9
# Segment, two doorbells, status page.
OPEN_DESCRIPTORS = 4


@dataclass(frozen=True, slots=True)
class Model:
    """What the daemon says of a model; without inputs and outputs while `state` is not "ready"."""

    name: str
    engine: str
    state: str
    problem: str
    max_slots: int
    signature: Signature
    # How its requests are run together.
    batching: Batching = field(default_factory=Batching)


def models(socket: str | None = None) -> list[Model]:
    """Ask for every model, by name."""

    def talk(daemon: Conversation) -> list[dict[str, Any]]:
        return daemon.pages("describe", "models", "name")

    return [_model(found) for found in converse(client_socket(socket), PATIENCE_S, talk)]


def describe(name: str, socket: str | None = None) -> Model:
    """Ask for one model: UNKNOWN_MODEL when there is none of that name."""
    reply = converse(client_socket(socket), PATIENCE_S, lambda daemon: daemon.ask("describe", model=name))
    found = reply.get("models")
    if not isinstance(found, list) or len(found) != 1:
        raise _bad_reply("one model", found)
    return _model(found[0])


def open_model(  # noqa: PLR0913 (all but the first by keyword)
    name: str,
    *,
    socket: str | None = None,
    slots: int = 1,
    dims: Mapping[str, int] | None = None,
    text_bytes: int | None = None,
    policy: Policy = Policy.ADAPTIVE,
    priority: str = messages.NORMAL,
    patience_s: float = OPEN_PATIENCE_S,
) -> Channel:
    """Open a channel of `slots` slots.

    When the daemon goes away in the middle of it, this begins again, as long as `patience_s` lasts.

    Args:
        name: The model.
        socket: The daemon's socket; else $SIDECAML_SOCKET, else where a daemon listens by default.
        slots: Requests that can be under way at the same time.
        dims: The most that each dynamic dimension will be, by its name.
        text_bytes: Room for the text of each string tensor in each slot; else 64 bytes for each of its
            elements at the largest dims, at least 4096.
        policy: How to wait for answers.
        priority: "high" has its requests run before those of channels that are "normal", where both wait,
            but for every ninth run;
            DENIED for a user whom the daemon does not trust.
        patience_s: The longest that opening may take; by default longer than a daemon lets it.
    """
    if priority not in messages.PRIORITIES:
        raise SidecamlError(
            ErrorCode.INVALID,
            f"a priority is one of {', '.join(messages.PRIORITIES)}: got {shown(priority)}",
        )
    wanted: dict[str, Any] = {} if text_bytes is None else {"text_bytes": text_bytes}
    if priority != messages.NORMAL:
        wanted["priority"] = priority

    def talk(daemon: Conversation) -> Channel:
        daemon.send("open", model=name, slots=slots, dims=dict(dims or {}), **wanted)
        point("client.open.asked")
        reply = daemon.receive("open")
        point("client.open.answered")
        try:
            return _channel(reply, daemon, policy)
        finally:
            reply.close_fds()

    return converse(client_socket(socket), patience_s, talk)


class Channel:
    """An open model: tensors in place, requests, answers. Made by `open_model`."""

    def __init__(self, core: _core.Channel, model: Model) -> None:
        """Take over what the daemon handed out."""
        self.model = model
        self.slots = core.layout.slots
        self._channel: _core.Channel | None = core
        self._deadlines: dict[int, int] = {}
        # Slots that were claimed and are not submitted yet, from the next one on.
        self._claimed = 0

    def __enter__(self) -> Channel:
        """Give the channel."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the channel at once; requests under way are given up. Closing twice is allowed.

        Arrays of it that are still in use stay readable: memory and descriptors go with the last of them. For
        a user that the daemon does not trust they are zeros from then on.
        """
        core, self._channel = self._channel, None
        if core is None:
            return
        try:
            core.close()
        except BufferError:
            _hang_up(core)
        except SidecamlError:
            self._channel = core
            raise

    # --- Tensors ------------------------------------------------------------------------------------------

    def input(self, name: str, slot: int = 0) -> NDArray[Any]:
        """See an input of a slot, in place, in the dimensions that were set: the largest at first."""
        return self._view(self._input(name), slot)

    def output(self, name: str, slot: int = 0) -> NDArray[Any]:
        """See an output of a slot, in place, in the dimensions that the last answer gave it."""
        tensors = self.model.signature.outputs
        return self._view(len(self.model.signature.inputs) + _index(tensors, "output", name), slot)

    def output_dims(self, name: str, slot: int = 0) -> tuple[int, ...]:
        """Tell an output's dimensions as the last answer gave them, which the view of a packed type lacks."""
        tensors = self.model.signature.outputs
        return self._core.get_dims(slot, len(self.model.signature.inputs) + _index(tensors, "output", name))

    def set_strings(self, name: str, strings: object, slot: int = 0) -> None:
        """Write an input of strings: a numpy array, or nested lists of `str`, of the tensor's dimensions.

        Those of a dynamic input are set, too. Nothing is written when something is wrong: BAD_DIMS for other
        dimensions, INVALID for what is no `str` or text that has no room (`text_bytes` of `open_model`).
        """
        number = self._input(name)
        tensor, spec = self.model.signature.inputs[number], self._core.layout.tensors[number]
        _check_strings(tensor)
        array = strings_array(tensor.name, strings, len(tensor.shape))
        texts = encoded(tensor.name, array)
        size, room = sum(map(len, texts)), spec[8]
        if size > room:
            raise SidecamlError(
                ErrorCode.INVALID,
                f"input {shown(name)}: the strings have {size} bytes of text, and the channel has room for "
                f"{room}: open with larger text_bytes",
            )
        if tensor.dynamic:
            self.set_dims(name, array.shape, slot)
        elif array.shape != tensor.shape:
            raise SidecamlError(
                ErrorCode.BAD_DIMS,
                f"input {shown(name)}: expected strings of dimensions {list(tensor.shape)}, got "
                f"{list(array.shape)}",
            )
        _core.write_strings(self._core.tensor(slot, number), math.prod(spec[4]), texts)

    def strings(self, name: str, slot: int = 0) -> NDArray[Any]:
        """Read an output of strings: a numpy array of `str` objects, a copy. Nothing is made before this."""
        outputs = self.model.signature.outputs
        index = _index(outputs, "output", name)
        _check_strings(outputs[index])
        core, number = self._core, len(self.model.signature.inputs) + index
        dims, most = core.get_dims(slot, number), math.prod(core.layout.tensors[number][4])
        texts = _core.read_strings("output", name, core.tensor(slot, number), most, math.prod(dims))
        return object_array(texts, dims)

    def set_dims(self, name: str, dims: Sequence[int], slot: int = 0) -> None:
        """Set a dynamic input's dimensions for the requests to come in a slot, until they are set again.

        An array that was taken before keeps its own: take `input` again.
        """
        self._core.set_dims(slot, self._input(name), dims)

    # --- Requests -----------------------------------------------------------------------------------------

    def run(self, timeout: float | None = None) -> int:
        """Run the request in the claimed slot and wait for its answer; the slot.

        The slot is given back already: its outputs stay until it is submitted again. Errors of `claim` and
        `await_`.
        """
        slot = self.submit(timeout)
        self.await_(slot)
        self._core.release(slot)
        return slot

    def claim(self) -> int:
        """Give the slot that the next submit takes, when it may be filled.

        FULL: its owner has not released it. BUSY: the worker still runs a request that timed out in it.
        SERVER_GONE.
        """
        try:
            slot = self._core.claim()
        except SidecamlError as error:
            raise self._explained(error) from None
        self._claimed = max(self._claimed, 1)
        return slot

    def claim_wait(self, timeout: float | None = None) -> int:
        """Give the next slot as `claim` does, but wait, for at most `timeout` seconds, while it is BUSY.

        FULL at once, which only the program itself can end: await and release the slot. TIMEOUT.
        """
        deadline = _deadline(timeout)
        try:
            slot = self._core.claim_wait(deadline)
        except SidecamlError as error:
            raise self._explained(error) from None
        self._claimed = max(self._claimed, 1)
        return slot

    def submit(self, timeout: float | None = None) -> int:
        """Hand the claimed slot's request to the worker, to be answered within `timeout` seconds; the slot.

        Errors of `claim`, and INVALID when no slot is claimed: the channel's only one, where it has but one,
        needs no claim.
        """
        deadline = _deadline(timeout)
        self._check_claimed(1)
        try:
            slot = self._core.submit(deadline)
        except SidecamlError as error:
            raise self._explained(error) from None
        self._claimed = max(self._claimed - 1, 0)
        self._deadlines[slot] = deadline
        return slot

    def claim_run(self, most: int) -> int:
        """Count the slots that may be filled now, from that of `claim` on round the ring, at most `most`.

        Errors of `claim`.
        """
        try:
            count = self._core.claim_run(most)
        except SidecamlError as error:
            raise self._explained(error) from None
        self._claimed = max(self._claimed, count)
        return count

    def submit_run(self, count: int, timeout: float | None = None) -> int:
        """Hand the requests in the next `count` slots to the worker at once; the first slot.

        INVALID when one of them is not free, or fewer are claimed; else as `submit`.
        """
        deadline = _deadline(timeout)
        self._check_claimed(count)
        try:
            first = self._core.submit_run(count, deadline)
        except SidecamlError as error:
            raise self._explained(error) from None
        self._claimed = max(self._claimed - count, 0)
        for slot in range(first, first + count):
            self._deadlines[slot % self.slots] = deadline
        return first

    def await_(self, slot: int) -> None:
        """Wait for a slot's answer; then its outputs may be read, and `release` gives it back.

        A failed request raises (ENGINE, BAD_DIMS, BAD_STRINGS, OUTPUT_TOO_LARGE, which is an `OutputTooLarge`
        and says what room is needed, WORKER_CRASHED), and so do TIMEOUT, which gives the request up, and
        SERVER_GONE: the slot is given back then.
        """
        core = self._core
        try:
            core.wait(slot, self._deadlines.get(slot, 0))
        except SidecamlError as error:
            explained = self._explained(error, slot)
            _give_back(core, slot)
            raise explained from None

    def await_any(self, timeout: float | None = None) -> int:
        """Wait until any request has ended, the oldest looked at first; its slot.

        `await_` says at once how it ended; then release it. Each request is told of once, here or by `await_`
        or `poll` before. One whose own timeout is over has ended, too, and so has each when the daemon is
        gone. TIMEOUT after `timeout` seconds, which gives none up; INVALID when there is no request left to
        be told of.
        """
        return self._core.wait_any(_deadline(timeout))

    def map(  # noqa: PLR0913 (all but the first three by keyword)
        self,
        fill: Callable[[int, Item], object],
        read: Callable[[int, Item], Result],
        items: Iterable[Item],
        *,
        window: int | None = None,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[Result | SidecamlError]:
        """Run a request for each item, many at once; what `read` makes of each, in the order of items.

        Half of the window is filled and read while the other half runs, and the items are asked for only as
        there is room. INVALID for a window beyond the channel's slots. What fails raises, and so does what
        keeps more requests from being submitted: SERVER_GONE, or FULL for a slot that is the program's own.
        When it ends early, for that reason or another, what is under way is given up.

        Args:
            fill: Given a slot and an item, writes the slot's inputs.
            read: Given the same, reads its outputs, which may not be used afterwards but as copies.
            items: What to make requests of.
            window: How many requests may be under way at once; all slots by default.
            timeout: Seconds for each, from when it was handed to the worker.
            return_exceptions: Give the error of a request that failed in place of its result, and go on.
        """
        window = self.slots if window is None else window
        if not 1 <= window <= self.slots:
            raise SidecamlError(
                ErrorCode.INVALID,
                f"a window of {window}: the channel has {self.slots} slots, so it is 1 to {self.slots}",
            )
        _deadline(timeout)
        return results(Window(self, fill, items, window, timeout), read, return_exceptions)

    def poll(self, slot: int) -> bool:
        """Whether a slot's answer is there. A failed request raises, and stays until awaited or released.

        TIMEOUT, as of `await_`, when the request's own time is over.
        """
        try:
            is_there = self._core.poll(slot)
        except SidecamlError as error:
            raise self._explained(error, slot) from None
        deadline = self._deadlines.get(slot, 0)
        if not is_there and deadline and time.monotonic_ns() >= deadline:
            self.await_(slot)
            return True
        return is_there

    def release(self, slot: int) -> None:
        """Give a finished slot back."""
        self._core.release(slot)

    def abandon(self, slot: int) -> None:
        """Give a request up, at any stage."""
        self._core.abandon(slot)

    def reset(self) -> None:
        """Have the state that the worker carries start anew, as zeros, with the next request submitted.

        Should that be given up, with the one after it. INVALID for a model that carries no state.

        Do this after a timeout, too: the request that was given up may have run to its end, and the state
        have moved on.
        """
        if not self.model.signature.state:
            raise SidecamlError(
                ErrorCode.INVALID, f"model {self.model.name!r} carries no state: there is nothing to reset"
            )
        self._core.reset()

    def stamps(self, slot: int) -> tuple[int, int, int, int]:
        """Tell when the last request was submitted, seen, started, finished: ns, 0 when not taken.

        One that was refused (DEADLINE) has neither started nor finished: 0.
        """
        return self._core.stamps(slot)

    @property
    def gone_error(self) -> SidecamlError | None:
        """What the daemon said when it ended the channel; None when it said nothing, or nothing is wrong.

        WORKER_CRASHED: it gave the channel up, because its requests kept crashing workers.
        """
        event = self._core.gone_event()
        if event is None:
            return None
        try:
            return messages.error_of(messages.unpack(event))
        except SidecamlError as garbled:
            return garbled

    @property
    def _core(self) -> _core.Channel:
        if self._channel is None:
            raise SidecamlError(ErrorCode.INVALID, f"the channel of model {self.model.name!r} is closed")
        return self._channel

    def _check_claimed(self, count: int) -> None:
        if self.slots > 1 and self._claimed < count:
            raise SidecamlError(
                ErrorCode.INVALID,
                f"submitted {count} of the slots of model {self.model.name!r}, of which {self._claimed} "
                "were claimed before: claim a slot, fill it, and then submit it",
            )

    def _input(self, name: str) -> int:
        return _index(self.model.signature.inputs, "input", name)

    def _view(self, tensor: int, slot: int) -> NDArray[Any]:
        core, signature = self._core, self.model.signature
        dtype = (*signature.inputs, *signature.outputs)[tensor].dtype
        if dtype is Dtype.STRING:
            raise SidecamlError(
                ErrorCode.INVALID, "a tensor of strings is no array in place: use `set_strings` and `strings`"
            )
        return view(core.tensor(slot, tensor), dtype, core.get_dims(slot, tensor))

    def _explained(self, error: SidecamlError, slot: int | None = None) -> SidecamlError:
        """Give the daemon's own words on a channel that is gone, and the room that a slot's outputs need."""
        if error.code is ErrorCode.OUTPUT_TOO_LARGE and slot is not None:
            return self._too_large(error, slot)
        told = self.gone_error if error.code is ErrorCode.SERVER_GONE else None
        return SidecamlError(ErrorCode.SERVER_GONE, str(told)) if told else error

    def _too_large(self, error: SidecamlError, slot: int) -> SidecamlError:
        core, signature = self._core, self.model.signature
        outputs = enumerate(signature.outputs, len(signature.inputs))
        needed = {tensor.name: core.needed(slot, number) for number, tensor in outputs if tensor.dynamic}
        return OutputTooLarge(str(error), needed, core.text_needed(slot))


def _channel(reply: Message, daemon: Conversation, policy: Policy) -> Channel:
    body = reply.body
    fingerprint = body.get("fingerprint")
    if len(reply.fds) != OPEN_DESCRIPTORS or not isinstance(fingerprint, int):
        raise _bad_reply(f"{OPEN_DESCRIPTORS} descriptors and a fingerprint", len(reply.fds))
    model = _model(body.get("model"))
    control_fd = daemon.hand_over()
    try:
        segment, request, answer, status = reply.fds
        core = _core.Channel(segment, request, answer, status, control_fd, fingerprint, policy)
    except BaseException:
        os.close(control_fd)
        raise
    point("client.open.mapped")
    reply.fds.clear()
    return Channel(core, model)


def _model(body: object) -> Model:
    if not isinstance(body, dict):
        raise _bad_reply("a model", body)
    texts = [body.get(key) for key in ("name", "engine", "state", "problem")]
    max_slots = body.get("max_slots")
    if not all(isinstance(text, str) for text in texts) or not isinstance(max_slots, int):
        raise _bad_reply("a model", body)
    name, engine, state, problem = map(str, texts)
    batching = body.get("batching")
    known = batching_of(batching) if isinstance(batching, dict) else Batching()
    return Model(name, engine, state, problem, max_slots, signature_of(body), known)


def _index(tensors: Sequence[Tensor], kind: str, name: str) -> int:
    names = [tensor.name for tensor in tensors]
    if name not in names:
        raise SidecamlError(ErrorCode.INVALID, f"the model has no {kind} {shown(name)}: {hint(name, names)}")
    return names.index(name)


def _check_strings(tensor: Tensor) -> None:
    if tensor.dtype is not Dtype.STRING:
        raise SidecamlError(
            ErrorCode.INVALID,
            f"{shown(tensor.name)} is a tensor of {tensor.dtype.name.lower()}, not of strings: use `input` "
            "and `output`",
        )


def _deadline(timeout: float | None) -> int:
    if timeout is None:
        return 0
    if not 0 <= timeout <= LONGEST_TIMEOUT_S:
        raise SidecamlError(
            ErrorCode.INVALID,
            f"a timeout is a number of seconds from 0 to {LONGEST_TIMEOUT_S:g}, or None: got {timeout}",
        )
    return time.monotonic_ns() + int(timeout * 1e9)


def _give_back(core: _core.Channel, slot: int) -> None:
    # What timed out, or never was a request, is no longer ours to give back.
    with contextlib.suppress(SidecamlError):
        core.abandon(slot)


def _hang_up(core: _core.Channel) -> None:
    """Tell the daemon that the channel is over while its memory is still looked at."""
    for slot in range(core.layout.slots):
        _give_back(core, slot)
    with sockets.socket(fileno=os.dup(core.control_fd)) as control, contextlib.suppress(OSError):
        control.shutdown(sockets.SHUT_RDWR)


def _bad_reply(expected: str, found: object) -> SidecamlError:
    return SidecamlError(
        ErrorCode.PROTOCOL, f"a reply of the daemon: expected {expected}, got {shown(found)}"
    )
