"""`small` in the forms of other engines; the numpy form itself, which a worker imports, is here too.

`python -m bench.engine_forms FOLDER` writes PyTorch's, from the weights in the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

WEIGHTS = "weights.npz"
SIGNATURE = 'inputs = { x = "float32[1,64]" }\noutputs = { y = "float32[1,10]" }\n'
NUMPY = "numpy"
# What the daemon is told of each form, with the model's own folder as the place of files.
FORMS = {
    NUMPY: f'engine = "python"\ncallable = "bench.engine_forms:Numpy"\npython_path = ["."]\n{SIGNATURE}',
    "torchscript": f'engine = "torch"\npath = "small.ts"\n{SIGNATURE}',
    "pt2": f'engine = "torch"\npath = "small.pt2"\n{SIGNATURE}',
}


class Numpy:
    """The model in numpy."""

    def __init__(self) -> None:
        """Read the weights out of the folder that python_path names."""
        path = next(path for path in (Path(folder, WEIGHTS) for folder in sys.path) if path.exists())
        with np.load(path) as file:
            self.layers = layers_of(dict(file))

    def __call__(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Run it."""
        *inner, (weights, bias) = self.layers
        for inner_weights, inner_bias in inner:
            x = np.maximum(x @ inner_weights + inner_bias, 0)
        np.matmul(x, weights, out=y)
        y += bias


def layers_of(arrays: dict[str, NDArray[Any]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Give weights and bias of each layer."""
    return [(arrays[f"w{layer}"], arrays[f"b{layer}"]) for layer in range(len(arrays) // 2)]


def write_weights(model: Path, folder: Path) -> None:
    """Write the weights for numpy."""
    arrays = {array.name: numpy_helper.to_array(array) for array in onnx.load(model).graph.initializer}
    np.savez(folder / WEIGHTS, allow_pickle=False, **arrays)


def write_torch(folder: Path) -> None:
    """Write TorchScript and an exported program, from the weights."""
    import torch  # noqa: PLC0415

    with np.load(folder / WEIGHTS) as file:
        layers = layers_of(dict(file))
    modules: list[Any] = []
    for weights, bias in layers:
        linear = torch.nn.Linear(*weights.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weights.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
        modules += [linear, torch.nn.ReLU()]
    module = torch.nn.Sequential(*modules[:-1]).eval()
    torch.jit.script(module).save(str(folder / "small.ts"))
    example = torch.zeros(1, layers[0][0].shape[0])
    torch.export.save(torch.export.export(module, (example,)), folder / "small.pt2")


if __name__ == "__main__":
    write_torch(Path(sys.argv[1]))
