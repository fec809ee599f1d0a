"""The one exception that carries an error code of the protocol."""

from __future__ import annotations

from collections.abc import Mapping

from ipc_server.abi import ErrorCode


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
