"""`sdrun selftest`: does this image compute what it should on this device, and if not, which kernels are off?"""

from sdrun.launch.selftest.report import Result
from sdrun.launch.selftest.run import run

__all__ = ["Result", "run"]
