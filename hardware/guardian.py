"""The guardian of the doors: a program of its own, which alone holds the lines of the strikes.

One rule: a door is locked unless somebody who is alive wants it open, and may. How long, the order says; the
limit comes from the guardian's own reading of the settings.

    python -m hardware.guardian SETTINGS SOCKET    listen on a Unix socket
    python -m hardware.guardian SETTINGS           serve the connection on standard input, and end with it
    python -m hardware.guardian --lock SETTINGS    drive every strike to locked, and end

Sockets keep messages apart (SOCK_SEQPACKET). A message is words with tabs between them. Orders:

    release DOOR NUMBER SECONDS    lock DOOR    feed

What is told to every connection, `refused` to the one that asked:

    released DOOR NUMBER    locked DOOR NUMBER    refused DOOR NUMBER REASON    fault DOOR REASON
    fine DOOR

A new connection hears of each door and then `ready`. NUMBER is the sender's own, and comes back with what
became of that release. A door is locked when its time has passed, when the connection that released it ends
or says nothing for `FED_SECONDS`, and when the guardian ends.
"""

import math
import os
import select
import signal
import socket
import sys
import tomllib
from time import monotonic
from typing import Any, NamedTuple, Protocol

from hardware.line import KernelLine, SimulatedLine

BOARDS = os.path.join(os.path.dirname(__file__), "boards")
LARGEST_FILE = 1 << 20
LONGEST_MESSAGE = 512
MOST_PEERS = 8
MOST_SECONDS = 60.0

FED_SECONDS = 1.0
"""A door stays released so long without a word of who released it."""
EARLY_SECONDS = 0.01
"""A door is locked so much before its time, because this process may wake up late."""
RETRY_SECONDS = 0.1
"""How soon locking is tried again when the line could not be driven."""
REOPEN_SECONDS = 5.0
"""How soon a line that could not be had is asked for again."""
KEYS = ("name", "pin", "active_high", "energise_to", "release_seconds", "duty_percent")
MINUTE = 60.0
USUAL_DUTY = 0.5


class Wiring(NamedTuple):
    """A door as the settings say.

    Attributes:
        pin: BCM number.
        open_level: the level that lets people in.
        limit: the longest release, in seconds.
        duty: the part of any minute for which the strike may be energised.
    """

    pin: int
    open_level: bool
    limit: float
    duty: float


class WrongDoors(ValueError):
    """The settings of the doors cannot be used; the text is one line that says why."""


class Line(Protocol):
    """What a door is locked and released by."""

    def set(self, level: bool) -> None:
        """Drive the line."""

    def close(self) -> None:
        """Give it back."""


# Settings


def read_doors(file: str) -> tuple[bool, dict[str, Wiring]]:
    """Read from the settings what concerns the doors: whether their lines are simulated, and the wiring.

    The service reads the same file with far more care, and does not start when it is wrong.

    Raises:
        WrongDoors: it is wrong.
        OSError: it cannot be read.
    """
    settings = _table(file)
    station, tables = settings.get("station"), settings.get("door", [])
    name = station.get("board") if isinstance(station, dict) else None
    if not isinstance(name, str) or f"{name}.toml" not in os.listdir(BOARDS):
        raise WrongDoors(f"{file}: station.board: {name!r} is not known")
    board = _table(os.path.join(BOARDS, f"{name}.toml"))
    doors: dict[str, Wiring] = {}
    taken = board["reserved"].keys() | _pins(settings.get("button")) | _pins(settings.get("lamp"))
    for number, door in enumerate(tables if isinstance(tables, list) else [tables], 1):
        try:
            wiring = _wiring(door)
        except (AttributeError, ValueError) as error:
            raise WrongDoors(f"{file}: door[{number}]: {error}") from None
        if str(wiring.pin) in taken:
            raise WrongDoors(f"{file}: door[{number}].pin: {wiring.pin} has another purpose")
        taken.add(str(wiring.pin))
        doors[door["name"]] = wiring
    return board["gpio"] == "mock", doors


def _table(file: str) -> dict[str, Any]:
    with open(file, "rb") as opened:
        raw = opened.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise WrongDoors(f"{file}: is larger than 1 MiB: this is not a settings file")
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise WrongDoors(f"{file}: is not TOML: {error}") from None


def _pins(parts: object) -> set[str]:
    return (
        {str(part.get("pin")) for part in parts if isinstance(part, dict)}
        if isinstance(parts, list)
        else set()
    )


def _wiring(door: dict[str, Any]) -> Wiring:
    name, pin, high = door.get("name"), door.get("pin"), door.get("active_high", True)
    to, limit = door.get("energise_to", "open"), door.get("release_seconds", 5)
    if type(name) is not str or not name.isprintable() or not 0 < len(name) <= 32:
        raise ValueError("name must be a short text")
    if type(pin) is not int or not 0 <= pin <= 27:
        raise ValueError("pin must be 0 to 27")
    if type(high) is not bool or to not in ("open", "lock"):
        raise ValueError("active_high must be true or false, energise_to 'open' or 'lock'")
    if type(limit) not in (int, float) or not 0 < limit <= MOST_SECONDS:
        raise ValueError(f"release_seconds must be above 0, and at most {MOST_SECONDS:g}")
    # Left out it leaves room for two releases in a row. A magnet that locks is made to be energised for ever.
    percent = door.get("duty_percent", 100 * min(1.0, max(USUAL_DUTY, 2 * limit / MINUTE)))
    if type(percent) not in (int, float) or not 0 < percent <= 100:
        raise ValueError("duty_percent must be above 0, and at most 100")
    if percent / 100 * MINUTE < limit:
        raise ValueError("duty_percent is less than one release takes")
    return Wiring(pin, high == (to == "open"), float(limit), percent / 100 if to == "open" else 1.0)


# Doors


class Duty:
    """How long a strike may still be energised, so that its coil does not burn. Times are monotonic."""

    def __init__(self, part: float) -> None:
        """Allow `part` of any minute."""
        self._budget = part * MINUTE
        self._spans: list[tuple[float, float]] = []

    def energised(self, since: float, until: float) -> None:
        """Take note of a release that is over; they come in order."""
        self._spans = [span for span in self._spans if span[1] > until - MINUTE] + [(since, until)]

    def allows(self, since: float, until: float) -> bool:
        """Tell whether the strike may be energised from `since`, which may be past, to `until`.

        The fullest minute is the one that ends with the release.
        """
        return self._spent(until - MINUTE) + until - since <= self._budget + 1e-3

    def rests_until(self, seconds: float, now: float) -> float:
        """When a release of that length is possible next: `now` if at once."""
        begin = now + seconds - MINUTE
        excess = self._spent(begin) + seconds - self._budget
        for since, until in self._spans:
            if excess <= 0:
                break
            begin = max(begin, since)
            gone = max(0.0, min(excess, until - begin))
            begin += gone
            excess -= gone
        return max(now, begin + MINUTE - seconds)

    def _spent(self, begin: float) -> float:
        return sum(max(0.0, until - max(since, begin)) for since, until in self._spans)


class Peer:
    """A connection, and when it was last heard of."""

    def __init__(self, connection: socket.socket) -> None:
        """Take a connection, which from now on never blocks."""
        connection.setblocking(False)
        self.connection = connection
        self.heard_at = monotonic()

    def say(self, *words: object) -> bool:
        """Send a message; False if it was not taken, because the peer is frozen or gone."""
        try:
            self.connection.send("\t".join(map(str, words)).encode())
        except OSError:
            return False
        return True


class Door:
    """A strike, its line, and for how long it is released. Times are monotonic seconds."""

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Know the door; nothing is driven before `open`."""
        self.name = name
        self.wiring = wiring
        self.line: Line | None = None
        self.fault = "is not driven yet"
        self.owner: Peer | None = None
        self.number = "0"
        self.since: float | None = None
        self._until = 0.0
        self._duty = Duty(wiring.duty)

    @property
    def released(self) -> bool:
        """Whether the door can be pushed open."""
        return self.since is not None

    def open(self, simulated: bool) -> None:
        """Claim the line and drive it to locked at once; why that failed stands in `fault`."""
        pin, locked = self.wiring.pin, not self.wiring.open_level
        try:
            self.line = SimulatedLine(pin, locked) if simulated else KernelLine(pin, locked)
            self.fault = ""
        except OSError as error:
            self.fault = f"pin {pin} {error.strerror}"

    def release(self, seconds: float, number: str, owner: Peer, now: float) -> str:
        """Release it, or prolong that, never past the limit; returns why it was refused, or nothing."""
        if self.fault or self.line is None:
            return self.fault
        if not 0 < seconds < math.inf:
            return "a release takes more than 0 seconds"
        if self.since is not None and self.owner is not owner:
            return "is released by another program"
        since = now if self.since is None else self.since
        until = max(self._until, min(now + seconds, since + self.wiring.limit))
        if not self._duty.allows(since, until):
            return "has been energised too long, and rests"
        if self.since is None:
            try:
                self.line.set(self.wiring.open_level)
            except OSError as error:
                self.fault = f"pin {self.wiring.pin} cannot be driven: {error.strerror}"
                self.since, self._until = now, now  # it may be open after all
                return self.fault
        self.since, self._until, self.owner, self.number = since, until, owner, number
        return ""

    def lock(self, now: float) -> bool:
        """Lock it; False if the line cannot be driven, which is to be tried again."""
        if self.line is not None:
            try:
                self.line.set(not self.wiring.open_level)
            except OSError as error:
                self.fault = f"pin {self.wiring.pin} cannot be driven: {error.strerror}"
                self._until, self.owner = now + RETRY_SECONDS + EARLY_SECONDS, None
                return False
        if self.since is not None:
            self._duty.energised(self.since, now)
        self.since, self._until, self.owner = None, 0.0, None
        return True

    def deadline(self) -> float:
        """When it has to be locked at the latest."""
        fed = math.inf if self.owner is None else self.owner.heard_at + FED_SECONDS
        return math.inf if self.since is None else min(self._until - EARLY_SECONDS, fed)

    def rests_until(self, now: float) -> float:
        """When the strike may be released again."""
        return now if self.released else self._duty.rests_until(self.wiring.limit, now)

    def close(self) -> None:
        """Lock it and give the line back."""
        self.lock(monotonic())
        if self.line is not None:
            self.line.close()
            self.line = None


# The program


class Guardian:
    """Holds the doors and serves the connections, on one thread and without ever waiting for a peer."""

    def __init__(self, settings: str, kept: str | None) -> None:
        """Drive every strike to locked.

        Args:
            settings: the file of the service.
            kept: where the doors of the last good settings are kept for the time when they are not.

        Raises:
            WrongDoors: there are no settings that can be used.
        """
        self._settings, self._kept = settings, kept
        self._simulated = False
        self._doors: dict[str, Door] = {}
        self._told: dict[str, str] = {}
        self._reopen_at = 0.0
        self._peers: dict[int, Peer] = {}
        self._poll = select.poll()
        try:
            self._rewire(settings)
        except (WrongDoors, OSError) as error:
            if kept is None or not os.path.exists(kept):
                raise WrongDoors(str(error)) from None
            _say(f"{error}: the doors of the last good settings are used")
            self._rewire(kept)

    @property
    def faults(self) -> list[str]:
        """Every door that cannot be driven, and why."""
        return [f"door {door.name!r}: {door.fault}" for door in self._doors.values() if door.fault]

    def serve(self, listener: socket.socket | None, connection: socket.socket | None) -> None:
        """Serve until SIGTERM, or until `connection` ends."""
        if listener is not None:
            listener.setblocking(False)
            self._poll.register(listener, select.POLLIN)
        if connection is not None:
            self._welcome(connection)
        notify = Notify() if listener is not None else None
        if notify is not None:
            notify.say("READY=1")
        while listener is not None or self._peers:
            now = monotonic()
            wake = min(self._meet(now), math.inf if notify is None else notify.feed(now))
            for number, _ in self._poll.poll(None if wake == math.inf else max(0.0, (wake - now) * 1000)):
                if listener is not None and number == listener.fileno():
                    self._accept(listener)
                elif number in self._peers:
                    self._hear(self._peers[number])

    def close(self) -> None:
        """Lock every door and give the lines back."""
        for door in self._doors.values():
            door.close()

    # Time

    def _meet(self, now: float) -> float:
        """Do what is due, and return when the next thing is."""
        wake = math.inf
        if now >= self._reopen_at:
            for door in self._doors.values():
                if door.line is None:
                    door.open(self._simulated)
            self._reopen_at = now + REOPEN_SECONDS
        for door in self._doors.values():
            if door.deadline() <= now:
                if door.owner is not None and now >= door.owner.heard_at + FED_SECONDS:
                    _say(f"door {door.name!r} is locked early: the service has not been heard of")
                self._lock(door, now)
            if door.line is None:
                wake = min(wake, self._reopen_at)
            rests = door.rests_until(now)
            if rests > now:
                self._tell_health(door, "has been energised too long, and rests")
                wake = min(wake, rests)
            else:
                self._tell_health(door, door.fault)
            wake = min(wake, door.deadline())
        return wake

    def _lock(self, door: Door, now: float) -> None:
        if not door.released:
            return
        if door.lock(now):
            if door.fault.startswith("pin"):
                door.fault = ""
            self._tell("locked", door.name, door.number)
        else:
            _say(f"door {door.name!r} is still released: {door.fault}")

    def _tell_health(self, door: Door, fault: str) -> None:
        if fault != self._told.get(door.name, ""):
            self._told[door.name] = fault
            self._tell(*(("fault", door.name, fault) if fault else ("fine", door.name)))
            _say(f"door {door.name!r}: {fault or 'works again'}")

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it has gone again
        if len(self._peers) >= MOST_PEERS:
            connection.close()
            return
        self._look_again()
        self._welcome(connection)

    def _look_again(self) -> None:
        """Take over changed settings: the service has been started anew."""
        if not any(door.released for door in self._doors.values()):
            try:
                self._rewire(self._settings)
            except (WrongDoors, OSError) as error:
                _say(f"{error}: the doors stay as they are")

    def _rewire(self, file: str) -> None:
        simulated, wirings = read_doors(file)
        if (
            simulated == self._simulated
            and {name: door.wiring for name, door in self._doors.items()} == wirings
        ):
            return
        # A line that stays is not touched: giving it back would be a pulse for a magnet.
        doors = {}
        for name, door in self._doors.items():
            if simulated == self._simulated and wirings.get(name) == door.wiring:
                doors[name] = door
            else:
                door.close()
        self._simulated = simulated
        for name, wiring in wirings.items():
            if name not in doors:
                doors[name] = Door(name, wiring)
                doors[name].open(simulated)
        self._doors = doors
        self._told = {name: door.fault for name, door in doors.items()}
        for fault in self.faults:
            _say(fault)
        for peer in tuple(self._peers.values()):
            self._part(peer)  # it comes back, and hears of the doors that there are now
        if self._kept is not None and file != self._kept:
            _keep(self._kept, file)

    def _welcome(self, connection: socket.socket) -> None:
        peer = Peer(connection)
        self._peers[connection.fileno()] = peer
        self._poll.register(connection, select.POLLIN)
        for door in self._doors.values():
            peer.say("released" if door.released else "locked", door.name, "0")
            if fault := self._told.get(door.name):
                peer.say("fault", door.name, fault)
        if not peer.say("ready"):
            self._part(peer)

    def _part(self, peer: Peer) -> None:
        number = peer.connection.fileno()
        if self._peers.pop(number, None) is None:
            return  # parted with already, while others were told
        self._poll.unregister(number)
        peer.connection.close()
        for door in self._doors.values():
            if door.owner is peer:
                _say(f"door {door.name!r} is locked early: the service has gone")
                self._lock(door, monotonic())

    def _tell(self, *words: object) -> None:
        for peer in tuple(self._peers.values()):
            if not peer.say(*words):
                self._part(peer)

    def _hear(self, peer: Peer) -> None:
        """Take one message, so that no flood of them keeps a door from being locked."""
        try:
            message = peer.connection.recv(LONGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._part(peer)
            return
        peer.heard_at = now = monotonic()
        match message.decode(errors="replace").split("\t"):
            case ["feed"]:
                pass
            case ["lock", name] if name in self._doors:
                self._lock(self._doors[name], now)
            case ["release", name, number, seconds] if name in self._doors:
                door = self._doors[name]
                before = door.released
                refused = door.release(_number(seconds), number, peer, now)
                if refused:
                    peer.say("refused", name, number, refused)
                elif not before:
                    self._tell("released", name, number)
            case _:
                _say("an order that means nothing: its connection is ended")
                self._part(peer)


class Notify:
    """What systemd wants to hear (sd_notify(3)): that the doors are locked, and that this process lives."""

    def __init__(self) -> None:
        """Look for a supervisor; without one nothing is said."""
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        every = os.environ.get("WATCHDOG_USEC", "")
        self._every = int(every) / 3e6 if self._address and every.isdigit() else math.inf
        self._next = 0.0

    def say(self, state: str) -> None:
        """Send one message. Never blocks, never raises."""
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                try:
                    channel.sendto(state.encode(), self._address.replace("@", "\0", 1))
                except OSError:
                    return

    def feed(self, now: float) -> float:
        """Say that we live, if it is time to; returns when it is next."""
        if self._every < math.inf and now >= self._next:
            self.say("WATCHDOG=1")
            self._next = now + self._every
        return self._next if self._every < math.inf else math.inf


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _keep(kept: str, settings: str) -> None:
    """Keep what the settings say of the doors: they may be half edited when this is started next."""
    table = _table(settings)
    lines = [f"[station]\nboard = {_quoted(table['station']['board'])}\n"]
    for door in table.get("door", []):
        lines.append("[[door]]\n")
        lines.extend(f"{key} = {_quoted(door[key])}\n" for key in KEYS if key in door)
    try:
        with open(f"{kept}.new", "w", encoding="utf-8") as file:
            file.writelines(lines)
        os.replace(f"{kept}.new", kept)
    except OSError as error:
        _say(f"the doors are not kept for the next start: {error}")


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _say(text: str) -> None:
    sys.stderr.write(f"guardian: {text}\n")
    sys.stderr.flush()


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.path.exists(path):
        os.unlink(path)  # of the guardian before; systemd lets no two live
    listener.bind(path)
    os.chmod(path, 0o660)
    listener.listen(MOST_PEERS)
    return listener


def main(arguments: list[str]) -> int:
    """Run the program; returns its exit code: 0, 1 if a strike cannot be locked, 2 for wrong settings."""
    try:
        match arguments:
            case ["--lock", settings]:
                guardian = Guardian(settings, _kept())
                faults = guardian.faults
                guardian.close()
                return 1 if faults else 0
            case [settings, path]:
                _serve(Guardian(settings, _kept()), _listen(path), None)
            case [settings] if settings != "--lock":
                _serve(Guardian(settings, None), None, socket.socket(fileno=0))
            case _:
                _say("usage: SETTINGS [SOCKET], or --lock SETTINGS")
                return 2
    except WrongDoors as wrong:
        _say(str(wrong))
        return 2
    return 0


def _serve(guardian: Guardian, listener: socket.socket | None, connection: socket.socket | None) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(0))
    try:
        guardian.serve(listener, connection)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # nothing may keep the doors from being locked
        guardian.close()


def _kept() -> str | None:
    folder = os.environ.get("STATE_DIRECTORY")
    return f"{folder}/doors.toml" if folder else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
