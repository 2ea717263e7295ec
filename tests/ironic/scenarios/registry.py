"""Where scenarios put themselves."""

from dataclasses import dataclass
from typing import Callable

ALL = []


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    run: Callable


def scenario(function):
    """Registers a function under its name; its docstring says in a line what is expected."""
    ALL.append(Scenario(function.__name__, function.__doc__.strip().splitlines()[0], function))
    return function
