"""What an engine is told of its model: by the configuration, and then by the message `load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ipc_server import orders
from ipc_server.signature import Tensor, tensors_of

ENGINES = ("onnx", "python", "torch", "pipeline")
LANES = ("auto", "native", "python")
MOST_BATCH = 32
# What the journal can tell of one run.
LARGEST_BATCH = 128


@dataclass(frozen=True)
class Settings:
    """One model, or one step of a pipeline."""

    name: str
    path: Path | None = None
    engine: str = "onnx"
    threads: int = 1
    lane: str = "auto"
    # `module:function`, looked for in python_path before anywhere else.
    callable: str = ""
    python_path: tuple[Path, ...] = ()
    # The signature, where the model has none of its own.
    inputs: tuple[Tensor, ...] | None = None
    outputs: tuple[Tensor, ...] | None = None
    # Carried state: from an output to the input that gets it with the channel's next request.
    state: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None
    # Whether files may be loaded that execute code as they are read.
    unsafe_load: bool = False
    steps: tuple[Settings, ...] = ()
    # Of a pipeline: the tensors that it gives; without, all that no later step takes.
    keep: tuple[str, ...] = ()
    # Of a step: from a tensor's name there to its name in the pipeline.
    rename: Mapping[str, str] = field(default_factory=dict)

    # The most rows of requests that one run takes, 1 for none, and what must be proven of it: `exact`,
    # `ulp N`, `any` (nothing) or `off`.
    max_batch: int = MOST_BATCH
    batching: str = "exact"
    # The dynamic dimension that counts them, where it does not show.
    batch_dim: str = ""
    # At which sizes of other dynamic dimensions, and values of shared inputs, it is proven.
    batch_at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where the model comes from, in a few words."""
        return self.callable or (f"its {len(self.steps)} steps" if self.steps else str(self.path))


def encode(settings: Settings) -> dict[str, Any]:
    """Give what `decode` reads, as a control message carries it; what is more than Settings is left out."""
    return {item.name: _encoded(getattr(settings, item.name)) for item in fields(Settings)}


def decode(body: Mapping[str, Any]) -> Settings:
    """Read settings out of a request; PROTOCOL when they are none."""
    return Settings(
        name=orders.optional(body, "name", ""),
        path=_path(body, "path"),
        engine=orders.field(body, "engine", str),
        threads=orders.field(body, "threads", int),
        lane=orders.field(body, "lane", str),
        callable=orders.optional(body, "callable", ""),
        python_path=tuple(map(Path, orders.texts(orders.optional(body, "python_path", []), "python_path"))),
        inputs=_tensors(body, "inputs"),
        outputs=_tensors(body, "outputs"),
        state=orders.names(orders.optional(body, "state", {}), "state"),
        weights=_path(body, "weights"),
        unsafe_load=orders.optional(body, "unsafe_load", False),
        steps=tuple(map(_step, orders.optional(body, "steps", []))),
        keep=orders.texts(orders.optional(body, "keep", []), "keep"),
        rename=orders.names(orders.optional(body, "rename", {}), "rename"),
        max_batch=orders.count(body, "max_batch", LARGEST_BATCH) if "max_batch" in body else MOST_BATCH,
        batching=orders.optional(body, "batching", Settings.batching),
        batch_dim=orders.optional(body, "batch_dim", ""),
        batch_at=orders.sizes(body, "batch_at"),
    )


def _encoded(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_encoded(item) for item in value]
    if isinstance(value, Settings):
        return encode(value)
    if isinstance(value, Tensor):
        return value.describe()
    if isinstance(value, Mapping):
        return {name: _encoded(item) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _path(body: Mapping[str, Any], name: str) -> Path | None:
    return None if body.get(name) is None else Path(orders.field(body, name, str))


def _tensors(body: Mapping[str, Any], name: str) -> tuple[Tensor, ...] | None:
    return None if body.get(name) is None else tensors_of(body[name])


def _step(value: Any) -> Settings:
    if not isinstance(value, dict):
        raise orders.bad("'steps' must hold maps")
    return decode(value)
