"""What `sdrun fleet manifests` is asked to run, made into a workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sdrun.cli.console import Console
from sdrun.core.workload import KINDS, Workload, WorkloadKind
from sdrun.errors import NotEnoughMemory, UsageProblem

if TYPE_CHECKING:
    from sdrun.core.lock import LockedClass
    from sdrun.core.model import Model
    from sdrun.fleet.manifests import Format
    from sdrun.launch.request import Request


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line."""

    kind: str
    form: str
    model: str
    prompt: str | None
    prompts: Path | None
    engine_args: tuple[str, ...]
    fit: bool
    tuned: bool = True

    @property
    def checked_kind(self) -> WorkloadKind:
        """Raises UsageProblem for a kind that is none."""
        if self.kind not in KINDS:
            raise UsageProblem(f"--kind {self.kind[:40]!r} is none", f"There are {', '.join(KINDS)}.")
        return cast("WorkloadKind", self.kind)

    @property
    def checked_format(self) -> Format:
        """Raises UsageProblem for a format that is none."""
        from sdrun.fleet.manifests import FORMATS

        if self.form not in FORMATS:
            raise UsageProblem(f"--format {self.form[:40]!r} is none", f"There are {', '.join(FORMATS)}.")
        return cast("Format", self.form)


def load_for(console: Console, asked: Asked, engine: str, rows: Sequence[LockedClass]) -> Workload:
    """The workload, with each class's own arguments where its memory asks for more. Raises UsageProblem."""
    from sdrun.catalog.engines import engines
    from sdrun.launch.elsewhere import model_elsewhere, workload
    from sdrun.launch.request import Request

    kind = asked.checked_kind
    prompts = _prompts(asked, kind)
    known = engines().get(engine) or next(iter(engines().values()))
    role = "server" if kind == "server" else "cli"
    if role not in known.binaries:
        raise UsageProblem(f"the engine {known.name} has no {role}", "Choose another kind.", id="engine-without-server")
    model = model_elsewhere(asked.model)
    request = Request(
        asked.model, asked.prompt or "", engine_args=asked.engine_args, serves=kind == "server", tuned=asked.tuned
    )
    load = workload(kind, request, model, f"/usr/bin/{known.binaries[role]}", prompts)
    return _fitted(console, load, request, model, rows) if asked.fit else load


def _prompts(asked: Asked, kind: WorkloadKind) -> tuple[str, ...]:
    if kind == "job" and asked.prompt is None:
        raise UsageProblem("a job needs a prompt", "Say --prompt TEXT.")
    if kind != "job" and asked.prompt is not None:
        raise UsageProblem(f"a {kind} takes no --prompt", "Leave it out, or say --kind job.")
    if (kind == "prompts") != (asked.prompts is not None):
        raise UsageProblem("--kind prompts and --prompts FILE go together", "Say both, or neither.")
    if asked.prompts is None:
        return ()
    try:
        lines = asked.prompts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        why = getattr(fault, "strerror", None) or "is not UTF-8 text"
        raise UsageProblem(
            f"{asked.prompts} cannot be read: {why}", "Check the path given to --prompts.", id="file-missing"
        ) from None
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise UsageProblem(f"{asked.prompts} holds no prompt", "Write one on each line.")
    return found


def _fitted(console: Console, load: Workload, request: Request, model: Model, rows: Sequence[LockedClass]) -> Workload:
    """Each class's arguments as `generate` would choose them for its GPUs; needs the model's files, for their headers."""
    from sdrun.launch.elsewhere import arguments_for

    by_class: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if row.memory_mib is None:
            continue
        try:
            fitting = arguments_for(load, request, model, row, row.memory_mib, console.note)
        except NotEnoughMemory as short:
            raise NotEnoughMemory(
                f"class {row.name}: {short.message}",
                "Take a smaller model, name other classes with --class, or say --no-fit.",
                id=short.id,
            ) from None
        if fitting is None:
            console.note(
                f"note: {model.name} is not in the store, so its memory was not looked at: sdrun models pull {model.name}"
            )
            return load
        if fitting.arguments != load.arguments:
            by_class[row.name] = fitting.arguments
            for reason in fitting.reasons:
                console.note(f"{row.name}: {reason}")
    return replace(load, by_class=by_class)
