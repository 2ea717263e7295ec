"""A folder in memory: what a run reads and writes comes from no disk and is not thrown out of a cache."""

import subprocess
import time


class Memory:
    """A tmpfs, from `with` to its end."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        self.folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90%,mode=0755", "ferric-bench", self.folder], check=True)
        return self

    def __exit__(self, *_):
        # What was killed may still be on its way out, with the device in its hands.
        for _ in range(50):
            if subprocess.run(["umount", self.folder], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "--lazy", self.folder], check=False)

    def take(self, file):
        """A copy of the file, holes included."""
        copy = self.folder / file.name
        if not copy.exists():
            subprocess.run(["cp", "--sparse=always", file, copy], check=True)
        return copy

    def forget(self, file):
        (self.folder / file.name).unlink(missing_ok=True)
