"""The proof: the same random inputs through PyTorch, onnxruntime and the daemon, at several sizes."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc_server import client
from ipc_server.abi import Dtype
from ipc_server.export import ExportError
from ipc_server.export.cases import Arrays, Sizes
from ipc_server.export.distance import Distance, compare, ulps, values
from ipc_server.export.own_daemon import own_daemon
from ipc_server.signature import Signature, Tensor, text_of
from ipc_server.tensor import NUMPY_DTYPE, ONNX_CODE

LOAD_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ from PyTorch: see `distance.compare`."""

    ulp: float
    absolute: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One output at one choice of sizes."""

    output: str
    sizes: Sizes
    shape: tuple[int, ...]
    distance: Distance


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs at one choice of sizes, and PyTorch's outputs."""

    sizes: Sizes
    inputs: Arrays
    expected: Sequence[NDArray[Any]]


def prove(path: Path, inputs: Sequence[Tensor], cases: Sequence[Case], tolerance: Tolerance) -> list[Row]:
    """Run every case three ways and compare; ExportError for what is beyond tolerance."""
    session = _Session(path)
    found = [session.run(inputs, case.inputs) for case in cases]
    with own_daemon("--model", f"exported={path}") as socket:
        signature = _served(socket)
        _check_signature(inputs, signature)
        _check_shapes(signature, cases, found)
        # First: a model that draws random numbers is told so.
        rows = [
            row
            for case, outputs in zip(cases, found, strict=True)
            for row in _rows(signature.outputs, case, outputs, tolerance)
        ]
        _compare_daemon(socket, signature, cases, found)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Show the differences, a line for each output and choice of sizes."""
    titles = ("output", "sizes", "shape", "largest value", "|difference|", "ULP", "daemon")
    cells = [
        titles,
        *(
            (
                row.output,
                sizes_text(row.sizes) or "fixed",
                "[" + ",".join(map(str, row.shape)) + "]",
                f"{row.distance.magnitude:.3g}",
                f"{row.distance.absolute:.3g}",
                f"{row.distance.ulp:.0f}",
                "same bits",
            )
            for row in rows
        ),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Show a choice of sizes."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


class _Session:
    """The file in onnxruntime itself, without anything of sidecaml."""

    def __init__(self, path: Path) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime  # noqa: PLC0415

        self._runtime = onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"onnxruntime refuses the exported file: {error}") from error

    def run(self, inputs: Sequence[Tensor], arrays: Arrays) -> list[NDArray[Any]]:
        """Give the outputs: bfloat16 as its bits."""
        feeds = {tensor.name: self._value(tensor.dtype, arrays[tensor.name]) for tensor in inputs}
        taken = {arg.name for arg in self._session.get_inputs()}
        names = [arg.name for arg in self._session.get_outputs()]
        try:
            found = self._session.run_with_ort_values(
                names, {name: value for name, value in feeds.items() if name in taken}
            )
        except Exception as error:
            raise ExportError(f"onnxruntime cannot run the exported file: {error}") from error
        return [self._array(value) for value in found]

    def _value(self, dtype: Dtype, array: NDArray[Any]) -> Any:
        make = self._runtime.OrtValue.ortvalue_from_numpy_with_onnx_type
        return make(array, ONNX_CODE[dtype])

    def _array(self, value: Any) -> NDArray[Any]:
        code = value.element_type()
        dtype = next(dtype for dtype, other in ONNX_CODE.items() if other == code)
        data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
        return np.frombuffer(data, NUMPY_DTYPE[dtype]).reshape(value.shape())


def _served(socket: str) -> Signature:
    """Wait until the daemon has loaded it."""
    end = time.monotonic() + LOAD_TIMEOUT_S
    while (model := client.describe("exported", socket)).state == "loading" and time.monotonic() < end:
        time.sleep(0.01)
    if model.state != "ready":
        raise ExportError(f"the daemon cannot load the exported file: {model.problem or model.state}")
    return model.signature


def _check_signature(inputs: Sequence[Tensor], signature: Signature) -> None:
    """Refuse a file whose inputs are not those that were asked for."""
    wanted, found = tuple(inputs), signature.inputs
    if wanted != found:
        raise ExportError(
            f"the exported file takes {text_of(found)} where {text_of(wanted)} was asked for: the "
            "exporter found that the model leaves no other choice; write in --input what it takes"
        )


def _check_shapes(
    signature: Signature, cases: Sequence[Case], found: Sequence[Sequence[NDArray[Any]]]
) -> None:
    for case, outputs in zip(cases, found, strict=True):
        for tensor, ours, theirs in zip(signature.outputs, outputs, case.expected, strict=True):
            if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
                raise ExportError(
                    f"output {tensor.name}{_at(case)} is {theirs.dtype}{list(theirs.shape)} in PyTorch and "
                    f"{ours.dtype}{list(ours.shape)} in onnxruntime: the exported file is wrong"
                )


def _compare_daemon(
    socket: str, signature: Signature, cases: Sequence[Case], found: Sequence[Sequence[NDArray[Any]]]
) -> None:
    with client.open_model("exported", socket=socket, dims=_maxima(signature, cases, found)) as channel:
        for case, outputs in zip(cases, found, strict=True):
            for tensor in signature.inputs:
                if tensor.dynamic:
                    channel.set_dims(tensor.name, case.inputs[tensor.name].shape)
                channel.input(tensor.name)[...] = case.inputs[tensor.name]
            channel.run()
            for tensor, theirs in zip(signature.outputs, outputs, strict=True):
                _require_equal(case, tensor, channel.output(tensor.name), theirs)


def _require_equal(case: Case, tensor: Tensor, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    if ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes():
        return
    apart = f"{ulps(tensor.dtype, ours, theirs).max():.0f} ULP" if ours.shape == theirs.shape else "its shape"
    raise ExportError(
        f"output {tensor.name}{_at(case)} differs between the daemon and onnxruntime by {apart}: they "
        "must give the same bits: this is a fault of sidecaml, please report it"
    )


def _maxima(
    signature: Signature, cases: Sequence[Case], found: Sequence[Sequence[NDArray[Any]]]
) -> dict[str, int]:
    """Give every dynamic dimension the largest size that it has in any case."""
    maxima = dict.fromkeys(signature.dim_names, 1)
    for case, outputs in zip(cases, found, strict=True):
        arrays = [*(case.inputs[tensor.name] for tensor in signature.inputs), *outputs]
        for tensor, array in zip((*signature.inputs, *signature.outputs), arrays, strict=True):
            for dim, size in zip(tensor.shape, array.shape, strict=True):
                if isinstance(dim, str):
                    maxima[dim] = max(maxima[dim], size)
    return maxima


def _rows(
    outputs: Sequence[Tensor], case: Case, found: Sequence[NDArray[Any]], tolerance: Tolerance
) -> list[Row]:
    rows = []
    for tensor, ours, theirs in zip(outputs, found, case.expected, strict=True):
        distance = compare(tensor.dtype, ours, theirs, tolerance.ulp, tolerance.absolute)
        if distance.outlier is not None:
            raise ExportError(
                f"output {tensor.name}{_at(case)}: {_beyond(tensor.dtype, ours, theirs, distance)}; allowed "
                f"are {tolerance.ulp:g} ULP or {distance.allowed:.3g}. The file is not written. Does the "
                "model draw random numbers? If it is rounding that you can live with, allow it by "
                "--tolerance or --atol"
            )
        rows.append(Row(tensor.name, case.sizes, ours.shape, distance))
    return rows


def _beyond(dtype: Dtype, ours: NDArray[Any], theirs: NDArray[Any], distance: Distance) -> str:
    place = distance.outlier or ()
    pair = [np.atleast_1d(array[place]) for array in (theirs, ours)]
    first, second = (float(values(dtype, value)[0]) for value in pair)
    where = f"at {list(place)} " if place else ""
    return (
        f"{where}PyTorch gives {first:.9g} and onnxruntime {second:.9g}, {abs(first - second):.3g} or "
        f"{ulps(dtype, *pair)[0]:.3g} ULP apart"
    )


def _at(case: Case) -> str:
    return f" with {sizes_text(case.sizes)}" if case.sizes else ""
