"""Differences that are meant: the rules of `expected.json`, each of which belongs to a row of `docs/ipa-differences.md`.

A rule names its row, and where it holds: `scenarios` (a list; `*` for all), and one or more `places`, each a pattern over the
exchange's name, the path inside it and, if that matters, the two values. In a pattern `*` stands for any text. `at_most` is how
many differences it may explain in one scenario; what is beyond that is a difference like any other.

A rule that explains nothing although all that it names was compared is stale, and reported.
"""

import dataclasses
import json
import pathlib
import re

HERE = pathlib.Path(__file__).parent
RULES = HERE / "expected.json"
FIELDS = {"row", "scenarios", "at_most", "places"}
PLACE_FIELDS = {"exchange", "path", "kind", "ipa", "ferric"}


def glob(pattern, text):
    """Whether `text` matches `pattern`, in which `*` is any text and everything else is itself."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text, re.S) is not None


def bare(scenario):
    """A scenario's name without the release before it: `39.0.0/inspect` is `inspect`."""
    return scenario.split("/")[-1]


def value_text(value):
    """How a value is written in patterns and reports: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclasses.dataclass
class Place:
    exchange: str
    path: str
    kind: str = "*"
    ipa: str = "*"
    ferric: str = "*"
    used: int = 0

    def fits(self, where, difference):
        exchange = where.split(": ", 1)[-1]
        return (
            glob(self.exchange, exchange)
            and glob(self.path, difference.path)
            and glob(self.kind, difference.kind)
            and glob(self.ipa, value_text(difference.ipa))
            and glob(self.ferric, value_text(difference.ferric))
        )


@dataclasses.dataclass
class Rule:
    row: str
    scenarios: list
    at_most: int
    places: list
    used: dict = dataclasses.field(default_factory=dict)

    def takes(self, scenario, where, difference):
        """Whether the rule explains this difference; counts it if so."""
        if not any(glob(pattern, bare(scenario)) for pattern in self.scenarios):
            return False
        if self.used.get(scenario, 0) >= self.at_most:
            return False
        for place in self.places:
            if place.fits(where, difference):
                place.used += 1
                self.used[scenario] = self.used.get(scenario, 0) + 1
                return True
        return False


class Expected:
    """All rules, and what they have explained so far."""

    def __init__(self, rules):
        self.rules = rules

    def explain(self, scenario, where, difference):
        """The row that explains a difference, or `None`."""
        for rule in self.rules:
            if rule.takes(scenario, where, difference):
                return rule.row
        return None

    def stale(self, compared):
        """Sentences on rules and places that explained nothing, although every scenario they name was compared.

        `compared` is `{scenario}`; a rule for `*` is judged only by a run over every scenario, which `None` as a member says.
        """
        complaints = []
        compared = {scenario and bare(scenario) for scenario in compared}
        for rule in self.rules:
            judged = all(
                any(glob(pattern, scenario) for scenario in compared if scenario) and ("*" not in pattern or None in compared)
                for pattern in rule.scenarios
            )
            if not judged:
                continue
            for place in rule.places:
                if not place.used:
                    complaints.append(f"row `{rule.row}` explains nothing at exchange `{place.exchange}`, path `{place.path}`")
        return complaints


def parse(text):
    """Rules of a JSON text; a misspelt field is an error."""
    rules = []
    for entry in json.loads(text):
        unknown = set(entry) ^ FIELDS
        if unknown:
            raise ValueError(f"rule {entry.get('row')}: fields are {sorted(FIELDS)}, not {sorted(entry)}")
        places = []
        for place in entry["places"]:
            if set(place) - PLACE_FIELDS:
                raise ValueError(f"rule {entry['row']}: unknown fields {sorted(set(place) - PLACE_FIELDS)} in a place")
            places.append(Place(**place))
        rules.append(Rule(entry["row"], entry["scenarios"], entry["at_most"], places))
    return Expected(rules)


def read(path=RULES):
    """The rules of the repository."""
    return parse(pathlib.Path(path).read_text())


ROW = re.compile(r"^\| `([a-z0-9-]+)` \|", re.M)


def documented(markdown):
    """Ids of the rows of a page's tables: the first column, in backticks."""
    return ROW.findall(markdown)


def undocumented(expected, markdown):
    """Sentences on rules without a row, rows without a rule, and rows that stand twice.

    Rows below the heading `## Not visible here` need no rule.
    """
    visible, _, rest = markdown.partition("\n## Not visible here")
    rows, hidden = documented(visible), documented(rest)
    named = {rule.row for rule in expected.rules}
    complaints = [f"row `{row}` stands twice" for row in sorted(set(rows)) if (rows + hidden).count(row) > 1]
    complaints += [f"rule `{row}` has no row in the page" for row in sorted(named - set(rows))]
    complaints += [f"row `{row}` has no rule" for row in sorted(set(rows) - named)]
    return complaints
