"""What the kernel says of a process (proc(5))."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Effort:
    """What all threads have done so far: times they went to sleep, and seconds on a core."""

    switches: int
    cpu_s: float

    def __sub__(self, earlier: "Effort") -> "Effort":
        return Effort(self.switches - earlier.switches, self.cpu_s - earlier.cpu_s)


def effort(pid: int) -> Effort:
    switches = nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        switches += _number(task / "status", "voluntary_ctxt_switches")
        nanoseconds += int((task / "schedstat").read_text().split()[0])
    return Effort(switches, nanoseconds / 1e9)


def group(leader: int) -> list[int]:
    """The processes of a process group: a server with its workers."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in numbers if _leader(pid) == leader]


def pss_mb(pid: int) -> float:
    """Memory, what is shared with other processes counted by its share."""
    return _number(Path(f"/proc/{pid}/smaps_rollup"), "Pss") / 1024


def rss_kb(pid: int) -> int:
    return _number(Path(f"/proc/{pid}/smaps_rollup"), "Rss")


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _leader(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _number(file: Path, key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+)", file.read_text(), re.MULTILINE)
    assert match is not None, f"{file} has no {key}"
    return int(match[1])
