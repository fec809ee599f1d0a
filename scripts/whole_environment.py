"""Tells whether this environment has every file that a lock asks for: whole_environment.py LOCK."""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def problem(name: str, version: str) -> str | None:
    """Say what is wrong with one distribution, if anything is."""
    try:
        found = Distribution.from_name(name)
    except PackageNotFoundError:
        return f"{name} {version} is not installed"
    # What follows a `+` tells builds of one version apart, such as PyTorch's for the CPU.
    if found.version.partition("+")[0] != version:
        return f"{name} {found.version} is installed, not {version}"
    # Compiled files come and go by themselves.
    files = [Path(str(found.locate_file(file))) for file in found.files or () if file.suffix != ".pyc"]
    lost = next((file for file in files if not file.exists()), None)
    return f"{name} {version} lacks {lost}" if lost or not files else None


def main() -> int:
    """Print the first problem and fail, or succeed in silence."""
    for name, version in PIN.findall(Path(sys.argv[1]).read_text(encoding="utf-8")):
        if (wrong := problem(name, version)) is not None:
            print(f"sidecaml: .venv: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
