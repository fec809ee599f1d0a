"""Triton, through nvidia-pytriton, with its dynamic batches: triton_server.py FILE.onnx HTTP_PORT."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from onnx_model import INPUTS, MODEL, OnnxModel
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MOST = 32
OUTPUTS = 10


def main() -> None:
    """Load the model and serve it."""
    model = OnnxModel(sys.argv[1])
    port = int(sys.argv[2])

    @batch  # type: ignore[untyped-decorator]
    def infer(x: Any) -> dict[str, Any]:
        return {"y": model.run(x)}

    config = TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, http_address="127.0.0.1")
    with Triton(config=config) as triton:
        triton.bind(
            model_name=MODEL,
            infer_func=infer,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(INPUTS,))],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(OUTPUTS,))],
            config=ModelConfig(max_batch_size=MOST, batcher=DynamicBatcher(max_queue_delay_microseconds=100)),
        )
        triton.serve()


if __name__ == "__main__":
    main()
