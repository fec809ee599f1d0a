"""The engine `torch`: modules of PyTorch on tensors that lie in the slots, without gradients."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ipc_server.abi import ErrorCode
from ipc_server.engines import Runner, ServedChannel
from ipc_server.engines.calls import MismatchError
from ipc_server.engines.functions import Called, judge_of
from ipc_server.engines.imports import described
from ipc_server.engines.python import checked
from ipc_server.engines.torch_arrays import TORCH_DTYPE, TorchArrays
from ipc_server.engines.torch_files import Loaded, load
from ipc_server.engines.torch_trust import UntrustedError
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.signature import Signature

log = logging.getLogger(__name__)

# TorchScript compiles in its second run.
WARM_UP_RUNS = 3


class TorchEngine:
    """One module."""

    native = False

    def __init__(self, settings: Settings) -> None:
        """Load and warm up."""
        self._name = settings.name
        self._origin = settings.origin
        torch.set_num_threads(settings.threads)
        # It can be set once in a process.
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(1)
        loaded = _loaded(settings)
        self._signature = loaded.signature
        self._called = Called(
            _without_gradient(loaded.function),
            loaded.plan,
            loaded.signature,
            judge_of(loaded.signature),
            TorchArrays(),
            self._sentence,
        )
        self._warm_up()

    @property
    def signature(self) -> Signature:
        """The module's inputs and outputs."""
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
        return f"model {self._name!r}: {described(error)} ({self._origin})"

    def _warm_up(self) -> None:
        zeros = {
            number: torch.zeros(
                [1 if isinstance(dim, str) else dim for dim in tensor.shape], dtype=TORCH_DTYPE[tensor.dtype]
            )
            for number, tensor in enumerate(self._called.tensors)
        }
        by_place = [zeros[number] for number in self._called.plan.by_place]
        by_name = {name: zeros[number] for name, number in self._called.plan.by_name.items()}
        try:
            for _ in range(WARM_UP_RUNS):
                self._called.function(*by_place, **by_name)
        # As for a request: SystemExit and its like are not the worker's to obey.
        except BaseException as error:
            log.info("the warm-up on zeros failed, which need not matter: %s", described(error))


def _loaded(settings: Settings) -> Loaded:
    """Load; MODEL_FAILED with the file or function and the cause, UNSUPPORTED for what no channel carries."""
    try:
        # It deprecates what its own files need, at each load.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            loaded = load(settings)
        checked(loaded.signature)
    except SidecamlError:
        raise
    except (MismatchError, UntrustedError) as error:
        raise SidecamlError(ErrorCode.MODEL_FAILED, f"{settings.origin}: {error}") from error
    # Whatever a factory raises, SystemExit included.
    except BaseException as error:
        raise SidecamlError(
            ErrorCode.MODEL_FAILED, f"{settings.origin} could not be loaded: {described(error)}"
        ) from error
    for tensor in (*loaded.signature.inputs, *loaded.signature.outputs):
        if tensor.dtype not in TORCH_DTYPE:
            raise SidecamlError(
                ErrorCode.UNSUPPORTED,
                f"{settings.origin}: tensor {tensor.name!r} is {tensor.type_text}, which PyTorch has not",
            )
    return loaded


def _without_gradient(function: Any) -> Any:
    def run(*arguments: Any, **named: Any) -> Any:
        with torch.inference_mode():
            return function(*arguments, **named)

    return run
