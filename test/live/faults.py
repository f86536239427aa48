"""The tests' side of test/faults/faults.h: arms the n-th allocation or store call of a role, reads what was hit."""
import mmap
import struct

from conftest import BULKHEAD

ROLES = {"supervisor": 0, "control": 1, "gateway": 2, "worker": 3}
CLASSES = {"memory": 0, "store": 1}
COUNTER = struct.Struct("=4QiI")


def built_in():
    return b"BULKHEAD_FAULTS" in BULKHEAD.read_bytes()


class Faults:
    """A page; `environment` is what the server needs to be started with."""

    def __init__(self, folder):
        path = folder / "faults"
        size = COUNTER.size * len(ROLES) * len(CLASSES)
        path.write_bytes(bytes(size))
        path.chmod(0o666)  # workers have uids of their own
        with open(path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), size)
        self.environment = {"BULKHEAD_FAULTS": str(path)}

    def _at(self, role, kind):
        return COUNTER.size * (ROLES[role] * len(CLASSES) + CLASSES[kind])

    def arm(self, role, n, kind="memory", k=1, trace=False):
        """The n-th call from now on, and the k - 1 after it, fail."""
        at = self._at(role, kind)
        self.disarm()
        COUNTER.pack_into(self.page, at, 0, k, 0, 0, 0, trace)
        struct.pack_into("=Q", self.page, at, n)  # last: from here on it counts

    def disarm(self):
        for at in range(0, len(self.page), COUNTER.size):
            struct.pack_into("=Q", self.page, at, 0)

    def calls(self, role, kind="memory"):
        return COUNTER.unpack_from(self.page, self._at(role, kind))[2]

    def hits(self, role, kind="memory"):
        return COUNTER.unpack_from(self.page, self._at(role, kind))[3]
