"""Says what differs, so that a person can act on it."""

import json


WIDTH = 300
KINDS = {
    "value": "differs",
    "type": "has another type",
    "missing": "is missing",
    "extra": "is Ferric's alone",
    "order": "is in another order",
}


def short(value):
    """A value on one line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}... ({len(text)} characters)"


def sentence(scenario, where, difference):
    """One difference, on three lines."""
    return (
        f"{scenario} / {where}\n"
        f"  {difference.path or '(all of it)'} {KINDS[difference.kind]}\n"
        f"    IPA:    {short(difference.ipa) if difference.kind != 'extra' else '-'}\n"
        f"    Ferric: {short(difference.ferric) if difference.kind != 'missing' else '-'}"
    )


class Outcome:
    """What a comparison found, over all scenarios."""

    def __init__(self):
        self.open = []
        self.explained = {}
        self.compared = {}
        self.complaints = []
        self.missing = []

    def include(self, other):
        """Adds what another comparison found."""
        self.open += other.open
        self.compared.update(other.compared)
        self.complaints += other.complaints
        self.missing += other.missing
        for row, entries in other.explained.items():
            self.explained.setdefault(row, []).extend(entries)

    def add(self, scenario, where, difference, row):
        if row is None:
            self.open.append((scenario, where, difference))
        else:
            self.explained.setdefault(row, []).append((scenario, where, difference))

    @property
    def clean(self):
        return not self.open and not self.complaints

    def text(self, explained_too=False):
        lines = [sentence(*entry) for entry in self.open]
        if explained_too:
            for row, entries in sorted(self.explained.items()):
                lines += [f"[{row}] {sentence(*entry)}" for entry in entries]
        lines += [f"rules: {complaint}" for complaint in self.complaints]
        lines += [f"not compared: {sentence}" for sentence in self.missing]
        lines.append("")
        for scenario, exchanges in sorted(self.compared.items()):
            mine = sum(1 for entry in self.open if entry[0] == scenario)
            theirs = sum(1 for entries in self.explained.values() for entry in entries if entry[0] == scenario)
            lines.append(f"{scenario:32} {exchanges:4} exchanges, {theirs:3} documented differences, {mine} others")
        total = sum(len(entries) for entries in self.explained.values())
        lines.append(
            f"{len(self.compared)} scenarios, {total} documented differences in {len(self.explained)} rows, "
            f"{len(self.open)} others, {len(self.complaints)} complaints about the rules"
        )
        failed = len({scenario for scenario, _, _ in self.open} & set(self.compared))
        # For .ci/run: scenarios, and one failure for each complaint.
        lines.append(f"{len(self.compared) - failed} passed, {failed + len(self.complaints)} failed, 0 skipped")
        return "\n".join(lines)


