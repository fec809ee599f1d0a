"""ONNX Runtime, imported in one place: unless told not to, it opens a database under the home directory."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

__all__ = ["CPU", "onnxruntime", "ort", "run_options"]

CPU = ort.OrtDevice(ort.OrtDevice.cpu(), ort.OrtDevice.default_memory(), 0)


def run_options() -> ort.RunOptions:
    """Options of a run that logs nothing: its failure is the client's to hear of."""
    options = ort.RunOptions()
    options.log_severity_level = 4
    return options
