"""The record: what is left when its writer is killed at each write, and how fast a million records are.

Rule: a record counts as acknowledged once `Journal.flush` has said so, and not before.
"""

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from intercom.core.actions import RecordAccess, RecordCall
from intercom.core.ringing import Outcome
from intercom.journal.database import Database, Entry
from intercom.journal.reader import Wanted, read, verify
from tests.bench.rows import Row, percentile

ROOT = Path(__file__).parents[2]
KILLS = 500
OLD = 2500  # records
MILLION = 1_000_000
DAYS = 365
ASKED = 5  # times; the middle one counts
FLIPPED = 10

DISK = "write,pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2,ftruncate,unlink"
"""What changes a file, or waits for the disk."""

WRITER = """
import socket, sys, threading
from pathlib import Path
from intercom.core.actions import RecordAccess
from intercom.journal.store import Bounds, Journal

said = socket.socket(fileno=1)  # not written to: only what goes to the disk is counted
file, count, megabytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
journal = Journal(file, lambda fault: said.send(b"-" if fault else b"+"), Bounds(365, megabytes))
kept = threading.Event()

def done(is_kept):
    if is_kept:
        said.send(b"k")
    kept.set()

for number in range(count):
    kept.clear()
    journal.append(RecordAccess("front", "dtmf", f"sip:flat{number}@site.example", True, ""))
    journal.flush(done)
    kept.wait()
journal.close()
"""


@dataclass(frozen=True)
class Written:
    """What a writer did before its end: how it ended, what it said, and its calls to the disk."""

    code: int
    said: str
    calls: list[str]

    @property
    def acknowledged(self) -> int:
        return self.said.count("k")


def write(file: Path, *inject: str, count: int = 200, megabytes: int = 100) -> Written:
    """Append records one by one in a process of its own, whose calls to the disk go as `inject` says.

    A record is asked for after the fate of the one before is known. The trace lies beside the file.
    """
    ours, theirs = socket.socketpair()
    trace = file.parent / "trace"
    file.parent.mkdir(parents=True, exist_ok=True)
    command: list[str] = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={DISK},sendto"]
    for each in inject:
        command += ["-e", f"inject={each}"]
    with closing(ours), closing(theirs):
        program = subprocess.Popen(
            # -S: nothing but the standard library is needed, and a process starts in half the time.
            [*command, sys.executable, "-S", "-c", WRITER, str(file), str(count), str(megabytes)],
            stdout=theirs.fileno(), stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        theirs.close()
        said = b"".join(iter(lambda: ours.recv(4096), b"")).decode()
        code = program.wait()
    calls = [
        line.split(None, 1)[1].partition("(")[0] for line in trace.read_text().splitlines() if "(" in line
    ]
    return Written(code, said, calls)


def places(folder: Path, count: int) -> list[tuple[str, int]]:
    """The first so many calls to the disk, each as its name and how many of that name it makes."""
    calls = [call for call in write(folder / "journal.db", count=count // 4).calls if call != "sendto"]
    shutil.rmtree(folder)
    met: Counter[str] = Counter()
    found = []
    for call in calls[:count]:
        met[call] += 1
        found.append((call, met[call]))
    assert len(found) == count, f"only {len(found)} calls to the disk"
    return found


@dataclass(frozen=True)
class Killed:
    """What was left by a writer that was killed: how many records were lost, and what does not hold."""

    died: bool
    lost: int
    more: int
    wrong: str


def killed_at(folder: Path, call: str, number: int, old: Path | None = None) -> Killed:
    """Kill a writer at its Nth call of a name; then open what is left, go on, and prove the chain.

    With an old record, almost all of that is dropped first, as if no space was granted.
    """
    file = folder / "journal.db"
    if old is not None:
        shutil.copytree(old.parent, folder)
    known = 0 if old is None else OLD
    inject = f"{call}:signal=SIGKILL:when={number}"
    written = write(file, inject, megabytes=100 if old is None else 0)
    try:
        database = Database(file)
        found = database.newest.number
        database.add([Entry(0, "free", RecordAccess("front", "operator", "", True, ""))])
        database.close()
        verdict = verify(file)
        wrong = verdict.why or (
            "" if verdict.last == found + 1 else f"{verdict.last} records, not {found + 1}"
        )
    except Exception as error:  # whatever it is, it is what was left
        found, wrong = 0, repr(error)
    shutil.rmtree(folder)
    more = found - known - written.acknowledged
    return Killed(written.code != 0, max(0, -more), max(0, more), wrong)


def early(written: Written) -> int:
    """How many records were acknowledged before the disk had them: the last write was not waited for."""
    count, waited = 0, True
    for call in written.calls:
        if call == "pwrite64":
            waited = False
        elif call in {"fsync", "fdatasync"}:
            waited = True
        elif call == "sendto":
            count += not waited
    return count


def _kills(folder: Path) -> Iterator[Row]:
    begun = time.monotonic()
    first = places(folder / "reference", KILLS)
    plain = [killed_at(folder / "kill", *place) for place in first]
    old = folder / "old" / "journal.db"
    fill(old, OLD)
    bounded = [
        killed_at(folder / "kill", call, number, old)
        for call, numbers in (("pwrite64", range(1, 400, 5)), ("fdatasync", range(1, 9)))
        for number in numbers
    ]
    kills = plain + bounded
    for name in sorted({call for call, _ in first}):
        yield Row(
            f"killed at each {name} of the first {KILLS} calls",
            sum(call == name for call, _ in first),
            "times",
        )
    yield Row("killed while old records were dropped", len(bounded), "times")
    yield Row(
        "writers that were not killed where they should be", sum(not each.died for each in kills), "", 0
    )
    yield Row("acknowledged records lost", sum(each.lost for each in kills), "", 0)
    yield Row(
        "kept, though not acknowledged yet: most in one kill", max(each.more for each in kills), "records", 1
    )
    yield Row(
        "chains that do not hold, or cannot be continued", sum(bool(each.wrong) for each in kills), "", 0
    )
    yield Row("all that", time.monotonic() - begun, "s")
    whole = write(folder / "sync" / "journal.db")
    yield Row(f"of {whole.acknowledged} records, acknowledged before the disk had them", early(whole), "", 0)


def failing(folder: Path, *inject: str) -> tuple[Written, int, str]:
    """What a disk that fails for a while costs: what was said, records lost, and what does not hold."""
    file = folder / "journal.db"
    written = write(file, *inject, count=100)
    peers = [record["peer"] for record in read(file, Wanted(1000, kind="access"))]
    verdict = verify(file)
    gaps = read(file, Wanted(1000, kind="gap"))
    wrong = verdict.why
    if len(peers) != len(set(peers)):
        wrong = wrong or "a record is kept twice"
    if peers != sorted(peers, key=lambda peer: int(peer[8:].partition("@")[0])):
        wrong = wrong or "records are out of order"
    if not gaps or sum(gap["lost"] for gap in gaps):
        wrong = wrong or "the gap is not recorded as it was"
    shutil.rmtree(folder)
    return written, 100 - len(set(peers)), wrong


FAILURES = {
    "full": "pwrite64:error=ENOSPC:when=100..180",
    "read-only": "pwrite64:error=EROFS:when=100..180",
    "broken, writing": "pwrite64:error=EIO:when=100..180",
    "broken, syncing": "fdatasync:error=EIO:when=20..40",
}


def _failures(folder: Path) -> Iterator[Row]:
    for name, inject in FAILURES.items():
        written, lost, wrong = failing(folder / "failing", inject)
        yield Row(f"disk {name}: records not acknowledged meanwhile", 100 - written.acknowledged, "of 100")
        what = f" ({wrong})" if wrong else ""
        yield Row(f"disk {name}: records lost, wrong chains or gaps{what}", lost + bool(wrong), "", 0)


def fill(file: Path, count: int) -> None:
    """A year of records, up to now: visits, and the releases that go with them."""
    now = time.time_ns() // 1_000_000
    step = DAYS * 86_400_000 / count
    database = Database(file)
    for start in range(0, count, 10_000):
        database.add(
            Entry(
                now - int((count - 1 - number) * step),
                "synchronized",
                RecordAccess("front", "dtmf", f"sip:flat{number % 500}@site.example", True, "")
                if number % 2
                else RecordCall(
                    "out", "bell", f"sip:flat{number % 500}@site.example", Outcome.ANSWERED, "OK", 41.5
                ),
            )
            for number in range(start, min(start + 10_000, count))
        )
    database.close()


def _million(folder: Path) -> Iterator[Row]:
    file = folder / "million" / "journal.db"
    begun = time.monotonic()
    fill(file, MILLION)
    seconds = time.monotonic() - begun
    yield Row("a million records: the file", file.stat().st_size / 1e6, "MB")
    yield Row("a million records, 10,000 at a time: each", seconds / MILLION * 1e6, "µs")
    for name, question in (
        ("the last day", ("--since", "1d")),
        ("the last day, one flat", ("--since", "1d", "--who", "flat17@")),
        ("the newest 50", ()),
    ):
        times, found = [], 0
        for _ in range(ASKED):
            begun = time.monotonic()
            done = _log(file, *question)
            times.append(time.monotonic() - begun)
            found = len(json.loads(done.stdout))
        yield Row(f"log of {name}: {found} records", percentile(times, 50), "s", 0.5)
    begun = time.monotonic()
    verdict = verify(file)
    seconds = time.monotonic() - begun
    yield Row("verify: a record (50,000 a second)", seconds / verdict.count * 1e6, "µs", 20)
    yield Row("verify: records a second", verdict.count / seconds, "")
    yield Row("verify: a good chain found bad", not verdict.holds or verdict.count != MILLION, "", 0)
    yield from _flips(file)


def _log(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The whole command, from its start on."""
    command = [
        sys.executable,
        "-c",
        "from intercom.cli.main import main; main()",
        "log",
        *arguments,
        "--json",
    ]
    return subprocess.run(
        [*command, "--file", str(file)],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _flips(file: Path) -> Iterator[Row]:
    """One bit of one record changes, all over the file; then it changes back."""
    with closing(sqlite3.connect(file)) as database:
        asked = range(MILLION // FLIPPED // 2, MILLION, MILLION // FLIPPED)
        hashes = {
            number: database.execute("SELECT hash FROM record WHERE id = ?", (number,)).fetchone()[0]
            for number in asked
        }
    good = file.read_bytes()
    right = 0
    with file.open("r+b") as opened:
        for number, digest in hashes.items():
            place = good.index(digest) - 3  # in the text of the same record, which lies before its hash
            opened.seek(place)
            opened.write(bytes([good[place] ^ 1]))
            opened.flush()
            right += verify(file).bad == number
            opened.seek(place)
            opened.write(good[place : place + 1])
            opened.flush()
    yield Row(f"of {FLIPPED} changed bits, not found in their record", FLIPPED - right, "", 0)
    answer = _log(file, "verify")
    yield Row("log verify after they were changed back: exit code", answer.returncode, "", 0)


def measure(folder: Path) -> Iterator[Row]:
    """Kill, starve and fill. Takes about eight minutes."""
    yield from _kills(folder)
    yield from _failures(folder)
    yield from _million(folder)
