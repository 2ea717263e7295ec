"""The reference: what the real ironic-python-agent said, normalised, kept in the repository.

`reference/RELEASE.tar.xz` holds one folder of transcripts and verdicts, and `machine.json`, which tells the machine that it was
recorded on. Recorded anew with `make test-ironic-compare RECORD=1`.
"""

import argparse
import contextlib
import io
import json
import pathlib
import tarfile
import tempfile

import normalise
import transcript

FOLDER = pathlib.Path(__file__).resolve().parent / "reference"
REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
SUFFIX = ".tar.xz"
MACHINE = "machine.json"
KEPT_OF_A_VERDICT = ("scenario", "ironic", "ok", "verdict", "phases")


def this_machine():
    """What tells one machine from another as far as an inventory goes."""
    models = [line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = pathlib.Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1]
    return {"processors": models, "memory kB": memory}


def releases():
    """Names of what there is a reference of: releases of Ironic, and `direct` for the probes."""
    return sorted(path.name[: -len(SUFFIX)] for path in FOLDER.glob("*" + SUFFIX))


@contextlib.contextmanager
def unpacked(release):
    """A folder with the transcripts of one release."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(FOLDER / (release + SUFFIX)) as archive:
            archive.extractall(folder, filter="data")
        yield pathlib.Path(folder)


def is_same_machine(release):
    """Whether the reference was recorded on this machine."""
    with tarfile.open(FOLDER / (release + SUFFIX)) as archive:
        return json.load(archive.extractfile(MACHINE)) == this_machine()


def _add(archive, name, text):
    data = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def record(folder, release):
    """Makes the reference of one release from a folder of transcripts; returns the number of scenarios and the size.

    A scenario that the harness skipped is left out; one that IPA failed is kept, as that is what IPA does.
    """
    FOLDER.mkdir(exist_ok=True)
    path, count = FOLDER / (release + SUFFIX), 0
    with tarfile.open(path, "w:xz", preset=9) as archive:
        _add(archive, MACHINE, json.dumps(this_machine()) + "\n")
        for name, source in transcript.directory(folder).items():
            read = transcript.read(source)
            if (read.result or {}).get("verdict") == "skip":
                continue
            lines = [json.dumps(item) for item in normalise.records(read.records)]
            _add(archive, f"{name}.jsonl", "\n".join(lines) + "\n")
            if read.result:
                kept = {key: read.result[key] for key in KEPT_OF_A_VERDICT if key in read.result}
                kept["phases"] = [{key: phase[key] for key in ("state", "step") if key in phase} for phase in kept.get("phases", [])]
                _add(archive, f"{name}.result.json", json.dumps(kept) + "\n")
            count += 1
    return count, path.stat().st_size


def main(argv):
    """Everything that was recorded with IPA becomes the reference."""
    parser = argparse.ArgumentParser(prog="compare record", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=REPOSITORY / ".cache/ironic/transcripts", help="default: %(default)s")
    parser.add_argument("release", nargs="*", help="only these (default: all that there are)")
    options = parser.parse_args(argv)
    found = sorted(path.parent.name for path in options.folder.glob("*/ipa"))
    for release in options.release or found:
        count, size = record(options.folder / release / "ipa", release)
        print(f"{release}: {count} scenarios, {size} bytes")
    return 0 if found else 2
