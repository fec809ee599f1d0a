"""Which files PyTorch may read: none that executes code as it is read, unless the configuration says so.

A pickle can call anything. TorchScript's own format cannot, and neither can a state dict that is read with
`weights_only=True`. Exported programs can in several ways, as of PyTorch 2.13: their loader unpickles
weights, constants and sample inputs without that restriction, evaluates expressions (sympy.sympify is eval)
and guards, writes a function in Python of the names in it, imports what the trees of its arguments name,
looks operators up by any path below `torch`, and opens the libraries of ahead-of-time compiled models. So an
archive is judged here record by record, through the reader and on the bytes that it is then loaded from.
Operators that write files are refused too, in either: with those a model can leave code where it will be run.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
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
_FILE_OPERATORS: Final = frozenset({"save", "from_file"})
# As an attribute, whatever stands between it and its point. Operators of inductor believe sizes unchecked.
_REACHING_ATTRIBUTE: Final = re.compile(r"\.(?:\s|\\|#[^\n]*\n)*\b(save|from_file|inductor)\b")
_GETATTR: Final = re.compile(r"""\bgetattr\([\w.()]+, "(?!(?:save|from_file|inductor)")[^"\\\n]*"\)""")
_NAME: Final = re.compile(r"[\w.@ +/-]*")
_RANGES: Final = "range_constraints"
# Of an exported program, what the loader keeps as text, or splits and no more.
_FREE: Final = frozenset(
    """
    as_string as_strings custom from_node nn_module_stack source_fn_stack stack_trace torch_fn
    """.split()  # noqa: SIM905 - as above
)
_CONTAINERS: Final = (
    *(None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"),
    *("collections.deque", "torch.Size"),
    *("torch.fx.immutable_collections.immutable_list", "torch.fx.immutable_collections.immutable_dict"),
)
_OPERATOR_KINDS: Final = (
    torch._ops.OpOverload,
    torch._ops.OpOverloadPacket,
    torch._ops.HigherOrderOperator,
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
    # The reader looks them up in either case.
    if len({name.lower() for name in names}) != len(names):
        raise UntrustedError("it holds two records of one name")
    # Imported here: it takes as long as PyTorch itself.
    from torch.export.pt2_archive._package import PT2ArchiveReader  # noqa: PLC0415

    with PT2ArchiveReader(io.BytesIO(data)) as reader:
        for name in reader.get_file_names():
            _check_record(reader, name)


def check_script(data: bytes) -> None:
    """Refuse TorchScript that could write files or any memory: it may run its code as it is read."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    for name in reader.get_all_records():
        if name.lower().endswith(".py"):
            _check_code(reader.get_record(name).decode(errors="replace"))


def _check_code(code: str) -> None:
    if found := _REACHING_ATTRIBUTE.search(code):
        raise UntrustedError(f"its operator {shown(found[1])} reaches files, or memory that is not its own")
    while (less := _GETATTR.sub("_", code)) != code:
        code = less
    if re.search(r"\bgetattr\b", code):
        raise UntrustedError("its getattr is of a form that cannot be judged")


def _check_record(reader: Any, given: str) -> None:
    name = given.lower()
    if name.startswith(("data/aotinductor/", "data/executorch/")):
        raise UntrustedError(f"it holds compiled code ({shown(name)})")
    if name.endswith(".pt"):
        if data := reader.read_bytes(given):
            check_pickle(data, f"its record {shown(given)}")
    elif name.startswith("data/") and name.endswith("_config.json"):
        _check_payloads(reader, given)
    elif name.startswith("models/"):
        _check_program(json.loads(reader.read_bytes(given)))


def _check_payloads(reader: Any, name: str) -> None:
    folder = name.rpartition("/")[0]
    for payload in json.loads(reader.read_bytes(name))["config"].values():
        path = str(payload["path_name"])
        if not _WORD.fullmatch(path):
            raise UntrustedError(f"its record {shown(path)} is not named as a weight is")
        if path.startswith(("custom_obj_", "opaque_obj_")):
            raise UntrustedError(f"it holds an object that is no tensor ({shown(path)})")
        if payload.get("use_pickle"):
            check_pickle(reader.read_bytes(f"{folder}/{path}"), f"its record {shown(path)}")


def _check_program(program: Any) -> None:
    for key, text in _texts(program):
        if key in _FREE:
            continue
        is_plain, objection = _JUDGES.get(key, (_is_name, "name {} is more than a name"))
        if not is_plain(text):
            raise UntrustedError(f"its {objection.format(shown(text))}")


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Every text of what JSON holds, however deep, with the key that it or its list is under."""
    # Without recursion, which a file could exhaust.
    left = [("", value)]
    while left:
        key, item = left.pop()
        if isinstance(item, dict):
            yield from ((key if key == _RANGES else "", name) for name in item)
            left += item.items()
        elif isinstance(item, list):
            left += ((key, part) for part in item)
        elif isinstance(item, str):
            yield key, item


def _is_name(text: str) -> bool:
    # The loader writes names into a function's code: nothing that calls, assigns or quotes.
    return _NAME.fullmatch(text) is not None


def _is_operator(target: str) -> bool:
    if not target.startswith(("torch", "_operator", "math", "#")):
        # Of a mutation or an input: the name of a weight, such as l.weight, which nothing is looked up by.
        return _is_name(target)
    if not _OPERATOR.fullmatch(target) or not _FILE_OPERATORS.isdisjoint(target.split(".")):
        return False
    if not target.startswith("torch.ops."):
        return True
    found: Any = torch
    for name in target.split(".")[1:]:
        # One that is missing is the loader's to say.
        if not hasattr(found, name):
            return True
        found = getattr(found, name)
    return isinstance(found, _OPERATOR_KINDS)


def _is_plain_tree(text: str) -> bool:
    """Tell whether how arguments or answers are nested names no more than containers and their keys."""
    try:
        _, tree = json.loads(text)
        left = [tree]
        while left:
            node = left.pop()
            if node["type"] not in _CONTAINERS or not _is_plain_context(node["context"]):
                return False
            left += node["children_spec"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return True


def _is_plain_context(context: Any) -> bool:
    # Where it holds maps, the loader imports what they name.
    keys = json.loads(context) if isinstance(context, str) else context
    if isinstance(keys, list):
        return all(isinstance(key, int) or _is_name(key) for key in keys)
    return keys is None or isinstance(keys, int)


def _is_plain_guard(text: str) -> bool:
    """Tell whether a guard only compares sizes of inputs, such as L['x'].size()[1] == 3."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_guard_node(node) for node in ast.walk(tree))


def _is_guard_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        return named or (isinstance(node.func, ast.Attribute) and not node.args and not node.keywords)
    if isinstance(node, ast.Attribute):
        return node.attr in ("size", "stride", "storage_offset", "item")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _is_name(node.value)
    return isinstance(node, (*_EXPRESSION_NODES, ast.Subscript))


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


_JUDGES: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "expr_str": (_is_plain_expression, "expression {} is more than arithmetic on sizes"),
    _RANGES: (_is_plain_expression, "range of {} is more than one of sizes"),
    "guards_code": (_is_plain_guard, "guard {} is more than a comparison of sizes"),
    "in_spec": (_is_plain_tree, "tree of arguments {} holds more than containers and names"),
    "out_spec": (_is_plain_tree, "tree of answers {} holds more than containers and names"),
    "target": (_is_operator, "operator {} is not one of PyTorch's own that compute only"),
    "as_operator": (_is_operator, "operator {} is not one of PyTorch's own that compute only"),
}
