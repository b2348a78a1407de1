"""The self-test as the last part of a proof: of a finished build, and of an image that is verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdrun.build.image import Exercise
    from sdrun.cli.console import Console
    from sdrun.runtime.protocol import ContainerRuntime, LocalImage


def exercise_for(console: Console) -> Exercise:
    """What a build or `verify` calls to have recorded pictures drawn; each is told on the console."""

    def exercise(image: LocalImage, runtime: ContainerRuntime) -> str:
        from sdrun.launch.selftest.proving import prove

        return prove(image, runtime, console.note, console.detail)

    return exercise
