"""What the C core says of models and requests, as Python gets it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipc_server import _core
from ipc_server.abi import MAX_RANK, Dtype, ErrorCode
from ipc_server.errors import SidecamlError

F32 = "tensor(float)"
ATTENTION = _core.Tensors(
    [("q", F32, ("N", 8)), ("k", F32, ("M", "N")), ("bias", F32, (4,))],
    [("y", F32, ("N", "M", 2)), ("z", "tensor(int64)", (None, "other"))],
)


def refused(code: ErrorCode, call: object, *args: object) -> str:
    """Call, expect this error, and return its sentence."""
    with pytest.raises(SidecamlError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.code is code, caught.value
    return str(caught.value)


# --- Sentences ----------------------------------------------------------------------------------------------


def test_a_sentence_is_made_of_text_and_of_bytes() -> None:
    assert _core.sentence("Error in execution: café\nmore") == "café"
    assert _core.sentence(b"Error in execution: caf\xe9 x") == "caf? x"
    assert _core.sentence("lone \ud800, nul \0.") == "lone ?, nul  ."
    assert len(_core.sentence("x" * 10_000)) == 1023
    with pytest.raises(TypeError, match="expected str or bytes"):
        _core.sentence(5)  # type: ignore[arg-type]


def test_a_model_that_is_not_loaded_is_said_with_its_path(tmp_path: Path) -> None:
    said = refused(
        ErrorCode.MODEL_FAILED, _core.model_not_loaded, tmp_path, b"[ONNXRuntimeError] : 1 : FAIL : bad"
    )
    assert said == f"{tmp_path} could not be loaded as an ONNX model: bad"
    with pytest.raises(TypeError):
        _core.model_not_loaded(tmp_path)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _core.model_not_loaded(5, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.model_not_loaded(tmp_path, 5)  # type: ignore[arg-type]


def test_a_path_is_checked_whatever_it_is_made_of(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"x")
    for path in (file, str(file), os.fsencode(file)):
        _core.check_model_file(path)  # type: ignore[arg-type]
    assert (
        refused(ErrorCode.MODEL_FAILED, _core.check_model_file, "a\0b")
        == r"'a\x00b' is no path: it holds a NUL"
    )
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    assert "/caf? cannot be read: No such file" in refused(
        ErrorCode.MODEL_FAILED, _core.check_model_file, odd
    )
    with pytest.raises(TypeError):
        _core.check_model_file(5)  # type: ignore[arg-type]


# --- Tensors ------------------------------------------------------------------------------------------------


def test_tensors_are_told_with_a_name_for_every_dynamic_dimension() -> None:
    assert ATTENTION.inputs == (
        ("q", Dtype.FLOAT32, ("N", 8)),
        ("k", Dtype.FLOAT32, ("M", "N")),
        ("bias", Dtype.FLOAT32, (4,)),
    )
    assert ATTENTION.outputs[1] == ("z", Dtype.INT64, ("z[0]", "other"))
    unnamed = _core.Tensors([("é", F32, (-1, "", None, 0))], [])
    assert unnamed.inputs == (("é", Dtype.FLOAT32, ("é[0]", "é[1]", "é[2]", 0)),)
    assert unnamed.outputs == ()
    assert _core.Tensors([], []).request_dims(()) == ()


def test_what_a_channel_cannot_carry_is_named() -> None:
    def load(*inputs: object) -> None:
        _core.Tensors(inputs, [])  # type: ignore[arg-type]

    assert refused(ErrorCode.UNSUPPORTED, load, ("x", "tensor(float6e2m3)", ())).startswith(
        "input 'x' is a tensor(float6e2m3): "
    )
    assert "17 dimensions" in refused(ErrorCode.UNSUPPORTED, load, ("x", F32, (1,) * (MAX_RANK + 1)))
    assert "257 inputs" in refused(ErrorCode.UNSUPPORTED, load, *[("x", F32, ())] * 257)
    assert r"the name 'a\xff' of" in refused(ErrorCode.UNSUPPORTED, load, (b"a\xff", "", ()))
    for name, shape in (("a\0b", ()), ("a", ("N\0",))):
        assert "holds a NUL" in refused(ErrorCode.UNSUPPORTED, load, (name, F32, shape))


@pytest.mark.parametrize(
    "description", [5, (), ("x", F32), ("x", F32, 5), (5, F32, ()), ("x", 5, ()), ("x", F32, (), 1)]
)
def test_what_is_no_description_is_refused(description: object) -> None:
    for inputs, outputs in (([description], []), ([], [description])):
        with pytest.raises(TypeError):
            _core.Tensors(inputs, outputs)  # type: ignore[arg-type]


def test_sizes_beyond_any_are_refused() -> None:
    with pytest.raises(OverflowError):
        _core.Tensors([("x", F32, (2**63,))], [])


# --- Requests -----------------------------------------------------------------------------------------------


def test_dims_of_every_tensor_follow_from_the_dynamic_inputs() -> None:
    assert ATTENTION.request_dims([(3, 8), (5, 3)]) == ((3, 8), (5, 3), (4,), (3, 5, 2), None)
    assert ATTENTION.request_dims([(0, 8), (0, 0)])[3] == (0, 0, 2)


def test_dims_that_disagree_are_bad() -> None:
    said = refused(ErrorCode.BAD_DIMS, ATTENTION.request_dims, [(3, 8), (5, 4)])
    assert said == "dimension 'N' must be one size: it is 3 in input 'q' and 4 in input 'k'"
    said = refused(ErrorCode.BAD_DIMS, ATTENTION.request_dims, [(3, 9), (5, 3)])
    assert said == "input 'q' came as [3, 9]: the model takes [N, 8]"


def test_dims_of_other_tensors_than_the_dynamic_inputs_are_misuse() -> None:
    for given in ((), [(3, 8)], [(3, 8), (5, 3), (4,)], [(3, 8, 1), (5, 3)], [(3,), (5, 3)]):
        refused(ErrorCode.INVALID, ATTENTION.request_dims, given)
    for wrong in (None, [3, 8], [(3, "8"), (5, 3)]):
        with pytest.raises(TypeError):
            ATTENTION.request_dims(wrong)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        ATTENTION.request_dims([(-1, 8), (5, 3)])


def test_an_output_is_held_against_its_declaration_and_its_room() -> None:
    ATTENTION.check_output(3, (3, 5, 2), (3, 5, 2))
    said = refused(ErrorCode.OUTPUT_TOO_LARGE, ATTENTION.check_output, 3, (3, 5, 2), (3, 4, 2))
    assert said == (
        "output 'y' came out as [3, 5, 2], 120 bytes, and the channel has room for [3, 4, 2]: "
        "open with larger dims"
    )
    assert "declares [N, M, 2]: export" in refused(
        ErrorCode.ENGINE, ATTENTION.check_output, 3, (3, 5), (3, 4, 2)
    )
    # A run on zeros tells nothing of a rank that is declared.
    ATTENTION.check_rank(4, 3)
    scalar = _core.Tensors([], [("s", "tensor(float)", ())])
    scalar.check_rank(0, 0)
    assert "'s' is declared with 0" in refused(ErrorCode.UNSUPPORTED, scalar.check_rank, 0, 3)
    for number in (0, 2, 5):
        assert "is no output" in refused(ErrorCode.INVALID, ATTENTION.check_rank, number, 1)
        assert "is no output" in refused(ErrorCode.INVALID, ATTENTION.check_output, number, (), ())
    refused(ErrorCode.INVALID, ATTENTION.check_output, 3, (1, 1, 2), (1, 1))
    refused(ErrorCode.INVALID, ATTENTION.check_output, 3, (1,) * 17, (1, 1, 2))
