"""`sidecaml describe`: a model's signature, as a person would write it and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ipc_server.batching import LEAST_BATCH, Batching
from ipc_server.client import Model, describe
from ipc_server.decode import counted
from ipc_server.engines import batches_of, load
from ipc_server.settings import Settings
from ipc_server.signature import Signature, Tensor

_INDENT = "  "
_PROOF = {
    "exact": "exact: tested to have the bits of answers that are computed alone",
    "any": "any: whether answers are those that are computed alone was not tested",
}
_NEAR = "{}: tested to be as near as that to answers that are computed alone"


def served(name: str, socket: Path) -> Model:
    """Ask the daemon for one model; UNKNOWN_MODEL names the nearest one that there is."""
    return describe(name, str(socket))


def in_file(path: Path) -> Model:
    """Load a model's file here, as a worker would, and tell what it is; MODEL_FAILED when it cannot be."""
    chosen = Settings(path.name, path)
    engine = load(chosen)
    batching = batches_of(engine, chosen).batching
    return Model(path.name, "onnx", "ready", "", 0, engine.signature, batching)


def is_known(model: Model) -> bool:
    """Whether the model's signature is known: not before it is loaded, and not when that failed."""
    return model.state == "ready"


def as_text(model: Model) -> str:
    """Show it to a person."""
    title = f"{model.name}  {model.state}  {model.engine}"
    if model.max_slots and is_known(model):
        title += f"  up to {counted(model.max_slots, 'slot')}"
    if not is_known(model):
        return f"{title}\n{_INDENT}{model.problem or 'its signature is known when it is loaded: ask again'}"
    return "\n".join([title, *_signature_lines(model.signature), *_batching_lines(model.batching)])


def as_json(model: Model) -> str:
    """Show it to a program: the protocol's form, with the places of each dynamic dimension."""
    body: dict[str, Any] = {
        "name": model.name,
        "engine": model.engine,
        "state": model.state,
        "problem": model.problem,
        "max_slots": model.max_slots,
    }
    if is_known(model):
        signature = model.signature
        body |= {"fingerprint": signature.fingerprint, **signature.describe(), "dims": _places(signature)}
        body["batching"] = model.batching.describe()
    return json.dumps(body, indent=2, ensure_ascii=False)


def _signature_lines(signature: Signature) -> Iterator[str]:
    yield from _group("inputs", signature.inputs)
    yield from _group("outputs", signature.outputs)
    if signature.state:
        yield f"{_INDENT}carried from one request of a channel to the next"
        yield from (
            f"{_INDENT * 2}{pair.tensor.name}  {pair.tensor.type_text}, from {pair.output}"
            for pair in signature.state
        )
    places = _places(signature)
    if not places:
        return
    yield f"{_INDENT}dynamic dimensions: give the largest of each in `dims` at open"
    width = max(map(len, places))
    for name, found in places.items():
        where = ", ".join(f"{place['tensor']}[{place['axis']}]" for place in found)
        shared = ", the same in all of them in one request" if len(found) > 1 else ""
        yield f"{_INDENT * 2}{name:{width}}  {where}{shared}"


def _batching_lines(batching: Batching) -> Iterator[str]:
    if not batching.is_on:
        yield f"{_INDENT}requests run one by one" + (f": {batching.why}" if batching.why else "")
        return
    yield f"{_INDENT}requests run together: up to {batching.most} rows of {batching.dim} in one run"
    yield f"{_INDENT * 2}{_PROOF.get(batching.policy, _NEAR).format(batching.policy)}"
    if batching.why:
        yield f"{_INDENT * 2}not more, because {batching.why}"
    yield f"{_INDENT * 2}{'; '.join(_ways(batching))}"
    if batching.shared:
        yield f"{_INDENT * 2}if they have the same {', '.join(batching.shared)}"
    for name, sizes in batching.sizes.items():
        yield f"{_INDENT * 2}if {name} is {' or '.join(map(str, sizes))}"


def _ways(batching: Batching) -> Iterator[str]:
    if batching.in_place:
        least = f" and there are {batching.rest_from} or more" if batching.rest_from > LEAST_BATCH else ""
        yield f"where they lie, if they are neighbours{least}"
    if batching.gather_from:
        yield f"copied together, if there are {batching.gather_from} or more"


def _group(title: str, tensors: Sequence[Tensor]) -> Iterator[str]:
    yield f"{_INDENT}{title}" + ("" if tensors else ": none")
    width = max((len(tensor.name) for tensor in tensors), default=0)
    yield from (f"{_INDENT * 2}{tensor.name:{width}}  {tensor.type_text}" for tensor in tensors)


def _places(signature: Signature) -> dict[str, list[dict[str, Any]]]:
    """Find the tensors and axes of every dynamic dimension."""
    return {
        name: [
            {"tensor": tensor.name, "axis": axis}
            for tensor in signature.tensors
            for axis, dim in enumerate(tensor.shape)
            if dim == name
        ]
        for name in signature.dim_names
    }
