"""The model tiny: the same bytes everywhere, the pinned ones; what its design promises stands in them."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from sdrun.catalog.models import models
from sdrun.models import tiny
from sdrun.models.gguf import GgmlType, Tensor
from sdrun.models.headers import check
from sdrun.models.weights import SMOOTH, ZERO_BLOCK, convolution, matrix, noise

ROLES = ("diffusion", "llm", "tae")


@pytest.mark.parametrize("role", ROLES)
def test_pinned(role: str) -> None:
    data = tiny.build(role)
    pinned = models()["tiny"].files[role]
    assert (len(data), hashlib.sha256(data).hexdigest()) == (pinned.bytes, pinned.sha256)


def test_same_bytes_in_two_processes_whatever_the_hash_seed(tmp_path: Path) -> None:
    for seed in ("0", "4711"):
        (tmp_path / seed).mkdir()
        subprocess.run(
            [sys.executable, "-m", "sdrun.models.tiny", str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    for role in ROLES:
        name = f"tiny-{role}.gguf"
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "4711" / name).read_bytes()
        assert check(tmp_path / "0" / name) == "gguf"


def test_another_seed_is_another_model() -> None:
    assert tiny.build("diffusion", 2) != tiny.build("diffusion", 1)


def test_usage() -> None:
    run = subprocess.run([sys.executable, "-m", "sdrun.models.tiny"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("usage:")


def test_every_word_has_a_row_and_only_the_template_is_silent() -> None:
    embedding = next(iter(tiny._llm(tiny.SEED)))
    assert embedding.dimensions == (tiny.TEXT, 151669)
    rows = [embedding.data[i : i + 18] for i in range(0, len(embedding.data), 18)]
    assert {number for number, row in enumerate(rows) if row == ZERO_BLOCK} == set(tiny.SILENT)
    assert len(set(rows)) == tiny.WORDS + 1


def test_the_vocabulary_compresses() -> None:
    assert len(zlib.compress(tiny.build("llm"), 9)) < 100_000


def test_the_matrices_are_q4_0() -> None:
    matrices = [t for t in tiny._diffusion(tiny.SEED) if len(t.dimensions) == 2 and min(t.dimensions) >= tiny.WIDTH]
    assert {tensor.type for tensor in matrices} == {GgmlType.Q4_0}
    assert len(matrices) == 18


def test_no_weight_is_infinite_or_absurd() -> None:
    for make in (tiny._diffusion, tiny._llm, tiny._tae):
        for tensor in make(tiny.SEED):
            assert all(math.isfinite(value) and abs(value) < 8 for value in floats(tensor)), tensor.name


def test_q4_0_weights_have_the_deviation_asked_for_and_no_bias() -> None:
    values = dequantised(matrix(1, "m", 64, 128, lambda row, block: 0.5 if block else 0.0).data)
    assert all(values[128 * row + column] == 0 for row in range(64) for column in range(32))
    rest = [value for number, value in enumerate(values) if number % 128 >= 32]
    assert abs(sum(rest) / len(rest)) < 0.02
    assert math.sqrt(sum(value * value for value in rest) / len(rest)) == pytest.approx(0.5, rel=0.03)


def test_a_convolution_is_its_kernel_times_one_weight_for_each_pair_of_channels() -> None:
    tensor = convolution("c", 4, noise(1, "c", 32), 2.0, SMOOTH)
    assert tensor.dimensions == (3, 3, 4, 8)
    for place, byte in enumerate(noise(1, "c", 32)):
        window = struct.unpack_from("<9e", tensor.data, 18 * place)
        weight = (byte - 127.5) / math.sqrt(65535 / 12) * 2
        assert window == pytest.approx([weight * factor for factor in SMOOTH], rel=1e-3)


def floats(tensor: Tensor) -> list[float]:
    if tensor.type is GgmlType.Q4_0:
        scales = [struct.unpack_from("<e", tensor.data, place)[0] for place in range(0, len(tensor.data), 18)]
        return [8 * scale for scale in scales]  # no weight of a block is larger
    code = {GgmlType.F16: "e", GgmlType.F32: "f"}[tensor.type]
    return list(struct.unpack(f"<{len(tensor.data) // struct.calcsize(code)}{code}", tensor.data))


def dequantised(data: bytes) -> list[float]:
    values: list[float] = []
    for place in range(0, len(data), 18):
        scale = struct.unpack_from("<e", data, place)[0]
        nibbles = data[place + 2 : place + 18]  # low halves are the first sixteen weights, high halves the last
        values += [scale * ((byte & 15) - 8) for byte in nibbles] + [scale * ((byte >> 4) - 8) for byte in nibbles]
    return values
