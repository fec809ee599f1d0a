"""The OCaml packages, built as opam builds them: the client's needs nothing of ONNX Runtime."""

from __future__ import annotations

import subprocess
from pathlib import Path

from daemon_process import REPOSITORY, environment


def dune(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["dune", "build", f"--build-dir={tmp_path}/build", *arguments]
    env = environment(SIDECAML_ONNXRUNTIME_INCLUDE="/nonexistent")
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=REPOSITORY)


def test_the_client_builds_without_onnx_runtimes_header(tmp_path: Path) -> None:
    built = dune(tmp_path, "-p", "sidecaml", "--promote-install-files=false", "@install")
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "build/default/ocaml_lib/src/sidecaml.cmxa").exists()


def test_the_in_process_backend_says_that_it_needs_it(tmp_path: Path) -> None:
    refused = dune(tmp_path, "--root=.", "ocaml_lib/ffi/sidecaml_ffi.cmxa", "c_shim/libsidecaml_ffi_stubs.a")
    assert refused.returncode != 0
    assert "sidecaml-ffi needs ONNX Runtime's onnxruntime_c_api.h: install it" in refused.stderr
