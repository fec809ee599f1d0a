"""`sidecaml describe`: a model's signature for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import models
from conftest import StartDaemon
from test_cli import sidecaml

from ipc_server import client, describe
from ipc_server.batching import Batching
from ipc_server.signature import Signature, StatePair
from ipc_server.tensor_text import parse_type


def test_a_person_sees_tensors_and_what_shares_a_dimension(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"mlp": models.dynamic_mlp(tmp_path / "m.onnx")})
    done = sidecaml("describe", "mlp", "--socket", running.socket)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:7] == [
        "mlp  ready  onnx  up to 64 slots",
        "  inputs",
        "    x  float32[N,64]",
        "  outputs",
        "    y  float32[N,10]",
        "  dynamic dimensions: give the largest of each in `dims` at open",
        "    N  x[0], y[0], the same in all of them in one request",
    ]
    assert lines[7].startswith("  requests run together: up to ") and lines[7].endswith(
        " rows of N in one run"
    )


def test_a_person_sees_how_requests_are_run_together() -> None:
    x, w, y = parse_type("x", "float32[N,T]"), parse_type("w", "float32[4]"), parse_type("y", "float32[N]")
    batching = Batching(
        *("N", "ulp 4", 8, "in a run of 9 rows, answers differ", 5, 3, True),
        shared=("w",),
        sizes={"T": (4, 16)},
    )
    model = client.Model("m", "onnx", "ready", "", 64, Signature((x, w), (y,)), batching)
    assert describe.as_text(model).splitlines()[-6:] == [
        "  requests run together: up to 8 rows of N in one run",
        "    ulp 4: tested to be as near as that to answers that are computed alone",
        "    not more, because in a run of 9 rows, answers differ",
        "    where they lie, if they are neighbours and there are 3 or more; "
        "copied together, if there are 5 or more",
        "    if they have the same w",
        "    if T is 4 or 16",
    ]
    assert json.loads(describe.as_json(model))["batching"] == batching.describe()


def test_a_person_sees_why_requests_run_one_by_one(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"fixed": models.small_mlp(tmp_path / "m.onnx")})
    *_, told = sidecaml("describe", "fixed", "--socket", running.socket).stdout.splitlines()
    assert told == (
        "  requests run one by one: no dimension of it is dynamic: export it with one that counts requests, "
        "such as float32[N,64]"
    )


def test_a_program_gets_the_same_as_json(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"mlp": models.dynamic_mlp(tmp_path / "m.onnx")})
    done = sidecaml("describe", "mlp", "--json", env={"SIDECAML_SOCKET": str(running.socket)})
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    signature = client.describe("mlp", str(running.socket)).signature
    assert found["fingerprint"] == signature.fingerprint
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 64]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["N", 10]}]
    assert found["dims"] == {"N": [{"tensor": "x", "axis": 0}, {"tensor": "y", "axis": 0}]}
    assert (found["name"], found["engine"], found["max_slots"]) == ("mlp", "onnx", 64)
    assert (found["batching"]["dim"], found["batching"]["policy"]) == ("N", "exact")


def test_a_model_of_fixed_shape_has_no_word_on_dimensions(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    assert "dynamic dimensions" not in sidecaml("describe", "scalar", "--socket", running.socket).stdout


def test_a_model_that_failed_says_why(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"gone": tmp_path / "gone.onnx"})
    done = sidecaml("describe", "gone", "--socket", running.socket)
    assert done.returncode == 1
    title, problem = done.stdout.splitlines()
    assert title == "gone  failed  onnx"
    assert str(tmp_path / "gone.onnx") in problem
    as_json = sidecaml("describe", "gone", "--json", "--socket", running.socket)
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["problem"] == problem.strip()


def test_a_model_that_loads_is_to_be_asked_for_again() -> None:
    model = client.Model("slow", "onnx", "loading", "", 64, Signature((), ()))
    assert not describe.is_known(model)
    assert describe.as_text(model).splitlines() == [
        "slow  loading  onnx",
        "  its signature is known when it is loaded: ask again",
    ]
    assert "inputs" not in json.loads(describe.as_json(model))


def test_carried_state_is_shown_once() -> None:
    signature = Signature(
        (parse_type("x", "float32[N]"),),
        (parse_type("y", "float32[N]"),),
        (StatePair("stateN", parse_type("state", "float32[2,64]")),),
    )
    assert describe.as_text(client.Model("vad", "onnx", "ready", "", 0, signature)).splitlines() == [
        "vad  ready  onnx",
        "  inputs",
        "    x  float32[N]",
        "  outputs",
        "    y  float32[N]",
        "  carried from one request of a channel to the next",
        "    state  float32[2,64], from stateN",
        "  dynamic dimensions: give the largest of each in `dims` at open",
        "    N  x[0], y[0], the same in all of them in one request",
        "  requests run one by one",
    ]


def test_an_unknown_model_is_answered_with_the_nearest(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"digits": models.scalar(tmp_path / "s.onnx")})
    done = sidecaml("describe", "digit", "--socket", running.socket)
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean 'digits'?" in done.stderr


def test_a_file_needs_no_daemon(tmp_path: Path) -> None:
    done = sidecaml("describe", "--file", models.dynamic_mlp(tmp_path / "m.onnx"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == ["m.onnx  ready  onnx", "  inputs", "    x  float32[N,64]"]


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("hello")
    done = sidecaml("describe", "--file", tmp_path / "m.onnx")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path / "m.onnx") in done.stderr
    assert "Traceback" not in done.stderr
    missing = sidecaml("describe", "--file", tmp_path / "none.onnx")
    assert missing.returncode == 1
    assert "none.onnx" in missing.stderr


def test_a_model_or_a_file_must_be_named() -> None:
    assert sidecaml("describe").returncode == 2
    assert sidecaml("describe", "m", "--file", "m.onnx").returncode == 2
