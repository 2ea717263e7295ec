"""Medians, ratios, and the Markdown that docs/performance.md shows."""

from dataclasses import dataclass, field
from statistics import median

TITLES = {
    "raw": "raw",
    "qcow2": "qcow2",
    "qcow2-zlib": "qcow2, zlib clusters",
    "qcow2-zstd": "qcow2, zstd clusters",
    "gz": "raw.gz",
    "zst": "raw.zst",
    "xz": "raw.xz",
}
GOAL_RESIDENT = 32_000_000
GOALS = {
    # The most times its limit, the least times faster than ironic-python-agent's command, and than its data phases.
    "raw": (1.1, 2.6, None),
    "qcow2": (None, 3.5, 1.4),
    "qcow2-zlib": (None, 3.5, 2.0),
    "qcow2-zstd": (None, 3.5, 1.6),
    "gz": (1.3, None, None),
    "zst": (1.3, None, None),
}


@dataclass
class Results:
    """The runs of one format, by the name of the command."""

    form: str
    published: int
    runs: dict = field(default_factory=dict)
    wrong: dict = field(default_factory=dict)
    """Commands that failed or left something else on the disk, with the reason."""
    limits: set = field(default_factory=set)
    unverified: set = field(default_factory=set)

    def seconds(self, name):
        runs = self.runs.get(name)
        return median(run.seconds for run in runs) if runs else None

    def data_seconds(self, name):
        runs = [run for run in self.runs.get(name, []) if "data_seconds" in run.inner]
        return median(run.seconds - run.inner["seconds"] + run.inner["data_seconds"] for run in runs) if runs else None

    def limit(self):
        """The slowest single stage: its name and seconds."""
        found = [(self.seconds(name), name) for name in self.limits if self.runs.get(name)]
        return max(found) if found else (None, "")


def table(results):
    """One format."""
    limit, slowest = results.limit()
    reference = results.seconds("ironic-python-agent")
    lines = [
        f"### {TITLES[results.form]}: {results.published / 1e6:.0f} MB published",
        "",
        "Stages alone: "
        + ", ".join(f"{name} {results.seconds(name):.2f} s" for name in sorted(results.limits) if results.runs.get(name))
        + f". The limit is the slowest, {slowest}.",
        "",
        "| command | seconds: median (least to most) | x limit | x IPA | CPU s | peak resident | spooled |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.runs.items():
        if name in results.limits or not runs:
            continue
        seconds = [run.seconds for run in runs]
        note = " (no digest)" if name in results.unverified else ""
        lines.append(
            f"| {name}{note} | {median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {_ratio(median(seconds), limit)} | "
            f"{_ratio(reference, median(seconds))} | {median(run.cpu_seconds for run in runs):.2f} | "
            f"{max(run.resident for run in runs) / 1e6:.1f} MB | {_spooled(max(run.spooled for run in runs))} |"
        )
        data = results.data_seconds(name)
        if data is not None:
            lines.append(f"| ... its data phases alone | {data:.2f} | {_ratio(data, limit)} | {_ratio(reference, data)} | | | |")
    lines += [f"\n{name}: **wrong**, {reason}" for name, reason in results.wrong.items()]
    return "\n".join(lines) + "\n"


def goals(all_results):
    """What was to be reached, and whether it was."""
    lines = ["| format | x limit (goal) | x IPA (goal) | x IPA's data phases (goal) | peak resident (goal: 32 MB) |", "|---|---|---|---|---|"]
    for results in all_results:
        ours = results.seconds("Ferric")
        if ours is None:
            continue
        most, whole, data = GOALS.get(results.form, (None, None, None))
        resident = max(run.resident for run in results.runs["Ferric"])
        cells = [
            _held(ours, results.limit()[0], most, least=False),
            _held(results.seconds("ironic-python-agent"), ours, whole, least=True),
            _held(results.data_seconds("ironic-python-agent"), ours, data, least=True),
            f"{resident / 1e6:.1f} MB{'' if resident <= GOAL_RESIDENT else ' **missed**'}",
        ]
        lines.append(f"| {TITLES[results.form]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _held(above, below, goal, least):
    if not above or not below:
        return "-"
    ratio = above / below
    if goal is None:
        return f"{ratio:.2f}"
    met = ratio >= goal if least else ratio <= goal
    return f"{ratio:.2f} ({goal}){'' if met else ' **missed**'}"


def _ratio(above, below):
    return f"{above / below:.2f}" if above and below else ""


def _spooled(count):
    return f"{count / 1e6:.0f} MB" if count > 1e6 else "-"
