"""The command line in processes that have PyTorch already: loading it takes as long as the rest of an export.

`python preloaded.py` loads it once, then reads lines: each a JSON list of arguments and of two files, for
standard output and error. For each it forks a child that runs the command, and prints its exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from daemon_process import environment

# What the exporter loads only when it is used.
MODULES = (
    "torch",
    "torch.export",
    "torch._dynamo",
    "torch._inductor",
    "torch.onnx._internal.exporter._compat",
    "torch.onnx._internal.exporter._core",
    "torch.onnx._internal.exporter._torchlib.ops",
    "onnx",
    "onnxscript",
    "onnxscript.optimizer",
    "ipc_server.cli",
    "ipc_server.export.command",
    "ipc_server.export.onnx_file",
)


class Preloaded:
    """Runs `sidecaml ARGUMENTS` in forks of one process."""

    def __init__(self) -> None:
        """Start that process."""
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one command; as `subprocess.run` with its output captured."""
        assert self.process.stdin
        assert self.process.stdout
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            command = [str(argument) for argument in arguments]
            self.process.stdin.write(json.dumps([command, str(out), str(err)]) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate(timeout=120)


@contextlib.contextmanager
def preloaded() -> Iterator[Preloaded]:
    """Start one and end it."""
    running = Preloaded()
    try:
        yield running
    finally:
        running.close()


def _child(arguments: list[str], out: str, err: str) -> None:
    """Be the command, as if `python -m ipc_server.cli` had started it."""
    from ipc_server import cli  # noqa: PLC0415

    for fd, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 1
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve commands until standard input ends."""
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        arguments, out, err = json.loads(line)
        if (pid := os.fork()) == 0:
            _child(arguments, out, err)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
