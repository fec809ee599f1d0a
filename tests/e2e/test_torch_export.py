"""`sidecaml export`: the file is there only when PyTorch, onnxruntime and the daemon agree."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import exported
import numpy as np
import onnxruntime
import pytest
import torch
from daemon_process import REPOSITORY, environment, wait_until
from preloaded import Preloaded, preloaded
from test_cli import sidecaml

pytestmark = pytest.mark.timeout(800)

X = "x=float32[N,8]"
# PyTorch is loaded.
PATIENCE_S = 240

running: list[Preloaded] = []


@pytest.fixture(scope="module", autouse=True)
def command_line() -> Iterator[None]:
    with preloaded() as one:
        running.append(one)
        yield
        running.clear()


def export(
    tmp_path: Path, factory: str, *arguments: str | Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    where = ("--python-path", REPOSITORY / "tests", "-o", path or tmp_path / "m.onnx")
    return running[0].run("export", f"exported:{factory}", *where, *arguments)


def refused(tmp_path: Path, factory: str, *arguments: str | Path, path: Path | None = None) -> str:
    """Export what must be refused, leaving nothing; the one line of the error."""
    before = sorted(tmp_path.iterdir())
    done = export(tmp_path, factory, *arguments, path=path)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before
    (line,) = done.stderr.splitlines()
    return line


def test_the_file_computes_what_the_module_does(tmp_path: Path) -> None:
    done = export(tmp_path, "mlp", "--input", X, "--output", "y", "--sizes", "N=1,3,40")
    assert (done.returncode, done.stderr) == (0, "")
    title, head, *rows, last = done.stdout.splitlines()
    assert title == f"exported:mlp -> {tmp_path}/m.onnx  in: x float32[N,8]"
    assert head.split()[:3] == ["output", "sizes", "shape"]
    assert [row.split()[:3] for row in rows] == [
        ["y", "N=1", "[1,4]"],
        ["y", "N=3", "[3,4]"],
        ["y", "N=40", "[40,4]"],
    ]
    assert all(row.endswith("same bits") for row in rows)
    assert last.startswith("export: ok  3 runs, seed 0")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    x = np.random.default_rng(7).standard_normal((5, 8)).astype(np.float32)
    (y,) = session.run(["y"], {"x": x})
    with torch.inference_mode():
        expected = exported.mlp()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    described = sidecaml("describe", "--file", tmp_path / "m.onnx").stdout
    assert "x  float32[N,8]" in described
    assert "N  x[0], y[0], the same in all of them in one request" in described


def test_shared_dimensions_names_of_outputs_and_sizes_that_only_the_run_tells(tmp_path: Path) -> None:
    done = export(tmp_path, "Several", "--input", "a=float32[N,4]", "--input", "b=float32[N,4]")
    assert (done.returncode, done.stderr) == (0, "")
    described = sidecaml("describe", "--file", tmp_path / "m.onnx").stdout
    assert "N a[0], b[0], sum[0], the same" in " ".join(described.split())
    assert {line.split()[0] for line in done.stdout.splitlines()[2:-1]} == {"sum", "rows", "twice"}


def test_half_precision_whole_numbers_and_scalars(tmp_path: Path) -> None:
    for kind in ("float16", "bfloat16", "float64"):
        done = export(tmp_path, "Half", "--input", f"x={kind}[N,3]", "--input", "k=int64[]")
        assert (done.returncode, done.stderr) == (0, ""), kind
        assert "output0" in done.stdout
        assert "output1" in done.stdout


def test_two_dynamic_dimensions_and_a_range(tmp_path: Path) -> None:
    ids = ("--input", "ids=int64[B,T]", "--sizes", "B=1,4", "--sizes", "T=1,9")
    assert "--range" in refused(tmp_path, "Words", *ids)
    done = export(tmp_path, "Words", *ids, "--range", "ids=0:5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "B=4, T=9" in done.stdout


def test_the_same_seed_gives_the_same_table_and_another_a_different_one(tmp_path: Path) -> None:
    arguments = ("--input", X, "--sizes", "N=64")
    first, again, other = (
        export(tmp_path, "mlp", *arguments, "--seed", seed).stdout for seed in ("1", "1", "2")
    )
    assert first == again != other


def test_weights_are_loaded(tmp_path: Path) -> None:
    module = exported.mlp()
    with torch.no_grad():
        module.second.bias += 100
    torch.save(module.state_dict(), tmp_path / "w.pt")
    done = export(tmp_path, "mlp", "--input", X, "--weights", tmp_path / "w.pt")
    assert done.returncode == 0, done.stderr
    (y,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": np.zeros((1, 8), np.float32)})
    assert y.min() > 90


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def test_weights_that_would_execute_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    line = refused(tmp_path, "mlp", "--input", X, "--weights", tmp_path / "w.pt")
    assert f"the weights {tmp_path}/w.pt are refused: the file is a pickle that would execute code" in line
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_module_are_refused(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(3)}, tmp_path / "w.pt")
    line = refused(tmp_path, "mlp", "--input", X, "--weights", tmp_path / "w.pt")
    assert "do not fit what exported:mlp makes" in line
    assert "cannot be read" in refused(tmp_path, "mlp", "--input", X, "--weights", tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("factory", "text", "said"),
    [
        ("mpl", X, "exported:mpl: there is no 'mpl': did you mean 'mlp'?"),
        ("raises", X, "exported:raises raised KeyError: 'no such thing'"),
        ("number", X, "exported:number returned int: expected a torch.nn.Module"),
        ("not_callable", X, "exported:not_callable is int: expected a function"),
        ("mlp", "x float32[N,8]", "--input: expected NAME=TYPE[DIMENSIONS], such as x=float32[N,64]"),
        ("mlp", "x=flaot32[N,8]", "no element type is called 'flaot32': did you mean 'float32'?"),
        ("mlp", "y=float32[N,8]", "forward of what exported:mlp makes takes no 'y'"),
        ("Several", "a=float32[N,8]", "needs b: add --input 'b=TYPE[DIMENSIONS]'"),
        ("mlp", "x=float32[N,9]", "forward raised RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("mlp", "x=complex64[N,8]", "--input: x is complex64: random inputs are drawn of"),
        ("mlp", "x=int4[N,8]", "--input: x is int4: random inputs are drawn of"),
        ("Complex", "x=float32[N,4]", "output 'output' is complex64: expected numbers that can be compared"),
        ("Unknown", "x=float32[3,3]", "the operator aten._linalg_eigh has no form in ONNX"),
        ("Fixed", "x=float32[N,4]", "dimension 0 of input x cannot change: the model fixes it to 3"),
        ("Branch", "x=float32[N,4]", "depends on the values in a tensor"),
        ("Text", "x=float32[N,4]", "forward returned str: expected a tensor"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name(
    tmp_path: Path, factory: str, text: str, said: str
) -> None:
    assert said in refused(tmp_path, factory, "--input", text)


def test_beyond_the_tolerance_nothing_is_written(tmp_path: Path) -> None:
    line = refused(tmp_path, "Random", "--input", X)
    assert "output output with N=1: at [0, " in line
    assert "allowed are 64 ULP" in line
    assert "Does the model draw random numbers?" in line
    arguments = ("--input", X, "--sizes", "N=100", "--tolerance", "0")
    line = refused(tmp_path, "Curved", *arguments)
    assert "allowed are 0 ULP or 0." in line
    assert "--tolerance or --atol" in line
    assert export(tmp_path, "Curved", *arguments, "--atol", "1e-5").returncode == 0


def test_a_file_that_is_there_stays_when_the_export_fails(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    refused(tmp_path, "Unknown", "--input", "x=float32[3,3]")
    assert (tmp_path / "m.onnx").read_text() == "mine"


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    line = refused(tmp_path, "mlp", "--input", X, path=tmp_path / "none" / "m.onnx")
    assert f"{tmp_path}/none/m.onnx cannot be written: No such file or directory" in line
    assert "is a folder" in refused(tmp_path, "mlp", "--input", X, path=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--output", "a", "--output", "b"), "--output: 2 names are given, and the module has 1 output"),
        (("--sizes", "M=1"), "--sizes: no dimension of the inputs is called 'M': "),
        (("--sizes", "N=1,x"), "--sizes: expected the like of N=1,8,64, got 'N=1,x'"),
        (("--range", "x=3"), "--range: expected the like of ids=0:1000, got 'x=3'"),
        (("--range", "z=0:1"), "--range: no input is called 'z'"),
        (("--input", X), "--input: 'x' is given twice"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(tmp_path, "mlp", "--input", X, *arguments)


def test_modules_that_are_not_there(tmp_path: Path) -> None:
    done = sidecaml("export", "nowhere:build", "--input", X, "-o", tmp_path / "m.onnx", patience_s=PATIENCE_S)
    assert done.returncode == 1
    assert "module 'nowhere' could not be imported: ModuleNotFoundError" in done.stderr
    done = running[0].run("export", "nowhere", "--input", X, "-o", tmp_path / "m.onnx")
    assert "expected module:factory, such as network:build, got 'nowhere'" in done.stderr
    (tmp_path / "broken.py").write_text("import absent_thing\n")
    where = ("--python-path", tmp_path, "-o", tmp_path / "m.onnx")
    done = running[0].run("export", "broken:build", "--input", X, *where)
    assert (
        "module 'broken' could not be imported: ModuleNotFoundError: No module named 'absent_thing'"
        in done.stderr
    )


def test_an_export_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ipc_server.cli", "export", "exported:Slow", "--input", X]
    running = subprocess.Popen(
        [*command, "--python-path", str(REPOSITORY / "tests"), "-o", str(tmp_path / "m.onnx")],
        stdin=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        wait_until("it writes", lambda: any(tmp_path.iterdir()), PATIENCE_S)
        running.terminate()
        assert running.wait(PATIENCE_S) == 128 + signal.SIGTERM
    finally:
        running.kill()
        running.wait()
    assert not any(tmp_path.iterdir())
