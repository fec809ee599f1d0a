"""The native lane: which requests C runs by itself, the same words as the python lane's, misuse refused."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import onnx
import onnxruntime
import pytest
from daemon_process import REPOSITORY, environment
from graphs import CASES
from models import save, value
from onnx import helper
from ring_pair import X_TO_Y, ring_pair
from served import LANE, LANES, python_runs, served

from ipc_server import _core, engines
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.decode import decode_segment
from ipc_server.engines import onnx_native
from ipc_server.errors import SidecamlError
from ipc_server.lane import NativeLane
from ipc_server.settings import Settings

NEVER_C = {"data dependent", "nothing found", "input as output", "fixed and not"}
LOOK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("ipc_server._core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
print(core.NATIVE, hasattr(core, "Session"), hasattr(core.Worker, "serve"), hasattr(core.Worker, "next"))
"""
OPEN = "import sys; from ipc_server import _core; print(_core.open_onnxruntime(sys.argv[1] or None))"


def refused(code: ErrorCode, call: object, *args: object) -> str:
    """Call, expect this error, and return its sentence."""
    with pytest.raises(SidecamlError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.code is code, caught.value
    return str(caught.value)


def open_elsewhere(path: object, **env: str) -> str:
    """Open a library in a process where none is open yet; its version, or the error's sentence."""
    command = [sys.executable, "-c", OPEN, str(path)]
    done = subprocess.run(command, env=environment(**env), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def compiled(path: Path, source: str) -> Path:
    """Compile a shared library."""
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    return path


# --- Who runs what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES.keys())
def test_c_runs_a_slots_second_request_where_nothing_is_copied(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    with served(case.build(tmp_path / "m.onnx"), case.dims, slots=2) as model:
        assert isinstance(model.lane, NativeLane)
        noted = python_runs(model, monkeypatch)
        for _ in range(6):
            model.run(case.inputs)
        assert len(noted) == (6 if name in NEVER_C else 2)


def rows(count: int) -> dict[str, np.ndarray]:
    """Give so many rows for `dynamic_mlp`, other ones for each count."""
    return {"x": np.random.default_rng(count).standard_normal((count, 64), np.float32)}


def test_c_runs_every_request_whose_dims_came_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.dynamic_mlp(tmp_path / "m.onnx")
    expected = {}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with served(path, {"N": 64}) as model:
        noted = python_runs(model, monkeypatch)
        for count in (3, 5, 3, 3, 5, 5, 1, 3, 5, 1, 64, 3):
            if count not in expected:
                expected[count] = session.run(None, rows(count))[0].tobytes()
            answer = model.run(rows(count))["y"]
            assert answer.shape[0] == count
            assert answer.tobytes() == expected[count]
        assert len(noted) == 4


def test_of_more_dims_than_are_kept_the_latest_are_cs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(models.dynamic_mlp(tmp_path / "m.onnx"), {"N": 64}) as model:
        answers = {count: model.run(rows(count))["y"].tobytes() for count in range(1, 41)}
        noted = python_runs(model, monkeypatch)
        for count in range(40, 8, -1):
            assert model.run(rows(count))["y"].tobytes() == answers[count]
        assert noted == []
        # Round and round, each is dropped before it comes again.
        for count in (*range(1, 41), *range(1, 41)):
            assert model.run(rows(count))["y"].tobytes() == answers[count]
        assert len(noted) >= 40


def test_dims_that_a_client_writes_beyond_its_room_fail_and_the_rest_goes_on(tmp_path: Path) -> None:
    with served(models.dynamic_mlp(tmp_path / "m.onnx"), {"N": 8}) as model:
        answer = model.run(rows(8))["y"].tobytes()
        segment = model.channel._core.segment_fd
        at = decode_segment(os.pread(segment, os.fstat(segment).st_size, 0)).header.dims_offset
        for hostile in (9, 2**63, 2**64 - 1):
            slot = model.fill(rows(8))
            os.pwrite(segment, hostile.to_bytes(8, "little"), at)
            model.channel.submit()
            model.serve(slot)
            refused(ErrorCode.BAD_DIMS, model.channel.await_, slot)
            assert model.run(rows(8))["y"].tobytes() == answer


def test_a_model_that_breaks_its_shapes_after_c_has_it_is_run_again_by_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # y is declared as long as x, and holds x's positive elements.
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["is"]),
        helper.make_node("Compress", ["x", "is"], ["y"], axis=0),
    ]
    x, y = value("x", "float32", ["N"]), value("y", "float32", ["N"])
    path = save(tmp_path / "m.onnx", nodes, [x], [y], {"zero": np.array(0, np.float32)})
    whole = {"x": np.ones(4, np.float32)}
    part = {"x": np.array([1, -1, 2, -1], np.float32)}
    with served(path, {"N": 4}) as model:
        model.run(whole)
        noted = python_runs(model, monkeypatch)
        model.run(whole)
        assert noted == []
        assert model.run(part)["y"].tolist() == [1, 2]
        assert model.run(part)["y"].tolist() == [1, 2]
        assert model.run(whole)["y"].tolist() == [1] * 4
        assert len(noted) == 2


def test_a_failing_run_of_cs_is_told_once_and_stays_cs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"x": np.ones(6, np.float32), "shape": np.array([3, 2], np.int64)}
    bad = {**good, "shape": np.array([4, 4], np.int64)}
    with served(models.fails_inside(tmp_path / "m.onnx")) as model:
        model.run(good)
        noted = python_runs(model, monkeypatch)
        for _ in range(3):
            assert "requested shape:{4,4}" in refused(ErrorCode.ENGINE, model.run, bad)
            assert model.run(good)["y"].tolist() == [7] * 6
        assert noted == []


def test_what_is_submitted_is_finished_by_drain_as_well(tmp_path: Path) -> None:
    with served(models.scalar(tmp_path / "m.onnx"), slots=3) as model:
        for round_ in range(3):
            for slot in range(3):
                assert model.fill({"x": np.array(round_ + slot, np.float32)}) == slot
                model.channel.submit()
            model.lane.finish()
            for slot in range(3):
                model.channel.await_(slot)
                assert float(model.channel.output("y", slot)) == 2 * (round_ + slot)
                model.channel.release(slot)


def test_stamps_are_in_order_in_c(tmp_path: Path) -> None:
    with served(models.small_mlp(tmp_path / "m.onnx")) as model:
        model.channel._core.set_stamps(True)
        for _ in range(3):
            slot = model.fill({"x": np.zeros((1, 64), np.float32)})
            model.channel.submit()
            model.serve(slot)
            model.channel.await_(slot)
            stamps = model.channel.stamps(slot)
            assert all(stamps)
            assert list(stamps) == sorted(stamps)
            model.channel.release(slot)


# --- The same words -----------------------------------------------------------------------------------------


def said_at_load(path: Path) -> list[str]:
    """Give each lane's refusal."""
    said = []
    for lane in LANES:
        with pytest.raises(SidecamlError) as caught:
            engines.load(Settings("m", path, lane=lane))
        said.append(f"{caught.value.code!r}: {caught.value}")
    return said


def test_a_model_is_refused_in_the_same_words_in_both_lanes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for garbage in (b"garbage" * 100, b"\x00", models.small_mlp(path).read_bytes()[:5000]):
        path.write_bytes(garbage)
        native, python = said_at_load(path)
        assert native == python
    tensor = helper.make_tensor_type_proto(1, ["N"])
    kinds = [
        tensor_type
        for tensor_type in (
            helper.make_sequence_type_proto(tensor),
            helper.make_optional_type_proto(tensor),
            helper.make_optional_type_proto(helper.make_sequence_type_proto(tensor)),
        )
    ]
    for kind in kinds:
        x, y = helper.make_value_info("x", kind), helper.make_value_info("y", kind)
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        path.write_bytes(model.SerializeToString())
        native, python = said_at_load(path)
        assert native == python


@pytest.mark.parametrize("renamed", ["x", "y", "N"])
def test_a_name_that_is_not_utf_8_is_refused_in_the_same_words_in_both_lanes(
    renamed: str, tmp_path: Path
) -> None:
    names = {name: "Q" * 8 if name == renamed else name for name in ("x", "y", "N")}
    node = helper.make_node("Abs", [names["x"]], [names["y"]])
    tensors = [value(names[name], "float32", [names["N"], 2]) for name in ("x", "y")]
    path = save(tmp_path / "m.onnx", [node], tensors[:1], tensors[1:])
    path.write_bytes(path.read_bytes().replace(b"Q" * 8, b"caf\xe9\n\xc3\x28'"))
    native, python = said_at_load(path)
    assert native == python
    assert (
        r"""the name "caf\xe9\n\xc3('" of an input, output or dimension is not UTF-8: rename it""" in native
    )


def said_of_a_run(path: Path, given: dict[str, np.ndarray]) -> list[str]:
    """Give each lane's words for a request that fails, twice: C runs the native lane's second."""
    said = []
    for lane in LANES:
        token = LANE.set(lane)
        with served(path) as model:
            for _ in range(2):
                said.append(refused(ErrorCode.ENGINE, model.run, given))
        LANE.reset(token)
    return said


def test_a_node_of_any_name_fails_in_the_same_words_in_both_lanes(tmp_path: Path) -> None:
    path = models.fails_inside(tmp_path / "m.onnx")
    given = {"x": np.ones(6, np.float32), "shape": np.array([4, 4], np.int64)}
    model = onnx.load(path)
    for name in ("plain", "caf\u00e9", "tab\t\x1b[31m\\", "/a.cc:1 f() ", "\u00e9" * 2000):
        model.graph.node[0].name = name
        path.write_bytes(model.SerializeToString())
        said = said_of_a_run(path, given)
        assert len(set(said)) == 1, said
    # Whether the Python package has a text to give when it is not UTF-8 depends on Python's version.
    model.graph.node[0].name = "Q" * 9
    path.write_bytes(model.SerializeToString().replace(b"Q" * 9, b"caf\xe9\xc3\x28/\x80\xff"))
    *native, first, second = said_of_a_run(path, given)
    assert native[0] == native[1]
    assert native[0].startswith("node 'caf??(/??' (Reshape): ")
    assert first == second and first in (native[0], "ONNX Runtime does not say why")


def test_a_run_fails_in_the_same_words_in_both_lanes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"], name="pick")]
    inputs = [value("x", "float32", [4]), value("i", "int64", [2])]
    gather = save(tmp_path / "gather.onnx", nodes, inputs, [value("y", "float32", [2])])
    given = {"x": np.ones(4, np.float32), "i": np.array([0, 9], np.int64)}
    said = []
    for lane in LANES:
        token = LANE.set(lane)
        with served(gather) as model:
            first = refused(ErrorCode.ENGINE, model.run, given)
            assert model.run({**given, "i": np.array([1, 2])})["y"].tolist() == [1, 1]
            second = refused(ErrorCode.ENGINE, model.run, given)
        LANE.reset(token)
        assert first == second
        said.append(first)
    assert said[0] == said[1]
    assert "'pick'" in said[0]


# --- The library --------------------------------------------------------------------------------------------


def test_the_packages_own_library_is_used_and_no_other_beside_it(tmp_path: Path) -> None:
    assert onnx_native.open_library() == importlib.metadata.version("onnxruntime")
    other = compiled(tmp_path / "libother.so", "int other;")
    assert "is in use" in refused(ErrorCode.INVALID, _core.open_onnxruntime, str(other))
    assert "is in use" in refused(ErrorCode.INVALID, _core.open_onnxruntime, "missing.so")
    assert _core.open_onnxruntime(None) == onnx_native.open_library()


def test_a_library_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.so"
    assert f"{missing}: cannot open shared object file" in open_elsewhere(missing)
    other = compiled(tmp_path / "libother.so", "int other;")
    assert f"{other} is not ONNX Runtime: it has no OrtGetApiBase" in open_elsewhere(other)
    source = """
    static const void *api(unsigned version) { return (void *)(unsigned long)(version & 0); }
    static const char *version(void) { return "1.2.3"; }
    static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = {api, version};
    const void *OrtGetApiBase(void) { return &base; }
    """
    old = compiled(tmp_path / "libold.so", source)
    assert f"{old} is ONNX Runtime 1.2.3, and sidecaml was built for 1." in open_elsewhere(old)


def test_libraries_are_looked_for_in_order(tmp_path: Path) -> None:
    real, version = onnx_native.find_library(), importlib.metadata.version("onnxruntime")
    other = compiled(tmp_path / "libother.so", "int other;")
    assert open_elsewhere(real, SIDECAML_ONNXRUNTIME=str(other)) == version
    assert str(other) in open_elsewhere("", SIDECAML_ONNXRUNTIME=str(other))
    wheel = tmp_path / "venv/lib/python3.99/site-packages/onnxruntime/capi"
    wheel.mkdir(parents=True)
    (wheel / "libonnxruntime.so.1.99").symlink_to(other)
    assert str(tmp_path / "venv") in open_elsewhere("", VIRTUAL_ENV=str(tmp_path / "venv"))
    (wheel / "libonnxruntime.so.1.99").unlink()
    (wheel / "libonnxruntime.so.1.99").symlink_to(real)
    assert open_elsewhere("", VIRTUAL_ENV=str(tmp_path / "venv")) == version


def test_a_package_of_two_versions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    version = onnx_native.open_library()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0.1")
    said = refused(ErrorCode.MODEL_FAILED, onnx_native.open_library)
    assert f"is ONNX Runtime {version} and the Python package 0.0.1" in said


def test_without_the_native_lane_auto_is_the_python_lane_and_native_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = models.small_mlp(tmp_path / "m.onnx")
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_core, "NATIVE", False)
    said = refused(ErrorCode.MODEL_FAILED, engines.load, Settings("m", path, lane="native"))
    assert "onnxruntime_c_api.h" in said
    assert caplog.text == ""
    assert not engines.load(Settings("m", path)).native
    (line,) = [line for line in caplog.text.splitlines() if "lane" in line]
    assert "python lane, because there is no native one" in line


def test_the_extension_builds_without_the_header(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        f"--build-lib={tmp_path}",
        f"--build-temp={tmp_path}",
    ]
    chosen = {"SIDECAML_ONNXRUNTIME_INCLUDE": str(tmp_path), "CFLAGS": "-O0 -Werror"}
    done = subprocess.run(
        build, cwd=REPOSITORY, env=environment(**chosen), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "built without the native lane" in done.stderr
    (built,) = (tmp_path / "ipc_server").glob("_core*.so")
    found = subprocess.run(
        [sys.executable, "-c", LOOK, str(built)],
        check=True,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ["False", "False", "False", "True"]


# --- Misuse -------------------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> _core.Session:
    onnx_native.open_library()
    return _core.Session(models.identity("float32", [4], tmp_path / "m.onnx"), 1)


def bound(session: _core.Session, x: np.ndarray, y: np.ndarray) -> _core.Binding:
    """Bind x and y."""
    binding = session.bind()
    binding.bind_input("x", Dtype.FLOAT32, x.shape, x.ctypes.data)
    binding.bind_output("y", Dtype.FLOAT32, y.shape, y.ctypes.data)
    return binding


def test_a_session_is_refused_with_a_reason(tmp_path: Path) -> None:
    onnx_native.open_library()
    path = models.identity("float32", [4], tmp_path / "m.onnx")
    assert "threads" in refused(ErrorCode.INVALID, _core.Session, path, 0)
    assert "threads" in refused(ErrorCode.INVALID, _core.Session, path, 2**31)
    missing = tmp_path / "missing.onnx"
    assert f"{missing} cannot be read" in refused(ErrorCode.MODEL_FAILED, _core.Session, missing, 1)
    with pytest.raises(TypeError):
        _core.Session(5, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.Binding()


def test_a_binding_runs_in_place_and_tells_where(session: _core.Session) -> None:
    assert session.inputs == (("x", "tensor(float)", (4,)),)
    assert session.outputs == (("y", "tensor(float)", (4,)),)
    x, y = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    binding = bound(session, x, y)
    del session
    binding.run()
    assert y.tolist() == x.tolist()
    assert binding.outputs() == (((4,), y.ctypes.data, 16),)
    binding.bind_output_anywhere("y")
    binding.run()
    ((dims, address, size),) = binding.outputs()
    assert (dims, size, address != y.ctypes.data) == ((4,), 16, True)


def test_bad_places_are_refused(session: _core.Session) -> None:
    x = np.zeros(4, np.float32)
    binding = session.bind()
    at = x.ctypes.data
    assert "element type 99" in refused(ErrorCode.INVALID, binding.bind_input, "x", 99, (4,), at)
    refused(ErrorCode.INVALID, binding.bind_input, "x", Dtype.FLOAT32, (4,), 0)
    refused(ErrorCode.INVALID, binding.bind_output, "y", Dtype.FLOAT32, (2**62, 2**62), at)
    refused(ErrorCode.INVALID, binding.bind_output, "y", Dtype.FLOAT32, (1,) * 17, at)
    with pytest.raises(TypeError):
        binding.bind_input("x", Dtype.FLOAT32, (4,))  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        binding.bind_input("x", Dtype.FLOAT32, (4,), "there")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        binding.run()
    binding.bind_input("x", Dtype.FLOAT32, (4,), at)
    binding.bind_output("y", Dtype.FLOAT32, (4,), at)
    binding.run()


def test_a_lent_binding_cannot_be_changed_until_its_channel_is_detached(session: _core.Session) -> None:
    x, y = np.ones(4, np.float32), np.zeros(4, np.float32)
    binding, other = bound(session, x, y), bound(session, x, y)
    with ring_pair(X_TO_Y) as (worker, _, made):
        refused(ErrorCode.INVALID, worker.bind, 9, 0, binding)
        refused(ErrorCode.INVALID, worker.bind, 0, 9, binding)
        with pytest.raises(TypeError, match="expected a Binding, a callable or None"):
            worker.bind(0, 0, session, [(2, 8)])  # type: ignore[arg-type]
        refused(ErrorCode.INVALID, worker.bind, 0, 0, binding)
        refused(ErrorCode.INVALID, worker.bind, 0, 0, binding, [(2, 8, 1)])
        refused(ErrorCode.BAD_DIMS, worker.bind, 0, 0, binding, [(2, 9)])
        binding.bind_output_anywhere("y")
        binding.bind_output("y", Dtype.FLOAT32, y.shape, y.ctypes.data)
        worker.bind(0, 0, binding, [(2, 8)])
        worker.bind(0, 1, binding, [(2, 8)])
        worker.bind(0, 1, None)
        assert "serves a slot" in refused(ErrorCode.INVALID, binding.bind_output_anywhere, "y")
        binding.run()
        worker.bind(0, 0, other, [(2, 8)])
        binding.bind_output_anywhere("y")
        worker.bind(0, 0, None)
        other.bind_output_anywhere("y")
        worker.bind(0, 1, binding, [(2, 8)])
        with ring_pair(X_TO_Y) as (elsewhere, _, _):
            said = refused(ErrorCode.INVALID, elsewhere.bind, 0, 0, binding, [(2, 8)])
            assert "serves another worker" in said
        del made
        worker.detach(0)
        binding.bind_output_anywhere("y")
        refused(ErrorCode.INVALID, worker.bind, 0, 0, binding, [(2, 8)])


class Acting:
    """A number that does something while it is read."""

    def __init__(self, act: Callable[[], None], number: int) -> None:
        self._act = act
        self._number = number

    def __index__(self) -> int:
        self._act()
        return self._number


def test_what_is_bound_may_end_the_worker_or_its_channel_while_it_is_read(session: _core.Session) -> None:
    x, y = np.ones(4, np.float32), np.zeros(4, np.float32)
    binding = bound(session, x, y)
    with ring_pair(X_TO_Y) as (worker, _, _):
        dims = [(2, Acting(worker.close, 8))]
        assert "closed" in refused(ErrorCode.INVALID, worker.bind, 0, 0, binding, dims)
    with ring_pair(X_TO_Y) as (worker, _, _):
        dims = [(2, Acting(lambda: worker.detach(0), 8))]
        assert "no channel 0" in refused(ErrorCode.INVALID, worker.bind, 0, 0, binding, dims)
    binding.bind_output_anywhere("y")


@pytest.mark.parametrize("policy", [_core.SPIN, _core.ADAPTIVE, _core.BLOCK])
def test_a_thread_that_serves_has_worker_and_bindings_to_itself(session: _core.Session, policy: int) -> None:
    x, y = np.ones(4, np.float32), np.zeros(4, np.float32)
    binding = bound(session, x, y)
    with ring_pair(X_TO_Y, policy=policy) as (worker, channel, made):
        worker.bind(0, 0, binding, [(2, 8)])
        found: list[object] = []
        server = threading.Thread(target=lambda: found.append(worker.serve()))
        server.start()
        for _ in range(50):
            assert channel.claim() in (0, 1)
            if channel.submit() == 1:
                break
            channel.wait(0)
            assert "another thread" in refused(ErrorCode.INVALID, binding.run)
            refused(ErrorCode.INVALID, binding.outputs)
            refused(ErrorCode.INVALID, worker.next, 0)
            channel.release(0)
        server.join(60)
        # The second slot is not bound: its request comes out, not started.
        assert found == [(0, 1, None)]
        refused(ErrorCode.INVALID, worker.serve)
        worker.complete()
        channel.wait(1)
        made.client_control.send(b"x")
        while worker.serve() is not None:
            time.sleep(0.001)
