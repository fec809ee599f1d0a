"""How much memory is left: the least of the machine's and of every control group's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipc_server import memory

MIB = 2**20


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """A process in the groups `outer/inner` of either version, mounted in `two` and `one`."""
    folder = tmp_path / "process"
    folder.mkdir()
    (folder / "cgroup").write_text("4:cpu,memory:/outer/inner\n1:name=systemd:/x\n0::/outer/inner\n")
    (folder / "mountinfo").write_text(
        f"30 1 0:26 / {tmp_path}/two rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
        f"31 1 0:27 / {tmp_path}/one rw shared:5 - cgroup cgroup rw,memory,cpu\n"
        f"32 1 0:28 / {tmp_path}/blkio rw shared:6 - cgroup cgroup rw,blkio\n"
        "33 1 0:29 / /proc rw - proc proc rw\n"
    )
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(
        f"MemTotal:  9999999999 kB\nMemFree: 7 kB\nMemAvailable:  {1000 * 1024} kB\nHugePages_Total: 0\n"
    )
    return path


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def left(process: Path, machine: Path) -> float:
    return memory.available(process, machine) / MIB


def test_without_limits_it_is_the_machine_s(process: Path, machine: Path) -> None:
    assert left(process, machine) == 1000 - 64


def test_a_group_s_limit_counts_less_what_it_uses_and_files_can_be_dropped(
    process: Path, machine: Path, tmp_path: Path
) -> None:
    group(
        tmp_path / "two/outer/inner",
        memory__max=f"{500 * MIB}\n",
        memory__current=f"{300 * MIB}\n",
        memory__stat=f"anon {200 * MIB}\nactive_file {30 * MIB}\ninactive_file {20 * MIB}\nshmem 5\n",
    )
    assert left(process, machine) == 250 - 500 / 32


def test_the_limit_of_a_group_further_out_counts_too(process: Path, machine: Path, tmp_path: Path) -> None:
    group(tmp_path / "two/outer/inner", memory__max="max\n", memory__current="5\n")
    group(tmp_path / "two/outer", memory__max=f"{90 * MIB}\n", memory__current="0\n")
    assert left(process, machine) == 90 - 90 / 32


def test_version_1_counts_its_totals(process: Path, machine: Path, tmp_path: Path) -> None:
    group(
        tmp_path / "one/outer",
        memory__limit_in_bytes=f"{400 * MIB}\n",
        memory__usage_in_bytes=f"{100 * MIB}\n",
        memory__stat=f"active_file 7\ntotal_active_file {10 * MIB}\ntotal_inactive_file {MIB}\n",
    )
    group(tmp_path / "one", memory__limit_in_bytes="9223372036854771712\n", memory__usage_in_bytes="7\n")
    assert left(process, machine) == 311 - 400 / 32


def test_a_group_mounted_from_further_in_is_found(process: Path, machine: Path, tmp_path: Path) -> None:
    (process / "mountinfo").write_text(f"30 1 0:26 /outer {tmp_path}/two rw - cgroup2 cgroup2 rw\n")
    group(tmp_path / "two/inner", memory__max=f"{70 * MIB}\n", memory__current="0\n")
    assert left(process, machine) == 70 - 70 / 32


def test_what_is_used_up_is_nothing(process: Path, machine: Path, tmp_path: Path) -> None:
    group(tmp_path / "two/outer", memory__max="1000\n", memory__current="5000\n")
    assert memory.available(process, machine) == 0


def test_what_cannot_be_found_out_is_no_limit(tmp_path: Path) -> None:
    assert memory.available(tmp_path, tmp_path / "none") > 2**60


def test_this_machine_has_some() -> None:
    assert memory.available() > 0
