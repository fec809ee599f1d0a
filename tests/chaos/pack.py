"""What chaos.restarts needs, in a folder for a machine without the repository.

`python -m chaos.pack FOLDER`
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from chaos import catalogue, fleet

TESTS = Path(__file__).resolve().parents[1]
CLIENT = "chaos_client.exe"


def pack(folder: Path) -> None:
    """Copy this package, the models and the OCaml client."""
    fleet.environment_check()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bare = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TESTS / "chaos", folder / "chaos", ignore=bare)
    shutil.copytree(TESTS / "callables", folder / "callables", ignore=bare)
    shutil.copy(TESTS / "daemon_process.py", folder)
    shutil.copy(fleet.PROGRAM, folder / CLIENT)
    for library in libraries(fleet.PROGRAM):
        shutil.copy(library, folder)
    catalogue.build(folder)


def libraries(program: Path) -> list[str]:
    """Find what the client is linked with that another release of the system calls otherwise."""
    said = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    return re.findall(r"=> (/\S*libmsgpack\S*)", said)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
