"""What `sidecaml export` does: write, prove, and only then put the file in its place."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ipc_server.decode import counted
from ipc_server.export import ExportError
from ipc_server.export.cases import Arrays, Sizes, draw, sizes_of
from ipc_server.export.distance import is_comparable, is_float
from ipc_server.export.held_signals import held_signals
from ipc_server.messages import shown
from ipc_server.signature import Tensor, text_of
from ipc_server.suggest import hint
from ipc_server.tensor import NUMPY_DTYPE
from ipc_server.tensor_text import TensorTextError, parse_named

if TYPE_CHECKING:
    from ipc_server.export.onnx_file import Subject
    from ipc_server.export.proof import Case

T = TypeVar("T")

LARGEST_SIZE = 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for, read and checked."""

    inputs: Sequence[Tensor]
    ranges: Mapping[str, tuple[float, float]]
    sizes: Sequence[Sizes]
    seed: int

    def draw(self, number: int, sizes: Sizes) -> Arrays:
        """Draw the inputs of one run: the same for the same seed and number."""
        return draw(self.inputs, sizes, self.ranges, np.random.default_rng([self.seed, number]))


def export(options: argparse.Namespace) -> str:
    """Export and prove; what to tell the person. Raises ExportError, with no file written."""
    inputs = _inputs(options.input)
    sizes = sizes_of(inputs, _named(options.sizes, "--sizes", _sizes))
    plan = Plan(inputs, _ranges(options.range, inputs), sizes, options.seed)
    _require_torch()
    from ipc_server.export import factory, proof  # noqa: PLC0415
    from ipc_server.export.onnx_file import Subject, check_inputs  # noqa: PLC0415

    module = factory.make(options.factory, options.python_path or [Path.cwd()], options.weights)
    subject = Subject(options.factory, module, inputs)
    check_inputs(subject)
    with _beside(options.path) as written:
        _write(options, subject, plan, written)
        tolerance = proof.Tolerance(options.tolerance, options.atol)
        rows = proof.prove(written, inputs, _cases(subject, plan), tolerance)
    worst = max(row.distance.absolute for row in rows), max(row.distance.ulp for row in rows)
    return (
        f"{options.factory} -> {options.path}  in: {text_of(inputs)}\n{proof.table(rows)}\n"
        f"export: ok  {counted(len(sizes), 'run')}, seed {options.seed}: the daemon and onnxruntime agree in "
        f"every bit, PyTorch within {worst[0]:.3g} or {worst[1]:.0f} ULP"
    )


def _write(options: argparse.Namespace, subject: Subject, plan: Plan, path: Path) -> None:
    from ipc_server.export import onnx_file  # noqa: PLC0415

    example = plan.draw(0, onnx_file.example_sizes(plan.inputs))
    own_names = [name for name, _ in onnx_file.run(subject, example)]
    onnx_file.write(subject, _output_names(options.output, own_names), example, options.opset, path)


def _cases(subject: Subject, plan: Plan) -> list[Case]:
    from ipc_server.export import onnx_file, proof  # noqa: PLC0415

    cases = []
    for number, sizes in enumerate(plan.sizes, 1):
        arrays = plan.draw(number, sizes)
        expected = onnx_file.run(subject, arrays)
        outputs = [onnx_file.to_numpy(subject.spec, name, value) for name, value in expected]
        cases.append(proof.Case(sizes, arrays, outputs))
    return cases


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a path to write in a folder of its own beside `path`; what is there at the end replaces `path`."""
    try:
        if path.is_dir():
            raise ExportError(f"{path} is a folder: expected the file to write")
        with ExitStack() as undo:
            with held_signals():
                making = tempfile.TemporaryDirectory(prefix=".sidecaml-export-", dir=path.parent)
                folder = undo.enter_context(making)
            yield Path(folder, path.name)
            # Weights that lie in files of their own come first: the model names them.
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                file.replace(path.parent / file.name)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error


def _inputs(texts: Sequence[str]) -> list[Tensor]:
    try:
        inputs = [parse_named(text) for text in texts]
    except TensorTextError as error:
        raise ExportError(f"--input: {error}") from error
    for number, tensor in enumerate(inputs):
        if tensor.name in (other.name for other in inputs[:number]):
            raise ExportError(f"--input: {shown(tensor.name)} is given twice")
        _check_drawn(tensor)
    return inputs


def _check_drawn(tensor: Tensor) -> None:
    if not is_comparable(tensor.dtype):
        raise ExportError(
            f"--input: {tensor.name} is {tensor.dtype.name.lower()}: random inputs are drawn of "
            "floating-point numbers of 16 bits and more, of whole numbers of 8 and more, and of bool"
        )


def _output_names(given: Sequence[str], own: Sequence[str | None]) -> list[str]:
    if given:
        if len(given) != len(own):
            raise ExportError(
                f"--output: {counted(len(given), 'name')} are given, and the module has "
                f"{counted(len(own), 'output')}"
            )
        names = list(given)
    elif len(own) == 1:
        names = [own[0] or "output"]
    else:
        names = [name or f"output{number}" for number, name in enumerate(own)]
    if len(set(names)) != len(names):
        raise ExportError(f"--output: a name is given twice: {', '.join(names)}")
    return names


def _ranges(texts: Sequence[str], inputs: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    ranges = _named(texts, "--range", _limits)
    tensors = {tensor.name: tensor for tensor in inputs}
    for name, limits in ranges.items():
        if name not in tensors:
            raise ExportError(f"--range: no input is called {shown(name)}: {hint(name, list(tensors))}")
        _check_range(tensors[name], limits)
    return ranges


def _check_range(tensor: Tensor, limits: tuple[float, float]) -> None:
    """Refuse what numbers of the type cannot be drawn from; the upper limit is not drawn."""
    kind = NUMPY_DTYPE[tensor.dtype].kind
    if kind == "b":
        raise ExportError(f"--range: {tensor.name} is bool, which has no range")
    if is_float(tensor.dtype):
        return
    least, most = np.iinfo(NUMPY_DTYPE[tensor.dtype]).min, np.iinfo(NUMPY_DTYPE[tensor.dtype]).max
    if not all(limit.is_integer() and least <= limit <= most + 1 for limit in limits):
        raise ExportError(
            f"--range: {tensor.name} is {tensor.dtype.name.lower()}: expected whole numbers from {least} to "
            f"{most + 1}, got {limits[0]:g}:{limits[1]:g}"
        )


def _named(texts: Sequence[str], flag: str, read: Callable[[str], T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = read(value)
        except ValueError:
            example = "N=1,8,64" if flag == "--sizes" else "ids=0:1000"
            raise ExportError(f"{flag}: expected the like of {example}, got {shown(text)}") from None
    return found


def _sizes(text: str) -> list[int]:
    sizes = [int(size) for size in text.split(",")]
    if not all(1 <= size <= LARGEST_SIZE for size in sizes):
        raise ValueError
    return sizes


def _limits(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    limits = float(low), float(high)
    if not all(map(math.isfinite, limits)) or limits[0] >= limits[1]:
        raise ValueError
    return limits


def _require_torch() -> None:
    for package in ("torch", "onnxscript"):
        try:
            __import__(package)
        except ImportError as error:
            raise ExportError(
                f"the package {package} is needed for the export: pip install 'sidecaml[torch]' ({error})"
            ) from error
