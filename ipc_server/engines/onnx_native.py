"""ONNX Runtime over its C API: the library inside the Python package, so that all lanes use one version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

PACKAGE = "onnxruntime"


def open_library() -> str:
    """Open the library, once for the process; its version. MODEL_FAILED says why there is none."""
    if not _core.NATIVE:
        raise _unavailable(
            "sidecaml was built without onnxruntime_c_api.h, which the native lane needs: install it (Debian "
            "has it in libonnxruntime-dev) and build again"
        )
    path = find_library()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    version = _core.open_onnxruntime(str(path))
    expected = importlib.metadata.version(PACKAGE)
    if version != expected:
        raise _unavailable(
            f"{path} is ONNX Runtime {version} and the Python package {expected}: install the package anew"
        )
    return version


def find_library() -> Path:
    """Find the library inside the package, without importing that."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(place, "capi") for place in (spec.submodule_search_locations or ())] if spec else []
    found = [path for folder in folders for path in sorted(folder.glob("libonnxruntime.so.[0-9]*"))]
    if not found:
        raise _unavailable(f"the Python package {PACKAGE} has no libonnxruntime.so")
    return found[0]


def _unavailable(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.MODEL_FAILED, f'{what}, or set lane = "python"')
