"""Training of the autoencoder on windows of random scenes.

The latent gets noise while the decoder learns, so that small errors of the transformer do not show; it is held near zero mean,
unit variance and within +-3, where the decoder's tanh is still steep.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.shapes.autoencoder import Autoencoder
from models.shapes.painting import paint
from models.shapes.scenes import Scenes

RATE = 1.5e-3
WARM_UP = 100  # steps
NOISE = 0.3  # largest standard deviation of the noise on a latent
REPORT = 15.0  # seconds


def _held(latent: Tensor) -> Tensor:
    mean, variance = latent.mean((0, 2, 3)), latent.var((0, 2, 3))
    return mean.square().mean() + (variance - 1).square().mean() + (latent.abs() - 2.5).clamp(min=0).square().mean()


@torch.no_grad()
def fresh(sample: Tensor) -> Autoencoder:
    """Before training: signals keep their size through the layers, and the latent of `sample` has unit variance."""
    autoencoder = Autoencoder()
    for name, value in autoencoder.named_parameters():
        if value.ndim == 4:
            nn.init.kaiming_normal_(value, nonlinearity="relu")
        else:
            nn.init.zeros_(value)
        if ".conv.4." in name:
            value.mul_(0.2)
    last = autoencoder.decoder.layers[-1]
    last.weight.mul_(0.1)
    last.bias.fill_(0.5)
    autoencoder.to(sample.device)
    latent = autoencoder.encoder(sample)
    last = autoencoder.encoder.layers[-1]
    scale = 1 / latent.std((0, 2, 3))
    last.weight.mul_(scale[:, None, None, None])
    last.bias.copy_(-latent.mean((0, 2, 3)) * scale)
    return autoencoder.to(memory_format=torch.channels_last)


def fit(
    scenes: Scenes, device: torch.device, seconds: float, pixels: int, batch: int, log: Callable[[str], None], seed: int
) -> Autoencoder:
    """A trained autoencoder, in float32. Windows are half the picture's side."""
    torch.manual_seed(seed)
    figures, ground = torch.from_numpy(scenes.figures).to(device), torch.from_numpy(scenes.ground).to(device)
    autoencoder = fresh(paint(figures[:32], ground[:32], pixels))
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    window, begin, reported, step, progress = max(32, pixels // 2), time.monotonic(), 0.0, 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (0.51 + 0.49 * math.cos(math.pi * progress))
        chosen = torch.randint(len(figures), (batch,), device=device)
        corner = torch.randint(pixels - window + 1, (batch, 2), device=device).float()
        target = paint(figures[chosen], ground[chosen], pixels, corner, window).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            latent = autoencoder.encoder(target)
        held = _held(latent.float())
        spread = NOISE * torch.rand(batch, 1, 1, 1, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = autoencoder.decoder(latent + spread * torch.randn_like(latent))
        error = out.float() - target
        loss = error.abs().mean() + 4 * error.square().mean() + 0.05 * held
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        elapsed = time.monotonic() - begin
        progress = elapsed / seconds
        if elapsed - reported > REPORT or progress >= 1:
            reported = elapsed
            rms, wide = error.square().mean().sqrt().item(), latent.float()
            log(
                f"autoencoder step {step} {elapsed:.0f} s: error {255 * rms:.2f} of 255, latent: deviation "
                f"{wide.std().item():.2f}, greatest {wide.abs().max().item():.2f}"
            )
    return autoencoder.eval()


@torch.no_grad()
def latents(autoencoder: Autoencoder, scenes: Scenes, device: torch.device, pixels: int, batch: int) -> Tensor:
    """[n, 16, pixels / 8, pixels / 8] on the device, bfloat16."""
    side = pixels // 8
    out = torch.empty(len(scenes.figures), 16, side, side, dtype=torch.bfloat16, device=device)
    encoder = autoencoder.encoder
    number = (scenes.figures[:, :, 3] > 0).sum(1)
    order = number.argsort(kind="stable")  # scenes with few figures together, so that no time goes into empty places
    for start in range(0, len(out), batch):
        part = order[start : start + batch]
        figures = torch.from_numpy(scenes.figures[part, : number[part].max()]).to(device)
        picture = paint(figures, torch.from_numpy(scenes.ground[part]).to(device), pixels)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out[torch.from_numpy(part).to(device)] = encoder(picture.contiguous(memory_format=torch.channels_last)).to(
                torch.bfloat16
            )
    return out
