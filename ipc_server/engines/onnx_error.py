"""ONNX Runtime's error texts, made short enough for a person and for a slot."""

from __future__ import annotations

import re

# "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : " and what wraps it.
_PREFIX = re.compile(
    r"^(?:Error in execution: |\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?)"
)
# "/onnxruntime_src/a/b.cc:87 virtual OrtValue* onnxruntime::Kernel::Method(int, const Shape&) const ".
_PLACE = re.compile(r"/\S+\.(?:cc|cpp|h|hpp):\d+ (?:[^()]*\([^()]*\)(?: const)? )?")
_STATUS = re.compile(
    r"Non-zero status code returned while running (\S+) node\. Name:'([^']*)' Status Message: "
)
_INNER = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")


def sentence(error: BaseException) -> str:
    """Say in one line what went wrong."""
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), type(error).__name__)
    while (shorter := _PREFIX.sub("", text)) != text:
        text = shorter
    text = _STATUS.sub(_node, text)
    return _INNER.sub("", _PLACE.sub("", text)).strip() or type(error).__name__


def _node(match: re.Match[str]) -> str:
    kind, name = match.groups()
    return f"node {name!r} ({kind}): " if name else f"a {kind} node: "
