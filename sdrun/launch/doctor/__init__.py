"""`sdrun doctor`: everything a run needs, checked one by one, each finding with its remedy."""

from sdrun.launch.doctor.check import Check, worst
from sdrun.launch.doctor.registry import examine
from sdrun.launch.doctor.surroundings import Surroundings
from sdrun.launch.doctor.survey import survey

__all__ = ["Check", "Surroundings", "examine", "survey", "worst"]
