"""How often the model shapes draws what was asked, by the real engine, and how long that takes.

    python bench/shapes.py [--prompts 24] [--seeds 1] [--types q4_0 f16] [--name NAME] [sdrun's options, such as --gpu auto]

Random prompts of every kind, the same for every type; the judge is models/shapes/judge.py. The evaluation of hundreds of
pictures is models/shapes/measure.py, on the PyTorch twin; this one says that the engine agrees. Needs an engine image; without
options for sdrun it draws on the CPU. Recorded as shapes_cpu, or as shapes_<gpu> with its driver.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import record

from models.shapes.engine import Drawn, draw
from models.shapes.grammar import say
from models.shapes.judge import Verdict, judge
from models.shapes.scene import KINDS, Spec, sample

ON_CPU = ("--gpu", "none", "--allow-cpu", "--image", "cpu")
ARGUMENTS = {"q4_0": (), "f16": ("--type", "f16"), "q8_0": ("--type", "q8_0")}  # what the engine makes of the Q4_0 file


def prompts(number: int) -> list[tuple[str, Spec, str]]:
    """Kind, specification and words; the kinds in turn, those that are drawn most for training first."""
    rng = random.Random(20)
    kinds = [kind for kind in sorted(KINDS, key=lambda kind: -KINDS[kind]) if kind != "empty"]
    chosen = []
    for index in range(number):
        kind = kinds[index % len(kinds)]
        spec = sample(rng, kind)
        chosen.append((kind, spec, say(spec, rng)))
    return chosen


def shares(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """How many pictures, and of each thing that was asked for the share that is right, in percent."""
    answers: dict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        answers["all right"].append(verdict.ok)
        for part in fields(verdict):
            if getattr(verdict, part.name) is not None:
                answers[part.name].append(getattr(verdict, part.name))
    return {"pictures": len(verdicts), **{name: round(100 * statistics.fmean(given), 1) for name, given in answers.items()}}


def main() -> None:
    """Draws, judges, records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--types", nargs="+", choices=tuple(ARGUMENTS), default=["q4_0", "f16"])
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--name", help="of the result, instead of shapes_cpu or shapes_<gpu>")
    options, passed = parser.parse_known_args()
    figures: dict[str, object] = {"prompts": options.prompts, "seeds": options.seeds}
    device = ""
    with tempfile.TemporaryDirectory() as folder:
        for kind_of_file in options.types:
            verdicts: dict[str, list[Verdict]] = defaultdict(list)
            drawings: list[Drawn] = []
            begin = time.monotonic()
            for kind, spec, prompt in prompts(options.prompts):
                for seed in range(1, options.seeds + 1):
                    drawn = draw(prompt, seed, Path(folder), options.model, passed or ON_CPU, ARGUMENTS[kind_of_file])
                    verdict = judge(spec, drawn.picture)
                    verdicts[kind].append(verdict)
                    verdicts["all"].append(verdict)
                    drawings.append(drawn)
                    device = drawn.device
                    print(
                        f"{kind_of_file} {'right' if verdict.ok else 'WRONG'} {kind}: {prompt!r}", file=sys.stderr, flush=True
                    )
            figures[kind_of_file] = {
                "right_percent": {kind: shares(given) for kind, given in verdicts.items()},
                "engine_seconds": _spread([drawn.engine_seconds for drawn in drawings]),
                "command_seconds": _spread([drawn.seconds for drawn in drawings]),
                "seconds_in_all": round(time.monotonic() - begin, 1),
            }
    on_gpu = device != "cpu"
    record.write(options.name or ("shapes" if on_gpu else "shapes_cpu"), figures, device, gpu=on_gpu)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"least": round(min(values), 2), "median": round(statistics.median(values), 2), "greatest": round(max(values), 2)}


if __name__ == "__main__":
    main()
