"""Tensors as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc_server.abi import MAX_RANK, Dtype
from ipc_server.signature import LARGEST_DIM, Tensor
from ipc_server.tensor_text import TensorTextError, parse_named, parse_type

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
shapes = st.lists(st.integers(0, LARGEST_DIM) | names, max_size=MAX_RANK).map(tuple)


@given(names, st.sampled_from(Dtype), shapes)
def test_what_is_written_is_read_again(name: str, dtype: Dtype, shape: tuple[int | str, ...]) -> None:
    tensor = Tensor(name, dtype, shape)
    assert parse_type(name, tensor.type_text) == tensor
    assert parse_named(f"{name}={tensor.type_text}") == tensor


def test_blanks_are_allowed() -> None:
    assert parse_named(" x = float32 [ N , 64 ] ") == Tensor("x", Dtype.FLOAT32, ("N", 64))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("float32[N]", "expected NAME=TYPE[DIMENSIONS], such as x=float32[N,64], got 'float32[N]'"),
        ("=float32[N]", "expected NAME=TYPE[DIMENSIONS], such as x=float32[N,64], got '=float32[N]'"),
        ("x=float32", "tensor 'x': 'float32': expected an element type and the dimensions in brackets"),
        ("x=float32[[N]]", "expected an element type and the dimensions in brackets"),
        ("x=flaot32[N]", "no element type is called 'flaot32': did you mean 'float32'?"),
        ("x=float32[N,]", "a dimension is a number, or a name where it may change: got ''"),
        ("x=float32[-1]", "a dimension is a number, or a name where it may change: got '-1'"),
        ("x=float32[4611686018427387904]", "is more than the 1099511627776 that one may have"),
        ("x=float32[" + "1," * MAX_RANK + "1]", f"it has {MAX_RANK + 1} dimensions: at most {MAX_RANK}"),
    ],
)
def test_what_is_no_tensor_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(TensorTextError) as caught:
        parse_named(text)
    assert said in str(caught.value)
