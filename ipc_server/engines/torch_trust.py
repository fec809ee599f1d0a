"""Which files PyTorch may read: none that executes code as it is read, unless the configuration says so.

A pickle can call anything. TorchScript's own format cannot, and neither can a state dict that is read with
`weights_only=True`. Exported programs can in several ways, as of PyTorch 2.13: their loader unpickles
weights, constants and sample inputs without that restriction, evaluates expressions (sympy.sympify is eval),
looks operators up by any path below `torch`, and opens the libraries of ahead-of-time compiled models. So an
archive is judged here record by record, through the reader and on the bytes that it is then loaded from.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from ipc_server.messages import shorten, shown

ALLOW: Final = "set unsafe_load = true if you trust it as you trust a program"

_FUNCTIONS: Final = frozenset(
    """
    Abs Add And CeilDiv CeilToInt CleanDiv Eq Equality Float FloatPow FloatTrueDiv FloorDiv FloorToInt Ge
    GreaterThan Gt Identity IntTrueDiv Integer LShift Le LessThan Lt Max Min Mod ModularIndexing Mul Ne Not
    Or Piecewise Pow PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt StrictGreaterThan
    StrictLessThan Symbol ToFloat TruncToFloat TruncToInt Unequality Where ceiling floor sqrt
    """.split()  # noqa: SIM905 - forty lines otherwise
)
_EXPRESSION_NODES: Final = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Call,
    ast.Name,
    ast.Constant,
    ast.keyword,
    ast.Tuple,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
)
_WORD: Final = re.compile(r"\w+")
# Operators of PyTorch itself, Python's arithmetic, and what export puts for sizes.
_OPERATOR: Final = re.compile(
    r"torch\.ops\.(aten|prim|prims|quantized|quantized_decomposed|higher_order)\.\w+(\.\w+)?"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.(sym_(float|int|ite|max|min|not|sqrt|sum)|_sym_sqrt)"
)


class UntrustedError(Exception):
    """A file that would execute code as it is read: says what it holds."""


def load_weights(path: Path, unsafe: bool) -> Any:
    """Read a state dict. UntrustedError for a pickle with code in it."""
    if not unsafe:
        check_pickle(path.read_bytes(), "the file")
    return torch.load(path, map_location="cpu", weights_only=not unsafe)


def check_pickle(data: bytes, what: str) -> None:
    """Refuse a pickle that holds more than tensors and plain values, without executing any of it."""
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        named = _globals_of(data)
        if named is None:
            raise
        raise UntrustedError(
            f"{what} is a pickle that would execute code as it is read: it holds more than weights ({named})"
        ) from error


def _globals_of(data: bytes) -> str | None:
    """Name what a pickle would look up or call; None when it is no pickle that can be read."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception:
        # Of the old form, without an archive around it: its opcodes tell that it is one, at least.
        return "of a form that cannot be judged" if data[:1] == b"\x80" else None
    return (
        f"it names {shorten(', '.join(map(str, names)), 160)}"
        if names
        else "its instructions are not those of weights"
    )


def check_exported(data: bytes) -> None:
    """Refuse an archive of torch.export that could execute code as it is read."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
        # The form of PyTorch 2.7 and before, which the loader falls back to.
        if "version" in archive.namelist():
            raise UntrustedError("it is of the form of PyTorch 2.7, which is all pickles: export it anew")
    if len(set(names)) != len(names):
        raise UntrustedError("it holds two records of one name")
    # Imported here: it takes as long as PyTorch itself.
    from torch.export.pt2_archive._package import PT2ArchiveReader  # noqa: PLC0415

    with PT2ArchiveReader(io.BytesIO(data)) as reader:
        for name in reader.get_file_names():
            _check_record(reader, name)


def _check_record(reader: Any, name: str) -> None:
    if name.startswith(("data/aotinductor/", "data/executorch/")):
        raise UntrustedError(f"it holds compiled code ({shown(name)})")
    if name.endswith(".pt"):
        if data := reader.read_bytes(name):
            check_pickle(data, f"its record {shown(name)}")
    elif name.startswith("data/") and name.endswith("_config.json"):
        _check_payloads(reader, name)
    elif name.startswith("models/"):
        _check_program(json.loads(reader.read_bytes(name)))


def _check_payloads(reader: Any, name: str) -> None:
    folder = name.rpartition("/")[0]
    for payload in json.loads(reader.read_bytes(name))["config"].values():
        path = str(payload["path_name"])
        if path.startswith(("custom_obj_", "opaque_obj_")):
            raise UntrustedError(f"it holds an object that is no tensor ({shown(path)})")
        if payload.get("use_pickle"):
            check_pickle(reader.read_bytes(f"{folder}/{path}"), f"its record {shown(path)}")


def _check_program(program: Any) -> None:
    for key, value in _entries(program):
        if key == "expr_str" and not _is_plain_expression(value):
            raise UntrustedError(f"its expression {shown(value)} is more than arithmetic on sizes")
        if key == "range_constraints" and isinstance(value, dict):
            for expression in value:
                if not _is_plain_expression(expression):
                    raise UntrustedError(f"its range of {shown(expression)} is more than one of sizes")
        if (
            key == "target"
            and isinstance(value, str)
            and not _is_weight(value)
            and not _OPERATOR.fullmatch(value)
        ):
            raise UntrustedError(f"its operator {shown(value)} is not one of PyTorch's own")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every map in what JSON holds, however deep."""
    # Without recursion, which a file could exhaust.
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            yield from item.items()
            left += item.values()
        elif isinstance(item, list):
            left += item


def _is_weight(target: str) -> bool:
    # Of a mutation or an input: the name of a weight, such as l.weight, which nothing is looked up by.
    return not target.startswith(("torch", "_operator", "math", "#"))


def _is_plain_expression(text: Any) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    symbols = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Symbol"
        and node.args
    }
    return all(_is_plain_node(node, id(node) in symbols) for node in ast.walk(tree))


def _is_plain_node(node: ast.AST, names_symbol: bool) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        # Elsewhere sympy would evaluate it.
        return names_symbol and _WORD.fullmatch(node.value) is not None
    return isinstance(node, _EXPRESSION_NODES)
