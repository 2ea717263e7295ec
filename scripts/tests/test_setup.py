"""setup.sh against a small fake of apt and dpkg: what it installs, what it leaves alone, and what it reports."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

_SCRIPTS = pathlib.Path(__file__).resolve().parents[1]
# What the scripts themselves call; all else in the fake PATH is made by a test.
_BASICS = "bash sh env dirname grep awk sed cat mktemp rm sort head paste tr ls cut mkdir tee uname".split()
_SET = "oracles"
_PROGRAMS = {
    "qemu-utils": ["qemu-img", "qemu-io"], "fdisk": ["sfdisk"], "gdisk": ["sgdisk"], "e2fsprogs": ["mkfs.ext4"],
    "xfsprogs": ["mkfs.xfs"], "btrfs-progs": ["mkfs.btrfs"], "dosfstools": ["mkfs.vfat"], "ntfs-3g": ["mkfs.ntfs"],
    "cryptsetup-bin": ["cryptsetup"], "lvm2": ["pvcreate"], "genisoimage": ["genisoimage"], "squashfs-tools": ["mksquashfs"],
    "gcc": ["gcc"], "make": ["make"], "musl-tools": ["musl-gcc"], "libc6-dev": [], "ca-certificates": [], "python3": [],
    "util-linux": ["blkid", "mkswap"], "debian-archive-keyring": [],
}

# One program plays apt-get, apt-cache, dpkg-query and sudo. A package is one version in one suite; packages of one source
# must have one version, so a newcomer of another version throws its siblings out, as apt does where it may.
_FAKE = r'''#!{python}
import json, os, pathlib, sys
home = pathlib.Path("{home}")
state = json.loads((home / "state.json").read_text())
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(home / "calls", "a") as calls:
    print(name, *arguments, file=calls)
installed, suites = state["installed"], state["suites"]  # package: version; suite: package: version
source = lambda package: state["sources"].get(package, package)
def save():
    (home / "state.json").write_text(json.dumps(state))
def remove(package):
    del installed[package]
    for program in state["programs"].get(package, []):
        (home / "bin" / program).unlink(missing_ok=True)
if name == "dpkg-query":
    for package, version in installed.items():
        if "${Status}" in arguments and package == arguments[-1]:
            print("install ok installed", end="")
        elif "${Status}" not in arguments:
            print("installed", source(package), package, version)
    sys.exit(0)
if name == "apt-cache":
    package = arguments[-1]
    offers = {suite: packages[package] for suite, packages in suites.items() if package in packages}
    if arguments[0] == "show" and offers:
        print(f"Package: {package}\nSource: {source(package)}\nVersion: {next(iter(offers.values()))}\n")
    elif arguments[0] == "show" and package.startswith("linux-image"):
        print("Package: linux-image")
    elif arguments[0] == "policy":
        print(f"{package}:\n  Version table:")
        for suite, version in offers.items():
            print(f" {'***' if installed.get(package) == version else '   '} {version} 500\n        500 http://x {suite}/main amd64 Packages")
        if installed.get(package) not in (None, *offers.values()):
            print(f" *** {installed[package]} 100\n        100 /var/lib/dpkg/status")
    sys.exit(0)
assert name == "apt-get", name
if arguments[0] == "update":
    sys.exit(state.get("update", 0))
simulated = "-s" in arguments
names = arguments[arguments.index("--no-install-recommends") + 1:]
target = None
if names[0] == "-t":
    target, names = names[1], names[2:]
new, thrown = {}, set()
for package in names:
    order = sorted(suites, key=lambda suite: suite != target)
    versions = [suites[suite][package] for suite in order if package in suites[suite]]
    if not versions:
        print(f"E: Unable to locate package {package}")
        sys.exit(100)
    new[package] = versions[0]
    thrown |= {other for other, version in installed.items() if source(other) == source(package) and version != versions[0]}
if thrown:
    print("The following packages will be REMOVED:\n  " + " ".join(sorted(thrown)))
    if "--no-remove" in arguments and not state.get("rude"):
        print("E: Packages need to be removed but remove is disabled.")
        sys.exit(100)
if simulated:
    sys.exit(0)
assert "--no-remove" in arguments
for package in thrown | set(state.get("lost", [])) & set(installed):
    remove(package)
for package, version in new.items():
    installed[package] = version
    for program in state["programs"].get(package, []):
        if program not in state.get("stillborn", []):
            (home / "bin" / program).write_text("#!/bin/sh\n")
            (home / "bin" / program).chmod(0o755)
save()
'''


class Machine:
    """A PATH, and a package manager behind it."""

    def __init__(self, home):
        self.home = pathlib.Path(home)
        self.bin = self.home / "bin"
        self.bin.mkdir()
        for name in _BASICS:
            os.symlink(shutil.which(name), self.bin / name)
        os.symlink(sys.executable, self.bin / "python3")
        fake = _FAKE.replace("{python}", sys.executable).replace("{home}", str(self.home))
        for name in ("apt-get", "apt-cache", "dpkg-query"):
            self.program(name, fake)
        self.program("id", "#!/bin/sh\necho 0\n")
        (self.home / "lib").mkdir()
        (self.home / "lib/libstd-1.rlib").touch()
        self.program("rustc", f"#!/bin/sh\necho {self.home}/lib\n")
        self.program("cargo", f"#!/bin/sh\necho cargo \"$@\" >>{self.home}/calls\n")
        self.state = {
            "installed": {}, "sources": {"qemu-img-extra": "qemu", "qemu-utils": "qemu"}, "programs": _PROGRAMS,
            "suites": {"stable": {package: "1" for package in _PROGRAMS}},
        }
        for package in _PROGRAMS:
            self.install(package, "1")

    def program(self, name, text="#!/bin/sh\n"):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def install(self, package, version):
        self.state["installed"][package] = version
        for name in _PROGRAMS.get(package, []):
            self.program(name)

    def without(self, package):
        del self.state["installed"][package]
        for name in _PROGRAMS[package]:
            (self.bin / name).unlink()

    def run(self, *command, timeout=120):
        """Runs a script; its exit code and all it printed."""
        (self.home / "state.json").write_text(json.dumps(self.state))
        (self.home / "calls").write_text("")
        environment = {"PATH": str(self.bin), "HOME": str(self.home), "CARGO_TARGET_DIR": str(self.home / "target")}
        done = subprocess.run(
            [str(self.bin / "bash"), str(_SCRIPTS / command[0]), *command[1:]], env=environment, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )
        self.state = json.loads((self.home / "state.json").read_text())
        return done.returncode, done.stdout

    def calls(self, name):
        return [line for line in (self.home / "calls").read_text().splitlines() if line.split()[0] == name]

    def installing(self):
        return [line for line in self.calls("apt-get") if " install " in line and " -s " not in line]


class SetupTest(unittest.TestCase):
    def setUp(self):
        home = tempfile.TemporaryDirectory()
        self.addCleanup(home.cleanup)
        self.machine = Machine(home.name)

    def test_a_complete_machine_is_left_alone_without_a_word(self):
        self.assertEqual(self.machine.run("setup.sh", _SET), (0, ""))
        self.assertEqual(self.machine.calls("apt-get"), [])

    def test_what_is_missing_is_named_and_installed(self):
        self.machine.without("ntfs-3g")
        code, text = self.machine.run("setup.sh", _SET)
        self.assertEqual(code, 0, text)
        self.assertIn("ntfs-3g - ", text)
        self.assertIn("ntfs-3g", self.machine.state["installed"])
        self.assertIn("--no-remove", self.machine.installing()[0])

    def test_a_sibling_from_another_suite_is_kept_and_the_missing_package_taken_from_there(self):
        self.machine.without("qemu-utils")
        self.machine.without("gdisk")
        self.machine.state["suites"]["backports"] = {"qemu-img-extra": "2", "qemu-utils": "2", "gdisk": "2"}
        self.machine.install("qemu-img-extra", "2")
        code, text = self.machine.run("setup.sh", _SET)
        self.assertEqual(code, 0, text)
        self.assertIn("qemu-img-extra would be removed", text)
        self.assertIn("taking qemu-utils from backports", text)
        self.assertEqual(self.machine.state["installed"]["qemu-img-extra"], "2")
        self.assertEqual(self.machine.state["installed"]["qemu-utils"], "2")
        self.assertEqual(self.machine.state["installed"]["gdisk"], "1", "the rest comes from where it always comes")

    def test_where_no_version_fits_nothing_is_removed_and_the_report_says_what_to_do(self):
        self.machine.without("qemu-utils")
        self.machine.without("ntfs-3g")
        self.machine.install("qemu-img-extra", "3-mine")  # from no suite
        code, text = self.machine.run("setup.sh", _SET)
        self.assertNotEqual(code, 0)
        self.assertIn("qemu-img-extra would be removed", text)
        self.assertIn("qemu-img (package qemu-utils)", text)
        self.assertIn("by hand", text.splitlines()[-1])
        self.assertIn("qemu-img-extra", self.machine.state["installed"])
        self.assertNotIn("qemu-utils", self.machine.state["installed"])
        self.assertIn("ntfs-3g", self.machine.state["installed"], "what harms nothing is installed")
        self.assertNotIn("mkfs.ntfs (", text)

    def test_a_package_is_not_needed_where_its_programs_are(self):
        self.machine.without("qemu-utils")
        self.machine.install("qemu-img-extra", "3-mine")
        for name in _PROGRAMS["qemu-utils"]:
            self.machine.program(name)
        code, text = self.machine.run("setup.sh", _SET)
        self.assertEqual(code, 0, text)
        self.assertEqual(self.machine.installing(), [])

    def test_a_program_that_an_installation_takes_away_is_found_missing(self):
        self.machine.without("ntfs-3g")
        self.machine.state["lost"] = ["qemu-utils"]
        code, text = self.machine.run("setup.sh", _SET)
        self.assertNotEqual(code, 0)
        self.assertIn("qemu-img (package qemu-utils)", text)
        self.assertIn("apt-get install --no-remove --no-install-recommends qemu-utils", text)

    def test_an_installed_package_without_its_program_is_to_be_installed_again(self):
        (self.machine.bin / "mksquashfs").unlink()
        code, text = self.machine.run("setup.sh", _SET)
        self.assertNotEqual(code, 0)
        self.assertIn("apt-get install --reinstall squashfs-tools", text)

    def test_a_package_that_apt_does_not_know_keeps_no_other_away(self):
        self.machine.without("ntfs-3g")
        self.machine.without("lvm2")
        del self.machine.state["suites"]["stable"]["lvm2"]
        code, text = self.machine.run("setup.sh", _SET)
        self.assertNotEqual(code, 0)
        self.assertIn("ntfs-3g", self.machine.state["installed"])
        self.assertIn("pvcreate (package lvm2)", text)
        self.assertNotIn("mkfs.ntfs (", text)

    def test_old_package_lists_do_where_new_ones_cannot_be_had(self):
        self.machine.without("ntfs-3g")
        self.machine.state["update"] = 100
        code, text = self.machine.run("setup.sh", _SET)
        self.assertEqual(code, 0, text)
        self.assertIn("ntfs-3g", self.machine.state["installed"])

    def test_without_apt_the_programs_decide(self):
        for name in ("apt-get", "apt-cache", "dpkg-query"):
            (self.machine.bin / name).unlink()
        code, text = self.machine.run("setup.sh", _SET)
        self.assertEqual(code, 0, text)
        (self.machine.bin / "qemu-img").unlink()
        code, text = self.machine.run("setup.sh", _SET)
        self.assertNotEqual(code, 0)
        self.assertIn("qemu-img (package qemu-utils)", text)
        self.assertIn("by your own means", text)

    def test_nothing_is_compiled_before_every_program_is_there(self):
        self.machine.without("musl-tools")
        for script in ("build.sh", "test.sh", "demo.sh", "lint.sh"):
            code, text = self.machine.run(script)
            self.assertNotEqual(code, 0, script)
            self.assertIn("musl-gcc (package musl-tools)", text, script)
            self.assertEqual(self.machine.calls("cargo"), [], script)
        self.assertEqual(self.machine.calls("apt-get"), [], "a check installs nothing")

    def test_an_unknown_set_is_refused(self):
        code, text = self.machine.run("setup.sh", "everythin")
        self.assertNotEqual(code, 0)
        self.assertIn("everythin", text)
