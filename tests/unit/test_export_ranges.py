"""`sidecaml export --range`: what numbers of the type can be drawn from, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ipc_server.export import ExportError, command
from ipc_server.export.cases import draw
from ipc_server.tensor_text import parse_named


@pytest.mark.parametrize(
    ("tensor", "limits", "expected"),
    [
        ("ids=int64[9]", "0:0.5", "--range: ids is int64: expected whole numbers from -9223372036854775808"),
        (
            "ids=int8[9]",
            "0:1000",
            "--range: ids is int8: expected whole numbers from -128 to 128, got 0:1000",
        ),
        ("ids=uint8[9]", "-1:5", "--range: ids is uint8: expected whole numbers from 0 to 256, got -1:5"),
        ("ids=int64[9]", "0:1e300", "got 0:1e+300"),
        ("ids=bool[9]", "0:1", "--range: ids is bool, which has no range"),
        ("other=int8[9]", "0:1", "--range: no input is called 'ids'"),
    ],
)
def test_a_range_that_the_type_has_not_is_refused(tensor: str, limits: str, expected: str) -> None:
    with pytest.raises(ExportError) as caught:
        command._ranges([f"ids={limits}"], [parse_named(tensor)])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("int8", -128, 128),
        ("uint8", 250, 256),
        ("int64", -(2**63), 2**63),
        ("uint64", 2**63, 2**64),
    ],
)
def test_numbers_of_the_range_are_drawn(kind: str, low: int, high: int) -> None:
    inputs = [parse_named(f"ids={kind}[1000]")]
    ranges = command._ranges([f"ids={low}:{high}"], inputs)
    found = draw(inputs, {}, ranges, np.random.default_rng(1))["ids"].tolist()
    assert low <= min(found) <= max(found) < high
    assert len(set(found)) > 5
