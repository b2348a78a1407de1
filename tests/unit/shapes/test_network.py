"""What needs PyTorch: rounding in training is the file's, files give the networks back, the noise is the engine's."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from models.shapes.quantize import from_q4_0, to_q4_0
from models.shapes.scene import complete, render, sample

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra train): training and export are not tested")

from models.shapes.autoencoder import Autoencoder  # noqa: E402
from models.shapes.export import TYPES, files, named, networks, quantized, read  # noqa: E402
from models.shapes.network import Size, TextEncoder, Transformer, pack, unpack  # noqa: E402
from models.shapes.painting import paint  # noqa: E402
from models.shapes.rounding import rounded  # noqa: E402
from models.shapes.sampling import noise, philox, sigmas, text_rows  # noqa: E402
from models.shapes.sampling import sample as drawn  # noqa: E402
from models.shapes.scenes import numbers  # noqa: E402
from models.shapes.twin import random_weights  # noqa: E402

SIZE = Size(width=128, doubles=1, singles=1, text=32, text_layers=1, text_mlp=64)


@pytest.fixture(scope="module")
def nets() -> tuple[TextEncoder, Transformer, Autoencoder]:
    return random_weights(SIZE, 1)


def test_training_rounds_as_the_file_does() -> None:
    rows = np.random.default_rng(1).normal(0, 0.02, (64, 32)).astype(np.float32)
    assert np.array_equal(rounded(torch.from_numpy(rows)).numpy().reshape(-1), from_q4_0(to_q4_0(rows)))


@pytest.mark.parametrize("name", TYPES)
def test_files_give_the_weights_back(nets: tuple[TextEncoder, Transformer, Autoencoder], name: str) -> None:
    weights = named(*nets)
    parts = files(weights, TYPES[name])
    for role in ("diffusion", "tae"):
        found = read(parts[role])
        assert found.keys() == weights[role].keys()
        for tensor, value in weights[role].items():
            coarse = name == "q4_0" and role == "diffusion" and value.ndim == 2 and quantized(tensor)
            step = np.abs(value).max() / 8 if coarse else 1e-3 * np.abs(value).max()
            assert np.abs(found[tensor] - value).max() <= 1.01 * step, tensor
    assert networks(parts, SIZE)[0].token_embd.weight.shape == nets[0].token_embd.weight.shape


def test_networks_of_exact_files_draw_the_same(nets: tuple[TextEncoder, Transformer, Autoencoder]) -> None:
    text, transformer, _ = networks(files(named(*nets), TYPES["f32"]), SIZE)
    start = noise([5], 64)
    one, other = drawn(nets[0], nets[1], ["a red star"], start), drawn(text, transformer, ["a red star"], start)
    assert torch.equal(one, other)
    assert not torch.equal(one, drawn(text, transformer, ["a blue star"], start))


def test_padding_of_the_text_is_seen_by_the_transformer(nets: tuple[TextEncoder, Transformer, Autoencoder]) -> None:
    """Why networks that have been trained with a short text draw badly with the engine's."""
    text, transformer, _ = nets
    start = noise([5], 64)
    short, whole = (drawn(text, transformer, ["a red star"], start, length=length) for length in (64, 284))
    assert not torch.allclose(short, whole, atol=1e-3)
    assert torch.equal(whole, drawn(text, transformer, ["a red star"], start))


def test_noise_is_philox() -> None:
    """The known answer of Philox 4x32-10 for counter and key zero begins 6627e8d5 e169c58d (Random123, kat_vectors)."""
    u, v = (value * 2.0**-32 for value in (0x6627E8D5, 0xE169C58D))
    assert float(philox(0, 1)[0]) == pytest.approx(math.sqrt(-2 * math.log(u)) * math.sin(2 * math.pi * v), rel=1e-4)
    values = philox(7, 16384)
    assert np.array_equal(values[:100], philox(7, 100))
    assert abs(float(values.mean())) < 0.03
    assert float(values.std()) == pytest.approx(1, abs=0.03)


def test_steps_fall_from_one_to_zero() -> None:
    levels = sigmas()
    assert len(levels) == 9
    assert (levels[0], levels[-1]) == (1, 0)
    assert (levels.diff() < 0).all()


def test_patches_are_put_back() -> None:
    latent = torch.randn(2, 16, 8, 8)
    assert torch.equal(unpack(pack(latent)), latent)


def test_text_is_padded_and_counted() -> None:
    rows, lengths = text_rows(["a red star", ""], 64)
    assert rows.shape == (2, 64)
    assert lengths.tolist() == [41, 39]  # the template's 38 and a token each word; of an empty prompt the space before it
    assert len(set(rows[1, 39:].tolist())) == 1


def test_the_table_of_distances_draws_as_the_exact_renderer() -> None:
    rng = random.Random(4)
    for _ in range(12):
        spec = sample(rng)
        scene = complete(spec, rng)
        figures, ground = numbers(scene)
        painted = paint(torch.from_numpy(figures)[None], torch.from_numpy(ground)[None], 128)[0].permute(1, 2, 0) * 255
        assert np.abs(painted.numpy() - render(scene, 128)).mean() < 1.0
