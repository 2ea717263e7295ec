"""The root of the machine: an overlay of the host's on memory, and mounts of its own for everything the kernel provides."""

import os
import socket
import stat
from pathlib import Path

from .. import syscalls
from ..syscalls import MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MNT_DETACH, bind, mount

PRIVATE = "/run/harness"
"""What belongs to the harness inside the machine."""
HOST_SYS = PRIVATE + "/sys"
"""The sysfs of the host, as it is."""
CONSOLE = PRIVATE + "/console"
"""A pipe: what is written on the machine's console."""
_CONSOLES = "/sys/class/tty/console/active"
_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))


def put(path, text):
    """Writes a file, and the folders that lead to it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def get(path, default=""):
    try:
        return Path(path).read_text()
    except (OSError, ValueError):
        return default


def link(target, path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def make_node(path, kind, major, minor, mode=0o666):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        if os.stat(path).st_rdev == os.makedev(major, minor):
            return
        os.unlink(path)
    os.mknod(path, mode | kind, os.makedev(major, minor))
    os.chmod(path, mode)


def build_root(specification):
    """Makes the new root and changes to it. What is written there is gone when the machine is switched off."""
    base, memory = "/mnt", specification["memory"]
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", 0, f"size={memory}")
    for folder in ("upper", "work", "root"):
        os.mkdir(f"{base}/{folder}")
    root = base + "/root"
    mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={base}/upper,workdir={base}/work")
    _show_other_file_systems(root, specification["visible"])
    mount("proc", root + "/proc", "proc", MS_NOSUID)
    mount("sysfs", root + "/sys", "sysfs", MS_NOSUID)
    mount("dev", root + "/dev", "tmpfs", MS_NOSUID, "mode=755")
    mount("run", root + "/run", "tmpfs", MS_NOSUID, "mode=755")
    os.makedirs(root + HOST_SYS)
    mount("sysfs", root + HOST_SYS, "sysfs", MS_RDONLY)
    _keep(root, specification)
    mount("tmp", root + "/tmp", "tmpfs", MS_NOSUID, f"mode=1777,size={memory}")
    _fill_dev(root)
    put(root + PRIVATE + "/cmdline", specification["cmdline"].strip() + "\n")
    old = root + PRIVATE + "/old"
    os.mkdir(old)
    os.chdir(root)
    syscalls.pivot_root(".", old[len(root) + 1 :])
    os.chroot(".")
    os.chdir("/")
    syscalls.unmount(old[len(root) :], MNT_DETACH)
    put("/etc/hosts", "127.0.0.1 localhost\n")
    socket.sethostname("machine")
    protect_proc()


def _show_other_file_systems(root, paths):
    """An overlay shows one file system: what the agent needs and lies on another is mounted at its place, read-only."""
    device = os.stat("/").st_dev
    for path in paths:
        if os.stat(path).st_dev != device:
            os.makedirs(root + path, exist_ok=True)
            bind(path, root + path, recursive=True)
            syscalls.mount(None, root + path, None, syscalls.MS_BIND | syscalls.MS_REMOUNT | MS_RDONLY)


def _keep(root, specification):
    """Copies the files that the agent's own ramdisk is made of, while the host's folders can still be seen."""
    for source, inside in specification["agent"].get("files", {}).items():
        target = Path(root + PRIVATE + "/ramdisk" + inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(source).read_bytes())
        target.chmod(0o755)


def _fill_dev(root):
    for folder in ("pts", "shm", "disk"):
        os.mkdir(f"{root}/dev/{folder}")
    mount("devpts", root + "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    mount("shm", root + "/dev/shm", "tmpfs")
    for name, major, minor in _NODES:
        make_node(f"{root}/dev/{name}", stat.S_IFCHR, major, minor)
    links = (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))
    for name, target in links:
        os.symlink(target, f"{root}/dev/{name}")
    os.mkfifo(root + CONSOLE)
    for name in ("console", "ttyS0"):
        Path(f"{root}/dev/{name}").touch()
        bind(root + CONSOLE, f"{root}/dev/{name}")


def protect_proc():
    """Puts the machine's own words into /proc, and takes out of it what would reach the host."""
    bind(PRIVATE + "/cmdline", "/proc/cmdline")
    if os.path.exists("/proc/sysrq-trigger"):
        bind("/dev/null", "/proc/sysrq-trigger")
    # Settings of the kernel are the host's, but for those of the network, which belong to the namespace.
    bind("/proc/sys/net", "/proc/sys/net", recursive=True)
    os.makedirs(PRIVATE + "/net", exist_ok=True)
    bind("/proc/sys/net", PRIVATE + "/net")
    syscalls.bind_read_only("/proc/sys")
    bind(PRIVATE + "/net", "/proc/sys/net")
    if os.path.exists(_CONSOLES):
        put(PRIVATE + "/consoles", "ttyS0\n")
        bind(PRIVATE + "/consoles", _CONSOLES)
