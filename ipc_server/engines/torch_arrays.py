"""Slots seen as PyTorch's tensors."""

from __future__ import annotations

from typing import Any, Final

import torch

from ipc_server.abi import Dtype
from ipc_server.engines.calls import MismatchError, kind_of
from ipc_server.engines.numpy_arrays import bits
from ipc_server.messages import shown
from ipc_server.signature import Tensor

TORCH_DTYPE: Final[dict[Dtype, torch.dtype]] = {
    Dtype.FLOAT32: torch.float32,
    Dtype.FLOAT64: torch.float64,
    Dtype.FLOAT16: torch.float16,
    Dtype.BFLOAT16: torch.bfloat16,
    Dtype.INT8: torch.int8,
    Dtype.INT16: torch.int16,
    Dtype.INT32: torch.int32,
    Dtype.INT64: torch.int64,
    Dtype.UINT8: torch.uint8,
    Dtype.UINT16: torch.uint16,
    Dtype.UINT32: torch.uint32,
    Dtype.UINT64: torch.uint64,
    Dtype.BOOL: torch.bool,
    Dtype.COMPLEX64: torch.complex64,
    Dtype.COMPLEX128: torch.complex128,
    Dtype.FLOAT8E4M3FN: torch.float8_e4m3fn,
    Dtype.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    Dtype.FLOAT8E5M2: torch.float8_e5m2,
    Dtype.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    Dtype.FLOAT8E8M0: torch.float8_e8m0fnu,
}
DTYPE_OF: Final = {theirs: ours for ours, theirs in TORCH_DTYPE.items()}


class TorchArrays:
    """What the engine `torch` gives and takes."""

    def view(self, address: int, tensor: Tensor, dims: tuple[int, ...], writable: bool) -> torch.Tensor:
        """See a slot's place as a tensor; PyTorch has none that cannot be written."""
        return torch.from_numpy(bits(address, tensor, dims, True)).view(TORCH_DTYPE[tensor.dtype])

    def dims_of(self, value: Any, tensor: Tensor, known: tuple[int, ...] | None) -> tuple[int, ...]:
        """Give a tensor's shape; its type must be exact, because a silent cast would change numbers."""
        expected = TORCH_DTYPE[tensor.dtype]
        if not isinstance(value, torch.Tensor):
            raise MismatchError(
                f"it returned {kind_of(value)} for the output {shown(tensor.name)}: expected a tensor "
                f"of {expected}"
            )
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise MismatchError(
                f"it returned a tensor of layout {value.layout} on {value.device} for the output "
                f"{shown(tensor.name)}: expected a dense one on the processor"
            )
        if value.dtype != expected:
            raise MismatchError(
                f"it returned {value.dtype} for the output {shown(tensor.name)}: expected {expected}, "
                f"as by .to({expected})"
            )
        return tuple(value.shape)

    def copy(self, place: torch.Tensor, value: torch.Tensor) -> None:
        """Copy a tensor."""
        place.copy_(value)
