"""Settings: precedence, sources, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ipc_server import config
from ipc_server.abi import Dtype
from ipc_server.config import load
from ipc_server.config_models import ModelConfig
from ipc_server.config_values import ConfigError
from ipc_server.messages import pack, unpack
from ipc_server.settings import Settings, decode, encode
from ipc_server.signature import Tensor

FULL = """
socket = "/tmp/from-file.sock"
log_level = "warning"

[limits]
max_slots = 8
shutdown_timeout_s = 2

[models.digits]
path = "digits.onnx"
threads = 2
policy = "block"

[models.speech]
path = "/models/speech.onnx"
max_slots = 3
"""

# A model that a function runs.
CALL = "engine = 'python'\ncallable = 'a:b'\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "sidecaml.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refusal(folder: Path, text: str, **arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), environment={}, **arguments)  # type: ignore[arg-type]
    return str(caught.value)


def test_defaults_hold_where_nobody_says_anything() -> None:
    chosen = load(models=["m=/m.onnx"], environment={})
    assert chosen.socket == Path("/run/sidecaml/sidecaml.sock")
    assert chosen.log_level == "info"
    assert chosen.limits == config.Limits()
    assert chosen.models["m"] == ModelConfig("m", Path("/m.onnx"))
    assert chosen.sources["models.m.path"] == "command line"
    assert chosen.sources["models.m.max_slots"] == "limits.max_slots"
    assert {chosen.sources[name] for name in ("socket", "log_level", "limits.max_slots")} == {"default"}


def test_the_user_s_runtime_folder_is_preferred() -> None:
    chosen = load(models=["m=/m.onnx"], environment={"XDG_RUNTIME_DIR": "/run/user/7"})
    assert chosen.socket == Path("/run/user/7/sidecaml.sock")


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = written(tmp_path, FULL)
    environment = {"SIDECAML_SOCKET": "/tmp/from-env.sock", "SIDECAML_MAX_SLOTS": "16"}
    from_file = load(file, environment={})
    from_environment = load(file, environment=environment)
    from_flag = load(file, socket="/tmp/from-flag.sock", environment=environment)
    assert [str(c.socket) for c in (from_file, from_environment, from_flag)] == [
        "/tmp/from-file.sock",
        "/tmp/from-env.sock",
        "/tmp/from-flag.sock",
    ]
    assert [c.sources["socket"] for c in (from_file, from_environment, from_flag)] == [
        f"file {file}",
        "environment SIDECAML_SOCKET",
        "command line",
    ]
    assert (from_file.limits.max_slots, from_environment.limits.max_slots) == (8, 16)


def test_models_come_from_file_and_flags_together(tmp_path: Path) -> None:
    chosen = load(written(tmp_path, FULL), models=["digits=/other.onnx", "extra=/extra.onnx"], environment={})
    assert list(chosen.models) == ["digits", "extra", "speech"]
    digits, speech = chosen.models["digits"], chosen.models["speech"]
    assert (digits.path, digits.threads, digits.policy, digits.max_slots) == (
        Path("/other.onnx"),
        2,
        "block",
        8,
    )
    assert (speech.path, speech.max_slots) == (Path("/models/speech.onnx"), 3)
    assert chosen.sources["models.digits.max_slots"] == "limits.max_slots"
    assert chosen.sources["models.speech.max_slots"].startswith("file ")


def test_a_path_in_the_file_is_relative_to_the_file(tmp_path: Path) -> None:
    assert load(written(tmp_path, FULL), environment={}).models["digits"].path == tmp_path / "digits.onnx"


def test_a_path_on_the_command_line_is_relative_to_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(models=["m=m.onnx"], environment={}).models["m"].path == tmp_path / "m.onnx"


def test_a_flag_may_give_the_path_that_the_file_leaves_out(tmp_path: Path) -> None:
    file = written(tmp_path, "[models.m]\nthreads = 4\n")
    model = load(file, models=["m=/m.onnx"], environment={}).models["m"]
    assert (model.path, model.threads) == (Path("/m.onnx"), 4)


def test_standbys_are_those_of_the_model_of_the_environment_or_of_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path, "[limits]\nstandbys = 2\n[models.a]\npath = 'a'\n[models.b]\npath = 'b'\nstandbys = 0\n"
    )
    chosen = load(file, environment={})
    assert [model.standbys for model in chosen.models.values()] == [2, 0]
    assert chosen.sources["models.a.standbys"] == "limits.standbys"
    none = load(file, environment={"SIDECAML_STANDBYS": "0"})
    assert [model.standbys for model in none.models.values()] == [0, 0]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/sidecaml:/more", "HOME": "/h"}, "/var/lib/sidecaml/quarantine"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/h"}, "/state/sidecaml/quarantine"),
        ({"HOME": "/h"}, "/h/.local/state/sidecaml/quarantine"),
        ({}, None),
    ],
)
def test_requests_are_kept_where_the_service_or_the_user_keeps_such_things(
    tmp_path: Path, environment: dict[str, str], folder: str | None
) -> None:
    text = "[models.m]\npath = 'm'\n"
    chosen = load(written(tmp_path, text), environment=environment)
    assert chosen.quarantine == (Path(folder) if folder else None)
    assert load(written(tmp_path, f"quarantine = ''\n{text}"), environment=environment).quarantine is None
    beside = load(written(tmp_path, f"quarantine = 'kept'\n{text}"), environment=environment)
    assert beside.quarantine == tmp_path / "kept"


def test_every_setting_is_shown_with_its_source(tmp_path: Path) -> None:
    lines = load(written(tmp_path, FULL), environment={}).lines()
    assert any(line.startswith("models.digits.policy = block ") and "# file " in line for line in lines)
    assert any(
        line.startswith("limits.max_channels = 1024 ") and line.endswith("# default") for line in lines
    )
    assert len({line.index("#") for line in lines}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sockt = '/x'", "unknown key 'sockt': did you mean 'socket'?"),
        ("[limits]\nmax_slot = 1", "[limits]: unknown key 'max_slot': did you mean 'max_slots'?"),
        ("[models.m]\npath = '/m'\nthread = 1", "[models.m]: unknown key 'thread': did you mean 'threads'?"),
        ("[models.m]\nthreads = 1", "[models.m]: the model's file is missing"),
        ("models = 3", "models: expected a table, [models], got 3"),
        ("[models]\nm = '/m'", "models.m: expected a table, [models.m], got '/m'"),
        ("[limits]\nmax_slots = 0", "limits.max_slots: expected a whole number from 1 to 1024, got 0"),
        ("[limits]\nmax_slots = 1025", "expected a whole number from 1 to 1024, got 1025"),
        ("[limits]\nmax_slots = true", "expected a whole number from 1 to 1024, got True"),
        ("[limits]\nmax_slots = '8'", "expected a whole number from 1 to 1024, got '8'"),
        ("[limits]\nstandbys = 9", "limits.standbys: expected a whole number from 0 to 8, got 9"),
        ("[limits]\nmax_attempts = 0", "limits.max_attempts: expected a whole number from 1 to 7, got 0"),
        ("[limits]\nmax_attempts = 8", "limits.max_attempts: expected a whole number from 1 to 7, got 8"),
        ("[limits]\nworker_timeout_s = 0", "limits.worker_timeout_s: expected seconds, more than 0"),
        ("quarantine = 3", "quarantine: expected a path, got 3"),
        ("quarantine_max_bytes = -1", "quarantine_max_bytes: expected a whole number from 0"),
        ("[limits]\nshutdown_timeout_s = 0", "expected seconds, more than 0"),
        ("[limits]\nshutdown_timeout_s = nan", "expected seconds, more than 0"),
        ("[limits]\nshutdown_timeout_s = inf", "expected seconds, more than 0"),
        (
            "[models.m]\npath = '/m'\nengine = 'tf'",
            "models.m.engine: expected one of onnx, python, torch, pipeline, got 'tf'",
        ),
        (
            "[models.m]\npath = '/m'\npolicy = 1",
            "models.m.policy: expected one of spin, adaptive, block, got 1",
        ),
        (
            "[models.m]\npath = '/m'\nlane = 'c'",
            "models.m.lane: expected one of auto, native, python, got 'c'",
        ),
        ("[models.m]\npath = 7", "models.m.path: expected a path, got 7"),
        ("[models.m]\npath = ''", "models.m.path: expected a path, got ''"),
        ("[models.'a b']\npath = '/m'", "a model's name: expected 1 to 63 letters"),
        ("log_level = 'loud'", "log_level: expected one of debug, info, warning, error, got 'loud'"),
        (f"socket = '/{'x' * 120}'", "socket: expected a path of at most 107 bytes"),
        ("socket = ", "not TOML"),
        (f"x = {'[' * 5000}", "not TOML: it is nested too deeply"),
        (f"x = {'1' * 5000}", "not TOML"),
        (
            f"[limits]\nmax_slots = 0x{'f' * 6000}",
            "expected a whole number from 1 to 1024, got int of too many digits",
        ),
        ("", "no model to serve"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, expected: str) -> None:
    said = refusal(tmp_path, text)
    assert expected in said
    assert "sidecaml.toml" in said or "no model" in said


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["m"], "--model: expected NAME=PATH, got 'm'"),
        (["m="], "--model: expected NAME=PATH, got 'm='"),
        (["=x"], "a model's name"),
        (["m=/a", "m=/b"], "'m' is given twice"),
        (["m=/\udcff"], "models.m.path: expected a path in UTF-8"),
    ],
)
def test_a_bad_model_flag_is_refused(models: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match="command line") as caught:
        load(models=models, environment={})
    assert expected in str(caught.value)


def test_a_bad_environment_is_refused_by_the_variable_s_name() -> None:
    with pytest.raises(ConfigError, match=r"environment SIDECAML_MAX_SLOTS: .* got 'many'"):
        load(models=["m=/m"], environment={"SIDECAML_MAX_SLOTS": "many"})


@pytest.mark.parametrize("what", ["missing", "a folder", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, what: str) -> None:
    file = tmp_path / "sidecaml.toml"
    if what == "a folder":
        file.mkdir()
    elif what == "not UTF-8":
        file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"sidecaml\.toml"):
        load(file, environment={})


ENGINES = """
[models.clean]
engine = "python"
callable = "hooks.text:clean"
python_path = ["lib", "/srv/lib"]
inputs = { raw = "uint8[N, 3]", scale = "float32[]" }
outputs = { x = "float32[N,3]" }
longest_run_s = 2

[models.net]
engine = "torch"
callable = "net:build"
weights = "net.pt"
state = { stateN = "state" }

[models.whole]
engine = "pipeline"
threads = 2
keep = ["label"]

[[models.whole.steps]]
engine = "python"
callable = "hooks:before"
python_path = ["elsewhere"]

[[models.whole.steps]]
path = "net.onnx"
threads = 3
rename = { x = "clean", y = "label" }

[[models.whole.steps]]
path = "last.onnx"
"""


def test_every_engine_gets_what_it_takes(tmp_path: Path) -> None:
    models = load(written(tmp_path, ENGINES), environment={}).models
    clean, net, whole = models["clean"], models["net"], models["whole"]
    assert (clean.callable, clean.python_path) == ("hooks.text:clean", (tmp_path / "lib", Path("/srv/lib")))
    assert clean.inputs == (
        Tensor("raw", Dtype.UINT8, ("N", 3)),
        Tensor("scale", Dtype.FLOAT32, ()),
    )
    assert clean.outputs == (Tensor("x", Dtype.FLOAT32, ("N", 3)),)
    assert (clean.longest_run_s, net.longest_run_s) == (2.0, 300.0)
    assert (net.weights, net.python_path, net.unsafe_load) == (tmp_path / "net.pt", (tmp_path,), False)
    assert net.state == {"stateN": "state"}
    before, middle, last = whole.steps
    assert (before.engine, before.python_path) == ("python", (tmp_path / "elsewhere",))
    assert (middle.engine, middle.path, middle.threads) == ("onnx", tmp_path / "net.onnx", 3)
    assert (middle.rename, middle.python_path) == ({"x": "clean", "y": "label"}, (tmp_path,))
    assert (last.threads, whole.keep) == (2, ("label",))


def test_settings_of_every_engine_are_shown_as_they_are_written(tmp_path: Path) -> None:
    lines = load(written(tmp_path, ENGINES), environment={}).lines()
    shown = {line.partition(" = ")[0]: line.partition(" = ")[2].split("  #") for line in lines}
    texts = {key: (value.strip(), source.strip()) for key, (value, source) in shown.items()}
    file = f"file {tmp_path / 'sidecaml.toml'}"
    assert texts["models.clean.inputs"] == ("raw uint8[N,3], scale float32[]", file)
    assert texts["models.net.state"] == ("stateN -> state", file)
    assert texts["models.net.path"] == ("none", "default")
    assert texts["models.whole.steps.2.threads"] == ("3", file)
    assert texts["models.whole.steps.3.threads"] == ("2", "models.whole.threads")
    assert texts["models.whole.steps.2.rename"] == ("x -> clean, y -> label", file)
    assert "models.whole.path" not in texts
    assert "models.clean.threads" not in texts


def test_settings_reach_the_engine_as_they_were(tmp_path: Path) -> None:
    for model in load(written(tmp_path, ENGINES), environment={}).models.values():
        told = unpack(pack(encode(model)))
        items = {item.name: getattr(model, item.name) for item in dataclasses.fields(Settings)}
        assert decode(told) == Settings(**items)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("engine = 'python'", "the function is missing: add callable = 'module:function'"),
        ("engine = 'python'\ncallable = 'f'", "models.m.callable: expected module:function, got 'f'"),
        ("engine = 'python'\ncallable = 'a:b c'", "models.m.callable: expected module:function, got 'a:b c'"),
        ("engine = 'python'\ncallable = 'a:b'\npath = 'm'", "engine 'python' takes no 'path': it takes"),
        ("path = 'm'\nweights = 'w'", "engine 'onnx' takes no 'weights'"),
        ("path = 'm'\nrename = {a = 'b'}", "unknown key 'rename'"),
        (
            "engine = 'python'\ncallable = 'a:b'\ninputs = {x = 'int8[]'}\noutputs = {x = 'int8[]'}",
            "two tensors are called 'x'",
        ),
        (
            "engine = 'python'\ncallable = 'a:b'\ninputs = {\"\" = 'int8[]'}\noutputs = {y = 'int8[]'}",
            "a tensor has no name",
        ),
        (
            "engine = 'python'\ncallable = 'a:b'\ninputs = {\"a\\u0000\" = 'int8[]'}\noutputs = {}",
            "holds a NUL",
        ),
        ("path = 'm'\nstate = {a = 's', b = 's'}", "state: input 's' is named twice"),
        ("engine = 'torch'", "expected the model's file, path = '...', or what makes it"),
        ("engine = 'torch'\npath = 'm'\ncallable = 'a:b'", "not both"),
        ("engine = 'torch'\npath = 'm'\nweights = 'w'", "weights are loaded into what callable"),
        ("engine = 'torch'\npath = 'm'\nunsafe_load = 1", "unsafe_load: expected true or false, got 1"),
        ("engine = 'torch'\npath = 'm'\ninputs = {x = 'float32[1]'}", "inputs are given and outputs are not"),
        (
            "engine = 'torch'\npath = 'm'\noutputs = {x = 'float32[1]'}",
            "outputs are given and inputs are not",
        ),
        ("path = 'm'\nstate = ['a']", "models.m.state: expected a table of texts"),
        ("path = 'm'\nstate = {a = 1}", "models.m.state: expected a table of texts"),
        ("path = 'm'\nstandbys = -1", "models.m.standbys: expected a whole number from 0 to 8, got -1"),
        ("path = 'm'\nlongest_run_s = 0", "models.m.longest_run_s: expected seconds, more than 0"),
        (f"{CALL}python_path = 'lib'", "models.m.python_path: expected a list of folders, got 'lib'"),
        (f"{CALL}python_path = [1]", "models.m.python_path: expected a path"),
        (
            f"{CALL}inputs = {{x = 'float32'}}",
            "models.m.inputs: tensor 'x': 'float32': expected an element type",
        ),
        (
            f"{CALL}inputs = {{x = 'flaot32[1]'}}",
            "models.m.inputs: tensor 'x': 'flaot32[1]': no element type",
        ),
        (f"{CALL}inputs = {{x = 'float32[-1]'}}", "a dimension is a number, or a name"),
        (f"{CALL}inputs = {{x = 'float32[1,]'}}", "a dimension is a number, or a name"),
        (f"{CALL}inputs = {{x = 'float32[{2**62}]'}}", "models.m.inputs: tensor 'x'"),
        (f"{CALL}inputs = {{x = 'float32[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]'}}", "at most"),
        (f"{CALL}inputs = 'x'", "models.m.inputs: expected a table of texts"),
        ("engine = 'pipeline'", "the steps are missing: add [[models.NAME.steps]] tables"),
        ("engine = 'pipeline'\nsteps = 3", "models.m.steps: expected tables, [[models.NAME.steps]], got 3"),
        ("engine = 'pipeline'\nsteps = [{}]", "[models.m.steps.1]: the model's file is missing"),
        (
            "engine = 'pipeline'\nsteps = [{engine = 'pipeline'}]",
            "models.m.steps.1.engine: expected one of onnx",
        ),
        (
            "engine = 'pipeline'\nsteps = [{pth = 'm'}]",
            "[models.m.steps.1]: unknown key 'pth': did you mean 'path'?",
        ),
        (
            "engine = 'pipeline'\nsteps = [{path = 'm', state = {a = 'b'}}]",
            "[models.m.steps.1]: unknown key 'state'",
        ),
        (
            "engine = 'pipeline'\nkeep = 'y'\nsteps = [{path = 'm'}]",
            "models.m.keep: expected a list of names",
        ),
        (
            f"engine = 'pipeline'\nsteps = [{', '.join(['{path = 1}'] * 65)}]",
            "models.m.steps: expected at most 64 steps",
        ),
    ],
)
def test_what_an_engine_cannot_use_is_refused_by_name(tmp_path: Path, text: str, expected: str) -> None:
    said = refusal(tmp_path, f"[models.m]\n{text}\n")
    assert expected in said
    assert "sidecaml.toml" in said


def test_a_file_on_the_command_line_is_not_for_a_function(tmp_path: Path) -> None:
    file = written(tmp_path, f"[models.m]\n{CALL}")
    with pytest.raises(ConfigError, match=r"^command line: .*engine 'python' takes no 'path'"):
        load(file, models=["m=/m.onnx"], environment={})


def test_where_workers_run_is_said_for_a_model(tmp_path: Path) -> None:
    second = "[models.n]\npath = 'n.onnx'\n"
    text = "[models.m]\npath = 'm.onnx'\ncpus = '5,2-3'\nscheduling = 'batch'\nnice = -3\n" + second
    chosen = load(written(tmp_path, text), environment={})
    model = chosen.models["m"]
    assert (model.cpus, model.scheduling, model.nice) == ("2-3,5", "batch", -3)
    lines = [line.partition("#")[0].strip() for line in chosen.lines()]
    assert {"models.m.cpus = 2-3,5", "models.m.scheduling = batch", "models.m.nice = -3"} <= set(lines)
    assert {"models.n.cpus = none", "models.n.scheduling = none", "models.n.nice = none"} <= set(lines)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("cpus = '3-2'", "models.m.cpus: expected a list of processors"),
        ("cpus = 3", "models.m.cpus: expected a list of processors"),
        ("scheduling = 'idle'", "models.m.scheduling: expected 'other', 'batch', 'fifo N' or 'rr N'"),
        ("nice = 20", "models.m.nice: expected a whole number from -20 to 19"),
        ("scheduling = 'rr 5'\nnice = 1", "[models.m]: nice says nothing with scheduling = 'rr 5'"),
    ],
)
def test_where_no_worker_can_run_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    assert problem in refusal(tmp_path, f"[models.m]\npath = 'm.onnx'\n{line}\n")


def test_how_requests_are_batched_is_said_for_a_model(tmp_path: Path) -> None:
    text = (
        "[models.m]\npath = 'm.onnx'\nbatching = 'ulp 4'\nmax_batch = 128\nbatch_dim = 'N'\n"
        "batch_at = { T = 512, rate = [8000, 16000] }\n[models.n]\npath = 'n.onnx'\n"
    )
    chosen = load(written(tmp_path, text), environment={})
    model, other = chosen.models["m"], chosen.models["n"]
    assert (model.batching, model.max_batch, model.batch_dim) == ("ulp 4", 128, "N")
    assert model.batch_at == {"T": (512,), "rate": (8000, 16000)}
    assert (other.batching, other.max_batch, other.batch_dim, other.batch_at) == ("exact", 32, "", {})
    function = load(written(tmp_path, f"[models.f]\n{CALL}"), environment={}).models["f"]
    assert function.batching == "off"
    assert "models.m.batch_at = T -> 512, rate -> 8000, 16000" in {
        line.partition("#")[0].strip() for line in chosen.lines()
    }
    assert decode(encode(model)).batch_at == model.batch_at


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("batching = 'nearly'", "models.m.batching: expected exact, ulp N, any or off, got 'nearly'"),
        ("batching = 'ulp 0'", "models.m.batching: expected exact, ulp N, any or off"),
        ("batching = ''", "models.m.batching: expected exact, ulp N, any or off"),
        ("max_batch = 0", "models.m.max_batch: expected a whole number from 1 to 128, got 0"),
        ("max_batch = 129", "models.m.max_batch: expected a whole number from 1 to 128"),
        ("batch_dim = 0", "models.m.batch_dim: expected a text, got 0"),
        ("batch_at = 512", "models.m.batch_at: expected a table, { T = 512, rate = [8000, 16000] }"),
        ("batch_at = { T = [] }", "models.m.batch_at: expected 1 to 16 sizes a name"),
        ("batch_at = { T = -1 }", "models.m.batch_at: expected a whole number from 0 to "),
    ],
)
def test_what_cannot_be_batched_so_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    assert problem in refusal(tmp_path, f"[models.m]\npath = 'm.onnx'\n{line}\n")
