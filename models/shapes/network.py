"""The networks in PyTorch, layer for layer as stable-diffusion.cpp computes them for Ovis-Image with a tiny autoencoder.

Parameters have the engine's tensor names, so a state_dict is what export.py writes. Only the embedding differs: it holds one
row for each token that the world uses (`TOKENS`) and one, the first, for all others.
Source: src/flux.hpp, src/llm.hpp, src/rope.hpp, src/tae.hpp at commit 90e87bc; twin.py compares pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.shapes import words

HEAD = 128  # width of an attention head, of both transformers, fixed in the engine
CHANNELS = 16  # of the latent
PATCH = 4 * CHANNELS  # 2 x 2 latent pixels make one token
TEXT_LENGTH = 284  # tokens of the text encoder, padding included
SEEN = TEXT_LENGTH - words.FIRST  # of these, seen by the transformer
AXES = (16, 56, 56)

# Row 0 of the embedding belongs to every token not listed here.
TOKENS = (
    *sorted({*words.BEFORE, *words.AFTER, words.PADDING} | {token for tokens in words.table().values() for token in tokens}),
)
ROW = {token: index + 1 for index, token in enumerate(TOKENS)}


@dataclass(frozen=True, slots=True)
class Size:
    """How large the networks are. The width of the transformer is a multiple of 128, that of the text encoder of 32."""

    width: int = 384
    doubles: int = 1
    singles: int = 5
    text: int = 64
    text_layers: int = 2
    text_mlp: int = 256


def rms(x: Tensor, scale: Tensor) -> Tensor:
    """Root-mean-square norm, computed in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * scale


class Scale(nn.Module):
    """The weight of an RMS norm, under the name that flux.hpp gives it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms(x, self.scale)


class Norm(nn.Module):
    """The same under the name that llm.hpp gives it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms(x, self.weight)


def turn_halves(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding of dimension i with i + half. x [..., length, width], angles [length, width / 2]."""
    a, b = x.float().chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def turn_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of neighbouring dimensions. x [..., length, width], cos and sin [length, width / 2]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


class TextLayer(nn.Module):
    """One layer of Qwen3's shape: 32 query and 8 key heads of 128."""

    def __init__(self, width: int, mlp: int) -> None:
        super().__init__()
        self.attn_norm, self.ffn_norm = Norm(width), Norm(width)
        self.attn_q = nn.Linear(width, 32 * HEAD, bias=False)
        self.attn_k = nn.Linear(width, 8 * HEAD, bias=False)
        self.attn_v = nn.Linear(width, 8 * HEAD, bias=False)
        self.attn_output = nn.Linear(32 * HEAD, width, bias=False)
        self.attn_q_norm, self.attn_k_norm = Norm(HEAD), Norm(HEAD)
        self.ffn_gate = nn.Linear(width, mlp, bias=False)
        self.ffn_up = nn.Linear(width, mlp, bias=False)
        self.ffn_down = nn.Linear(mlp, width, bias=False)

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor) -> Tensor:
        keys = mask.shape[-1]
        y = self.attn_norm(x)
        q = self.attn_q_norm(self.attn_q(y).unflatten(-1, (32, HEAD))).transpose(1, 2)
        k = self.attn_k_norm(self.attn_k(y[:, :keys]).unflatten(-1, (8, HEAD))).transpose(1, 2)
        v = self.attn_v(y[:, :keys]).unflatten(-1, (8, HEAD)).transpose(1, 2)
        q, k = turn_halves(q, angles), turn_halves(k, angles[:keys])
        out = F.scaled_dot_product_attention(q, k.repeat_interleave(4, 1), v.repeat_interleave(4, 1), attn_mask=mask)
        x = x + self.attn_output(out.transpose(1, 2).flatten(2))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class TextEncoder(nn.Module):
    """Rows of the embedding to one vector a token."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(len(TOKENS) + 1, size.text)
        self.blk = nn.ModuleList(TextLayer(size.text, size.text_mlp) for _ in range(size.text_layers))
        self.output_norm = Norm(size.text)

    def forward(self, rows: Tensor, lengths: Tensor, keys: int) -> Tensor:
        """rows [n, length], of which `lengths` [n] are no padding and lie before `keys`; gives [n, length - FIRST, text]."""
        length = rows.shape[1]
        place = torch.arange(length, device=rows.device)
        mask = (place[:keys] <= place[:, None]) & (place[:keys] < lengths[:, None])[:, None, :]
        frequencies = 1e6 ** (-torch.arange(HEAD // 2, device=rows.device, dtype=torch.float32) / (HEAD // 2))
        x = self.token_embd(rows)
        for layer in self.blk:
            x = layer(x, place[:, None] * frequencies, mask[:, None])
        return self.output_norm(x)[:, words.FIRST :]  # type: ignore[no-any-return]


class Attention(nn.Module):
    """The parameters of joint attention of one stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.ModuleDict({"query_norm": Scale(HEAD), "key_norm": Scale(HEAD)})


def heads(qkv: Tensor, norm: nn.ModuleDict) -> tuple[Tensor, Tensor, Tensor]:
    """Normed queries and keys, and values, [n, heads, length, 128]."""
    q, k, v = [part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in qkv.chunk(3, -1)]
    return norm["query_norm"](q), norm["key_norm"](k), v


def attend(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[n, length, width]."""
    return F.scaled_dot_product_attention(turn_pairs(q, cos, sin), turn_pairs(k, cos, sin), v).transpose(1, 2).flatten(2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, then scale and shift by [n, 1, width]."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Modulation(nn.Module):
    """`number` vectors [n, 1, width] from the time."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.number = number
        self.lin = nn.Linear(width, number * width)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(time))[:, None].chunk(self.number, -1)  # type: ignore[no-any-return]


class Gated(nn.Module):
    """down(silu(gate) * up)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width)
        self.down_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Double(nn.Module):
    """Text and picture with weights of their own, and joint attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(width, 6), Modulation(width, 6)
        self.img_attn, self.txt_attn = Attention(width), Attention(width)
        self.img_mlp, self.txt_mlp = Gated(width), Gated(width)

    def forward(self, img: Tensor, txt: Tensor, time: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.img_mod(time), self.txt_mod(time)
        qi, ki, vi = heads(self.img_attn.qkv(modulate(img, a[0], a[1])), self.img_attn.norm)
        qt, kt, vt = heads(self.txt_attn.qkv(modulate(txt, b[0], b[1])), self.txt_attn.norm)
        out = attend(torch.cat([qt, qi], 2), torch.cat([kt, ki], 2), torch.cat([vt, vi], 2), cos, sin)
        img = img + a[2] * self.img_attn.proj(out[:, txt.shape[1] :])
        txt = txt + b[2] * self.txt_attn.proj(out[:, : txt.shape[1]])
        img = img + a[5] * self.img_mlp(modulate(img, a[3], a[4]))
        txt = txt + b[5] * self.txt_mlp(modulate(txt, b[3], b[4]))
        return img, txt


class Single(nn.Module):
    """Text and picture together; attention and MLP side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear1, self.linear2 = nn.Linear(width, 11 * width), nn.Linear(5 * width, width)
        self.norm = nn.ModuleDict({"query_norm": Scale(HEAD), "key_norm": Scale(HEAD)})
        self.modulation = Modulation(width, 3)

    def forward(self, x: Tensor, time: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(time)
        qkv, up, sluice = self.linear1(modulate(x, shift, scale)).split([3 * self.width, 4 * self.width, 4 * self.width], -1)
        out = attend(*heads(qkv, self.norm), cos, sin)
        return x + gate * self.linear2(torch.cat([out, up * F.silu(sluice)], -1))  # type: ignore[no-any-return]


class Final(nn.Module):
    """The answer of one token: its 64 numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, PATCH)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, -1)
        return self.linear(modulate(x, shift, scale))  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def rotation(text: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [text + side * side, 64] of the tokens' places: text (0, i, i), picture (0, row, column)."""
    i, cells = torch.arange(text), torch.arange(side * side)
    row, column = torch.cat([i, cells // side]), torch.cat([i, cells % side])
    places = (torch.zeros_like(row), row, column)
    parts = [p[:, None] * 1e4 ** (-torch.arange(0, a, 2, dtype=torch.float64) / a) for p, a in zip(places, AXES, strict=True)]
    angles = torch.cat(parts, -1)
    return angles.cos().float().to(device), angles.sin().float().to(device)


class Transformer(nn.Module):
    """Noisy latent, text and sigma to the velocity noise - data."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.img_in, self.txt_in, self.txt_norm = nn.Linear(PATCH, width), nn.Linear(size.text, width), Scale(size.text)
        self.time_in = nn.ModuleDict({"in_layer": nn.Linear(256, width), "out_layer": nn.Linear(width, width)})
        self.double_blocks = nn.ModuleList(Double(width) for _ in range(size.doubles))
        self.single_blocks = nn.ModuleList(Single(width) for _ in range(size.singles))
        self.final_layer = Final(width)

    def forward(self, patches: Tensor, text: Tensor, sigma: Tensor) -> Tensor:
        """patches [n, side * side, 64], text [n, length, text], sigma [n] float32; as patches."""
        cos, sin = rotation(text.shape[1], math.isqrt(patches.shape[1]), patches.device)
        frequencies = torch.exp(-math.log(1e4) * torch.arange(128, device=sigma.device, dtype=torch.float32) / 128)
        angles = 1000 * sigma[:, None] * frequencies
        time = torch.cat([angles.cos(), angles.sin()], -1).to(patches.dtype)
        time = self.time_in["out_layer"](F.silu(self.time_in["in_layer"](time)))
        img, txt = self.img_in(patches), self.txt_in(self.txt_norm(text))
        for block in self.double_blocks:
            img, txt = block(img, txt, time, cos, sin)
        x = torch.cat([txt, img], 1)
        for block in self.single_blocks:
            x = block(x, time, cos, sin)
        return self.final_layer(x[:, text.shape[1] :], time)  # type: ignore[no-any-return]


def pack(latent: Tensor) -> Tensor:
    """[n, 16, h, w] to tokens [n, h/2 * w/2, 64], channel major."""
    n, c, h, w = latent.shape
    return latent.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack(patches: Tensor) -> Tensor:
    """The reverse of `pack`, for a square."""
    n, cells, c = patches.shape
    side = math.isqrt(cells)
    return patches.reshape(n, side, side, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c // 4, 2 * side, 2 * side)
