"""The one exception that carries an error code of the protocol."""

from __future__ import annotations

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

    def __reduce__(self) -> tuple[type[SidecamlError], tuple[int, str]]:
        """Pickle as code and sentence."""
        return SidecamlError, (int(self.code), str(self))
