"""What is kept of requests that ended their workers: every type, within its bounds, at nobody's cost."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipc_server import _core, memory, quarantine
from ipc_server.abi import Dtype
from ipc_server.lane import GivenUp
from ipc_server.quarantine import REQUEST_FILE
from ipc_server.signature import TensorSpec

BIG = 2**30
PATIENCE_S = 60.0
Quarantine = partial(quarantine.Quarantine, wait_s=PATIENCE_S)


def given_up(*inputs: tuple[str, Dtype, tuple[int, ...], bytes], text_bytes: int = 0) -> GivenUp:
    """Make a request with these inputs in memory, and an output that nobody may read."""
    specs = [
        TensorSpec(name, dtype, False, False, dims, text_bytes if dtype is Dtype.STRING else 0)
        for name, dtype, dims, _ in inputs
    ]
    buffers = [ctypes.create_string_buffer(data, max(len(data), 1)) for *_, data in inputs]
    specs.append(TensorSpec("out", Dtype.FLOAT32, True, False, (1,)))
    request = GivenUp(1, 2, True, specs, lambda tensor: ctypes.addressof(buffers[tensor]), lambda _: ())
    alive.append(buffers)
    return request


alive: list[Any] = []


def floats(count: int) -> GivenUp:
    return given_up(("x", Dtype.FLOAT32, (count,), bytes(4 * count)))


def about(place: Path | None) -> dict[str, Any]:
    assert place is not None
    found: dict[str, Any] = json.loads((place / REQUEST_FILE).read_text())
    return found


@pytest.mark.parametrize(
    ("dtype", "dims", "written"),
    [
        (Dtype.FLOAT32, (2, 3), "<f4"),
        (Dtype.FLOAT64, (), "<f8"),
        (Dtype.BOOL, (3,), "|b1"),
        (Dtype.INT64, (0, 4), "<i8"),
        (Dtype.COMPLEX64, (2,), "<c8"),
        (Dtype.BFLOAT16, (5,), "|V2"),
        (Dtype.BFLOAT16, (), "|V2"),
        (Dtype.FLOAT8E4M3FN, (3, 1), "|V1"),
        (Dtype.INT4, (3, 3), "|u1"),
        (Dtype.UINT2, (9,), "|u1"),
    ],
)
def test_every_kind_of_element_is_written_as_the_probe_reads_it(
    tmp_path: Path, dtype: Dtype, dims: tuple[int, ...], written: str
) -> None:
    size = -(-int(np.prod(dims)) * BITS[dtype] // 8)
    data = bytes(range(1, size + 1)) if dtype is not Dtype.BOOL else bytes([1, 0, 1])
    place = Quarantine(tmp_path / "kept", BIG).keep("m", 7, given_up(("x", dtype, dims, data)))
    (row,) = about(place)["inputs"]
    assert (row["dtype"], row["dims"]) == (dtype.name.lower(), list(dims))
    array = np.load(place / row["file"])  # type: ignore[operator]
    assert array.tobytes() == data
    assert np.lib.format.dtype_to_descr(array.dtype) == written
    packed = BITS[dtype] < 8
    assert array.shape == ((size,) if packed else dims)


BITS = {
    Dtype.FLOAT32: 32,
    Dtype.FLOAT64: 64,
    Dtype.BOOL: 8,
    Dtype.INT64: 64,
    Dtype.COMPLEX64: 64,
    Dtype.BFLOAT16: 16,
    Dtype.FLOAT8E4M3FN: 8,
    Dtype.INT4: 4,
    Dtype.UINT2: 2,
}


def text(strings: Sequence[bytes], room: int) -> bytes:
    place = bytearray(8 * (len(strings) + 1) + room)
    _core.write_strings(place, len(strings), list(strings))
    return bytes(place)


def test_strings_are_json_and_bad_ones_are_said_to_be(tmp_path: Path) -> None:
    good = given_up(("words", Dtype.STRING, (2,), text(["é\0".encode(), b""], 64)), text_bytes=64)
    place = Quarantine(tmp_path, BIG).keep("m", 7, good)
    (row,) = about(place)["inputs"]
    assert json.loads((place / row["file"]).read_text()) == ["é\0", ""]  # type: ignore[operator]
    bad = given_up(("words", Dtype.STRING, (2,), b"\xff" * 88), text_bytes=64)
    (row,) = about(Quarantine(tmp_path, BIG).keep("m", 7, bad))["inputs"]
    assert "words" in row["problem"]


@pytest.mark.parametrize("data", [text([b"a"], 64), b"\xff" * 80])
def test_a_request_that_the_probe_cannot_run_as_it_was_has_no_command(tmp_path: Path, data: bytes) -> None:
    numbers = ("x", Dtype.FLOAT32, (1,), bytes(4))
    whole = about(Quarantine(tmp_path, BIG).keep("m", 7, given_up(numbers)))
    assert whole["run"] == "sidecaml-probe run m --input=x=0-x.npy"
    assert "why_not" not in whole
    mixed = given_up(numbers, ("words", Dtype.STRING, (1,), data), text_bytes=64)
    told = about(Quarantine(tmp_path, BIG).keep("m", 7, mixed))
    assert told["run"] is None
    assert "'words'" in told["why_not"]


def test_names_of_inputs_lead_nowhere(tmp_path: Path) -> None:
    names = ["../../x", "/etc/passwd", "a b;c", "", "é" * 200, "x", "x\n"]
    request = given_up(*((name, Dtype.UINT8, (1,), bytes([i])) for i, name in enumerate(names)))
    place = Quarantine(tmp_path / "kept", BIG).keep("m", 7, request)
    rows = about(place)["inputs"]
    assert [row["name"] for row in rows] == names
    assert place is not None
    assert {file.name for file in place.iterdir()} == {REQUEST_FILE, *(row["file"] for row in rows)}
    assert all(np.load(place / row["file"]) == [i] for i, row in enumerate(rows))
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_only_the_owner_reads_what_was_kept(tmp_path: Path) -> None:
    place = Quarantine(tmp_path / "state" / "kept", BIG).keep("m", 7, floats(3))
    assert place is not None
    assert place.parent.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in place.iterdir())


def test_the_oldest_make_room_and_strangers_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("not the daemon's")
    (tmp_path / "file").write_text("neither")
    small = Quarantine(tmp_path, 200_000)
    places = []
    for age in range(6):
        places.append(small.keep("m", age, floats(10_000)))
        os.utime(places[-1], (1000 + age, 1000 + age))  # type: ignore[arg-type]
    left = {entry.name for entry in tmp_path.iterdir()} - {"mine", "file"}
    assert left == {place.name for place in places[-3:] if place}
    assert (tmp_path / "mine" / "notes").exists()


def test_what_a_killed_worker_left_half_written_makes_room_too(tmp_path: Path) -> None:
    (tmp_path / "old.part").mkdir()
    (tmp_path / "old.part" / "0-x.npy").write_bytes(bytes(100_000))
    os.utime(tmp_path / "old.part", (1000, 1000))
    assert Quarantine(tmp_path, 120_000).keep("m", 1, floats(10_000))
    assert not (tmp_path / "old.part").exists()


@pytest.mark.parametrize(
    ("prepare", "max_bytes", "why"),
    [
        (lambda folder: folder.write_text("a file"), BIG, "File exists"),
        (lambda folder: folder.symlink_to("/proc/self/nowhere"), BIG, "kept"),
        (lambda folder: None, 1000, "quarantine_max_bytes is 1000"),
    ],
)
def test_what_cannot_be_kept_is_only_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    prepare: Callable[[Path], object],
    max_bytes: int,
    why: str,
) -> None:
    prepare(tmp_path / "kept")
    assert Quarantine(tmp_path / "kept", max_bytes).keep("m", 7, floats(3)) is None
    assert "channel 7: the inputs of its request cannot be kept" in caplog.text
    assert why in caplog.text


@pytest.mark.parametrize(
    ("request_", "needs"),
    [
        (lambda: floats(1000), 4000),
        # As many bytes as text can take: a character of each plane that JSON writes as two of six letters.
        (
            lambda: given_up(
                ("s", Dtype.STRING, (1,), text(["\U0001f600".encode() * 250], 1000)), text_bytes=1000
            ),
            12000,
        ),
    ],
    ids=["numbers", "strings"],
)
def test_memory_is_asked_for_before_anything_is_copied(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request_: Callable[[], GivenUp],
    needs: int,
) -> None:
    copied: list[object] = []
    copy = quarantine._copy
    monkeypatch.setattr(quarantine, "_copy", lambda given: copied.append(given) or copy(given))
    monkeypatch.setattr(memory, "available", lambda: needs - 1)
    kept = Quarantine(tmp_path / "kept", BIG)
    assert kept.keep("m", 7, request_()) is None
    assert copied == []
    assert "bytes of memory and there are" in caplog.text
    monkeypatch.setattr(memory, "available", lambda: 10 * needs)
    assert kept.keep("m", 7, request_())


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert Quarantine(tmp_path, BIG).keep("m", 7, floats(3)) is None
    assert "No space left on device" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_disk_that_does_not_answer_holds_up_one_thread_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    write = quarantine._write_input

    def hang(*arguments: Any) -> Any:
        assert answers.wait(PATIENCE_S)
        return write(*arguments)

    monkeypatch.setattr(quarantine, "_write_input", hang)
    impatient = quarantine.Quarantine(tmp_path, BIG, wait_s=0.01)
    request = given_up(("x", Dtype.UINT8, (3,), b"abc"))
    assert impatient.keep("m", 1, request) is None
    assert f"channel 1: the inputs of its request are not in {tmp_path} yet" in caplog.text
    before = threading.active_count()
    for channel in range(2, 5):
        assert impatient.keep("m", channel, floats(3)) is None
        assert f"channel {channel}: the inputs of its request cannot be kept" in caplog.text
    assert threading.active_count() == before
    # What the client writes once it has its answer is not what was kept.
    ctypes.memmove(request.address(0), b"xyz", 3)
    answers.set()
    assert impatient._writing
    impatient._writing.join()
    assert not impatient._writing._copies
    (place,) = tmp_path.iterdir()
    (row,) = about(place)["inputs"]
    assert np.load(place / row["file"]).tobytes() == b"abc"
    impatient._wait_s = PATIENCE_S
    assert impatient.keep("m", 5, floats(3))
