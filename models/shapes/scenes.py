"""Training data as arrays: random scenes with their prompts, made by the sampler of scene.py and grammar.py on all cores."""

from __future__ import annotations

import random
from dataclasses import dataclass
from multiprocessing.pool import Pool

import numpy as np
import numpy.typing as npt

from models.shapes import words
from models.shapes.grammar import say
from models.shapes.network import ROW
from models.shapes.scene import BACKGROUNDS, COLORS, SHAPES, Scene, complete, sample

PHRASINGS = 3  # prompts for each scene
PROMPT_LENGTH = 64  # template and prompt; the longest prompt of this world has 19 tokens, the template 38
FIGURES = 4
_BEFORE = [ROW[token] for token in words.BEFORE]
_AFTER = [ROW[token] for token in words.AFTER]


@dataclass(frozen=True, slots=True)
class Scenes:
    """`figures` [n, 4, 7]: shape's index, x, y, radius (0: no figure), red, green, blue; `ground` [n, 3]; colours are 0..1.
    `rows` [n, 3, 64] rows of the embedding, padded; `lengths` [n, 3] without padding."""

    figures: npt.NDArray[np.float32]
    ground: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int16]
    lengths: npt.NDArray[np.int16]


def numbers(scene: Scene) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """`figures` and `ground` of one scene."""
    figures = np.zeros((FIGURES, 7), np.float32)
    for index, figure in enumerate(scene.figures):
        color = np.divide(COLORS[figure.color], 255)
        figures[index] = (SHAPES.index(figure.shape), figure.x, figure.y, figure.radius, *color)
    return figures, np.float32(BACKGROUNDS[scene.background]) / 255


def _make(job: tuple[int, int]) -> Scenes:
    seed, number = job
    rng = random.Random(seed)
    scenes = Scenes(
        np.zeros((number, FIGURES, 7), np.float32),
        np.zeros((number, 3), np.float32),
        np.full((number, PHRASINGS, PROMPT_LENGTH), ROW[words.PADDING], np.int16),
        np.zeros((number, PHRASINGS), np.int16),
    )
    for index in range(number):
        spec = sample(rng)
        scenes.figures[index], scenes.ground[index] = numbers(complete(spec, rng))
        for phrasing in range(PHRASINGS):
            row = _BEFORE + [ROW[token] for token in words.encode(say(spec, rng))] + _AFTER
            scenes.rows[index, phrasing, : len(row)] = row
            scenes.lengths[index, phrasing] = len(row)
    return scenes


def make(pool: Pool, number: int, seed: int, chunk: int = 4000) -> Scenes:
    """`number` scenes; the same for the same seed, however many processes the pool has."""
    jobs = [(seed * 1_000_003 + start, min(chunk, number - start)) for start in range(0, number, chunk)]
    parts = pool.map(_make, jobs, chunksize=1)
    return Scenes(*(np.concatenate([getattr(part, name) for part in parts]) for name in Scenes.__slots__))
