"""How often and how much: what `align` leaves to time, held to bounds that time does not explain."""

import align
import difference
import transcript

# Heartbeats come at start, after each asynchronous command, and every one to three minutes; scenarios take less.
MOST_HEARTBEATS = (3, 5)
# What a server has put into a connection that is then closed counts as sent.
MOST_BYTES = (1.25, 4 << 20)


def differences(ipa_records, ferric_records):
    """Yields `(where, Difference)` for each boot in which Ferric did far more of the same than the reference."""
    ipa, ferric = transcript.boots(ipa_records), transcript.boots(ferric_records)
    while len(ipa) > len(ferric) > 1:
        del ipa[1]
    while len(ferric) > len(ipa) > 1:
        del ferric[1]
    for number, (mine, theirs) in enumerate(zip(ipa, ferric)):
        where = f"boot {number}: " if number else "before boot: "
        yield from _heartbeats(where, mine, theirs)
        yield from _bytes(where, mine, theirs)


def _heartbeats(where, ipa, ferric):
    mine, theirs = (sum(item.lane == "heartbeat" for item in align.exchanges(records)) for records in (ipa, ferric))
    factor, more = MOST_HEARTBEATS
    if theirs > factor * mine + more:
        yield f"{where}number of heartbeats", difference.Difference("", "value", mine, theirs)


def _sent(records):
    """`{path: bytes}` of the images that were fetched."""
    sent = {}
    for record in records:
        if record["dir"] == "client->images" and record.get("method") == "GET":
            sent[record["path"]] = sent.get(record["path"], 0) + (record.get("sent") or 0)
    return sent


def _bytes(where, ipa, ferric):
    mine, theirs = _sent(ipa), _sent(ferric)
    factor, more = MOST_BYTES
    for path, count in theirs.items():
        if path in mine and count > factor * mine[path] + more:
            yield f"{where}bytes of GET {path}", difference.Difference("sent", "value", mine[path], count)
