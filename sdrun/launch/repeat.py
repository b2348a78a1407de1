"""The command that draws a picture again, from the record in it.

A picture can come from anybody. What it names is therefore not fetched on its word: an image is named only where it is on this
machine and sdrun's own, files only by their name in the current folder, and the user sees the command before it runs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.picture import Record
from sdrun.errors import UsageProblem

_MODEL = re.compile(r"hf://[A-Za-z0-9:._/@-]{1,300}|[A-Za-z0-9][A-Za-z0-9:._-]{0,100}")


@dataclass(frozen=True, slots=True)
class Repeat:
    """The arguments of `sdrun`, and what is not the same as in the first run."""

    arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The command line for a shell, in one line where the prompt is."""
        return " ".join(["sdrun", *map(quoted, self.arguments)])


def repeat(
    record: Record,
    model: str | None = None,
    output: Path | None = None,
    samplers: Collection[str] = (),
    is_here: Callable[[str], bool] = lambda image: False,
) -> Repeat:
    """The command for `record`. `model` and `output` take the place of what stands there; `samplers` are the names the engine
    knows (a foreign picture may have others); `is_here` says whether an image of sdrun's is on this machine. Raises
    UsageProblem where no model is known."""
    notes: list[str] = []
    words = ["generate", f"--model={model or _model(record)}", f"--prompt={record.prompt}"]
    if record.negative:
        words.append(f"--negative-prompt={record.negative}")
    sampler = _sampler(record.sampler, samplers)
    if record.sampler and sampler is None:
        notes.append(f"the sampler {record.sampler[:40]!r} is not one of this engine's; the model's own is taken")
    for name, value in (
        ("width", record.width),
        ("height", record.height),
        ("steps", record.steps),
        ("seed", record.seed),
        ("cfg-scale", record.cfg_scale),
        ("guidance", record.guidance),
        ("sampler", sampler),
        ("scheduler", record.scheduler),
        ("strength", record.strength),
    ):
        if value is not None:
            words.append(
                f"--{name}={value:g}" if isinstance(value, float) and value == float(f"{value:g}") else f"--{name}={value}"
            )
    if record.init is not None:
        words.append(f"--init={_here(record.init.name)}")
        notes.append(f"it started from the picture {record.init.name} (sha256 {record.init.sha256[:16]}), which must be here")
    words += _place(record, is_here, notes)
    if output is not None:
        words.append(f"--output={output}")
    if record.engine_args:
        words += ["--", *record.engine_args]
    return Repeat(tuple(words), tuple(notes))


def _model(record: Record) -> str:
    if record.model is None or not (record.model.name or record.model.files):
        raise UsageProblem("the picture does not say which model drew it", "Name one: --model NAME.", id="unknown-model")
    if record.model.name:
        if not _MODEL.fullmatch(record.model.name):
            raise UsageProblem(
                "the picture's model has no name that could be one", "Name one: --model NAME.", id="unknown-model"
            )
        return record.model.name
    files = record.model.files
    if len(files) == 1 and files[0].role == "model":
        return f"./{_here(files[0].name)}"
    return ",".join(f"{file.role}={_here(file.name)}" for file in files)


def _here(name: str) -> str:
    """The file's name without any folder: records hold none, and one that was made up shall not reach out of this folder."""
    return Path(name).name


def _sampler(name: str | None, known: Collection[str]) -> str | None:
    """The engine's name for a sampler: `Euler a` and `euler discrete` (sampler and schedule) are understood."""
    if name is None or not known or name in known:
        return name
    for candidate in (name.lower().replace(" ", "_"), name.lower().split(" ")[0]):
        if candidate in known:
            return candidate
    return None


def _place(record: Record, is_here: Callable[[str], bool], notes: list[str]) -> list[str]:
    if record.image is None:
        return []
    # On a GPU all that the engine was told stands among its arguments, so nothing is to be added to them.
    words = ["--gpu=none", "--allow-cpu"] if record.image.target == "cpu" else ["--no-tuned"]
    if is_here(record.image.digest):
        return [*words, f"--image={record.image.digest}"]
    notes.append(
        f"the engine image {record.image.digest[:19]} is not on this machine; another one may draw slightly differently"
    )
    return words


def quoted(word: str) -> str:
    """`word` for a shell: as shlex does, but control characters, which a terminal might obey, are written out ($'...')."""
    if all(char.isprintable() or char in "\n\t" for char in word):
        return shlex.quote(word)
    return "$'" + "".join(_written(char) for char in word) + "'"


def _written(char: str) -> str:
    if char in "'\\":
        return "\\" + char
    if char.isprintable():
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 128 else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
