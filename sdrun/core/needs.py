"""What a file set needs at a size, from headers alone: sdrun.core.fit.Needs."""

from __future__ import annotations

from collections.abc import Sequence

from sdrun.core.family import Compute, Kind, find
from sdrun.core.fileset import ALL_IN_ONE, FilePart, FileSet
from sdrun.core.fit import Needs
from sdrun.core.header import BLOCKS, TensorInfo

MIB = 1 << 20
_TILE = 32  # latent cells on a side of a tile (src/vae.hpp, get_tile_sizes)
_USUAL_DECODER = 512  # channels that enter the decoder, where its full-size layers have 128
_FLOOR = 1.07  # without flash attention the buffer is never smaller than this part of the one with it
# Types the engine can look words up in; tables of any other type become f32 (src/ggml_extend.hpp, support_get_rows).
_LOOKUP = frozenset({"f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"})
_TABLES = (
    "token_embd.weight",
    "embed_tokens.weight",
    "shared.weight",
    "token_embedding.weight",
    "relative_attention_bias.weight",
)
_ALWAYS_F32 = ("position_embedding.weight", "text_projection", "pos_embed")
_FORCED_F32 = ("t_embedder.mlp.", "y_embedder.mlp.", "context_embedder.", "final_layer.linear.")  # src/mmdit.hpp, z_image.hpp
_UNUSED = ("encoder.embed_tokens.weight", "output.weight", "lm_head.weight", "position_ids", "logit_scale")
_LOADED_AS = {"f8_e4m3": "f16", "f8_e5m2": "f16", "f64": "f32", "i64": "i32"}


def needs(files: FileSet, width: int, height: int, *, encodes: bool = False, keeps: bool = False) -> Needs | None:
    """What the model needs for a picture of `width` x `height` pixels; None where its family is not known well enough to say.
    `encodes`: a first picture is turned into latents, which takes the encoder's weights and about the decoder's buffer.
    `keeps`: no part is freed when its stage is over, as in a server."""
    family, diffusion = files.family, files.parts.get("diffusion")
    if family is None or family.compute is None or diffusion is None:
        return None
    drawing = _drawing(family.compute, diffusion, width, height)
    autoencoder = files.parts.get("tae") or files.parts.get("vae")
    if drawing is None or autoencoder is None or autoencoder.kind is None or not autoencoder.kind.per_pixel:
        return None
    text = [part for name, part in files.parts.items() if name in family.text]
    cell = 16 if autoencoder.kind.name in ("kl-32", "tae-32") else 8
    factor = family.compute.own_vae if autoencoder.role == ALL_IN_ONE else 1.0
    tile = min(width, _TILE * cell) * min(height, _TILE * cell)
    return Needs(
        text_weights=sum(weights(part) for part in text),
        diffusion_weights=weights(diffusion),
        vae_weights=weights(autoencoder, encodes=encodes),
        reading=max((part.kind.buffer_mib for part in text if part.kind), default=0.0),
        drawing=drawing[0],
        drawing_flash=drawing[1],
        decoding=factor * _decoding(autoencoder.kind, autoencoder.tensors, width * height),
        decoding_tiled=factor * _decoding(autoencoder.kind, autoencoder.tensors, tile),
        measured=family.compute.measured,
        keeps=keeps,
    )


def weights(part: FilePart, *, encodes: bool = True) -> float:
    """MiB of the part's weights once they are loaded."""
    return sum(_loaded(tensor, part.name, encodes) for tensor in part.tensors) / MIB


def _loaded(tensor: TensorInfo, part: str, encodes: bool) -> float:
    """Bytes of a tensor in the engine: biases and norms are f32, convolutions f16, matrices as they are stored."""
    name = tensor.name
    if part in ("vae", "tae") and not encodes and name.startswith(("encoder.", "quant_conv.", "conv1.")):
        return 0
    if any(name == end or name.endswith("." + end) for end in _UNUSED) or (part == "llm" and "visual." in name):
        return 0
    if len(tensor.dimensions) < 2 or name.endswith(_ALWAYS_F32) or any(text in name for text in _FORCED_F32):
        kind = "f32"
    elif any(name == end or name.endswith("." + end) for end in _TABLES):
        kind = tensor.type if tensor.type in _LOOKUP else "f32"
    elif len(tensor.dimensions) > 2 and tensor.parameters != max(tensor.dimensions):
        kind = "f16"
    else:
        kind = _LOADED_AS.get(tensor.type, tensor.type)
    block, size = BLOCKS.get(kind, (0, 0))
    return tensor.parameters / block * size if block else tensor.bytes


def _drawing(compute: Compute, diffusion: FilePart, width: int, height: int) -> tuple[float, float] | None:
    """The buffer without flash attention and with it: an attention matrix for each head, and rows for each token."""
    shaped = next(iter(find(diffusion.tensors, (compute.width,))), None)
    if shaped is None:
        return None
    inner = shaped.size(compute.axis)
    tokens = -(-width // compute.pixels) * -(-height // compute.pixels) + compute.text
    row = tokens * inner * 4 / MIB
    matrices = inner // compute.head * tokens**2 * 4 / MIB
    return max(matrices + compute.linear * row, _FLOOR * compute.flash * row), compute.flash * row


def _decoding(kind: Kind, tensors: Sequence[TensorInfo], pixels: int) -> float:
    """The decoder's buffer: rows of pixels, or for very large pictures the attention matrix in its middle."""
    scale, matrix = 1.0, 0.0
    if kind.name.startswith("kl-"):
        entry = next(iter(find(tensors, ("decoder.conv_in.weight",))), None)
        scale = entry.size(3) / _USUAL_DECODER if entry is not None else 1.0
        matrix = 1.1 * (pixels / 64) ** 2 * 4 / MIB
    return max(kind.per_pixel * scale * pixels / MIB, matrix)
