"""Signatures: the protocol's form, named dimensions, fingerprints."""

from __future__ import annotations

from typing import Any

import pytest

from ipc_server.abi import MAX_TENSORS, Dtype, ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature, Tensor, TensorSpec, signature_of, text_of

DYNAMIC = Signature(
    (Tensor("x", Dtype.FLOAT32, ("batch", 64)), Tensor("n", Dtype.INT64, ())),
    (Tensor("y", Dtype.FLOAT32, ("batch", "y[1]")),),
)


def refusal(action: Any) -> SidecamlError:
    with pytest.raises(SidecamlError) as caught:
        action()
    return caught.value


def test_the_protocol_s_form_is_read_back_as_written() -> None:
    assert signature_of(DYNAMIC.describe()) == DYNAMIC


def test_dimensions_get_their_maxima_wherever_they_are_named() -> None:
    assert DYNAMIC.bind({"batch": 8, "y[1]": 3}) == (
        TensorSpec("x", Dtype.FLOAT32, False, True, (8, 64)),
        TensorSpec("n", Dtype.INT64, False, False, ()),
        TensorSpec("y", Dtype.FLOAT32, True, True, (8, 3)),
    )


def test_a_missing_maximum_is_named() -> None:
    error = refusal(lambda: DYNAMIC.bind({"batch": 8}))
    assert error.code is ErrorCode.BAD_DIMS
    assert "'y[1]'" in str(error)
    assert "only outputs have 'y[1]': a small guess will do" in str(error)
    assert "batch" not in str(error)


def test_a_maximum_that_inputs_have_is_not_to_be_guessed() -> None:
    error = refusal(lambda: DYNAMIC.bind({"y[1]": 8}))
    assert str(error) == "dimension 'batch' of the model is dynamic: give its maximum in `dims` at open"


def test_an_unknown_dimension_gets_the_nearest_name() -> None:
    error = refusal(lambda: DYNAMIC.bind({"bach": 8, "y[1]": 1}))
    assert (error.code, "did you mean 'batch'?" in str(error)) == (ErrorCode.BAD_DIMS, True)


def test_a_model_without_dynamic_dimensions_takes_no_dims() -> None:
    static = Signature((Tensor("x", Dtype.FLOAT32, (1, 64)),), ())
    error = refusal(lambda: static.bind({"n": 1}))
    assert error.code is ErrorCode.BAD_DIMS
    assert str(error) == "the model has no dynamic dimension: `dims` must be empty, got 'n'"


@pytest.mark.parametrize("most", [0, 2**40 + 1, 2**64 - 1])
def test_a_maximum_out_of_range_is_refused(most: int) -> None:
    error = refusal(lambda: DYNAMIC.bind({"batch": most, "y[1]": 1}))
    assert (error.code, str(most) in str(error)) == (ErrorCode.BAD_DIMS, True)


def test_the_fingerprint_is_the_same_everywhere() -> None:
    assert Signature((), ()).fingerprint == 0xED07B4281951B140
    assert DYNAMIC.fingerprint == 0xA8DDE3A7E61E060A


@pytest.mark.parametrize(
    "other",
    [
        Signature(DYNAMIC.inputs[::-1], DYNAMIC.outputs),
        Signature(DYNAMIC.outputs, DYNAMIC.inputs),
        Signature(DYNAMIC.inputs + DYNAMIC.outputs, ()),
        Signature((Tensor("x", Dtype.FLOAT64, ("batch", 64)), DYNAMIC.inputs[1]), DYNAMIC.outputs),
        Signature((Tensor("x", Dtype.FLOAT32, ("batch", 65)), DYNAMIC.inputs[1]), DYNAMIC.outputs),
        Signature((Tensor("x", Dtype.FLOAT32, ("b", 64)), DYNAMIC.inputs[1]), DYNAMIC.outputs),
        Signature((Tensor("X", Dtype.FLOAT32, ("batch", 64)), DYNAMIC.inputs[1]), DYNAMIC.outputs),
    ],
)
def test_any_difference_gives_another_fingerprint(other: Signature) -> None:
    assert other.fingerprint != DYNAMIC.fingerprint


@pytest.mark.parametrize(
    "tensor",
    [
        3,
        {},
        {"name": 1, "dtype": "float32", "shape": []},
        {"name": "x", "dtype": "float31", "shape": []},
        {"name": "x", "dtype": None, "shape": []},
        {"name": "x", "dtype": "float32", "shape": 3},
        {"name": "x", "dtype": "float32", "shape": [-1]},
        {"name": "x", "dtype": "float32", "shape": [True]},
        {"name": "x", "dtype": "float32", "shape": [2**41]},
        {"name": "x", "dtype": "float32", "shape": [""]},
    ],
)
def test_another_form_is_refused(tensor: object) -> None:
    assert refusal(lambda: signature_of({"inputs": [tensor], "outputs": []})).code is ErrorCode.PROTOCOL


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([{"name": "x", "dtype": "float32", "shape": [1] * 17}], "17 dimensions"),
        ([{"name": "a\0b", "dtype": "float32", "shape": []}], "NUL"),
        ([{"name": "x", "dtype": "float32", "shape": []}] * (MAX_TENSORS + 1), "at most 256"),
    ],
)
def test_what_a_channel_cannot_carry_is_unsupported(tensors: list[object], expected: str) -> None:
    error = refusal(lambda: signature_of({"inputs": tensors, "outputs": []}))
    assert (error.code, expected in str(error)) == (ErrorCode.UNSUPPORTED, True)


def test_tensors_are_shown_on_one_line() -> None:
    assert text_of(DYNAMIC.inputs) == "x float32[batch,64], n int64[]"
    assert text_of(()) == "none"
