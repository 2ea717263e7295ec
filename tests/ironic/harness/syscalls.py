"""The system calls that Python's library does not have."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
CAP_SYS_MODULE, CAP_SYS_TIME = 16, 25
IN_CLOSE_WRITE = 8
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24


def _checked(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _bytes(text):
    return None if text is None else os.fsencode(text)


def mount(source, target, filesystem=None, flags=0, options=None):
    result = _libc.mount(
        _bytes(source), _bytes(target), _bytes(filesystem), ctypes.c_ulong(flags), _bytes(options)
    )
    _checked(result, f"mounting {source} on {target}")


def bind(source, target, recursive=False):
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def bind_read_only(path):
    """Makes what is at `path` read-only in this mount namespace."""
    bind(path, path)
    mount(None, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def unmount(target, flags=0):
    _checked(_libc.umount2(_bytes(target), flags), f"unmounting {target}")


def pivot_root(new, old):
    _checked(_libc.pivot_root(_bytes(new), _bytes(old)), f"changing the root to {new}")


def unshare(flags):
    _checked(_libc.unshare(flags), "making namespaces")


def enter_network_namespace(name):
    """Moves this thread (before others start: this process) into a namespace made by `ip netns add`."""
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(descriptor, CLONE_NEWNET), f"entering the network namespace {name}")
    finally:
        os.close(descriptor)


def die_with_parent(signal_number):
    """Has this process sent a signal when the thread that started it ends, however it ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def drop_capability(capability):
    """Takes a capability from every program that this process executes from now on."""
    _checked(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "dropping a capability")


def watch_closing(paths, descriptor=None):
    """An inotify descriptor that becomes readable when one of `paths` was closed after having been open for writing."""
    if descriptor is None:
        descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
    for path in paths:
        _checked(_libc.inotify_add_watch(descriptor, _bytes(path), IN_CLOSE_WRITE), f"watching {path}")
    return descriptor
