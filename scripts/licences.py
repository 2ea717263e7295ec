#!/usr/bin/env python3
"""Licences of what Ferric is made of.

  licences.py check           the licence and the source of every dependency are among those that deny.toml allows
  licences.py notices FILE    write the notices of all that is linked into the programs of dist/: the same input gives the same bytes

Both ask `cargo metadata` for the locked dependencies, so neither needs a program beyond cargo and Python.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = ("ferric-agent", "ferric-image", "ferric")
TARGETS = ("x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu")
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
FILE = re.compile(r"^(licen[sc]es?|copying|notice|copyright|unlicense|patents)([-._].*)?$", re.I)
# Sources that a crate brings for its tests or for other systems.
ASIDE = {"test", "tests", "example", "examples", "bench", "benches", "fuzz", "docs", "doc", "target", ".git"}
DEEPEST = 5

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
# What is linked in and is no crate.
BESIDE_CRATES = (
    ("the Rust standard library", "MIT OR Apache-2.0", "Copyright (c) The Rust Project Contributors\n\n" + MIT),
    ("musl, the C library of the static programs", "MIT", "Copyright (c) 2005-2020 Rich Felker, et al.\n\n" + MIT),
)
HEAD = """Ferric itself is under the Apache License 2.0, in the file LICENSE of its sources. The programs ferric-agent, ferric-image and ferric hold
code of the projects below. First what each is and its licence, then the texts, each with the projects that bring it.

ramdisk/kernel and the modules in ramdisk/initramfs are not part of these programs: they are those of a Linux kernel package of Debian or
Ubuntu, unchanged, under the GNU General Public License 2. ramdisk/manifest.json names the package and its version; its sources come with
`apt-get source`.
"""


class Unreadable(ValueError):
    """A licence expression that this reader does not understand."""


def allows(expression, allowed):
    """Whether an SPDX expression can be met with licences that are allowed. Cargo's older `A/B` means `A OR B`."""
    words = re.findall(r"\(|\)|[A-Za-z0-9.+-]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return words[position] if position < len(words) else None

    def take():
        nonlocal position
        position += 1
        return words[position - 1]

    def either():
        value = both()
        while peek() == "OR":
            take()
            value = both() or value
        return value

    def both():
        value = one()
        while peek() == "AND":
            take()
            value = one() and value
        return value

    def one():
        word = peek()
        if word == "(":
            take()
            value = either()
            if peek() != ")":
                raise Unreadable(expression)
            take()
            return value
        if word in (None, ")", "OR", "AND", "WITH"):
            raise Unreadable(expression)
        name = take()
        if peek() == "WITH":
            take()
            if peek() is None:
                raise Unreadable(expression)
            name += " WITH " + take()
        return name in allowed

    value = either()
    if position != len(words):
        raise Unreadable(expression)
    return value


def allowed(deny):
    """The list `allow` of deny.toml's `[licenses]`. (Python's reader of TOML is newer than some systems that build Ferric.)"""
    section = deny.split("[licenses]", 1)[1].split("\n[", 1)[0]
    return set(re.findall(r'"([^"]+)"', re.search(r"^allow = \[(.*?)\]", section, re.M | re.S).group(1)))


def faults(packages, licences):
    """Sentences on dependencies whose licence or source is not allowed."""
    found = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] is None:
            continue
        if package["source"] != REGISTRY:
            found.append(f"{name} comes from {package['source']}, not from crates.io")
        try:
            if not package["license"]:
                found.append(f"{name} names no licence")
            elif not allows(package["license"], licences):
                found.append(f"{name} is under {package['license']}, which deny.toml does not allow")
        except Unreadable:
            found.append(f"{name}: the licence expression {package['license']!r} cannot be read")
    return found


def metadata(target):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def linked(graph):
    """Packages of other people that are linked into the programs: over ordinary dependencies alone, for build scripts stay behind."""
    packages = {package["id"]: package for package in graph["packages"]}
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    waiting = [identity for identity, package in packages.items() if package["name"] in PROGRAMS and package["source"] is None]
    seen = set(waiting)
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            ordinary = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if ordinary and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    found = [packages[identity] for identity in seen if packages[identity]["source"] is not None]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """`{text}` of a crate's licence files, and those of the sources that it brings."""
    folder = pathlib.Path(package["manifest_path"]).parent
    waiting, found = [(folder, 0)], {}
    if package.get("license_file"):
        found[folder / package["license_file"]] = None
    while waiting:
        at, depth = waiting.pop()
        for entry in at.iterdir():
            if entry.is_symlink():
                continue
            if entry.is_dir():
                if depth < DEEPEST and entry.name.lower() not in ASIDE:
                    waiting.append((entry, depth + 1))
            elif FILE.match(entry.name) and entry.suffix not in (".rs", ".c", ".h", ".py", ".pl", ".sh"):
                found[entry] = None
    read = {"\n".join(line.rstrip() for line in path.read_text("utf-8", "replace").splitlines()).strip() + "\n" for path in found if path.is_file()}
    read = {text for text in read if text.strip()}
    if not read and "MIT" in (package["license"] or ""):
        holders = ", ".join(re.sub(r"\s*<[^>]*>", "", author) for author in package["authors"]) or f"the authors of {package['name']}"
        read = {f"Copyright (c) {holders}\n\n{MIT}"}
    return read


def notices(packages):
    """The whole text."""
    lines, by_text = [HEAD], {}
    for name, licence, text in BESIDE_CRATES:
        lines.append(f"{name}: {licence}")
        by_text.setdefault(text, []).append(name)
    for package in packages:
        name = f"{package['name']} {package['version']}"
        lines.append(f"{name}: {package['license']}" + (f", {package['repository']}" if package.get("repository") else ""))
        found = texts(package)
        if not found:
            raise SystemExit(f"error: {name} brings no licence text; add one to scripts/licences.py")
        for text in found:
            by_text.setdefault(text, []).append(name)
    for text, names in sorted(by_text.items(), key=lambda item: (item[1], item[0])):
        lines += ["", "-" * 100, f"of {', '.join(names)}:", "", text.rstrip("\n")]
    return "\n".join(lines) + "\n"


def main(arguments):
    if arguments == ["check"]:
        licences = allowed((ROOT / "deny.toml").read_text())
        found = sorted({fault for target in TARGETS for fault in faults(metadata(target)["packages"], licences)})
        for fault in found:
            print(f"error: {fault}", file=sys.stderr)
        return 1 if found else 0
    if len(arguments) == 2 and arguments[0] == "notices":
        text = notices(linked(metadata(TARGETS[0])))
        path = pathlib.Path(arguments[1])
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return 0
    print(__doc__.strip(), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
