"""The engine `torch`: what it loads, what it refuses to load, and that its answers are PyTorch's own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served import served
from test_python_engine import offset_in

from ipc_server import engines
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.engines.torch_arrays import TORCH_DTYPE
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.signature import text_of
from ipc_server.tensor_text import parse_type

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
sys.path.insert(0, str(CALLABLES))
import nets  # noqa: E402 - from there

Given = Mapping[str, str]
X, Y = {"x": "float32[N,8]"}, {"y": "float32[N,3]"}


def module(
    origin: Path | str, inputs: Given | None = None, outputs: Given | None = None, **changes: Any
) -> Settings:
    """A file or a factory as a model."""
    return Settings(
        "model",
        engine="torch",
        path=origin if isinstance(origin, Path) else None,
        callable="" if isinstance(origin, Path) else origin,
        python_path=(CALLABLES,),
        inputs=None if inputs is None else tuple(parse_type(name, text) for name, text in inputs.items()),
        outputs=None if outputs is None else tuple(parse_type(name, text) for name, text in outputs.items()),
        **changes,
    )


def refused(settings: Settings, code: ErrorCode = ErrorCode.MODEL_FAILED) -> str:
    with pytest.raises(SidecamlError) as caught:
        engines.load(settings)
    assert caught.value.code is code
    said = str(caught.value)
    assert settings.origin in said
    return said


def scripted(path: Path, net: torch.nn.Module | None = None) -> Path:
    # PyTorch deprecates TorchScript, which its files outlive.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script((net or nets.Scriptable()).eval()), str(path))
    return path


def exported(path: Path, net: torch.nn.Module | None = None, args: Any = None, dims: Any = None) -> Path:
    if net is None:
        args, dims = (torch.zeros(4, 8),), {"x": {0: torch.export.Dim("N", min=1, max=64)}}
    program = torch.export.export((net or nets.Net()).eval(), args, dynamic_shapes=dims)
    torch.export.save(program, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Change an archive's records: each by its name, without the folder; None leaves it out."""
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    target = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records:
            if (changed := change(name.partition("/")[2], data)) is not None:
                archive.writestr(name, changed)
    return target


@pytest.fixture
def every_way(tmp_path: Path) -> dict[str, Settings]:
    """One network, in every form that the engine takes."""
    weights = tmp_path / "net.weights"
    torch.save(nets.Net().state_dict(), weights)
    return {
        "factory": module("nets:Net"),
        "weights": module("nets:Net", weights=weights),
        "script": module(scripted(tmp_path / "net.pt"), X, Y),
        "export": module(exported(tmp_path / "net.pt2"), X, Y),
    }


@pytest.mark.parametrize("way", ["factory", "weights", "script", "export"])
def test_answers_have_the_bits_of_a_direct_call(every_way: dict[str, Settings], way: str) -> None:
    net = nets.Net().eval()
    generator = torch.Generator().manual_seed(1)
    with served(every_way[way], {"N": 5}) as model:
        output = model.channel.model.signature.outputs[0].name
        for rows in (1, 5, 3, 5, 1):
            x = torch.randn(rows, 8, generator=generator)
            with torch.inference_mode():
                expected = net(x).numpy()
            assert model.run({"x": x.numpy()})[output].tobytes() == expected.tobytes()


@pytest.mark.parametrize("way", ["factory", "weights", "script", "export"])
def test_requests_are_run_together_where_the_configuration_says_so(
    every_way: dict[str, Settings], way: str
) -> None:
    net, slots, random = nets.Net().eval(), 6, np.random.default_rng(2)
    settings = dataclasses.replace(every_way[way], batching="any")
    with served(settings, {"N": 1}, slots, together=True) as model:
        # The first request of all is run alone.
        for _ in range(2):
            submitted = []
            for _ in range(slots):
                x = random.standard_normal((1, 8)).astype(np.float32)
                submitted.append((model.fill({"x": x}), x))
                model.channel.submit()
            output = model.channel.model.signature.outputs[0].name
            for slot, x in submitted:
                model.serve(slot)
                model.channel.await_(slot)
                with torch.inference_mode():
                    expected = net(torch.from_numpy(x)).numpy()
                np.testing.assert_allclose(model.channel.output(output, slot), expected, rtol=1e-4)
                model.channel.release(slot)
        assert (model.status.batches, model.status.batched) == (2, 2 * slots - 1)


def test_tensors_are_the_slot_s_own_memory() -> None:
    settings = module("nets:Addresses", {"x": "float32[3]"}, {"y": "int64[2]"})
    with served(settings, slots=2) as model:
        for _ in range(4):
            slot = model.fill({"x": np.ones(3, np.float32)})
            model.channel.submit()
            model.serve(slot)
            model.channel.await_(slot)
            core = model.channel._core
            places = [offset_in(core.segment_fd, int(a)) for a in model.channel.output("y", slot)]
            assert places == [tensor[5] + slot * tensor[6] for tensor in core.layout.tensors]
            model.channel.release(slot)


def test_an_exported_program_brings_its_signature(tmp_path: Path) -> None:
    rows = torch.export.Dim("N", min=1, max=64)
    path = exported(
        tmp_path / "m.pt2", nets.Several(), (torch.zeros(4, 2), torch.ones(())), {"x": {0: rows}, "k": None}
    )
    signature = engines.load(module(path)).signature
    name = signature.inputs[0].shape[0]
    assert text_of(signature.inputs) == f"x float32[{name},2], k float32[]"
    assert text_of(signature.outputs) == f"sum float32[], twice float32[2*{name},2]"
    named = module(
        path, {"x": "float32[N,2]", "k": "float32[]"}, {"sum": "float32[]", "twice": "float32[M,2]"}
    )
    with served(named, {"N": 3, "M": 6}) as model:
        x = np.arange(6, dtype=np.float32).reshape(3, 2)
        answer = model.run({"x": x, "k": np.array(2, np.float32)})
        assert answer["sum"] == x.sum() * 2
        assert answer["twice"].tolist() == [*x.tolist(), *x.tolist()]


def test_the_configuration_must_not_contradict_an_exported_program(tmp_path: Path) -> None:
    path = exported(tmp_path / "m.pt2")
    assert "it has 1 inputs, and the configuration gives 2" in refused(
        module(path, {"a": "float32[N,8]", "b": "float32[1]"}, Y)
    )
    said = refused(module(path, {"x": "float32[N,9]"}, Y))
    assert "'x' is float32[" in said
    assert "and float32[N,9] in the configuration" in said


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (1, "it returned torch.float64 for the output 'y': expected torch.float32, as by .to(torch.float32)"),
        (2, "it returned a tensor of layout torch.sparse_coo on cpu"),
        (3, "it returned nothing (None): expected the output 'y' float32[1]"),
        (4, "it returned [2] for the output 'y': expected float32[1]"),
        (5, "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_a_module_that_fails_fails_its_request_only(kind: int, expected: str) -> None:
    settings = module("nets:Failing", {"x": "float32[1]"}, {"y": "float32[1]"})
    with served(settings) as model:
        with pytest.raises(SidecamlError) as caught:
            model.run({"x": np.array([kind], np.float32)})
        assert caught.value.code is ErrorCode.ENGINE
        assert str(caught.value).startswith("model 'model': ")
        assert expected in str(caught.value)
        assert "nets:Failing" in str(caught.value)
        assert model.run({"x": np.array([6], np.float32)})["y"] == [6]


def test_a_module_that_leaves_fails_its_request_only() -> None:
    # The warm-up's zeros have it leave as well.
    with served(module("nets:Leaving", {"x": "float32[1]"}, {"y": "float32[1]"})) as model:
        with pytest.raises(SidecamlError) as caught:
            model.run({"x": np.zeros(1, np.float32)})
        assert "SystemExit: 3 (nets:Leaving)" in str(caught.value)
        assert model.run({"x": np.ones(1, np.float32)})["y"] == [1]


def test_what_a_factory_does_wrong_is_said() -> None:
    assert "nets:not_a_module: it returned a int: expected a torch.nn.Module" in refused(
        module("nets:not_a_module")
    )
    assert "RuntimeError: no such net" in refused(module("nets:raising"))
    assert "its annotations do not say" in refused(module("nets:Several"))
    given = {"a": "float32[1]"}
    assert "its parameter 'x' is neither" in refused(module("nets:Several", given, {"sum": "float32[]"}))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    torch.save({"first.weight": torch.zeros(1)}, weights)
    said = refused(module("nets:Net", weights=weights))
    assert "Missing key(s) in state_dict" in said
    assert f"the weights {weights} do not fit" in said
    torch.save([1], weights)
    assert f"the weights {weights} do not fit: " in refused(module("nets:Net", weights=weights))


@pytest.mark.parametrize("content", [b"", b"PK", b"neither"])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    weights = tmp_path / "w.pt"
    weights.write_bytes(content)
    with pytest.raises(SidecamlError) as caught:
        engines.load(module("nets:Net", weights=weights))
    assert caught.value.code is ErrorCode.MODEL_FAILED
    assert str(weights) in str(caught.value)


@pytest.mark.timeout(60)
def test_weights_that_are_no_file_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(SidecamlError) as caught:
        engines.load(module("nets:Net", weights=tmp_path / "w.pt"))
    assert caught.value.code is ErrorCode.MODEL_FAILED
    assert str(tmp_path / "w.pt") in str(caught.value)


class Touch:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


def test_weights_with_code_in_them_are_refused_and_never_read(tmp_path: Path) -> None:
    mark, weights = tmp_path / "mark", tmp_path / "w.pt"
    torch.save({"first.weight": Touch(mark)}, weights)
    said = refused(module("nets:Net", weights=weights))
    assert "would execute code as it is read" in said
    assert "posix.system" in said
    assert str(weights) in said
    assert "unsafe_load = true" in said
    assert not mark.exists()
    refused(module("nets:Net", weights=weights, unsafe_load=True))
    assert mark.exists()


def test_a_pickled_module_is_refused_until_it_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(nets.Net(), path)
    said = refused(module(path))
    assert "would execute code as it is read" in said
    assert "nets.Net" in said
    assert "unsafe_load = true" in said
    with served(module(path, unsafe_load=True), {"N": 1}) as model:
        x = torch.ones(1, 8)
        with torch.inference_mode():
            expected = nets.Net().eval()(x).numpy()
        assert model.run({"x": x.numpy()})["output"].tobytes() == expected.tobytes()


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(nets.Net().state_dict(), path)
    assert "it holds weights alone (a OrderedDict): give what makes the module" in refused(module(path))
    path.write_bytes(pickle.dumps(Touch(tmp_path / "mark")))
    assert "would execute code as it is read" in refused(module(path))
    assert not (tmp_path / "mark").exists()
    path.write_bytes(b"garbage" * 100)
    assert "could not be loaded" in refused(module(path))
    path.write_bytes(b"")
    assert str(path) in refused(module(path))
    whole = scripted(tmp_path / "whole.pt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "its archive is damaged, or its end is missing" in refused(module(path))
    assert "No such file" in refused(module(tmp_path / "absent.pt"))
    assert "is a directory: expected a model's file" in refused(module(tmp_path))


def test_torchscript_needs_a_signature_that_fits(tmp_path: Path) -> None:
    path = scripted(tmp_path / "net.pt")
    assert "TorchScript does not say shapes: give inputs (x) and outputs" in refused(module(path))
    assert "its forward takes x, and the configuration gives the inputs a, b" in refused(
        module(path, {"a": "float32[1]", "b": "float32[1]"}, Y)
    )
    with served(module(path, {"other": "float32[N,8]"}, Y), {"N": 1}) as model:
        assert model.run({"other": np.zeros((1, 8), np.float32)})["y"].shape == (1, 3)


def test_a_file_of_another_version_of_pytorch_is_named(tmp_path: Path) -> None:
    script = rewritten(
        scripted(tmp_path / "net.pt"), lambda name, data: b"9999\n" if name.endswith("version") else data
    )
    assert "version 9999" in refused(module(script, X, Y))
    archive = rewritten(
        exported(tmp_path / "net.pt2"), lambda name, data: b"99" if name == "archive_version" else data
    )
    assert "archive version 99" in refused(module(archive))


def test_a_missing_operator_is_named(tmp_path: Path) -> None:
    def renamed(name: str, data: bytes) -> bytes:
        return (
            data.replace(b"torch.tanh", b"torch.tanhh")
            if name.endswith("test.py") or "code/" in name
            else data
        )

    script = rewritten(scripted(tmp_path / "net.pt"), renamed)
    assert "tanhh" in refused(module(script, X, Y))
    program = rewritten(
        exported(tmp_path / "net.pt2"),
        lambda name, data: data.replace(b"torch.ops.aten.tanh.default", b"torch.ops.aten.tanhh.default"),
    )
    assert "tanhh" in refused(module(program))
    custom = rewritten(
        exported(tmp_path / "net.pt2"),
        lambda name, data: data.replace(b"torch.ops.aten.tanh.default", b"torch.ops.mine.tanh.default"),
    )
    assert "its operator 'torch.ops.mine.tanh.default' is not one of PyTorch's own" in refused(module(custom))


def changed_program(path: Path, change: Callable[[Any], None]) -> Path:
    def change_record(name: str, data: bytes) -> bytes:
        if name != "models/model.json":
            return data
        program = json.loads(data)
        change(program)
        return json.dumps(program).encode()

    return rewritten(path, change_record)


def touching(mark: Path) -> str:
    return f"__import__('os').system('touch {mark}')"


def sample_inputs(mark: Path, name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save(((Touch(mark),), {}), buffer)
    return buffer.getvalue() if name == "data/sample_inputs/model.pt" else data


def pickled_weight(mark: Path, name: str, data: bytes) -> bytes:
    if name == "data/weights/weight_0":
        buffer = io.BytesIO()
        torch.save(Touch(mark), buffer)
        return buffer.getvalue()
    return (
        data.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("_config.json") else data
    )


def opaque_constant(mark: Path, name: str, data: bytes) -> bytes:
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    return json.dumps({"config": {"c": payload}}).encode() if "constants_config" in name else data


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (sample_inputs, "its record 'data/sample_inputs/model.pt' is a pickle that would execute code"),
        (pickled_weight, "its record 'weight_0' is a pickle that would execute code"),
        (opaque_constant, "it holds an object that is no tensor ('opaque_obj_0')"),
    ],
)
def test_an_archive_with_a_pickle_is_refused_and_never_read(
    tmp_path: Path, change: Callable[[Path, str, bytes], bytes], expected: str
) -> None:
    mark = tmp_path / "mark"
    path = rewritten(exported(tmp_path / "net.pt2"), lambda name, data: change(mark, name, data))
    said = refused(module(path))
    assert expected in said
    assert "unsafe_load = true" in said
    assert not mark.exists()


def test_an_archive_s_expressions_and_operators_are_judged(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", exported(tmp_path / "net.pt2")

    def expression(program: Any) -> None:
        program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = touching(
            mark
        )

    def ranges(program: Any) -> None:
        program["range_constraints"][touching(mark)] = {"min_val": 0, "max_val": 1}

    def operator(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"

    assert "is more than arithmetic on sizes" in refused(module(changed_program(path, expression)))
    assert "is more than one of sizes" in refused(module(changed_program(path, ranges)))
    assert "its operator 'torch.os.system' is not one of" in refused(module(changed_program(path, operator)))
    assert not mark.exists()
    # That the first would have been executed shows that the check is needed.
    allowed = module(changed_program(path, expression), unsafe_load=True)
    refused(allowed)
    assert mark.exists()


def tree(kind: str, context: Any) -> str:
    """How a program's arguments are nested: none by name, in a container of that kind."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    by_place = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}
    by_name: dict[str, Any] = {"type": kind, "context": context, "children_spec": []}
    both = {"type": "builtins.tuple", "context": "null", "children_spec": [by_place, by_name]}
    return json.dumps([1, both])


def arguments_by(spec: str) -> Callable[[Any, str], None]:
    def change(program: Any, _touch: str) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    return change


def named_input(program: Any, touch: str) -> None:
    graph = program["graph_module"]["graph"]
    name = f"x={touch}"
    graph["tensor_values"][name] = graph["tensor_values"].pop("x")
    signature = program["graph_module"]["signature"]["input_specs"][-1]["user_input"]
    for place in (graph["inputs"][-1], signature["arg"], graph["nodes"][0]["inputs"][0]["arg"]):
        place["as_tensor"]["name"] = name


def guard(program: Any, touch: str) -> None:
    program["guards_code"] = [f"[{touch}]"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            arguments_by(tree("builtins.dict", '{"__enum__": true, "fqn": "marking:x", "name": "y"}')),
            "tree of",
        ),
        (
            arguments_by(
                tree(
                    "collections.defaultdict",
                    {
                        "default_factory_module": "marking",
                        "default_factory_name": "mark",
                        "dict_context": [],
                    },
                )
            ),
            "tree of arguments",
        ),
        (named_input, "is more than a name"),
        (guard, "is more than a comparison of sizes"),
    ],
)
def test_what_an_archive_has_written_or_imported_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, str], None], expected: str
) -> None:
    mark, path = tmp_path / "mark", exported(tmp_path / "net.pt2")
    (tmp_path / "marking.py").write_text(
        f"from pathlib import Path\n\nmark = list\nPath({str(mark)!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    changed = changed_program(path, lambda program: change(program, touching(mark)))
    try:
        assert expected in refused(module(changed))
        assert not mark.exists()
        # It would have been executed.
        with contextlib.suppress(SidecamlError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            engines.load(module(changed, unsafe_load=True))
        assert mark.exists()
    finally:
        sys.modules.pop("marking", None)


def test_guards_that_export_writes_are_taken(tmp_path: Path) -> None:
    program = changed_program(
        exported(tmp_path / "net.pt2"), lambda it: it.update(guards_code=["L['x'].size()[1] == 8"])
    )
    with served(module(program, X, Y), {"N": 2}) as model:
        assert model.run({"x": np.zeros((2, 8), np.float32)})["y"].shape == (2, 3)


@pytest.mark.parametrize("target", ["torch.ops.aten.__class__", "torch.ops.aten.__init__.__globals__"])
def test_only_operators_are_looked_up(tmp_path: Path, target: str) -> None:
    def as_target(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][1]["target"] = target

    def as_argument(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] = {"as_operator": target}

    path = exported(tmp_path / "net.pt2")
    for change in (as_target, as_argument):
        said = refused(module(changed_program(path, change)))
        assert f"its operator '{target}' is not one of PyTorch's own that compute only" in said


def test_records_are_judged_in_either_case(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", exported(tmp_path / "net.pt2")
    changed = tmp_path / "upper.pt2"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(changed, "w") as upper:
        for info in whole.infolist():
            data = sample_inputs(mark, info.filename.partition("/")[2], whole.read(info))
            upper.writestr(info.filename.replace("sample_inputs/model.pt", "sample_inputs/model.PT"), data)
    assert "'data/sample_inputs/model.PT' is a pickle that would execute code" in refused(module(changed))
    assert not mark.exists()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/DATA/sample_inputs/model.pt", b"")
    assert "two records of one name" in refused(module(path))


def test_a_payload_s_path_is_a_name(tmp_path: Path) -> None:
    path = rewritten(
        exported(tmp_path / "net.pt2"),
        lambda name, data: data.replace(b'"weight_0"', b'"/weight_0"') if "_config.json" in name else data,
    )
    assert "its record '/weight_0' is not named as a weight is" in refused(module(path))


def test_operators_that_write_files_or_any_memory_are_refused(tmp_path: Path) -> None:
    written = tmp_path / "written"

    def from_file(program: Any) -> None:
        node = program["graph_module"]["graph"]["nodes"][1]
        node["target"] = "torch.ops.aten.from_file.default"
        values = ({"as_string": str(written)}, {"as_bool": True}, {"as_int": 10})
        names = ("filename", "shared", "size")
        node["inputs"] = [
            {"name": n, "arg": value, "kind": 1} for n, value in zip(names, values, strict=True)
        ]

    changed = changed_program(exported(tmp_path / "net.pt2"), from_file)
    assert "'torch.ops.aten.from_file.default' is not one of PyTorch's own that compute" in refused(
        module(changed)
    )
    script = scripted(tmp_path / "net.pt", nets.Scriptable())
    memory = "ops.inductor._reinterpret_tensor(x, [99], [1], 0)"
    for call in (
        "torch.save(x, {})",
        'getattr(torch, "sa\\x76e")(x, {})',
        "(torch. # so\n  save)(x, {})",
        memory,
    ):

        def saving(name: str, data: bytes, call: str = call) -> bytes:
            if "code/" not in name or not name.endswith(".py"):
                return data
            return data.replace(b"x: Tensor) -> Tensor:\n", f"x: Tensor) -> Tensor:\n    {call}\n".encode())

        changed = rewritten(script, lambda n, d: saving(n, d).replace(b"{}", f'"{written}"'.encode()))
        said = refused(module(changed, X, Y))
        assert "reaches files, or memory that is not its own" in said or "cannot be judged" in said
        assert not written.exists()
        assert "unsafe_load = true" in said


def test_old_archives_and_compiled_ones_are_refused(tmp_path: Path) -> None:
    path = exported(tmp_path / "net.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/aotinductor/model/x.so", b"code")
    assert "it holds compiled code ('data/aotinductor/model/x.so')" in refused(module(path))
    path = exported(tmp_path / "old.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", b"1.0")
    assert "it is of the form of PyTorch 2.7" in refused(module(path))


TYPES = [dtype for dtype in Dtype if dtype in TORCH_DTYPE]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
def test_every_element_type_that_pytorch_has_goes_through_bit_for_bit(dtype: Dtype) -> None:
    text = f"{dtype.name.lower()}[N,3]"
    with served(module("nets:Same", {"x": text}, {"y": text}), {"N": 4}) as model:
        slot = model.channel.claim()
        model.channel.set_dims("x", (2, 3), slot)
        place = model.channel.input("x", slot)
        data = np.random.default_rng(8).integers(0, 2, place.nbytes, np.uint8)
        place.reshape(-1).view(np.uint8)[...] = data
        model.channel.submit()
        model.serve(slot)
        model.channel.await_(slot)
        assert model.channel.output("y", slot).tobytes() == data.tobytes()


def test_types_that_pytorch_lacks_are_refused() -> None:
    settings = module("nets:Scriptable", {"x": "string[N]"}, Y)
    assert "which PyTorch has not" in refused(settings, ErrorCode.UNSUPPORTED)
