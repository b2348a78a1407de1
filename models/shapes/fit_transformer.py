"""Training of text encoder and transformer by rectified flow, at the noise levels that the engine's sampler visits.

Masters are kept in float32; the networks compute with copies in bfloat16. In the last part of the training the copies are first
rounded as Q4_0 rounds (`rounding.rounded`), so the masters learn weights that survive it; gradients pass straight through.
The first part of the training sees only the first tokens of the padded text, which is faster; the rest sees all, as the
engine does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.shapes import words
from models.shapes.export import quantized
from models.shapes.muon import Muon
from models.shapes.network import ROW, TEXT_LENGTH, Size, TextEncoder, Transformer, pack
from models.shapes.quantize import BLOCK
from models.shapes.rounding import rounded
from models.shapes.sampling import shifted
from models.shapes.scenes import PHRASINGS, PROMPT_LENGTH, Scenes

WARM_UP = 200  # steps
MEMORY = 0.999  # of the moving average
MUON = 2.0  # its rate is so much larger than AdamW's
TEMPLATE = len(words.BEFORE)
SUFFIX = len(words.AFTER)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. The three shares are points of progress, 0..1."""

    batch: int = 256
    rate: float = 1e-3
    whole_text: float = 0.45
    decay: float = 0.45
    quantize: float = 0.78


class Networks(nn.Module):
    """Both networks under the names of their files."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.llm, self.diffusion = TextEncoder(size), Transformer(size)


def fresh(size: Size, seed: int) -> Networks:
    """Networks before training: gates closed, answer zero."""
    torch.manual_seed(seed)
    networks = Networks(size)
    nn.init.normal_(networks.llm.token_embd.weight, 0, 0.3)
    for name, value in networks.named_parameters():
        if name.endswith("bias") or ".lin.weight" in name or "final_layer" in name:
            nn.init.zeros_(value)
    return networks


def _orthogonal(name: str, value: Tensor) -> bool:
    return value.ndim == 2 and name.startswith(("diffusion.double_blocks", "diffusion.single_blocks")) and ".lin." not in name


class Trainee:
    """Networks in training: masters, their average, and the optimizers' memory.

    `text` is how many tokens of the padded text the last step saw: the networks draw well with just that many.
    """

    def __init__(self, networks: Networks, device: torch.device, plan: Plan) -> None:
        self.plan, self.step, self.progress = plan, 0, 0.0
        self.text = PROMPT_LENGTH
        self.names = [name for name, _ in networks.named_parameters()]
        self.masters = [value.detach().clone().float().to(device) for value in networks.parameters()]
        self.average = [value.clone() for value in self.masters]
        self.networks = networks.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.copies = list(self.networks.parameters())
        pairs = list(zip(self.names, self.masters, strict=True))
        self.muon = Muon(value for name, value in pairs if _orthogonal(name, value))
        others = [value for name, value in pairs if not _orthogonal(name, value)]
        self.adam = torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=device.type == "cuda")
        self.rounds = [i for i, (name, value) in enumerate(pairs) if value.ndim == 2 and quantized(name.partition(".")[2])]

    @torch.no_grad()
    def publish(self, values: list[Tensor], into: list[Tensor], rounding: bool) -> None:
        """Copies values into parameters, rounded if asked."""
        torch._foreach_copy_(into, values)
        if rounding:
            sizes = [values[i].numel() for i in self.rounds]
            flat = rounded(torch.cat([values[i].reshape(-1, BLOCK) for i in self.rounds])).reshape(-1)
            parts = [part.view_as(values[i]) for part, i in zip(flat.split(sizes), self.rounds, strict=True)]
            torch._foreach_copy_([into[i] for i in self.rounds], parts)

    @torch.no_grad()
    def update(self) -> Tensor:
        """One step of both optimizers from the copies' gradients; the gradients' norm before it was clipped."""
        plan, gradients = self.plan, [copy.grad.float() for copy in self.copies]  # type: ignore[union-attr]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (1 / norm.clamp(min=1.0)).nan_to_num(0.0))
        for master, gradient in zip(self.masters, gradients, strict=True):
            master.grad = gradient
        late = max(0.0, (self.progress - plan.decay) / (1 - plan.decay))
        rate = plan.rate * min(1, (self.step + 1) / WARM_UP) * (1 - 0.98 * late)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.muon.step(MUON * rate)
        self.step += 1
        torch._foreach_lerp_(self.average, self.masters, 1 - min(MEMORY, (1 + self.step) / (10 + self.step)))
        return norm

    def state(self) -> dict[str, Any]:
        """All that a later run needs to go on."""
        return {
            "step": self.step,
            "progress": self.progress,
            "masters": self.masters,
            "average": self.average,
            "adam": self.adam.state_dict(),
            "muon": self.muon.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave; without optimizers' memory where there is none."""
        self.step, self.progress = state["step"], state["progress"]
        self.text = TEXT_LENGTH if self.progress > self.plan.whole_text else PROMPT_LENGTH
        torch._foreach_copy_(self.masters, [value.to(self.masters[0].device) for value in state["masters"]])
        torch._foreach_copy_(self.average, [value.to(self.masters[0].device) for value in state["average"]])
        if "adam" in state:
            self.adam.load_state_dict(state["adam"])
            self.muon.restore(state["muon"])


def compiled(networks: Networks, log: Callable[[str], None]) -> None:
    """Lets PyTorch compile the repeated blocks; where that fails they run as they are."""
    import torch._dynamo as dynamo

    dynamo.config.suppress_errors = True
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(dynamo.config, name):
            setattr(dynamo.config, name, 64)
    blocks = [*networks.llm.blk, *networks.diffusion.double_blocks, *networks.diffusion.single_blocks]
    for block in blocks:
        block.compile(dynamic=False)
    log(f"{len(blocks)} blocks will be compiled")


class Batches:
    """Random latents with prompts; some words are replaced by the unknown one, so that unknown words do no harm."""

    def __init__(self, latents: Tensor, scenes: Scenes) -> None:
        self.latents = latents
        self.rows = torch.from_numpy(scenes.rows).to(latents.device)
        self.lengths = torch.from_numpy(scenes.lengths).to(latents.device)

    def draw(self, number: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, rows [n, length] and lengths [n]."""
        device = self.latents.device
        chosen, phrasing = (
            torch.randint(len(self.latents), (number,), device=device),
            torch.randint(PHRASINGS, (number,), device=device),
        )
        rows, lengths = self.rows[chosen, phrasing].long(), self.lengths[chosen, phrasing].long()
        place = torch.arange(PROMPT_LENGTH, device=device)
        prompt = (place >= TEMPLATE) & (place < lengths[:, None] - SUFFIX)
        kind = torch.rand(number, 1, device=device)
        share = torch.where(kind < 0.02, 1.0, torch.where(kind < 0.12, 0.25, 0.0))
        rows = torch.where(prompt & (torch.rand(number, PROMPT_LENGTH, device=device) < share), 0, rows)
        return self.latents[chosen], F.pad(rows, (0, length - PROMPT_LENGTH), value=ROW[words.PADDING]), lengths


def loss_of(networks: Networks, latents: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
    """Mean squared error of the velocity, at noise levels spread as the sampler's."""
    number, device = len(latents), latents.device
    u = (torch.randperm(number, device=device) + torch.rand(number, device=device)) / number
    sigma = shifted(u.clamp(1e-3, 1))
    data = pack(latents.float())
    noise = torch.randn_like(data)
    level = sigma[:, None, None]
    dtype = networks.diffusion.img_in.weight.dtype
    noisy = ((1 - level) * data + level * noise).to(dtype)
    velocity = networks.diffusion(noisy, networks.llm(rows, lengths, PROMPT_LENGTH), sigma)
    return F.mse_loss(velocity.float(), noise - data)


def fit(
    trainee: Trainee, batches: Batches, seconds: float, until: float, log: Callable[[str], None]
) -> Iterator[tuple[int, float]]:
    """Trains for that many seconds to that progress; yields step and seconds after every step, for the caller to look on.

    The time the caller takes counts. Raises FloatingPointError when the loss is no number for twenty steps.
    """
    begin, first, reported, losses = time.monotonic(), trainee.progress, 0.0, []
    seconds, batch = max(seconds, 1.0), trainee.plan.batch
    stages = {"whole text": False, "rounding": False}
    while trainee.progress < until:
        whole, rounding = trainee.progress >= trainee.plan.whole_text, trainee.progress >= trainee.plan.quantize
        for name, now in (("whole text", whole), ("rounding", rounding)):
            if now and not stages[name]:
                stages[name] = True
                log(f"step {trainee.step}, progress {trainee.progress:.3f}: {name} from here on")
        trainee.text = TEXT_LENGTH if whole else PROMPT_LENGTH
        trainee.publish(trainee.masters, trainee.copies, rounding)
        trainee.networks.zero_grad(set_to_none=True)
        try:
            loss = loss_of(trainee.networks, *batches.draw(batch, trainee.text))
            loss.backward()
        except torch.OutOfMemoryError:
            if batch < 32:
                raise
            batch //= 2
            torch.cuda.empty_cache()
            log(f"OUT OF MEMORY at step {trainee.step}: from here on {batch} at a time")
            continue
        norm = trainee.update()
        losses.append(loss.detach())
        elapsed = time.monotonic() - begin
        trainee.progress = min(until, first + (until - first) * elapsed / seconds)
        if len(losses) == 20 and not torch.stack(losses).isfinite().any():
            raise FloatingPointError(f"the loss is no number at step {trainee.step}")
        if elapsed - reported > 10 or trainee.progress >= until or trainee.step in (1, 10):
            mean = torch.stack(losses).mean().item()
            speed = len(losses) * batch / max(1e-9, elapsed - reported)
            at = f"step {trainee.step} {elapsed:.0f} s, progress {trainee.progress:.3f}"
            log(f"{at}: loss {mean:.4f}, norm {norm.item():.2f}, {speed:.0f}/s")
            reported, losses = elapsed, []
        yield trainee.step, elapsed
