"""What an operator does with a node, one function a scenario, in the order in which they run."""

from harness.failure import CannotRun

# In this order: each module registers its own.
from . import inspection, cleaning, deploy, undeploy, rescue, service, config_drive, partition, faults, fast_track, lockdown  # noqa: F401, E401
from .registry import ALL

__all__ = ["ALL", "choose"]


def choose(names):
    """The scenarios with these names, in the order given; all of them for no names."""
    known = {scenario.name: scenario for scenario in ALL}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CannotRun(f"no scenario {', '.join(unknown)}; there are: {' '.join(known)}")
    return [known[name] for name in names] or ALL
