"""The contact sheet of the README: 24 prompts, drawn by the real engine with one seed each, prompt below picture.

    python -m models.shapes.sheet OUT.png [--model shapes] [sdrun's options, such as --allow-cpu]

Under a picture that the judge does not take for what was asked stands a red line: a sheet that hid its failures would be worth
nothing. A prompt outside the model's world has no verdict.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from models.shapes.engine import draw
from models.shapes.grammar import read
from models.shapes.judge import judge

SIDE, GAP, LINE, ACROSS = 160, 8, 13, 6  # pixels; pictures in a row
SEED = 1
PROMPTS = (
    "a red circle left of a blue square",
    "a small yellow star in the top right corner",
    "a large green heart",
    "three purple diamonds",
    "a white moon on a dark blue background",
    "an orange triangle above a gray ring",
    "a pink heart inside a black circle",
    "a brown cross in the bottom left corner",
    "a cyan ring on a beige background",
    "two red stars",
    "a blue circle right of a yellow triangle",
    "a green square below a purple star",
    "four orange circles on a light blue background",
    "a small black square in the center",
    "a yellow star inside a blue square",
    "a red cross, a green circle and a blue diamond",
    "a golden ball over a brown box",
    "a large white ring on a black background",
    "a turquoise crescent on the left",
    "a pink donut under a gray plus",
    "a large orange diamond",
    "a picture of a crimson dot on the right side",
    "a heart and a moon",
    "a house by the sea",  # outside its world
)


def verdict(prompt: str, drawn: object) -> bool | None:
    """Whether the picture shows what was asked; None for a prompt outside the world."""
    try:
        spec = read(prompt)
    except ValueError:
        return None
    return judge(spec, drawn).ok  # type: ignore[arg-type]


def main() -> None:
    """Draws the sheet and says how many pictures are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="shapes")
    options, passed = parser.parse_known_args()
    rows = -(-len(PROMPTS) // ACROSS)
    height = SIDE + 3 * LINE + GAP
    sheet = Image.new("RGB", (ACROSS * (SIDE + GAP) + GAP, rows * height + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    right, judged = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number, prompt in enumerate(PROMPTS):
            drawn = draw(prompt, SEED, Path(folder), options.model, passed)
            answer = verdict(prompt, drawn.picture)
            right, judged = right + (answer is True), judged + (answer is not None)
            print(f"{ {True: 'right', False: 'WRONG', None: '-'}[answer]:<6}{prompt}", flush=True)
            x, y = GAP + number % ACROSS * (SIDE + GAP), GAP + number // ACROSS * height
            sheet.paste(Image.fromarray(drawn.picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
            pen.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline="silver")
            for line, text in enumerate(textwrap.wrap(prompt, 28)[:3]):
                pen.text((x, y + SIDE + 2 + line * LINE), text, "black", font)
            if answer is False:
                pen.line((x, y + SIDE + 2, x + SIDE, y + SIDE + 2), "red", 3)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(options.out, optimize=True)
    print(f"{options.out}: {right} of {judged} right")


if __name__ == "__main__":
    main()
