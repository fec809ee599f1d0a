"""Which errors mean that the machine lacks something, and which only sound like it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipc_server import messages, worker
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError, shortage_behind, shortage_of

ROOT = Path(__file__).resolve().parents[2]


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class LooksLikeALibrarys(Exception):
    __module__ = "onnxruntime.capi.onnxruntime_pybind11_state"


class CannotBeSaid(RuntimeError):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), ErrorCode.NO_MEMORY),
        (system(errno.ENOMEM), ErrorCode.NO_MEMORY),
        (system(errno.ENOSPC), ErrorCode.NO_SPACE),
        (system(errno.EMFILE), ErrorCode.LIMIT),
        (system(errno.ENFILE), ErrorCode.LIMIT),
        (RuntimeError("std::bad_alloc"), ErrorCode.NO_MEMORY),
        (RuntimeError("can't start new thread"), ErrorCode.LIMIT),
        # All that std::thread says.
        (RuntimeError("Resource temporarily unavailable"), ErrorCode.LIMIT),
        (LooksLikeALibrarys("pthread_create failed, error code: 11 error msg: "), ErrorCode.LIMIT),
        (OSError("libx.so: cannot open shared object file: Too many open files"), ErrorCode.LIMIT),
        (ImportError("libx.so: failed to map segment: Cannot allocate memory"), ErrorCode.NO_MEMORY),
        (SidecamlError(ErrorCode.SYSTEM, "mapping it: Cannot allocate memory"), ErrorCode.NO_MEMORY),
    ],
    ids=repr,
)
def test_a_shortage_is_known_for_what_it_is_whoever_passes_it_on(
    error: BaseException, code: ErrorCode
) -> None:
    assert shortage_behind(raised(error)) is code
    passed_on = raised(SidecamlError(ErrorCode.MODEL_FAILED, f"module 'm': {error}"), raised(error))
    assert shortage_behind(raised(SidecamlError(ErrorCode.MODEL_FAILED, "step 1"), passed_on)) is code


@pytest.mark.parametrize(
    "error",
    [
        # Of a file's lock, say.
        system(errno.EAGAIN),
        RuntimeError("the cache is locked: [Errno 11] Resource temporarily unavailable"),
        ValueError("cannot parse 'Too many open files'"),
        KeyError("No space left on device"),
        PermissionError(errno.EACCES, "Permission denied", "/models/bad_alloc.bin"),
        CannotBeSaid(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_sounds_like_a_shortage_is_none(error: BaseException) -> None:
    assert shortage_behind(raised(error)) is None
    text = "bad" if isinstance(error, CannotBeSaid) else str(error)
    passed_on = raised(SidecamlError(ErrorCode.MODEL_FAILED, f"module 'm': {text}"), raised(error))
    assert shortage_behind(passed_on) is None
    # As the daemon hears of it.
    refusal = worker._refusal({"id": 1, "op": "load"}, passed_on)  # type: ignore[arg-type]
    told = messages.error_of(messages.unpack(refusal))
    assert told.code is ErrorCode.MODEL_FAILED
    assert shortage_of(told) is None


WITHOUT_PROCESSES = """
import os, resource, subprocess
from ipc_server.errors import shortage_behind

resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
if os.geteuid() == 0:
    os.setuid(65534)
try:
    subprocess.run(["true"])
except OSError as error:
    print(error.errno, repr(shortage_behind(error)))
"""


def test_no_process_to_be_had_is_a_shortage() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_PROCESSES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == f"{errno.EAGAIN} {ErrorCode.LIMIT!r}".split(), ran.stderr


def test_errors_that_cause_each_other_are_looked_at_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert shortage_behind(first) is None
