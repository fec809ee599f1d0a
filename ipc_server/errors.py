"""The one exception that carries an error code of the protocol, and which errors mean a shortage."""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Iterator, Mapping

from ipc_server.abi import ErrorCode

# What may be over at any time, with the configuration and the model as they are.
_SHORTAGES = frozenset({ErrorCode.NO_MEMORY, ErrorCode.NO_SPACE, ErrorCode.LIMIT})
_BY_NUMBER = {
    errno.ENOMEM: ErrorCode.NO_MEMORY,
    errno.ENOBUFS: ErrorCode.NO_MEMORY,
    errno.ENOSPC: ErrorCode.NO_SPACE,
    errno.EDQUOT: ErrorCode.NO_SPACE,
    errno.EMFILE: ErrorCode.LIMIT,
    errno.ENFILE: ErrorCode.LIMIT,
    errno.ETOOMANYREFS: ErrorCode.LIMIT,
}
# Where an EAGAIN means that there are no processes: anywhere else it may be a file's lock, or a socket.
_MAKES_PROCESSES = {
    "subprocess",
    "multiprocessing.popen_fork",
    "multiprocessing.popen_forkserver",
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.util",
}
# Inference libraries and the dynamic linker say what they lack in words only.
_BY_WORDS = {
    "bad_alloc": ErrorCode.NO_MEMORY,
    "bad allocation": ErrorCode.NO_MEMORY,
    "Failed to allocate memory": ErrorCode.NO_MEMORY,
    "Cannot allocate memory": ErrorCode.NO_MEMORY,
    "No space left on device": ErrorCode.NO_SPACE,
    "Too many open files": ErrorCode.LIMIT,
    "can't start new thread": ErrorCode.LIMIT,
    "pthread_create failed": ErrorCode.LIMIT,
}
# All that C++'s own threads say. With anything around it, it is somebody else's.
_NO_THREADS = "Resource temporarily unavailable"


class SidecamlError(Exception):
    """An error of errors.def with a sentence for people: `str()` is the sentence."""

    def __init__(self, code: int, message: str) -> None:
        """Keep `code`, one of `ErrorCode`, and what happened in words."""
        super().__init__(message)
        self.code = ErrorCode(code)

    @property
    def name(self) -> str:
        """The code's name, such as `UNKNOWN_MODEL`."""
        return self.code.name

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self)

    def __reduce__(self) -> tuple[type[SidecamlError], tuple[object, ...]]:
        """Pickle as code and sentence."""
        return SidecamlError, (int(self.code), str(self))


class OutputTooLarge(SidecamlError):
    """An output had no room in its channel: how large the channel must be.

    `dims` has the true dimensions of every dynamic output, `text_bytes` the most text that a string output
    has, 0 where all of it had room.
    """

    def __init__(self, message: str, dims: Mapping[str, tuple[int, ...]], text_bytes: int) -> None:
        """Keep what the worker says."""
        super().__init__(ErrorCode.OUTPUT_TOO_LARGE, message)
        self.dims = dict(dims)
        self.text_bytes = text_bytes

    def __reduce__(self) -> tuple[type[SidecamlError], tuple[object, ...]]:
        """Pickle with what is needed."""
        return OutputTooLarge, (str(self), self.dims, self.text_bytes)


# Whose words are a library's: an exception of a C++ library comes as the first, one of the dynamic linker as
# the second, and what our own C says as the third.
_IN_WORDS = (RuntimeError, ImportError, SidecamlError)


def shortage_of(error: BaseException) -> ErrorCode | None:
    """Tell which shortage of the machine an error means, or what caused it does; None for others."""
    return next(filter(None, map(_by_kind, _causes(error))), None)


def shortage_behind(error: BaseException) -> ErrorCode | None:
    """Tell the same of what a library or a function of a user raised, whose words may be all there is."""
    *_, first = _causes(error)
    return shortage_of(error) or _by_words(first)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give the error, what caused it, and so on; each once, for users' exceptions may cause one another."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__


def _by_kind(error: BaseException) -> ErrorCode | None:
    if isinstance(error, MemoryError):
        return ErrorCode.NO_MEMORY
    if isinstance(error, SidecamlError):
        return error.code if error.code in _SHORTAGES else None
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EAGAIN and _raised_in(error) in _MAKES_PROCESSES:
        return ErrorCode.LIMIT
    return _BY_NUMBER.get(error.errno) if error.errno else None


def _raised_in(error: BaseException) -> str:
    """Name the module in which it was raised."""
    name = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__"))
    return name


def _by_words(error: BaseException) -> ErrorCode | None:
    if not _is_a_librarys(error):
        return None
    text = ""
    # An exception of a user's can fail even in this.
    with contextlib.suppress(BaseException):
        text = str(error)
    if text == _NO_THREADS:
        return ErrorCode.LIMIT
    return next((code for words, code in _BY_WORDS.items() if words in text), None)


def _is_a_librarys(error: BaseException) -> bool:
    if isinstance(error, OSError):
        # The dynamic linker's by way of ctypes have no number. Any other's number says it all.
        return error.errno is None
    return isinstance(error, _IN_WORDS) or type(error).__module__.startswith("onnxruntime.")
