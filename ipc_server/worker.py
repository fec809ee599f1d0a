"""A worker process: one model, served to the channels that the supervisor attaches.

The supervisor speaks to it over a socket, decides when it ends, and takes it along when it dies.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipc_server import _core, engines, logs, messages, processes, settings
from ipc_server.abi import CONTROL_BYTES, MAX_SLOTS, Dtype, ErrorCode, Policy
from ipc_server.errors import SidecamlError
from ipc_server.lane import Lane, lane_for
from ipc_server.messages import REPLY_ROOM, Message
from ipc_server.orders import bad, count, descriptors, field, optional
from ipc_server.signature import TensorSpec

log = logging.getLogger(__name__)

ATTACH_DESCRIPTORS = 3


class Worker:
    """What the supervisor can ask for, and the state that its requests build up."""

    def __init__(self, control: socket.socket) -> None:
        """Know the supervisor; nothing is loaded yet."""
        self._control = control
        self._lane: Lane | None = None
        # The lane's number of each channel, by the daemon's.
        self._numbers: dict[int, int] = {}
        self._ended = False
        self._operations: Mapping[str, Callable[[Message], dict[str, Any]]] = {
            "load": self._load,
            "attach": self._attach,
            "detach": self._detach,
            "drain": self._drain,
        }

    def run(self) -> None:
        """Do what is asked, and serve in between, until the supervisor says drain or is gone."""
        while not self._ended:
            if self._lane is None or self._is_spoken_to():
                self._hear()
            else:
                self._lane.serve()
        if self._lane:
            self._lane.close()

    def _is_spoken_to(self) -> bool:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        return bool(poller.poll(0))

    def _hear(self) -> None:
        message = messages.receive(self._control)
        if message is None:
            self._ended = True
            return
        try:
            reply = self._answer(message)
        finally:
            message.close_fds()
        try:
            messages.send_packed(self._control, reply)
        except (BrokenPipeError, ConnectionResetError):
            self._ended = True

    def _answer(self, message: Message) -> bytes:
        body = message.body
        try:
            operation = self._operations.get(field(body, "op", str))
            if operation is None:
                raise bad(f"there is no operation {messages.shown(body['op'])}")
            return messages.pack(messages.reply_ok(body, **operation(message)))
        except SidecamlError as error:
            return _refusal(body, error)
        except OSError as error:
            return _refusal(body, SidecamlError(ErrorCode.SYSTEM, str(error)))
        except MemoryError:
            return _refusal(body, SidecamlError(ErrorCode.NO_MEMORY, "the worker is out of memory"))
        except Exception as error:
            # Whatever a library raises on one model or channel must not take the others along.
            log.exception("%s failed", messages.shown(body.get("op")))
            return _refusal(body, SidecamlError(ErrorCode.SYSTEM, f"{type(error).__name__}: {error}"))

    # --- Operations; descriptors that stay in the message are closed ---------------------------------------

    def _load(self, message: Message) -> dict[str, Any]:
        body = message.body
        if self._lane:
            raise bad("a model is loaded already")
        policy = _policy(field(body, "policy", str))
        (status_fd,) = descriptors(message, 1)
        engine = engines.load(settings.decode(body))
        description = engine.signature.describe()
        _check_announceable(description)
        core = _core.Worker(status_fd, self._control.fileno(), policy)
        message.fds.clear()
        self._lane = lane_for(core, engine)
        return description

    def _attach(self, message: Message) -> dict[str, Any]:
        body = message.body
        lane, number = self._loaded(), field(body, "channel", int)
        if number in self._numbers:
            raise bad(f"channel {number} is attached already")
        specs = [_spec(tensor) for tensor in field(body, "tensors", list)]
        layout = _core.Layout(
            [spec.for_layout for spec in specs],
            count(body, "slots", MAX_SLOTS),
            count(body, "fingerprint"),
        )
        fds = descriptors(message, ATTACH_DESCRIPTORS)
        self._numbers[number] = lane.attach(fds, specs, layout, _maxima(optional(body, "dims", {})))
        return {}

    def _detach(self, message: Message) -> dict[str, Any]:
        """Idempotent: a channel that failed to attach is detached as well."""
        number = self._numbers.pop(field(message.body, "channel", int), None)
        if number is not None:
            self._loaded().detach(number)
        return {}

    def _drain(self, _message: Message) -> dict[str, Any]:
        if self._lane:
            self._lane.finish()
        self._ended = True
        return {}

    def _loaded(self) -> Lane:
        if not self._lane:
            raise bad("no model is loaded yet")
        return self._lane


def _check_announceable(description: Mapping[str, Any]) -> None:
    size = messages.packed_size(description)
    if size + REPLY_ROOM > CONTROL_BYTES:
        raise SidecamlError(
            ErrorCode.UNSUPPORTED,
            f"the model's description takes {size} bytes and at most {CONTROL_BYTES - REPLY_ROOM} fit in a "
            "control message: shorten the names of its inputs, outputs and dimensions",
        )


def _spec(body: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        name=field(body, "name", str),
        dtype=_dtype(field(body, "dtype", str)),
        output=field(body, "output", bool),
        dynamic=field(body, "dynamic", bool),
        max_dims=_dims(field(body, "max_dims", list)),
        text_bytes=count(body, "text_bytes"),
    )


def _maxima(maxima: Mapping[str, Any]) -> Mapping[str, int]:
    if not all(messages.is_count(most) for most in maxima.values()):
        raise bad("'dims' must be sizes by their names")
    return maxima


def _dims(dims: list[Any]) -> tuple[int, ...]:
    if not all(messages.is_count(dim) for dim in dims):
        raise bad(f"'max_dims' must be sizes, got {messages.shown(dims)}")
    return tuple(dims)


def _dtype(name: str) -> Dtype:
    try:
        return Dtype[name.upper()]
    except KeyError:
        raise bad(f"there is no element type {messages.shown(name)}") from None


def _policy(name: str) -> Policy:
    try:
        return Policy[name.upper()]
    except KeyError:
        raise bad(f"there is no policy {messages.shown(name)}") from None


def _refusal(request: Mapping[str, Any], error: SidecamlError) -> bytes:
    return messages.pack(messages.reply_error(request, error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve on the socket that was inherited; the exit code."""
    parser = argparse.ArgumentParser(
        prog="sidecaml-worker", description="One model of sidecaml; started by the daemon."
    )
    parser.add_argument(
        "--control-fd", type=int, required=True, metavar="FD", help="socket to the supervisor"
    )
    control_fd = parser.parse_args(arguments).control_fd
    logs.setup(os.environ.get("SIDECAML_LOG_LEVEL", "info"))
    try:
        os.set_inheritable(control_fd, False)
        control = socket.socket(fileno=control_fd)
    except OSError as error:
        parser.error(f"--control-fd {control_fd}: {error.strerror}")
    # A terminal and a service manager signal the whole group: what to finish is the daemon's to say.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    processes.settle_in(control)
    with control:
        _core.exit_with_peer(control.fileno())
        Worker(control).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
