"""The machine and the versions that a measurement belongs to."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.cores import CPU_FOLDER, Cores
from bench.paths import ROOT
from bench.settings import Settings

UNKNOWN = "unknown"
BUSY_SAMPLE_S = 1.0


def record(cores: Cores, settings: Settings) -> dict[str, Any]:
    """Describe the machine as it is before measuring begins, and what is measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "kind": settings.kind,
        "runs": settings.runs,
        "rounds": settings.rounds,
        "calls": settings.calls,
        "budget_ns": settings.budget_ns,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "busy_before": round(busy_share(BUSY_SAMPLE_S), 3),
        "megahertz": megahertz(_text(Path("/proc/cpuinfo"))),
        **lasting(cores),
    }


def lasting(cores: Cores) -> dict[str, Any]:
    """Describe what is the same the next time: the machine, its settings, versions."""
    cpuinfo = _text(Path("/proc/cpuinfo"))
    return {
        "cpu": cpu_model(cpuinfo),
        "virtual": "hypervisor" in cpuinfo,
        "processors": os.cpu_count(),
        "caches": caches(cores.client),
        "governor": _text(CPU_FOLDER / f"cpu{cores.client}/cpufreq/scaling_governor") or UNKNOWN,
        "huge_pages": chosen_word(_text(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
        "huge_pages_shared": chosen_word(_text(Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled"))),
        "pinning": {"client": cores.client, "server": cores.server, "siblings": cores.siblings},
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", UNKNOWN),
        "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
        "numpy": metadata.version("numpy"),
        "ocaml": ocaml_version(),
        "gcc": first_line(["gcc", "--version"]),
    }


def ocaml_version() -> str:
    """Give the version of the OCaml compiler."""
    return first_line(["ocamlfind", "ocamlopt", "-version"])


def has_domains(version: str) -> bool:
    """Whether this version of OCaml has domains."""
    major = re.match(r"\d+", version)
    return major is not None and int(major[0]) >= 5  # noqa: PLR2004


def commit() -> str:
    """Name the commit that is measured; `+` after it says that files differ from it."""
    name = first_line(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    changed = first_line(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    return name if changed == UNKNOWN else f"{name}+"


def cpu_model(cpuinfo: str) -> str:
    """Find the processor's name."""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def megahertz(cpuinfo: str) -> list[float]:
    """Give the frequency of each processor, where the kernel tells."""
    return [float(text) for text in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo, re.MULTILINE)]


def caches(core: int) -> dict[str, str]:
    """Give the sizes of a processor's caches."""
    found = {}
    for folder in sorted((CPU_FOLDER / f"cpu{core}/cache").glob("index*")):
        kind = _text(folder / "type")
        if kind != "Instruction":
            found[f"L{_text(folder / 'level')}"] = _text(folder / "size")
    return found


def busy_share(seconds: float) -> float:
    """Watch how much of all processors others use, or the hypervisor gives to others, for some seconds."""
    before = _processor_times()
    time.sleep(seconds)
    ticks = [after - earlier for after, earlier in zip(_processor_times(), before, strict=True)]
    return 1 - sum(ticks[3:5]) / max(sum(ticks), 1)


def _processor_times() -> list[int]:
    """Give the ticks of user, nice, system, idle, iowait, irq, softirq and steal."""
    return [int(word) for word in _text(Path("/proc/stat")).partition("\n")[0].split()[1:9]]


def chosen_word(text: str) -> str:
    """Find the word in brackets, by which the kernel marks what is chosen."""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else UNKNOWN


def first_line(command: list[str]) -> str:
    """Give the first line that a command prints; `unknown` when it cannot."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return done.stdout.partition("\n")[0].strip() or UNKNOWN


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
