"""The arguments of `sidecaml export`; here nothing is loaded that other commands do not need."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add(commands: Any, run: Callable[[argparse.Namespace], int]) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "export",
        help="write a PyTorch module as an ONNX file, and prove that it computes the same",
        description="Writes what a function returns, a torch.nn.Module, as an ONNX file. Then runs random "
        "inputs of several sizes through PyTorch, onnxruntime and a daemon, and prints the largest "
        "differences. The file is there only if the last two agree in every bit, and with PyTorch within the "
        "tolerance.",
    )
    parser.add_argument("factory", metavar="MODULE:FACTORY", help="a function without arguments, imported")
    parser.add_argument(
        "--input",
        metavar="NAME=TYPE[DIMS]",
        action="append",
        required=True,
        help="an argument of forward, such as x=float32[N,64]; a name for a dimension makes it dynamic, and "
        "the same name elsewhere the same size; repeatable",
    )
    parser.add_argument(
        "--output", metavar="NAME", action="append", default=[], help="an output's name; repeatable, in order"
    )
    parser.add_argument("-o", dest="path", metavar="FILE", type=Path, required=True, help="the file to write")
    parser.add_argument("--weights", metavar="FILE", type=Path, help="a state dict that torch.save wrote")
    parser.add_argument(
        "--python-path",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="where to look for the module; default: the current folder",
    )
    parser.add_argument("--opset", type=_whole(7, 99), metavar="N", help="ONNX's version of the operators")
    parser.add_argument(
        "--sizes",
        metavar="NAME=N,...",
        action="append",
        default=[],
        help="sizes of a dynamic dimension to try; default: 1,2,7,32",
    )
    parser.add_argument(
        "--range",
        metavar="NAME=LOW:HIGH",
        action="append",
        default=[],
        help="an input's values, HIGH excluded; default: standard normal, whole numbers 0:10",
    )
    parser.add_argument(
        "--tolerance",
        metavar="ULP",
        type=_number,
        default=64.0,
        help="how far from PyTorch: so many units in the last place of the value itself, or, unless --atol "
        "says otherwise, of the output's largest; default: 64",
    )
    parser.add_argument("--atol", metavar="X", type=_number, help="or so far in absolute terms")
    parser.add_argument("--seed", type=_whole(0, 2**63 - 1), default=0, help="of the random inputs")
    parser.set_defaults(run=run)


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise ValueError
        return number

    return whole
