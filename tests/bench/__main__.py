"""Ferric beside its peers: one image, one server, one device, commands in turns, every result compared byte for byte.

    python3 tests/bench --agent dist/ferric-agent [--formats raw,qcow2] [--rounds 3] [--size MIB] [--commands Ferric,ironic]

Prints Markdown. The clock stops when the device has flushed. Needs root for the loop device; the device lies in memory, so that the machine's
disk is not what is measured, and holds 0xA5 before each run.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "ironic"))

import commands  # noqa: E402
import report  # noqa: E402
from device import MIB, Device  # noqa: E402
from measure import run  # noqa: E402
from memory import Memory  # noqa: E402
from server import Server  # noqa: E402

from harness import venv  # noqa: E402
from harness.failure import CannotRun  # noqa: E402
from harness.layout import Layout  # noqa: E402

PORT = 20790
LIMIT_SECONDS = 20
"""For one command and each GiB. Some of the others hang now and then."""


def main():
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    if os.geteuid() != 0:
        sys.exit("the benchmark makes a loop device: run it as root")
    cache = asked.cache.resolve()
    images = cache / "images" / str(asked.size)
    subprocess.run([HERE / "make-images.sh", images, str(asked.size), *asked.formats], check=True)
    everything = [
        commands.ferric(asked.agent.resolve()),
        *commands.peers(reference_python(), commands.coreos_installer()),
        *commands.limits(),
    ]
    if asked.commands:
        everything = [one for one in everything if any(part in one.name for part in asked.commands)]
    folder = cache / f"run-{os.getpid()}"
    found = []
    try:
        with Memory(folder / "memory") as memory:
            raw = memory.take(images / "disk.raw")
            spool = memory.folder / "spool"
            spool.mkdir()
            with Server(folder / "nginx", memory.folder, PORT) as server, Device(memory.folder / "device", raw) as device:
                for form in asked.formats:
                    published = images / f"disk.{form}"
                    digest = Path(f"{published}.sha256").read_text().strip()
                    image = Image(form, memory.take(published), digest, raw)
                    found.append(measure(image, server, device, spool, everything, asked.rounds))
                    print(report.table(found[-1]), flush=True)
                    if form != "raw":
                        memory.forget(published)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("### Goals\n")
    print(report.goals(found))
    if any("Ferric" in results.wrong for results in found):
        sys.exit("Ferric failed or left something else on the disk: see above")


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: [word for word in text.replace(",", " ").split() if word]  # noqa: E731
    parser.add_argument("--agent", type=Path, required=True, help="the program")
    parser.add_argument("--formats", type=words, default=["raw", "qcow2", "qcow2-zlib", "qcow2-zstd", "gz", "zst"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the disk image")
    parser.add_argument("--commands", type=words, default=[], help="parts of the names of those to run; all by default")
    parser.add_argument("--cache", type=Path, default=HERE.parents[1] / ".cache/bench", help="where the images are kept")
    asked = parser.parse_args()
    for form in asked.formats:
        if form not in commands.FORMATS:
            parser.error(f"no format {form!r}: {' '.join(commands.FORMATS)}")
    return asked


def reference_python():
    """The interpreter of an environment with ironic-python-agent; none where it can not be had."""
    layout = Layout.from_environment()
    try:
        venv.prepare_reference_agent(layout, lambda text: print(text, file=sys.stderr))
    except CannotRun as error:
        print(f"without ironic-python-agent: {error}", file=sys.stderr)
        return None
    return venv.agent_folder(layout) / "bin/python3"


@dataclass(frozen=True)
class Image:
    """One published form of the disk image."""

    form: str
    file: Path
    digest: str
    raw: Path


def measure(image, server, device, spool, everything, rounds):
    """All commands that know the format, in turns, forwards and backwards."""
    form = image.form
    values = {
        "url": server.url(image.file.name),
        "file": image.file,
        "digest": image.digest,
        "disk": device.path,
        "bytes": image.raw.stat().st_size,
        "data_mib": image.raw.stat().st_blocks * 512 // MIB,
        "spool": spool,
        "form": "qcow2" if form.startswith("qcow2") else "raw",
        "decoder": commands.DECODER.get(form, ""),
    }
    limit = LIMIT_SECONDS * max(1, device.size >> 30)
    able = [one for one in everything if form in one.formats]
    results = report.Results(form, image.file.stat().st_size, {one.name: [] for one in able})
    results.limits = {one.name for one in able if not one.writes}
    results.unverified = {one.name for one in able if not one.verifies}
    for number in range(rounds):
        for one in able if number % 2 == 0 else reversed(able):
            if one.name in results.wrong:
                continue
            if one.writes or number == 0:
                device.fill()
            environment = {"BENCH_DISK": device.path}
            took = run(commands.fill_in(one.line, **values), device, spool, environment, limit)
            failure = took.failure
            if not failure and one.writes and not device.holds_image():
                failure = "the disk does not hold the image"
            print(f"{form} {one.name}: {took.seconds:.2f} s {failure}", file=sys.stderr, flush=True)
            if failure:
                results.wrong[one.name] = failure
            else:
                results.runs[one.name].append(took)
    return results


if __name__ == "__main__":
    main()
