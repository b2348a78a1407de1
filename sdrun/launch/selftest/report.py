"""What a self-test found, in words and as a document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdrun.core.selftest import Backend, Finding, Reading, Suite, deduce
from sdrun.errors import EngineFailed
from sdrun.launch.choosing import Chosen

SCHEMA = "sdrun.selftest/v1"


@dataclass(frozen=True, slots=True)
class Result:
    """Every reading, and where it was taken. `device` is what the engine named; `seconds` of the whole test."""

    suite: Suite
    chosen: Chosen
    backend: Backend
    device: str
    readings: tuple[Reading, ...]
    seconds: float

    @property
    def finding(self) -> Finding:
        """What follows from the readings."""
        return deduce(self.readings)

    def error(self) -> EngineFailed | None:
        """The verdict, None where every picture is as recorded."""
        finding = self.finding
        if finding.sound:
            return None
        target = self.chosen.plan.target
        where = f"{target} on {self.device or self.backend}"
        return EngineFailed(
            f"{where}: {_sentence(finding, self.suite)}",
            _remedy(finding, self.suite, target),
            id="kernels-wrong",
            detail="\n".join(self.lines()),
        )

    def lines(self) -> Iterator[str]:
        """One line a probe."""
        for reading in self.readings:
            yield line(reading)

    def summary(self) -> str:
        """One line for a sound engine."""
        number = len(self.readings)
        plural = "s are" if number > 1 else " is"
        cleared = len(self.finding.cleared)
        return (
            f"{number} picture{plural} as recorded on {self.device or self.backend}: {cleared} kernel families computed right"
        )

    def to_json(self) -> dict[str, object]:
        """The document of `--json`, schema sdrun.selftest/v1."""
        finding, error = self.finding, self.error()
        return {
            "schema": SCHEMA,
            "status": "ok" if error is None else "failed",
            "model": self.suite.model,
            "target": self.chosen.plan.target,
            "image": self.chosen.image,
            "code_path": self.chosen.plan.code_path,
            "backend": self.backend,
            "device": self.device,
            "seconds": round(self.seconds, 3),
            "probes": [_document(reading) for reading in self.readings],
            "off": list(finding.off),
            "suspects": list(finding.suspects),
            "cleared": list(finding.cleared),
            "unknown": list(finding.unknown),
            "puzzling": list(finding.puzzling),
            "error": None if error is None else {key: value for key, value in error.to_json().items() if key != "schema"},
        }


def line(reading: Reading) -> str:
    """A reading in one line: what was drawn, how far it is from the recorded picture, how far it may be."""
    name = f"{'ok' if reading.passed else 'WRONG':<6}{reading.probe.name:<20}"
    if reading.difference is None:
        return f"{name}{reading.fault}"
    found, bounds = reading.difference, reading.bounds
    return (
        f"{name}mean {found.mean:.2f} of {bounds.mean:g}, worst square {found.worst:.1f} of {bounds.worst:g}"
        f"  ({reading.seconds:.1f} s, {reading.probe.title})"
    )


def _document(reading: Reading) -> dict[str, object]:
    found, bounds = reading.difference, reading.bounds
    return {
        "name": reading.probe.name,
        "title": reading.probe.title,
        "status": "ok" if reading.passed else "failed" if found is None else "wrong",
        "mean": None if found is None else round(found.mean, 4),
        "worst": None if found is None else round(found.worst, 4),
        "bounds": {"mean": bounds.mean, "worst": bounds.worst},
        "exercises": sorted(reading.exercised),
        "seconds": round(reading.seconds, 3),
        "fault": reading.fault or None,
    }


def _sentence(finding: Finding, suite: Suite) -> str:
    if finding.off:
        said = f"{_titles(finding.off, suite, ' and ')} {'is' if len(finding.off) == 1 else 'are'} computed wrongly"
        if finding.suspects:
            said += f"; and one of these at the least: {_titles(finding.suspects, suite, ' or ')}"
        return said
    if len(finding.suspects) == 1:
        return f"everything points to one cause: {_titles(finding.suspects, suite, '')} is computed wrongly"
    if finding.suspects:
        return f"one of these at the least is computed wrongly: {_titles(finding.suspects, suite, ' or ')}"
    names = ", ".join(finding.puzzling)
    return f"the picture of {names} is wrong, although each of its kernels computed right in another one"


def _titles(names: tuple[str, ...], suite: Suite, last: str) -> str:
    titles = [suite.families[name].title for name in names]
    return last.join([", ".join(titles[:-1]), titles[-1]] if len(titles) > 1 else titles)


def _remedy(finding: Finding, suite: Suite, target: str) -> str:
    again = f"sdrun build {target} --force; if it stays, the target's flags or the engine's source are at fault."
    (only, *more) = (*finding.off, *finding.suspects) or ("",)
    avoid = suite.families[only].avoid if only and not more else ""
    return f"Do not draw with this image. {avoid + ' ' if avoid else ''}Build it again: {again}"
