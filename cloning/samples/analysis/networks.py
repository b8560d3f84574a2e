"""Loads the neural networks in the folder `models`."""

from functools import cache
from pathlib import Path

from onnxruntime import InferenceSession, SessionOptions


@cache
def load(name: str) -> InferenceSession:
    """Returns the network `name`, which computes in one thread. Live speech needs the other processors."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # memory is scarcer here than time
    path = Path(__file__).parent / "models" / f"{name}.onnx"
    return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
