"""The engine `python`: a function of the user's, on numpy's views of the slots."""

from __future__ import annotations

from collections.abc import Sequence

from ipc_server.abi import Dtype, ErrorCode
from ipc_server.engines import Runner, ServedChannel
from ipc_server.engines.annotations import read
from ipc_server.engines.calls import MismatchError, Plan, plan
from ipc_server.engines.functions import Called, judge_of
from ipc_server.engines.imports import described, find_function, where
from ipc_server.engines.numpy_arrays import NumpyArrays
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.signature import Signature, signature_of


class PythonEngine:
    """One function. It runs for requests only: nobody knows what it would do with made-up data."""

    native = False

    def __init__(self, settings: Settings) -> None:
        """Import it and find out how it is called."""
        self._name = settings.name
        self._origin = settings.callable
        self._function = find_function(settings.callable, settings.python_path)
        try:
            self._signature = checked(declared(settings) or read(self._function))
            chosen = plan(self._function, self._signature)
            _check_in_place(self._signature, chosen)
        except MismatchError as error:
            raise SidecamlError(ErrorCode.MODEL_FAILED, f"{self._origin}: {error}") from error
        judge = judge_of(self._signature)
        self._called = Called(self._function, chosen, self._signature, judge, NumpyArrays(), self._sentence)

    @property
    def signature(self) -> Signature:
        """The function's inputs and outputs."""
        return self._signature

    def attach(self, channel: ServedChannel) -> Sequence[Runner]:
        """Prepare every slot of a channel."""
        return self._called.runners(channel)

    def explain(self, error: Exception) -> str:
        """Say in one line what went wrong in a run."""
        return self._sentence(error)

    def _sentence(self, error: BaseException) -> str:
        if isinstance(error, MismatchError):
            return f"model {self._name!r}: {self._origin}: {error}"
        place = ", ".join(filter(None, (self._origin, where(error, self._function))))
        return f"model {self._name!r}: {described(error)} ({place})"


def declared(settings: Settings) -> Signature | None:
    """Give the signature that the configuration gives, if it does."""
    if settings.inputs is None or settings.outputs is None:
        return None
    return Signature(settings.inputs, settings.outputs)


def checked(signature: Signature) -> Signature:
    """Check a signature that no file gives: names once each, and no more than a channel carries."""
    names = [tensor.name for tensor in (*signature.inputs, *signature.outputs)]
    for name in names:
        if names.count(name) > 1:
            raise MismatchError(f"two of its tensors are called {name!r}: expected different names")
    # The limits are those of a description that comes over the control socket.
    return signature_of(signature.describe())


def _check_in_place(signature: Signature, chosen: Plan) -> None:
    known = {dim for tensor in signature.inputs for dim in tensor.shape}
    for number, tensor in enumerate(signature.outputs, len(signature.inputs)):
        if number in chosen.given and tensor.dtype is Dtype.STRING:
            raise MismatchError(
                f"its output {tensor.name!r} is a parameter: expected that strings are returned"
            )
        for dim in tensor.shape:
            if number in chosen.given and isinstance(dim, str) and dim not in known:
                raise MismatchError(
                    f"its output {tensor.name!r} is a parameter, and no input has its dimension {dim!r}: "
                    "expected that it is returned, because only the run can tell how large it is"
                )
