"""One power-on of the machine: namespaces in which a loop device is the only disk, `/dev/sda`.

`launch` makes the namespaces and guards the host's devices, `init` is the first process in them and plays firmware, kernel and
udevd, and `agent` starts the program under test in the way its ramdisk would.
"""
