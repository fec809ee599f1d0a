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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipc_server import _core, engines, logs, messages, processes, settings
from ipc_server.abi import CONTROL_BYTES, MAX_INSTANCES, MAX_SLOTS, MOST_ATTEMPTS, Dtype, ErrorCode, Policy
from ipc_server.batching import batching_of
from ipc_server.crash_points import point
from ipc_server.errors import SidecamlError, shortage_behind
from ipc_server.lane import GivenUp, Lane, lane_for
from ipc_server.messages import HIGH, NORMAL, REPLY_ROOM, Message
from ipc_server.orders import bad, count, descriptors, field, optional
from ipc_server.placement import Placement, placement_of
from ipc_server.signature import TensorSpec

if TYPE_CHECKING:
    from ipc_server.quarantine import Quarantine

log = logging.getLogger(__name__)

# Segment, request and answer doorbell, journal.
ATTACH_DESCRIPTORS = 4

# For the client, and for the log.
TAKEN_AWAY = (
    "the channel was ended, because pages of its memory were taken away while it was open: its file was "
    "made shorter, or pages were punched out of it that a full file system could not give back. Open the "
    "model again, and leave the file's size to the daemon"
)


class Worker:
    """What the supervisor can ask for, and the state that its requests build up."""

    def __init__(self, control: socket.socket) -> None:
        """Know the supervisor; nothing is loaded yet."""
        self._control = control
        self._model = ""
        self._engine: engines.Engine | None = None
        self._placement = Placement()
        self._batches: engines.Batches | None = None
        # Where the inputs of requests are kept that are given up, how much of them, and how long to wait.
        self._quarantine_at: tuple[Path | None, int, float] = None, 0, 0.0
        self._quarantine: Quarantine | None = None
        self._core: _core.Worker | None = None
        self._lane: Lane | None = None
        # That a run takes.
        self._threads = 1
        # The lane's number of each channel, by the daemon's.
        self._numbers: dict[int, int] = {}
        self._ended = False
        self._operations: Mapping[str, Callable[[Message], dict[str, Any]]] = {
            "load": self._load,
            "begin": self._begin,
            "attach": self._attach,
            "detach": self._detach,
            "keep": self._keep,
            "ping": self._ping,
            "drain": self._drain,
        }

    def run(self) -> None:
        """Do what is asked, and serve in between, until the supervisor says drain or is gone."""
        while not self._ended:
            if self._lane is None or self._is_spoken_to():
                self._hear()
            else:
                self._lane.serve()
                self._tell_broken(self._lane)
        if self._lane:
            self._lane.close()

    def _tell_broken(self, lane: Lane) -> None:
        """Have the supervisor end the channels whose clients took their memory away."""
        numbers = {channel: number for number, channel in self._numbers.items()}
        for channel in lane.broken():
            try:
                event = {"event": "broken", "channel": numbers[channel], "why": TAKEN_AWAY}
                messages.send(self._control, event)
            except (BrokenPipeError, ConnectionResetError):
                self._ended = True

    def _is_spoken_to(self) -> bool:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        return bool(poller.poll(0))

    def _hear(self) -> None:
        message = messages.receive(self._control, take_incomplete=True)
        if message is None:
            self._ended = True
            return
        try:
            reply = self._answer(message)
        finally:
            message.close_fds()
        # What was imported meanwhile may have installed a handler of its own.
        _core.guard()
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
        except Exception as error:
            # Whatever a library raises on one model or channel must not take the others along.
            if not isinstance(error, (SidecamlError, OSError, MemoryError)):
                log.exception("%s failed", messages.shown(body.get("op")))
            return _refusal(body, error)

    # --- Operations; descriptors that stay in the message are closed ---------------------------------------

    def _load(self, message: Message) -> dict[str, Any]:
        """Load the model, and find out how it is batched, unless an earlier worker did. Then it stands by."""
        if self._engine:
            raise bad("a model is loaded already")
        point("worker.loading")
        chosen = settings.decode(message.body)
        if "placement" in message.body:
            self._placement = placement_of(field(message.body, "placement", dict))
        self._placement.settle()
        engine = engines.load(chosen)
        point("worker.loaded")
        _check_announceable(engine.signature.describe())
        certificate: dict[str, Any] = optional(message.body, "certificate", {})
        known = batching_of(certificate) if certificate else None
        self._batches = engines.batches_of(engine, chosen, known)
        self._engine, self._model, self._threads = self._batches.engine, chosen.name, chosen.threads
        return {**engine.signature.describe(), "batching": self._batches.batching.record()}

    def _begin(self, message: Message) -> dict[str, Any]:
        """Take the status page over, new or of a worker that died, and serve."""
        body = message.body
        if not self._engine or self._lane:
            raise bad("there is no model yet" if not self._engine else "it has begun already")
        policy = _policy(field(body, "policy", str))
        most_attempts = count(body, "max_attempts", MOST_ATTEMPTS)
        page = count(body, "page", MAX_INSTANCES - 1) if "page" in body else 0
        status_fd, *crowd_fd = descriptors(message, 2 if "entry" in body else 1)
        point("worker.beginning")
        self._placement.begin()
        core = _core.Worker(status_fd, self._control.fileno(), policy, page)
        message.fds[:] = crowd_fd
        self._join_crowd(core, message)
        folder = Path(named) if (named := optional(body, "quarantine", "")) else None
        max_bytes, wait_s = (
            optional(body, "quarantine_max_bytes", 0),
            optional(body, "quarantine_wait_s", 0.0),
        )
        self._quarantine_at = folder, max_bytes, wait_s
        self._lane = lane_for(core, self._engine, most_attempts, self._give_up, self._given_up)
        self._core = core
        if self._batches:
            self._lane.run_together(self._batches)
        point("worker.begun")
        return {}

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
        maxima, resume = _maxima(optional(body, "dims", {})), optional(body, "resume", False)
        how = (_core.RESUME if resume else 0) | (_core.STAGED if optional(body, "staged", False) else 0)
        how |= _core.HIGH if optional(body, "priority", NORMAL) == HIGH else 0
        how |= _core.ALONE if optional(body, "alone", False) else 0
        fds = descriptors(message, ATTACH_DESCRIPTORS)
        point("worker.attaching")
        self._numbers[number] = lane.attach(fds, specs, layout, maxima, how=how)
        point("worker.attached")
        return {"attempts": lane.interrupted(self._numbers[number]) if resume else 0}

    def _detach(self, message: Message) -> dict[str, Any]:
        """Idempotent: a channel that failed to attach is detached as well."""
        number = self._numbers.pop(field(message.body, "channel", int), None)
        if number is not None:
            self._loaded().detach(number)
            point("worker.detached")
        return {}

    def _keep(self, message: Message) -> dict[str, Any]:
        """Detach every channel but these: a supervisor that took over knows of no other.

        It does not know either how far its predecessor came with this worker, and is told. Its crowd is
        another one.
        """
        if self._core:
            self._join_crowd(self._core, message)
        wanted = field(message.body, "channels", list)
        for number in [number for number in self._numbers if number not in wanted]:
            self._loaded().detach(self._numbers.pop(number))
        return {"begun": self._lane is not None, "channels": list(self._numbers)}

    def _join_crowd(self, core: _core.Worker, message: Message) -> None:
        """Have the worker count among the daemon's, where the supervisor has a place for it."""
        body = message.body
        if "entry" not in body:
            return
        (crowd_fd,) = descriptors(message, 1)
        core.join_crowd(crowd_fd, count(body, "entry"), self._threads, count(body, "cores"))
        message.fds.clear()

    def _ping(self, _message: Message) -> dict[str, Any]:
        return {}

    def _drain(self, _message: Message) -> dict[str, Any]:
        if self._lane:
            self._lane.finish()
        point("worker.drained")
        self._ended = True
        return {}

    def _give_up(self, request: GivenUp) -> str:
        """Keep the inputs of a request that ended its workers; what its answer says."""
        from ipc_server import quarantine  # noqa: PLC0415 - it takes numpy, which few workers need

        point("worker.giving-up")
        folder, max_bytes, wait_s = self._quarantine_at
        if folder and not self._quarantine:
            self._quarantine = quarantine.Quarantine(folder, max_bytes, wait_s)
        number = self._daemons_number(request.channel)
        if self._quarantine and not request.may_be_kept:
            log.error(
                "channel %d: a worker died as it kept the inputs of its request: they are not kept", number
            )
        place = (
            self._quarantine.keep(self._model, number, request)
            if self._quarantine and request.may_be_kept
            else None
        )
        told = quarantine.sentence(request.attempts, place)
        log.error("model %s, channel %d: %s", self._model, number, told)
        return told

    def _daemons_number(self, channel: int) -> int:
        return next(number for number, its in self._numbers.items() if its == channel)

    def _given_up(self, channel: int) -> None:
        """Tell the supervisor of a request that was given up."""
        point("worker.gave-up")
        try:
            event = {"event": "poisoned", "channel": self._daemons_number(channel)}
            messages.send(self._control, event)
        except (BrokenPipeError, ConnectionResetError):
            self._ended = True

    def _loaded(self) -> Lane:
        if not self._lane:
            raise bad("it has not begun to serve yet")
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
        packed=optional(body, "packed", False),
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


def _refusal(request: Mapping[str, Any], error: Exception) -> bytes:
    """Refuse with the error's own code, or that of the shortage which it comes from: that may pass."""
    own = error.code if isinstance(error, SidecamlError) else ErrorCode.SYSTEM
    told = SidecamlError(shortage_behind(error) or own, _words(error))
    return messages.pack(messages.reply_error(request, told))


def _words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "the worker is out of memory"
    if isinstance(error, (SidecamlError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve on the socket that was inherited; the exit code."""
    parser = argparse.ArgumentParser(
        prog="sidecaml-worker", description="One model of sidecaml; started by the daemon."
    )
    parser.add_argument(
        "--control-fd", type=int, required=True, metavar="FD", help="socket to the supervisor"
    )
    parser.add_argument(
        "--lifeline-fd", type=int, metavar="FD", help="page that tells the supervisor when this process dies"
    )
    chosen = parser.parse_args(arguments)
    control_fd = chosen.control_fd
    logs.setup(os.environ.get("SIDECAML_LOG_LEVEL", "info"))
    try:
        os.set_inheritable(control_fd, False)
        control = socket.socket(fileno=control_fd)
    except OSError as error:
        parser.error(f"--control-fd {control_fd}: {error.strerror}")
    # A terminal and a service manager signal the whole group: what to finish is the daemon's to say.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if chosen.lifeline_fd is not None:
        _core.hold_lifeline(chosen.lifeline_fd)
        os.close(chosen.lifeline_fd)
    processes.settle_in(control)
    with control:
        _core.exit_with_peer(control.fileno())
        Worker(control).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
