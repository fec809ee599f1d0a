"""A client that outlives its daemon: reconnect and run again, a circuit breaker, a function to fall back to.

    from ipc_server import resilient

    with resilient.open_model("digits") as digits:
        scores = digits.run({"image": image})["scores"]

The small Python of `Sidecaml.Resilient`: the same words, the same defaults. One request at a time, and its
inputs are handed over with each call, so no array of a channel that is gone is ever written to by mistake.

A call that loses the daemon (SERVER_GONE) opens the model anew, after pauses that are random from 0 to a
limit which doubles, and runs the request again, within its timeout and the patience of `Settings`. So a
request may run twice. A call that could not be saved in this way counts as a failure to the breaker; while
that is open, calls raise `CircuitOpen` at once, or are answered by the fallback.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ipc_server import client, messages
from ipc_server.abi import DTYPE_BITS, Dtype, ErrorCode, Policy
from ipc_server.backoff import FIRST_S, LONGEST_S, Backoff
from ipc_server.breaker import Breaker, CircuitOpen
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.signature import Tensor
from ipc_server.suggest import hint
from ipc_server.tensor import BYTE_BITS

Arrays = dict[str, NDArray[Any]]
Fallback = Callable[[Mapping[str, ArrayLike]], Mapping[str, NDArray[Any]]]

# Another attempt to open may find a daemon.
_MAY_PASS = {
    ErrorCode.SERVER_GONE,
    ErrorCode.TIMEOUT,
    ErrorCode.WORKER_CRASHED,
    ErrorCode.CONNECT,
    ErrorCode.SHUTTING_DOWN,
}
_NOT_THERE = {ErrorCode.CONNECT, ErrorCode.SHUTTING_DOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a client reconnects."""

    # How long a call goes on reconnecting, from the first error, and not beyond its timeout.
    patience_s: float = 30.0
    # The longest that the first pause may be, and any.
    first_pause_s: float = FIRST_S
    longest_pause_s: float = LONGEST_S
    # Whether WORKER_CRASHED is a reason to run again as well; the daemon has tried twice already.
    after_crash: bool = False
    # Of a model that carries state, which is lost with the daemon: whether it may begin anew unasked. Else
    # SERVER_GONE is the program's to deal with, through `reopen`.
    begin_state_anew: bool = False
    # Whether opening waits, for the patience, for a daemon that is not there yet.
    wait: bool = False

    def backoff(self, deadline: float) -> Backoff:
        """Begin a series of attempts, until a deadline."""
        end = min(deadline, time.monotonic() + self.patience_s)
        return Backoff(end, self.first_pause_s, self.longest_pause_s)


class _Failed(Exception):
    """What reconnecting could not change."""

    def __init__(self, error: SidecamlError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class _Way:
    """How the model is opened."""

    name: str
    socket: str | None
    dims: Mapping[str, int]
    text_bytes: int | None
    policy: Policy
    priority: str

    def open(self, patience_s: float) -> client.Channel:
        return client.open_model(
            self.name,
            socket=self.socket,
            dims=self.dims,
            text_bytes=self.text_bytes,
            policy=self.policy,
            priority=self.priority,
            patience_s=patience_s,
        )


def open_model(  # noqa: PLR0913 (all but the first by keyword)
    name: str,
    *,
    socket: str | None = None,
    dims: Mapping[str, int] | None = None,
    text_bytes: int | None = None,
    policy: Policy = Policy.ADAPTIVE,
    priority: str = messages.NORMAL,
    settings: Settings | None = None,
    breaker: Breaker | None = None,
    fallback: Fallback | None = None,
) -> Channel:
    """Open a model, as `client.open_model` does.

    Args:
        name: The model.
        socket: The daemon's socket.
        dims: The most that each dynamic dimension will be, by its name.
        text_bytes: Room for the text of each string tensor.
        policy: How to wait for answers.
        priority: As for `client.open_model`.
        settings: How to reconnect.
        breaker: One that other channels share; else a new one.
        fallback: What answers when the daemon cannot: from inputs to outputs, by name. For example
            `lambda inputs: dict(zip(names, session.run(names, inputs)))` with ONNX Runtime.
    """
    way = _Way(name, socket, dict(dims or {}), text_bytes, policy, priority)
    chosen = settings or Settings()
    return Channel(way, chosen, breaker or Breaker(), fallback, _first(way, chosen))


def _first(way: _Way, settings: Settings) -> client.Channel:
    if not settings.wait:
        return way.open(client.OPEN_PATIENCE_S)
    backoff = settings.backoff(math.inf)
    while True:
        try:
            return way.open(max(backoff.left_s, FIRST_S))
        except SidecamlError as error:
            if error.code not in _NOT_THERE or not backoff.sleep():
                raise


@dataclass(slots=True)
class Channel:
    """A model that stays open. Made by `open_model`; used by one thread at a time."""

    _way: _Way
    _settings: Settings
    breaker: Breaker
    _fallback: Fallback | None
    _channel: client.Channel
    # How often the model was opened anew.
    reopened: int = 0
    # Who answered the last call: "primary" or "fallback".
    answered_by: str = "primary"
    _gone: bool = field(default=False, repr=False)
    # That the daemon gave the channel up for what its requests did.
    _told: bool = field(default=False, repr=False)

    def __enter__(self) -> Channel:
        """Give the channel."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the channel."""
        self._channel.close()

    @property
    def model(self) -> client.Model:
        """The model as it was when it was opened last."""
        return self._channel.model

    def run(self, inputs: Mapping[str, ArrayLike], timeout: float | None = None) -> Arrays:
        """Run one request within `timeout` seconds; its outputs, by name.

        Arrays of outputs are the channel's memory: they count until the next call. Dims of dynamic inputs
        are those of what is handed over.
        """
        try:
            self.breaker.admit(time.monotonic())
            outputs = self._try(inputs, timeout)
        except _Failed as failure:
            self.breaker.failed(time.monotonic(), failure.error)
            return self._fall_back(inputs, failure.error)
        except SidecamlError as error:
            if error.code is ErrorCode.CIRCUIT_OPEN:
                return self._fall_back(inputs, error)
            if error.code is ErrorCode.TIMEOUT:
                self.breaker.withdrawn(time.monotonic())
            else:
                self.breaker.succeeded()
            raise
        except BaseException:
            self.breaker.withdrawn(time.monotonic())
            raise
        self.breaker.succeeded()
        self.answered_by = "primary"
        return outputs

    def reopen(self, patience_s: float = client.OPEN_PATIENCE_S) -> None:
        """Open the model anew at once. State that is carried begins anew."""
        self._take(self._way.open(patience_s))
        self.breaker.succeeded()

    def reset(self) -> None:
        """Have carried state start anew with the next request."""
        self._channel.reset()

    # --- One call -----------------------------------------------------------------------------------------

    def _try(self, inputs: Mapping[str, ArrayLike], timeout: float | None) -> Arrays:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        backoff: Backoff | None = None
        while True:
            try:
                return self._attempt(inputs, deadline, backoff)
            except _Failed as failure:
                backoff = backoff or self._settings.backoff(deadline)
                if not self._may_go_on(failure.error) or not backoff.sleep():
                    raise

    def _may_go_on(self, error: SidecamlError) -> bool:
        if self._gone and self._channel.model.signature.state and not self._settings.begin_state_anew:
            return False
        return error.code in _MAY_PASS

    def _attempt(self, inputs: Mapping[str, ArrayLike], deadline: float, backoff: Backoff | None) -> Arrays:
        if self._gone and backoff:
            self._reopen_now(backoff)
        try:
            return _run(self._channel, inputs, deadline)
        except SidecamlError as caught:
            self._gone = caught.code is ErrorCode.SERVER_GONE
            error = self._in_truth(caught)
            crashed = error.code is ErrorCode.WORKER_CRASHED
            if (self._gone and not crashed) or (self._settings.after_crash and crashed):
                raise _Failed(error) from caught
            raise error from None

    def _in_truth(self, error: SidecamlError) -> SidecamlError:
        """Tell once that requests of this channel kept crashing workers: the next call opens it anew."""
        why = self._channel.gone_error if self._gone and not self._told else None
        if why is None or why.code is not ErrorCode.WORKER_CRASHED:
            return error
        self._told = True
        return why

    def _reopen_now(self, backoff: Backoff) -> None:
        try:
            channel = self._way.open(max(backoff.left_s, FIRST_S))
        except SidecamlError as error:
            raise _Failed(error) from error
        self._take(channel)

    def _take(self, channel: client.Channel) -> None:
        self._channel.close()
        self._channel, self._gone, self._told = channel, False, False
        self.reopened += 1

    def _fall_back(self, inputs: Mapping[str, ArrayLike], error: SidecamlError) -> Arrays:
        last = error.last if isinstance(error, CircuitOpen) else error
        # What has crashed workers would crash this process.
        dangerous = last.code is ErrorCode.WORKER_CRASHED
        loses_state = self.model.signature.state and not self._settings.begin_state_anew
        if not self._fallback or dangerous or loses_state:
            raise error
        outputs = dict(self._fallback(inputs))
        self.answered_by = "fallback"
        return outputs


def _run(channel: client.Channel, inputs: Mapping[str, ArrayLike], deadline: float) -> Arrays:
    tensors = channel.model.signature.inputs
    _check_names(inputs, [tensor.name for tensor in tensors])
    for tensor in tensors:
        _fill(channel, tensor, inputs[tensor.name])
    channel.run(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
    return {tensor.name: _read(channel, tensor) for tensor in channel.model.signature.outputs}


def _check_names(inputs: Mapping[str, ArrayLike], names: list[str]) -> None:
    for name in inputs:
        if name not in names:
            raise SidecamlError(
                ErrorCode.INVALID, f"the model has no input {shown(name)}: {hint(name, names)}"
            )
    missing = [shown(name) for name in names if name not in inputs]
    if missing:
        raise SidecamlError(ErrorCode.INVALID, f"inputs are missing: {', '.join(missing)}")


def _fill(channel: client.Channel, tensor: Tensor, value: ArrayLike) -> None:
    if tensor.dtype is Dtype.STRING:
        channel.set_strings(tensor.name, value)
        return
    array = np.asarray(value)
    if tensor.dynamic:
        if DTYPE_BITS[tensor.dtype] < BYTE_BITS:
            raise SidecamlError(
                ErrorCode.UNSUPPORTED,
                f"input {shown(tensor.name)} is packed and of dynamic size, which its bytes do not tell: use "
                "ipc_server.client",
            )
        channel.set_dims(tensor.name, array.shape)
    place = channel.input(tensor.name)
    if place.shape != array.shape:
        raise SidecamlError(
            ErrorCode.BAD_DIMS,
            f"input {shown(tensor.name)}: expected dimensions {list(place.shape)}, got {list(array.shape)}",
        )
    try:
        np.copyto(place, array, casting="same_kind")
    except TypeError as error:
        raise SidecamlError(ErrorCode.INVALID, f"input {shown(tensor.name)}: {error}") from error


def _read(channel: client.Channel, tensor: Tensor) -> NDArray[Any]:
    return channel.strings(tensor.name) if tensor.dtype is Dtype.STRING else channel.output(tensor.name)
