"""The C core of sidecaml (c_shim/python): segments, the ring of tickets, waits.

Misuse raises `SidecamlError` with INVALID, or TypeError and OverflowError for arguments that are no such
number. All times are nanoseconds of CLOCK_MONOTONIC (`time.monotonic_ns()`); a deadline of 0 means none. One
thread at a time may use an object; while it waits in `next`, `wait` or `spin` any other use is refused.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn, final

from typing_extensions import Buffer

# How a worker attaches a channel: it goes on with one whose worker died; its client is not trusted, so that
# what it writes during a run must change nothing.
RESUME: Final = 1
STAGED: Final = 2
HIGH: Final = 4
ALONE: Final = 8

SPIN: Final = 0
ADAPTIVE: Final = 1
BLOCK: Final = 2

Description = tuple[str | bytes, str, tuple[int | str | None, ...]]

# Whether Session, Binding, open_onnxruntime, Worker.bind and Worker.serve are there: they are left out where
# ONNX Runtime's header was missing when this was built.
NATIVE: Final[bool]

def sentence(text: str | bytes, /) -> str:
    """Make ONNX Runtime's text one short line, of at most 1023 bytes."""

def check_model_file(path: str | os.PathLike[str], /) -> None:
    """Raise MODEL_FAILED for a path that cannot be a model at all."""

def model_not_loaded(path: str | os.PathLike[str], text: str | bytes, /) -> NoReturn:
    """Raise MODEL_FAILED with ONNX Runtime's text made a sentence."""

@final
class Tensors:
    """A model's inputs and outputs, which a channel can carry; every dynamic dimension has a name."""

    def __new__(cls, inputs: Iterable[Description], outputs: Iterable[Description]) -> Tensors:
        """Judge what the model declares: UNSUPPORTED names what a channel cannot carry.

        Each is (name, type as ONNX Runtime writes it, shape); a dimension is a size, a name, or None. A name
        that is not UTF-8 comes as bytes, to be refused.
        """

    @property
    def inputs(self) -> tuple[tuple[str, int, tuple[int | str, ...]], ...]:
        """(name, dtype, shape) of each input."""

    @property
    def outputs(self) -> tuple[tuple[str, int, tuple[int | str, ...]], ...]:
        """(name, dtype, shape) of each output."""

    def request_dims(self, given: Iterable[Iterable[int]], /) -> tuple[tuple[int, ...] | None, ...]:
        """Give the dims of every tensor in a request, from those that its dynamic inputs came with.

        None for an output whose dims only the run can tell. BAD_DIMS when two inputs disagree on a named
        dimension, or a fixed one differs.
        """

    def check_rank(self, output: int, rank: int, /) -> None:
        """Raise UNSUPPORTED when an output without declared dimensions had some in a run on zeros."""

    def check_output(self, output: int, dims: Iterable[int], max_dims: Iterable[int], /) -> None:
        """Raise ENGINE for an output that is not as declared, OUTPUT_TOO_LARGE beyond `max_dims`."""

    def check_text(self, output: int, bytes: int, room: int, /) -> None:
        """Raise OUTPUT_TOO_LARGE for an output whose strings have more bytes than there is room."""

def read_strings(kind: str, name: str, place: Buffer, most: int, count: int, /) -> list[str]:
    """Copy and judge the strings of a slot's tensor: BAD_STRINGS begins with `kind` and `name`.

    `place` is the whole of it: a table for `most` strings, and text.
    """

def write_strings(place: Buffer, most: int, items: Sequence[bytes], /) -> None:
    """Write UTF-8 texts to a slot's tensor; INVALID where they have no room."""

def run_load(
    *,
    channels: Sequence[Channel],
    seeds: Sequence[int],
    window: int,
    burst: int,
    policy: int,
    rate: float,
    start_ns: int,
    measure_ns: int,
    end_ns: int,
    deadline_ns: int,
    inputs: Sequence[Sequence[Buffer]],
    answers: Sequence[Sequence[Buffer]] | None,
    samples: Buffer,
    stop: Buffer,
) -> tuple[dict[int, int], int, int, int, int, int, int, int, int, bool, bool, int]:
    """Keep channels under load without the interpreter lock, and note how long each request took.

    The channels are of one model, opened in the same way, and one thread looks at them in turn: more than
    one take policy SPIN. Each has a window, a rate and a seed of its own, and an equal share of `samples`.

    Of each up to `window` requests are in flight. With a rate above 0 they arrive at random, so many a
    second, and each counts from when it was to start; with 0, `burst` answers are followed by as many
    requests. What was to start before `measure_ns` is left out. Each request gets one of the sets of
    `inputs`, images of a slot's tensors at their start; with `answers`, a row for each set, outputs are
    compared with them. `samples` takes 64-bit nanoseconds of what was answered, channel after channel
    without a gap, each in order. Where a channel's share is full its load ends, and where the first byte of
    `stop` is set, by a signal's handler, all do.

    Gives, of all channels together, requests by outcome (0: answered, else an error code); how many found
    no free slot until the end; wrong answers; answers that the worker had after their deadline; requests
    that were sent after theirs; those, among TIMEOUT, that had no slot until theirs; when sending ended;
    when the last answer came; the thread's processor time; whether it was stopped; whether a share of
    `samples` was full; SERVER_GONE or CORRUPT where that ended a channel, else 0. INVALID raises.
    """

def open_onnxruntime(path: str | os.PathLike[str] | None, /) -> str:
    """Open ONNX Runtime, once for the process; its version.

    MODEL_FAILED says what is missing or too old, INVALID that another one is in use already.
    """

@final
class Session:
    """A model, loaded by ONNX Runtime over its C API."""

    def __new__(cls, path: str | os.PathLike[str], threads: int) -> Session:
        """Load and judge: MODEL_FAILED, UNSUPPORTED."""

    @property
    def inputs(self) -> tuple[tuple[str, str, tuple[int | str, ...]], ...]:
        """(name, type, shape) of each input."""

    @property
    def outputs(self) -> tuple[tuple[str, str, tuple[int | str, ...]], ...]:
        """(name, type, shape) of each output."""

    def bind(self) -> Binding:
        """Make a binding, of nothing yet."""

@final
class Binding:
    """A session's tensors bound to memory, which must stay there: nothing here keeps it alive.

    RuntimeError with a sentence where ONNX Runtime fails. While it serves a slot it cannot be changed.
    """

    def bind_input(self, name: str, dtype: int, dims: Iterable[int], address: int, /) -> None:
        """Read an input from there."""

    def bind_output(self, name: str, dtype: int, dims: Iterable[int], address: int, /) -> None:
        """Write an output there."""

    def bind_output_anywhere(self, name: str, /) -> None:
        """Write an output where ONNX Runtime allocates it: strings always are."""

    def bind_strings(
        self, name: str, dims: Iterable[int], address: int, most: int, text_bytes: int, /
    ) -> None:
        """Read an input from the strings that lie there now: BAD_STRINGS."""

    def copy_strings(self, output: int, name: str, address: int, most: int, text_bytes: int, /) -> None:
        """Write an output of strings, by its number, to a place with room for it."""

    def run(self) -> None:
        """Run the model on what is bound, without the interpreter lock."""

    def outputs(self) -> tuple[tuple[tuple[int, ...], int, int], ...]:
        """(dims, address, bytes) of each output of the last run, valid until the next call.

        Strings have the address 0 and the bytes of their text.
        """

def hold_lifeline(fd: int, /) -> None:
    """Have this thread hold `fd`, shared memory of a page that is all zeros, until its end."""

def wait_lifeline(fd: int, timeout_ns: int, /) -> bool:
    """Whether the thread that holds it is over within the time; may say no before.

    Raises INVALID when nobody holds it. The page may lie: a yes is a reason to look closer.
    """

def exit_with_peer(fd: int, /) -> None:
    """End the process at once, with status 0, when the other end of socket `fd` is gone."""

def usable_cores() -> int:
    """Count the processors that this thread may use at a time.

    That is its affinity mask, or the quota of its control groups, rounded down, where that is less; at
    least 1.
    """

def guard() -> None:
    """Survive clients that take pages of their segments away.

    Installs the handler of SIGBUS, or sees that it still is: to be called after code of others ran.
    """

def guard_again() -> None:
    """Do so in a process where `guard` was called before; in another, nothing."""

@final
class Memory(Buffer):
    """One tensor's place in one slot: a writable buffer of its largest size, `max_bytes`.

    While it is alive, and every view made of it keeps it so (numpy arrays, memoryviews), the channel
    cannot be closed.
    """

    def __len__(self) -> int: ...

@final
class Layout:
    """Where everything lies in a segment."""

    def __new__(
        cls,
        tensors: Iterable[
            tuple[str, int, bool, bool, Iterable[int]]
            | tuple[str, int, bool, bool, Iterable[int], int]
            | tuple[str, int, bool, bool, Iterable[int], int, bool]
        ],
        slots: int,
        fingerprint: int,
    ) -> Layout:
        """Compute it for `tensors`, inputs first.

        Each is (name, dtype, output, dynamic, max_dims[, text_bytes[, packed]]).
        INVALID for what no segment can hold, NO_SPACE for more than 2^62 bytes.
        """

    @classmethod
    def read(cls, buffer: Buffer, /) -> Layout:
        """Read it out of a segment that nobody vouches for: CORRUPT, ABI_MISMATCH."""

    @property
    def segment_bytes(self) -> int:
        """Size of the whole segment."""

    @property
    def slots(self) -> int:
        """Number of slots."""

    @property
    def fingerprint(self) -> int:
        """Fingerprint of the signature."""

    @property
    def tensors(self) -> tuple[tuple[str, int, bool, bool, tuple[int, ...], int, int, int, int], ...]:
        """(name, dtype, output, dynamic, max_dims, array_offset, slot_stride, max_bytes, text_bytes)."""

@final
class Worker:
    """The serving side: any number of channels, one request at a time."""

    def __new__(cls, status_fd: int, control_fd: int, policy: int, page: int = 0) -> Worker:
        """Take a page of the status file over, new or of a worker that died; `control_fd` is only watched."""

    def attach(
        self,
        segment_fd: int,
        request_fd: int,
        answer_fd: int,
        layout: Layout,
        journal_fd: int | None = None,
        how: int = 0,
        /,
    ) -> int:
        """Map and format a zeroed segment and serve it; the channel's index here.

        With RESUME in `how`, go on with one whose worker died. With STAGED, requests run on private copies
        of their tensors, and every slot has the same place for them. With HIGH, they come before those of
        channels without it. With ALONE, each of them runs by itself, for ten minutes. Without a journal,
        nothing of the channel outlives this worker. Takes the descriptors over when it succeeds.
        """

    def join_crowd(self, fd: int, entry: int, threads: int, cores: int, /) -> None:
        """Count among the daemon's workers: `entry` of the crowd page `fd` is this one's.

        A run takes `threads`; the daemon may use `cores`. Takes the descriptor over when it succeeds.
        """

    def broken(self) -> list[int]:
        """Name the channels whose clients took pages of their segments away, each once.

        They are served no more. `next` and `serve` return for the news.
        """

    def interrupted(self, channel: int, /) -> int:
        """Right after RESUME: how often the request was started that the dead worker was running, or 0."""

    def journal(self, channel: int, /) -> tuple[int, int]:
        """Say where the journal's memory for carried state is, and its size in bytes."""

    def carried(self, channel: int, /) -> tuple[bool, int]:
        """Tell whether carried state is committed, and in which place, 0 or 1, the next run reads it."""

    def begin_state(self, channel: int, state: int, /) -> None:
        """Say which state a channel is in before any request of it runs here."""

    def detach(self, channel: int, /) -> None:
        """Unmap a channel. BufferError while views of it exist, INVALID while a request of it runs."""

    def tensor(self, channel: int, slot: int, tensor: int, /) -> Memory:
        """Give the memory of one tensor in one slot."""

    def tensor_address(self, channel: int, slot: int, tensor: int, /) -> int:
        """Say where that memory starts."""

    def next(self, timeout_ns: int | None, /) -> tuple[int, int] | None:
        """Take the next request: its channel and slot.

        None when the time is over, the control socket is readable, or a signal came. A timeout of None waits
        for ever.
        """

    def bind(
        self,
        channel: int,
        slot: int,
        binding: Binding | Callable[[], str | None] | None,
        dims: Iterable[Iterable[int]] = (),
        state: int = 0,
        next_state: int = ...,
        together: bool = True,
        /,
    ) -> None:
        """Have `serve` run requests of a slot by itself: with these dims, in this state of the channel.

        `dims` are those of each dynamic tensor: of inputs as they have to come, of outputs as they are told.
        A run that succeeds takes the channel to `next_state` (default: the same). The 32 latest used are
        kept, until the channel is detached; None ends all of the slot's. Only with `together` may requests be
        part of a batch. A callable takes the interpreter lock, and gives what went wrong, if anything did.
        """

    def attempts(self) -> int:
        """Tell how many workers began to run the running request and died; at most 7."""

    def drop_carried(self) -> None:
        """Carry nothing from now on in the running request's channel; before its memory is cleared."""

    def state(self) -> int:
        """Tell the state of the running request's channel: 0 at first."""

    def resets(self) -> bool:
        """Tell whether the running request wants its channel's state to start anew."""

    def set_state(self, state: int, /) -> None:
        """Say which state it is in from now on; its lowest bit, the place, is committed with the answer."""

    def set_batching(
        self,
        maker: Session | Callable[[tuple[tuple[int, tuple[int, ...]], ...]], Callable[[], str | None]],
        most: int,
        gather_from: int,
        rest_from: int,
        costs_ns: Iterable[int],
        axes: Sequence[int],
        /,
    ) -> None:
        """Have `serve` run up to `most` rows of requests of bound slots as one, before there are channels.

        `gather_from` is the fewest requests for which copying them together pays, `rest_from` the fewest
        neighbours for which copying what does not lie in place does; 0 for never. `costs_ns` has most + 1 run
        times by the number of rows, 0 where unknown; `axes` has of each tensor the one that requests are
        joined along, -1 for an input that they share. INVALID when there are channels.

        A callable gets (address, dims) of each tensor, the dims filled up with zeros, and makes what runs a
        batch there: a callable as in `bind`.
        """

    def serve(self) -> tuple[int, int, str | None] | None:
        """Run the requests of bound slots until there is something else to do.

        Either a request to complete, (channel, slot, failure): with None it has not started, with a text it
        ran and failed so. Or None: the control socket is readable, a signal came, or it is the caller's turn.
        """

    def started(self) -> None:
        """Stamp the start of the request."""

    def complete(self, status: int = 0, message: str | None = None, /) -> bool:
        """Publish the end of the request: 0, or an error code and its message.

        True when the client had given up.
        """

    def get_dims(self, tensor: int, /) -> tuple[int, ...]:
        """Read the dimensions of the request's tensor, once; BAD_DIMS beyond the largest."""

    def set_dims(self, tensor: int, dims: Iterable[int], /) -> None:
        """Write the dimensions of an output, before complete; OUTPUT_TOO_LARGE beyond the largest."""

    def set_needed(self, tensor: int, dims: Iterable[int], /) -> None:
        """Write the true dimensions of a dynamic output, before completing with OUTPUT_TOO_LARGE."""

    def set_text_needed(self, bytes: int, /) -> None:
        """Write the most text that a string output has, before completing with OUTPUT_TOO_LARGE."""

    def close(self) -> None:
        """Detach everything. BufferError while views exist."""

@final
class Channel:
    """The client's side of one open model."""

    def __new__(
        cls,
        segment_fd: int,
        request_fd: int,
        answer_fd: int,
        status_fd: int,
        control_fd: int,
        fingerprint: int,
        policy: int,
    ) -> Channel:
        """Map and check; takes the descriptors over when it succeeds: CORRUPT, ABI_MISMATCH, SYSTEM."""

    def claim(self) -> int:
        """Give the slot that the next submit takes: FULL, BUSY, SERVER_GONE when it may not be filled now."""

    def submit(self, deadline_ns: int = 0, /) -> int:
        """Publish the claimed slot's request and give the slot; errors of `claim`."""

    def poll(self, slot: int, /) -> bool:
        """Whether the request is done; its failure raises."""

    def spin(self, slot: int, spin_ns: int, /) -> bool:
        """Like `poll`, looking for at most `spin_ns`."""

    def wait(self, slot: int, deadline_ns: int = 0, /) -> None:
        """Wait until the request is done; its failure, TIMEOUT and SERVER_GONE raise.

        After TIMEOUT the request is given up, and the slot answers BUSY at `claim` until the worker is done
        with it.
        """

    def wait_any(self, deadline_ns: int = 0, /) -> int:
        """Wait until any request ends whose end was not told yet; its slot, whose `wait` ends at once.

        INVALID when there is none, TIMEOUT at the deadline, which gives none up.
        """

    def claim_wait(self, deadline_ns: int = 0, /) -> int:
        """Claim, but wait while the slot is BUSY: TIMEOUT at the deadline."""

    def claim_run(self, most: int, /) -> int:
        """Count the slots from the next on that may be filled now, at most `most`; else errors of claim."""

    def submit_run(self, count: int, deadline_ns: int = 0, /) -> int:
        """Publish the requests in the next `count` slots, all at once; the first slot.

        INVALID, and none is published, when one of them is not free.
        """

    def release(self, slot: int, /) -> None:
        """Give a finished slot back."""

    def abandon(self, slot: int, /) -> None:
        """Give a request up at any stage."""

    def tensor(self, slot: int, tensor: int, /) -> Memory:
        """Give the memory of one tensor in one slot."""

    def get_dims(self, slot: int, tensor: int, /) -> tuple[int, ...]:
        """Give an input's dimensions as set, or an output's as they came with the last answer."""

    def set_dims(self, slot: int, tensor: int, dims: Iterable[int], /) -> None:
        """Set a dynamic input's dimensions for the requests to come in `slot`: BAD_DIMS, INVALID."""

    def needed(self, slot: int, tensor: int, /) -> tuple[int, ...]:
        """Give the dimensions of a tensor in a request that failed with OUTPUT_TOO_LARGE."""

    def text_needed(self, slot: int, /) -> int:
        """Give the most text that one of such a request's outputs has; 0 where all of it had room."""

    def arm(self, slot: int, /) -> bool:
        """Announce a sleep on `answer_fd`; True when it must not be slept."""

    def disarm(self) -> None:
        """Take the announcement back after waking; then poll."""

    def message(self, slot: int, /) -> str:
        """Give the text of a failed request, before it is released."""

    def stamps(self, slot: int, /) -> tuple[int, int, int, int]:
        """Give (submitted, seen, started, finished) of the last request; 0 when not taken."""

    def gone_event(self) -> bytes | None:
        """Give the daemon's last message to this channel, undecoded."""

    def set_policy(self, policy: int, /) -> None:
        """Change how to wait."""

    def reset(self) -> None:
        """Have carried state start anew with the next request; or the one after, when that is given up."""

    def set_stamps(self, wanted: bool, /) -> None:
        """Take all four stamps of the requests from now on, or none."""

    def close(self) -> None:
        """Unmap and close everything. BufferError while views exist."""

    @property
    def layout(self) -> Layout:
        """The layout of its segment."""

    @property
    def gone(self) -> bool:
        """Whether its waits have seen that daemon or worker is gone."""

    @property
    def closed(self) -> bool:
        """Whether it is closed."""

    @property
    def segment_fd(self) -> int:
        """Descriptor of the segment."""

    @property
    def answer_fd(self) -> int:
        """Descriptor that is readable when an answer has come to who armed."""

    @property
    def control_fd(self) -> int:
        """Descriptor of the control socket."""
