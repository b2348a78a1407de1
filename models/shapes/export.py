"""From a checkpoint to the files that the engine loads: `diffusion`, `llm` and `tae` as GGUF, in f16 or with Q4_0 matrices.

    python -m models.shapes.export WEIGHTS FOLDER [--type q4_0|f16|f32]

WEIGHTS is what train.py leaves (weights-*.npz). Small tensors stay in f16, vectors in f32, convolutions in f16 as the engine
demands. `read` gives the weights of files back, exactly as the engine would see them.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.shapes import words
from models.shapes.autoencoder import Autoencoder, complete
from models.shapes.network import ROW, Size, TextEncoder, Transformer
from models.shapes.quantize import BLOCK, BLOCK_BYTES, from_q4_0, to_q4_0
from sdrun.models.gguf import GgmlType, Tensor, encode, write_atomically

Weights = dict[str, npt.NDArray[np.float32]]

ROLES = ("diffusion", "llm", "tae")
TYPES = {"f32": GgmlType.F32, "f16": GgmlType.F16, "q4_0": GgmlType.Q4_0}
# Few weights that every token or every step goes through: they stay in f16.
SENSITIVE = ("img_in.", "txt_in.", "time_in.", "final_layer.")
_NUMPY = {GgmlType.F32: np.float32, GgmlType.F16: np.float16}


def quantized(name: str) -> bool:
    """Whether a matrix of that name, transformer's or text encoder's, becomes Q4_0."""
    return not name.startswith(SENSITIVE)


def widened(embedding: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The rows of the tokens that are used in their places, the first row in all others of the engine's vocabulary."""
    table = np.repeat(embedding[:1], words.VOCABULARY, 0)
    table[list(ROW)] = embedding[list(ROW.values())]
    return table


def tensor(role: str, name: str, values: npt.NDArray[np.float32], wanted: GgmlType) -> Tensor:
    """One tensor in the type that its place in the model allows."""
    kind = wanted
    if role == "tae":
        kind = GgmlType.F16 if values.ndim == 4 else GgmlType.F32
    elif values.ndim == 1:
        kind = GgmlType.F32
    elif wanted is GgmlType.Q4_0 and not quantized(name):
        kind = GgmlType.F16
    data = to_q4_0(values) if kind is GgmlType.Q4_0 else values.astype(_NUMPY[kind]).tobytes()
    return Tensor(name, kind, tuple(reversed(values.shape)), data)


def files(weights: Mapping[str, Weights], wanted: GgmlType) -> dict[str, bytes]:
    """The GGUF file of each role."""
    out = {}
    for role in ROLES:
        parts = {name: np.ascontiguousarray(value, np.float32) for name, value in weights[role].items()}
        if role == "llm":
            parts["token_embd.weight"] = widened(parts["token_embd.weight"])
        metadata = {"general.architecture": "sdrun-shapes", "general.name": f"sdrun shapes, {role}, {wanted.name.lower()}"}
        out[role] = encode([tensor(role, name, value, wanted) for name, value in parts.items()], metadata)
    return out


def read(data: bytes) -> Weights:
    """The tensors of a GGUF file that `files` made, as float32; ValueError for what it does not write."""
    if data[:4] != b"GGUF":
        raise ValueError("not a GGUF file")
    number, pairs = struct.unpack_from("<QQ", data, 8)
    at = 24

    def text() -> str:
        nonlocal at
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length : at].decode()

    for _ in range(pairs):
        text()
        (kind,) = struct.unpack_from("<I", data, at)
        if kind != 8:
            raise ValueError(f"metadata of type {kind}")
        at += 4
        text()
    listed = []
    for _ in range(number):
        name = text()
        (rank,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{rank}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * rank)
        at += 16 + 8 * rank
        listed.append((name, tuple(reversed(shape)), GgmlType(kind), offset))
    start = -(-at // 32) * 32
    return {name: _values(data, start + offset, shape, kind) for name, shape, kind, offset in listed}


def _values(data: bytes, at: int, shape: tuple[int, ...], kind: GgmlType) -> npt.NDArray[np.float32]:
    count = int(np.prod(shape))
    if kind is GgmlType.Q4_0:
        return from_q4_0(data[at : at + count // BLOCK * BLOCK_BYTES]).reshape(shape)
    return np.frombuffer(data, _NUMPY[kind], count, at).reshape(shape).astype(np.float32)


def networks(parts: Mapping[str, bytes], size: Size) -> tuple[TextEncoder, Transformer, Autoencoder]:
    """The networks with the weights of GGUF files, in float32."""
    text, transformer, autoencoder = TextEncoder(size), Transformer(size), Autoencoder()
    llm = read(parts["llm"])
    unused = next(token for token in range(words.VOCABULARY) if token not in ROW)
    llm["token_embd.weight"] = llm["token_embd.weight"][[unused, *ROW]]
    tae = {name: value for name, value in read(parts["tae"]).items() if not name.startswith("encoder.layers.1.")}
    for module, values in ((text, llm), (transformer, read(parts["diffusion"])), (autoencoder, tae)):
        module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in values.items()})
        module.eval()
    return text, transformer, autoencoder


def named(text: torch.nn.Module, transformer: torch.nn.Module, autoencoder: Autoencoder) -> dict[str, Weights]:
    """The weights of networks by role, as numpy arrays."""
    states = {"llm": text.state_dict(), "diffusion": transformer.state_dict(), "tae": complete(autoencoder.state_dict())}
    return {role: {name: value.float().cpu().numpy() for name, value in state.items()} for role, state in states.items()}


def load(folder: Path) -> dict[str, Weights]:
    """The weights that `train.py` left in a folder, of whatever number of files, and under "training" its progress."""
    weights: dict[str, Weights] = {role: {} for role in (*ROLES, "training")}
    for path in sorted(folder.glob("weights-*.npz")):
        with np.load(path) as archive:
            for key in archive.files:
                role, _, name = key.partition("/")
                weights[role][name] = archive[key].astype(np.float32)
    if not all(weights.values()):
        raise FileNotFoundError(f"{folder} holds no complete set of weights-*.npz")
    return weights


def main() -> None:
    """Writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--type", choices=tuple(TYPES), default="q4_0")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for role, data in files(load(options.weights), TYPES[options.type]).items():
        write_atomically(options.folder / f"shapes-{role}.gguf", data)
        print(f"{options.folder / f'shapes-{role}.gguf'}: {len(data)} bytes")


if __name__ == "__main__":
    main()
