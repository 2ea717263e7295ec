"""The figures as a Markdown table: medians over all rounds, and how many times Ferric's stands in IPA's."""

import statistics


def _median(rounds, *path):
    found = []
    for figures in rounds:
        value = figures
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, list):
            found += value
        elif value is not None:
            found.append(value)
    return statistics.median(found) if found else None


def number(value, unit):
    """Three figures, as people write them."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}{unit}"


def ratio(ipa, ferric, more_is_better=False):
    """How much better Ferric is, as a factor; below 1 it is worse."""
    if not ipa or not ferric:
        return "-"
    return f"{(ferric / ipa if more_is_better else ipa / ferric):.1f}"


def rows(rounds, clients):
    """`[(what, IPA, Ferric, factor)]`"""
    def row(what, path, unit="", scale=1.0, more_is_better=False):
        ipa, ferric = (_median(rounds[name], *path) for name in ("ipa", "ferric"))
        scaled = [None if value is None else value * scale for value in (ipa, ferric)]
        return what, number(scaled[0], unit), number(scaled[1], unit), ratio(ipa, ferric, more_is_better)

    found = [
        row("start of the process to first lookup", ("start", "lookup"), " s"),
        row("... to the first answer over HTTPS", ("start", "serving"), " s"),
        row("... to the first heartbeat", ("start", "heartbeat"), " s"),
        row("resident memory after three heartbeats, all processes (RSS)", ("memory", "rss"), " MB", 1 / 1024),
        row("... shared pages counted in parts (PSS)", ("memory", "pss"), " MB", 1 / 1024),
        row("... of which not backed by files", ("memory", "anonymous"), " MB", 1 / 1024),
        row("end of a step to the heartbeat that tells, agent idle before", ("news, idle",), " s"),
        row("... a second after another heartbeat", ("news, just after a heartbeat",), " s"),
    ]
    for state in ("idle", "writing"):
        for kind in ("keep-alive", "new connections"):
            for count in clients:
                name = f"{state}, {kind}, {count}"
                label = f"`GET /v1/commands/`, {'idle' if state == 'idle' else 'while an image is written'}, {kind}, {count} client{'s' if count > 1 else ''}"
                found.append(row(label + ": requests a second", ("load", name, "rate"), "", 1.0, True))
                found.append(row("... p99", ("load", name, "p99"), " ms"))
                errors = [sum(figures.get("load", {}).get(name, {}).get("errors", 0) for figures in rounds[agent]) for agent in ("ipa", "ferric")]
                if any(errors):
                    found.append(("... requests without an answer", str(errors[0]), str(errors[1]), "-"))
    return found


def text(rounds, clients):
    """The table."""
    lines = ["| what | ironic-python-agent | Ferric | times better |", "|---|---|---|---|"]
    return "\n".join(lines + ["| " + " | ".join(entry) + " |" for entry in rows(rounds, clients)])
