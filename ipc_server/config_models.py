"""The settings of models: which keys an engine takes, what each may be, and the steps of pipelines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipc_server.abi import MAX_INSTANCES, MAX_SLOTS
from ipc_server.config_values import (
    FLAG,
    ConfigError,
    Gather,
    absent_or,
    boolean,
    list_of,
    matching,
    names_of,
    one_of,
    path_text,
    refuse_unknown,
    seconds,
    sizes_by_name,
    table_of,
    text,
    text_like,
    whole,
)
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.placement import (
    HIGHEST_NICE,
    LOWEST_NICE,
    Placement,
    cpus_text,
    is_real_time,
    scheduling_text,
)
from ipc_server.settings import ENGINES, LANES, LARGEST_BATCH, MOST_BATCH, Settings
from ipc_server.signature import Signature, Tensor, signature_of, text_of
from ipc_server.tensor_text import TensorTextError, parse_type

POLICIES = ("spin", "adaptive", "block")
LARGEST_THREADS = 1024
MOST_STEPS = 64
LONGEST_RUN_S = 300.0
MOST_STANDBYS = 8

BATCHING: Final = ("batching", "max_batch", "batch_dim", "batch_at")
# Of every model, whatever runs it.
GENERAL: Final = (
    *("engine", "policy", "max_slots", "longest_run_s", "standbys", "state"),
    *("instances", "cpus", "scheduling", "nice"),
    *BATCHING,
)
# What each engine takes besides.
TAKEN: Final[dict[str, tuple[str, ...]]] = {
    "onnx": ("path", "threads", "lane"),
    "python": ("callable", "python_path", "inputs", "outputs"),
    "torch": (
        "path",
        "callable",
        "python_path",
        "weights",
        "unsafe_load",
        "inputs",
        "outputs",
        "threads",
    ),
    "pipeline": ("steps", "keep", "python_path", "threads", "lane"),
}
# What a step has from its pipeline when it does not say.
INHERITED: Final = ("python_path", "threads", "lane")
STEP_ENGINES = tuple(engine for engine in ENGINES if engine != "pipeline")

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_BATCHING = re.compile(r"exact|ulp [1-9][0-9]{0,8}|any|off")
_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class ModelConfig(Settings):
    """One model to serve: what its engine is told, and what the daemon keeps to."""

    policy: str = "adaptive"
    max_slots: int = 64
    longest_run_s: float = LONGEST_RUN_S
    # How many workers serve it side by side, and how many have loaded it and wait for one of them to die.
    instances: int = 1
    standbys: int = 1
    # On which processors its workers run, and by which rules: `placement.py`.
    cpus: str = ""
    scheduling: str = ""
    nice: int | None = None

    @property
    def placement(self) -> Placement:
        """Where its workers run, and by which rules."""
        return Placement(self.cpus, self.scheduling, self.nice)

    def settings(self) -> dict[str, object]:
        """Give every setting that says something about this model, by its key under the model's."""
        shown_steps = {
            f"steps.{number}.{key}": getattr(step, key)
            for number, step in enumerate(self.steps, 1)
            for key in ("engine", *TAKEN[step.engine], "rename")
        }
        keys = (*GENERAL, *(key for key in TAKEN[self.engine] if key != "steps"))
        return {key: getattr(self, key) for key in keys} | shown_steps


@dataclass(frozen=True)
class Defaults:
    """What models have that do not say."""

    max_slots: int
    standbys: int


def text_of_value(value: object) -> str:
    """Show a setting for people."""
    if value in (None, "", (), {}):
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} -> {text_of_value(other)}" for name, other in value.items())
    if isinstance(value, tuple):
        tensors = [item for item in value if isinstance(item, Tensor)]
        return text_of(tensors) if tensors else ", ".join(map(str, value))
    return str(value)


def read_models(
    gather: Gather, tables: Mapping[str, Any], flags: Sequence[str], defaults: Defaults
) -> dict[str, ModelConfig]:
    """Take every model of the file and of the command line."""
    named = _named_paths(flags)
    for name in tables:
        _check_model_name(name, gather.file)
    chosen = {
        name: _model(gather, name, table_of(tables, name, gather.file, "models."), defaults, named.get(name))
        for name in sorted({*tables, *named})
    }
    if not chosen:
        raise ConfigError(
            "no model to serve: give --model NAME=PATH, or a file with [models.NAME] and its path"
        )
    return chosen


def _named_paths(flags: Sequence[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for flag in flags:
        name, separator, path = flag.partition("=")
        if not separator or not path:
            raise ConfigError(f"{FLAG}: --model: expected NAME=PATH, got {shown(flag)}")
        _check_model_name(name, f"{FLAG}: --model")
        if name in named:
            raise ConfigError(f"{FLAG}: --model: {shown(name)} is given twice")
        named[name] = Path.cwd() / path
    return named


def _check_model_name(name: str, source: str) -> None:
    if not _MODEL_NAME.fullmatch(name):
        raise ConfigError(
            f"{source}: a model's name: expected 1 to 63 letters, digits, '.', '_' and '-', "
            f"beginning with a letter or digit, got {shown(name)}"
        )


def _model(
    gather: Gather, name: str, table: Mapping[str, Any], defaults: Defaults, named: Path | None
) -> ModelConfig:
    key = f"models.{name}"
    # A path of the command line stands in the place of the file's.
    given = {**table, "path": str(named)} if named else table
    known = {item.name for item in dataclasses.fields(ModelConfig)} - {"name", "rename"}
    refuse_unknown(given, known, f"{gather.file}: [{key}]")
    reader = _Reader(gather, key, given, FLAG if named else gather.file, Settings(name))
    model = ModelConfig(
        **reader.settings(ENGINES, GENERAL),
        policy=reader.value("policy", ModelConfig.policy, one_of(POLICIES)),
        max_slots=reader.value("max_slots", defaults.max_slots, whole(1, MAX_SLOTS)),
        longest_run_s=reader.value("longest_run_s", LONGEST_RUN_S, seconds),
        standbys=reader.value("standbys", defaults.standbys, whole(0, MOST_STANDBYS)),
        instances=reader.value("instances", 1, whole(1, MAX_INSTANCES)),
        cpus=reader.value("cpus", "", cpus_text),
        scheduling=reader.value("scheduling", "", scheduling_text),
        nice=reader.value("nice", None, absent_or(whole(HIGHEST_NICE, LOWEST_NICE))),
    )
    if is_real_time(model.scheduling) and model.nice is not None:
        raise ConfigError(f"{gather.file}: [{key}]: nice says nothing with scheduling = '{model.scheduling}'")
    for item in dataclasses.fields(Defaults):
        gather.inherit(f"{key}.{item.name}", f"limits.{item.name}")
    return model


def _batching_of(engine: str) -> str:
    """Say whether requests of an engine are batched unless somebody says how.

    Functions run for requests only: nobody knows what they would do with made-up data.
    """
    return "exact" if engine == "onnx" else "off"


class _Reader:
    """Reads what an engine is told out of the table of one model or step."""

    def __init__(
        self, gather: Gather, key: str, table: Mapping[str, Any], path_source: str, defaults: Settings
    ) -> None:
        self._gather = gather
        self._key = key
        self._table = table
        self._path_source = path_source
        self._defaults = defaults

    def value(self, item: str, default: object, check: Any) -> Any:
        source = self._path_source if item == "path" else self._gather.file
        if item in self._table:
            return self._gather.take(f"{self._key}.{item}", self._table[item], source, check)
        return self._gather.value(f"{self._key}.{item}", None, {}, default, check)

    def settings(self, engines: Sequence[str], also: Sequence[str]) -> dict[str, Any]:
        """Take everything of Settings, as arguments of its constructor."""
        engine = self.value("engine", self._defaults.engine, one_of(engines))
        taken = TAKEN[engine]
        self._refuse_other_engines(engine, (*also, *taken))
        whole_folder = (self._gather.base,) if engine != "onnx" else ()
        chosen: dict[str, Any] = {
            "name": self._defaults.name,
            "engine": engine,
            "path": self.value("path", None, absent_or(self._file)),
            "threads": self.value("threads", self._defaults.threads, whole(1, LARGEST_THREADS)),
            "lane": self.value("lane", self._defaults.lane, one_of(LANES)),
            "callable": self.value("callable", "", text_like(_CALLABLE, "module:function")),
            "python_path": self.value(
                "python_path", self._defaults.python_path or whole_folder, self._folders
            ),
            "inputs": self._tensors("inputs"),
            "outputs": self._tensors("outputs"),
            "state": self.value("state", {}, names_of("the output that becomes an input, and the input")),
            "weights": self.value("weights", None, absent_or(self._file)),
            "unsafe_load": self.value("unsafe_load", False, boolean),
            "batching": self.value(
                "batching", _batching_of(engine), matching(_BATCHING, "exact, ulp N, any or off")
            ),
            "max_batch": self.value("max_batch", MOST_BATCH, whole(1, LARGEST_BATCH)),
            "batch_dim": self.value("batch_dim", "", text),
            "batch_at": self.value("batch_at", {}, sizes_by_name),
            "keep": tuple(self.value("keep", [], list_of("names of tensors"))),
        }
        chosen["steps"] = self._steps(Settings(**chosen)) if engine == "pipeline" else ()
        self._require(Settings(**chosen))
        return chosen

    def _refuse_other_engines(self, engine: str, taken: Sequence[str]) -> None:
        for item in self._table:
            if item not in taken and any(item in others for others in TAKEN.values()):
                source = self._path_source if item == "path" else self._gather.file
                raise ConfigError(
                    f"{source}: [{self._key}]: engine {engine!r} takes no {item!r}: "
                    f"it takes {', '.join(taken)}"
                )

    def _require(self, chosen: Settings) -> None:
        problem = _missing(chosen) or _contradictory(chosen)
        if problem:
            raise ConfigError(f"{self._gather.file}: [{self._key}]: {problem}")

    def _steps(self, pipeline: Settings) -> tuple[Settings, ...]:
        tables = self.value("steps", [], _step_tables)
        return tuple(self._step(number, table, pipeline) for number, table in enumerate(tables, 1))

    def _step(self, number: int, table: Mapping[str, Any], pipeline: Settings) -> Settings:
        key = f"{self._key}.steps.{number}"
        known = {"engine", "rename", *(item for engine in STEP_ENGINES for item in TAKEN[engine])}
        refuse_unknown(table, known, f"{self._gather.file}: [{key}]")
        defaults = Settings(
            pipeline.name, python_path=pipeline.python_path, threads=pipeline.threads, lane=pipeline.lane
        )
        reader = _Reader(self._gather, key, table, self._gather.file, defaults)
        step = reader.settings(STEP_ENGINES, ("engine", "rename"))
        for item in INHERITED:
            self._gather.inherit(f"{key}.{item}", f"{self._key}.{item}")
        rename = names_of("a tensor's name in the step, and its name in the pipeline")
        return Settings(**step, rename=reader.value("rename", {}, rename))

    def _tensors(self, item: str) -> tuple[Tensor, ...] | None:
        table = self.value(item, None, absent_or(names_of("a tensor's name, and its type and dimensions")))
        if table is None:
            return None
        try:
            return tuple(parse_type(name, text) for name, text in table.items())
        except TensorTextError as error:
            raise ConfigError(f"{self._gather.file}: {self._key}.{item}: {error}") from None

    def _file(self, value: object) -> Path:
        return self._gather.base / path_text(value)

    def _folders(self, value: object) -> tuple[Path, ...]:
        if isinstance(value, tuple):
            return value
        if not isinstance(value, list):
            raise ValueError("a list of folders")
        return tuple(map(self._file, value))


def _missing(chosen: Settings) -> str | None:
    """Say what an engine needs and was not given."""
    problem = None
    if chosen.engine == "onnx" and not chosen.path:
        problem = "the model's file is missing: add path = '...'"
    elif chosen.engine == "python" and not chosen.callable:
        problem = "the function is missing: add callable = 'module:function'"
    elif chosen.engine == "pipeline" and not chosen.steps:
        problem = "the steps are missing: add [[models.NAME.steps]] tables"
    elif chosen.engine == "torch" and bool(chosen.path) == bool(chosen.callable):
        problem = (
            "expected the model's file, path = '...', or what makes it, callable = 'module:function'"
            + (", not both" if chosen.path else "")
        )
    elif chosen.weights and not chosen.callable:
        problem = "weights are loaded into what callable = 'module:function' makes: it is missing"
    elif (chosen.inputs is None) != (chosen.outputs is None):
        given, other = ("inputs", "outputs") if chosen.outputs is None else ("outputs", "inputs")
        problem = f"{given} are given and {other} are not: a signature needs both"
    return problem


def _contradictory(chosen: Settings) -> str | None:
    """Say what no model can be, whatever its file or function holds."""
    for name in chosen.state.values():
        if list(chosen.state.values()).count(name) > 1:
            return f"state: input {shown(name)} is named twice: it can be the state of one output only"
    signature = Signature(chosen.inputs or (), chosen.outputs or ())
    names = [tensor.name for tensor in (*signature.inputs, *signature.outputs)]
    for name in names:
        if names.count(name) > 1:
            return f"inputs and outputs: two tensors are called {shown(name)}: expected different names"
    if "" in names:
        return "inputs and outputs: a tensor has no name: expected one that is not empty"
    try:
        # The limits are those of a description that comes over the control socket.
        signature_of(signature.describe())
    except SidecamlError as error:
        return f"inputs and outputs: {error}"
    return None


def _step_tables(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("tables, [[models.NAME.steps]]")
    if len(value) > MOST_STEPS:
        raise ValueError(f"at most {MOST_STEPS} steps")
    return value
