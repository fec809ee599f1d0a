"""What a worker takes for an order of its supervisor."""

from __future__ import annotations

import pytest

from ipc_server import orders
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError


@pytest.mark.parametrize("body", [0, None, "text", [1], b"bytes"])
def test_what_is_no_map_has_no_fields(body: object) -> None:
    with pytest.raises(SidecamlError, match="a map with 'name' must be there, got ") as caught:
        orders.field(body, "name", str)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.PROTOCOL
