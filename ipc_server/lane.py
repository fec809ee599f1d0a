"""The worker's serving loops, which have the engine run requests one at a time: in Python, or in C."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.engines import Engine, Runner, ServedChannel
from ipc_server.errors import SidecamlError
from ipc_server.signature import TensorSpec

Taken = tuple[int, int] | None


class Lane:
    """A loaded model and the channels it serves, by the core's number; the loop is the python lane's."""

    def __init__(self, core: _core.Worker, engine: Engine) -> None:
        """Serve no channel yet."""
        self._core = core
        self._engine = engine
        self._runners: dict[int, Sequence[Runner]] = {}

    def attach(
        self,
        fds: list[int],
        tensors: Sequence[TensorSpec],
        layout: _core.Layout,
        maxima: Mapping[str, int],
    ) -> int:
        """Map and format a segment and prepare its slots; the channel's number.

        `maxima` are the largest sizes of dynamic dimensions, by their names. `fds` are segment, request and
        answer doorbell; once the lane owns them the list is empty.
        """
        core = self._core
        segment_fd, request_fd, answer_fd = fds
        number = core.attach(segment_fd, request_fd, answer_fd, layout)
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
        )
        try:
            self._runners[number] = self._engine.attach(channel)
        except BaseException:
            core.detach(number)
            raise
        return number

    def detach(self, number: int) -> None:
        """Serve a channel no more, and unmap it."""
        del self._runners[number]
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
        self._core.started()
        self._finish(self._runners[channel][slot].run)

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
            self._fail(RuntimeError(failure))
            return
        self._core.bind(channel, slot, None)
        self._finish(run_again)
        self._hand_over(channel, slot)

    def _hand_over(self, channel: int, slot: int) -> None:
        native = self._runners[channel][slot].native
        if native is not None:
            dims = [dims for _, dims in native.dims]
            self._core.bind(channel, slot, native.binding, dims, native.state, native.next_state)


def lane_for(core: _core.Worker, engine: Engine) -> Lane:
    """Serve with the fastest loop that the engine has."""
    return NativeLane(core, engine) if engine.native else Lane(core, engine)
