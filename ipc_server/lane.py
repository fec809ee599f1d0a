"""The worker's serving loops, which have the engine run requests one at a time: in Python, or in C."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching
from ipc_server.engines import Batches, Engine, Journal, Runner, ServedChannel
from ipc_server.errors import SidecamlError
from ipc_server.signature import TensorSpec

Taken = tuple[int, int] | None

DEFAULT_ATTEMPTS = 2
# The fewest where requests are run together.
ATTEMPTS_TOGETHER = 2


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A request that is not run again, because it ended every worker that ran it."""

    # The lane's number of the channel.
    channel: int
    attempts: int
    # Not where a worker died of just that.
    may_be_kept: bool
    tensors: Sequence[TensorSpec]
    # By tensor: where it lies, and the dimensions that came with the request.
    address: Callable[[int], int]
    dims: Callable[[int], tuple[int, ...]]


# What is done about such a request; the sentence is its answer.
GiveUp = Callable[[GivenUp], str]


def only_told(request: GivenUp) -> str:
    """Say that it is given up."""
    return f"{request.attempts} workers died while they ran this request: it is not run again"


class Lane:
    """A loaded model and the channels it serves, by the core's number; the loop is the python lane's."""

    def __init__(
        self,
        core: _core.Worker,
        engine: Engine,
        most_attempts: int = DEFAULT_ATTEMPTS,
        give_up: GiveUp = only_told,
        given_up: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Serve no channel yet; a request that ended `most_attempts` workers is not run again.

        `give_up` finds the words for its answer; `given_up` hears of the channel once it is answered.
        """
        self._core = core
        self._most_attempts = most_attempts
        self._give_up = give_up
        self._given_up = given_up
        self._tensors: dict[int, Sequence[TensorSpec]] = {}
        self._engine = engine
        self._runners: dict[int, Sequence[Runner]] = {}

    def run_together(self, batches: Batches) -> None:
        """Run requests together from now on, where the lane can; before there are channels."""

    def attach(
        self,
        fds: list[int],
        tensors: Sequence[TensorSpec],
        layout: _core.Layout,
        maxima: Mapping[str, int],
        *,
        how: int = 0,
    ) -> int:
        """Map and format a segment and prepare its slots; the channel's number.

        `maxima` are the largest sizes of dynamic dimensions, by their names. `fds` are segment, request and
        answer doorbell, and journal; once the lane owns them the list is empty. `how` holds
        RESUME to go on with a channel whose worker died, STAGED to run its requests on private copies, HIGH
        to run them before those of other channels.
        """
        core = self._core
        segment_fd, request_fd, answer_fd, journal_fd = fds
        number = core.attach(segment_fd, request_fd, answer_fd, layout, journal_fd, how)
        fds.clear()
        channel = ServedChannel(
            slots=layout.slots,
            tensors=tuple(tensors),
            address=lambda slot, tensor: core.tensor_address(number, slot, tensor),
            get_dims=core.get_dims,
            set_dims=core.set_dims,
            maxima=maxima,
            resets=core.resets,
            get_state=core.state,
            set_state=core.set_state,
            set_needed=core.set_needed,
            set_text_needed=core.set_text_needed,
            journal=self._journal(number),
        )
        self._tensors[number] = channel.tensors
        try:
            self._runners[number] = self._engine.attach(channel)
        except BaseException:
            del self._tensors[number]
            core.detach(number)
            raise
        return number

    def _journal(self, number: int) -> Journal:
        core = self._core
        address, _ = core.journal(number)
        return Journal(address, *core.carried(number), partial(core.begin_state, number), core.drop_carried)

    def interrupted(self, number: int) -> int:
        """Tell, right after a resuming attach, how often the request in flight had been started."""
        return self._core.interrupted(number)

    def broken(self) -> list[int]:
        """Name the channels that lost their memory and are served no more, each once."""
        return self._core.broken()

    def detach(self, number: int) -> None:
        """Serve a channel no more, and unmap it."""
        del self._runners[number], self._tensors[number]
        self._core.detach(number)

    def serve(self) -> None:
        """Run requests until the control socket has something to say, or a signal came."""
        self._run_all(partial(self._core.next, None))

    def finish(self) -> None:
        """Run what is submitted: at most one request a slot, lest a client keeps it going for ever."""
        left = sum(len(runners) for runners in self._runners.values())

        def take() -> Taken:
            nonlocal left
            left -= 1
            # The first None may only mean that the control socket has something to say.
            return self._core.next(0) or self._core.next(0) if left >= 0 else None

        self._run_all(take)

    def close(self) -> None:
        """Unmap everything."""
        self._runners.clear()
        self._core.close()

    def _run_all(self, take: Callable[[], Taken]) -> None:
        while taken := take():
            self._run(*taken)

    def _run(self, channel: int, slot: int) -> None:
        attempts = self._core.attempts()
        if attempts >= self._most_attempts:
            self._refuse(channel, slot, attempts)
            return
        self._core.started()
        self._finish(self._runners[channel][slot].run)

    def _refuse(self, channel: int, slot: int, attempts: int) -> None:
        core = self._core
        request = GivenUp(
            channel,
            attempts,
            attempts <= self._most_attempts,
            self._tensors[channel],
            lambda tensor: core.tensor_address(channel, slot, tensor),
            core.get_dims,
        )
        # A worker that dies as it keeps the inputs counts as well, so that the next one leaves that out.
        core.started()
        core.complete(ErrorCode.WORKER_CRASHED, self._give_up(request))
        self._given_up(channel)

    def _finish(self, run: Callable[[], object]) -> None:
        try:
            run()
        except SidecamlError as error:
            self._core.complete(error.code, str(error))
        except Exception as error:
            self._fail(error)
        else:
            self._core.complete()

    def _fail(self, error: Exception) -> None:
        self._core.complete(ErrorCode.ENGINE, self._engine.explain(error))


class NativeLane(Lane):
    """The loop in C, without the interpreter: Python runs what is unusual, and the first request of its kind.

    A kind is a slot, the dimensions of a request and the state of its channel. It is C's as soon as its
    runner says so: nothing has to be chosen or copied there.
    """

    # How requests are run together.
    _batching = Batching()

    def run_together(self, batches: Batches) -> None:
        """Have C do so: with bindings of its own to the session, for requests that it runs by itself."""
        self._batching = known = batches.batching
        if batches.maker:
            # Which request of a batch ended its worker shows only when each of them is run alone.
            self._most_attempts = max(self._most_attempts, ATTEMPTS_TOGETHER)
            copies = known.gather_from, known.rest_from
            self._core.set_batching(batches.maker, known.most, *copies, known.costs_ns, known.axes)

    def serve(self) -> None:
        """Run requests until the control socket has something to say, or a signal came."""
        while taken := self._core.serve():
            channel, slot, failure = taken
            if failure is None:
                self._run(channel, slot)
            else:
                self._run_again(channel, slot, failure)

    def _run(self, channel: int, slot: int) -> None:
        super()._run(channel, slot)
        self._hand_over(channel, slot)

    def _run_again(self, channel: int, slot: int, failure: str) -> None:
        run_again = self._runners[channel][slot].run_again
        if run_again is None:
            # The words are the engine's already.
            self._core.complete(ErrorCode.ENGINE, failure)
            return
        self._core.bind(channel, slot, None)
        self._finish(run_again)
        self._hand_over(channel, slot)

    def _hand_over(self, channel: int, slot: int) -> None:
        native = self._runners[channel][slot].native
        if native is not None:
            dims = [dims for _, dims in native.dims]
            together = self._batching.holds_for(self._engine.signature, native.dims)
            self._core.bind(channel, slot, native.binding, dims, native.state, native.next_state, together)


def lane_for(
    core: _core.Worker,
    engine: Engine,
    most_attempts: int = DEFAULT_ATTEMPTS,
    give_up: GiveUp = only_told,
    given_up: Callable[[int], None] = lambda _: None,
) -> Lane:
    """Serve with the fastest loop that the engine has."""
    return (NativeLane if engine.native else Lane)(core, engine, most_attempts, give_up, given_up)
