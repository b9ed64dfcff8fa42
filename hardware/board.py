"""What is on this board, and everything on the door opened as one panel.

One rule: a part that fails is reported and does not take the others with it. A dead lamp must not silence the
bell.
"""

import tomllib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

from gpiozero import Factory, GPIOPinInUse, PinInvalidPin

from hardware.button import Button
from hardware.lamp import Lamp
from hardware.strike import Strikes

BOARDS = Path(__file__).parent / "boards"


@dataclass(frozen=True, slots=True)
class Terminal:
    """One documented connection.

    Attributes:
        name: for people and the settings.
        kind: "button", "lamp" or "door".
        pin: BCM number.
        header: number on the 40-pin header.
        note: what to know when wiring it.
    """

    name: str
    kind: str
    pin: int
    header: int
    note: str


@dataclass(frozen=True, slots=True)
class BoardDescription:
    """What a file in `boards/` says.

    Attributes:
        name: the name of the file.
        description: one line for people.
        gpio: "lgpio" for real pins, "mock" for simulated ones.
        codec: ALSA id of the sound card on the board; empty when there is none.
        serial_ports: device paths for readers and keypads.
        reserved: BCM pin to what the board needs it for.
        terminals: the wiring that is recommended.
        wiring: the rest of the wiring, in prose.
    """

    name: str
    description: str
    gpio: str
    codec: str
    serial_ports: tuple[str, ...]
    reserved: Mapping[int, str]
    terminals: tuple[Terminal, ...]
    wiring: str


def known_boards() -> tuple[str, ...]:
    """The names of the boards that `load_board` knows, sorted."""
    return tuple(sorted(file.stem for file in BOARDS.glob("*.toml")))


def load_board(name: str) -> BoardDescription:
    """Reads the description of a known board.

    Raises:
        ValueError: there is no such board, or its file is wrong; one line with file, key and reason.
    """
    if name not in known_boards():
        raise ValueError(f"board {name!r} is not known; known are {', '.join(known_boards())}")
    return read_board(BOARDS / f"{name}.toml")


def read_board(file: Path) -> BoardDescription:
    """Reads a description from any file.

    Raises:
        ValueError: the file is wrong; one line with file, key and reason.
        OSError: the file cannot be read.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
    where = file.name
    board = BoardDescription(
        name=_take(table, "name", str, where),
        description=_take(table, "description", str, where),
        gpio=_take(table, "gpio", str, where),
        codec=_take(table, "codec", str, where),
        serial_ports=tuple(_all(_take(table, "serial_ports", list, where), "serial_ports", str, where)),
        reserved=_reserved(_take(table, "reserved", dict, where), where),
        terminals=tuple(
            _terminal(row, f"{where}: terminal")
            for row in _all(_take(table, "terminal", list, where), "terminal", dict, where)
        ),
        wiring=_take(table, "wiring", str, where),
    )
    _nothing_left(table, where)
    if board.name != file.stem:
        raise ValueError(f"{where}: name: must be the name of the file, not {board.name!r}")
    if board.gpio not in ("lgpio", "mock"):
        raise ValueError(f"{where}: gpio: must be 'lgpio' or 'mock', not {board.gpio!r}")
    return board


T = TypeVar("T")

_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "a table"}


def _take(table: dict[str, Any], key: str, kind: type[T], where: str) -> T:
    if key not in table:
        raise ValueError(f"{where}: {key}: is missing")
    return _checked(table.pop(key), key, kind, where)


def _nothing_left(table: dict[str, Any], where: str) -> None:
    if table:
        raise ValueError(f"{where}: {next(iter(table))}: there is no such key")


def _all(values: list[Any], key: str, kind: type[T], where: str) -> list[T]:
    return [_checked(value, key, kind, where) for value in values]


def _checked(value: Any, key: str, kind: type[T], where: str) -> T:
    if type(value) is not kind:
        raise ValueError(f"{where}: {key}: must be {_KINDS[kind]}, not {value!r}")
    return value


def _terminal(row: dict[str, Any], where: str) -> Terminal:
    terminal = Terminal(
        name=_take(row, "name", str, where),
        kind=_take(row, "kind", str, where),
        pin=_take(row, "pin", int, where),
        header=_take(row, "header", int, where),
        note=_take(row, "note", str, where),
    )
    if terminal.kind not in ("button", "lamp", "door"):
        raise ValueError(f"{where}: kind: must be 'button', 'lamp' or 'door', not {terminal.kind!r}")
    _nothing_left(row, where)
    return terminal


def _reserved(table: dict[str, Any], where: str) -> dict[int, str]:
    for pin in table:
        if not pin.isdecimal():
            raise ValueError(f"{where}: reserved: {pin!r} is not the number of a pin")
    return {int(pin): _take(table, pin, str, f"{where}: reserved") for pin in tuple(table)}


class PanelFault(OSError):
    """A part of the door that cannot be used.

    Attributes:
        part: such as "door 'front'".
        pin: BCM number.
        reason: the rest of the sentence that begins with "pin 27".
    """

    def __init__(self, part: str, pin: int, reason: str) -> None:
        super().__init__(f"{part}: pin {pin} {reason}")
        self.part = part
        self.pin = pin
        self.reason = reason


class LampState(TypedDict):
    """A lamp in the snapshot."""

    pattern: str
    lit: bool


class DoorState(TypedDict):
    """A door in the snapshot; `contact` is None because no door contact is read yet."""

    released: bool
    contact: bool | None


class PanelState(TypedDict):
    """Everything on the door at one moment, by name."""

    buttons: dict[str, bool]
    lamps: dict[str, LampState]
    doors: dict[str, DoorState]


class _Part(Protocol):
    def close(self) -> None: ...


P = TypeVar("P", bound=_Part)


class Panel:
    """Everything on the door. Every method may be called from any thread; only `close` waits.

    Opens the lamps, then the buttons; the strikes are the guardian's, and `Strikes` reports their faults.
    Other parts that cannot be used are left out and listed in `faults`.

    Args:
        description: the board, for its reserved pins.
        buttons: name to BCM pin.
        lamps: name to BCM pin.
        doors: name to BCM pin, which is left alone.
        on_edge: `on_edge(button, pressed)`, on gpiozero's thread, see `Button`.
        strikes: the doors, closed with the panel; None leaves them to others.
        pin_factory: where the pins come from; stays open when the panel is closed.
    """

    def __init__(
        self,
        description: BoardDescription,
        buttons: Mapping[str, int],
        lamps: Mapping[str, int],
        doors: Mapping[str, int],
        on_edge: Callable[[str, bool], None],
        strikes: Strikes | None,
        pin_factory: Factory,
    ) -> None:
        self.faults: list[PanelFault] = []
        self._taken = {pin: f"is reserved for {purpose}" for pin, purpose in description.reserved.items()}
        self._open_parts = ExitStack()

        self._taken |= {pin: f"is already used by door {name!r}" for name, pin in doors.items()}
        self._strikes = strikes
        self._lamps = self._open("lamp", lamps, lambda name, pin: Lamp(name, pin, pin_factory))
        self._buttons = self._open(
            "button", buttons, lambda name, pin: Button(name, pin, on_edge, pin_factory)
        )
        if strikes is not None:
            self._open_parts.callback(strikes.close)

    def show(self, pattern: str) -> None:
        """Shows a pattern of `lamp.PATTERNS` on all lamps.

        Raises:
            KeyError: no such pattern.
        """
        for lamp in self._lamps.values():
            lamp.show(pattern)

    def snapshot(self) -> PanelState:
        """What the parts in use do at this moment; ready for JSON."""
        released = {} if self._strikes is None else self._strikes.released
        return {
            "buttons": {name: button.is_pressed for name, button in self._buttons.items()},
            "lamps": {name: {"pattern": lamp.pattern, "lit": lamp.lit} for name, lamp in self._lamps.items()},
            "doors": {name: {"released": open_, "contact": None} for name, open_ in released.items()},
        }

    def close(self) -> None:
        """Lets go of the doors, which locks them, then closes the parts in reverse. May be called twice."""
        self._open_parts.close()

    def _open(self, kind: str, pins: Mapping[str, int], make: Callable[[str, int], P]) -> dict[str, P]:
        opened: dict[str, P] = {}
        for name, pin in pins.items():
            part = f"{kind} {name!r}"
            reason = self._taken.get(pin)
            if reason is None:
                try:
                    opened[name] = make(name, pin)
                except Exception as error:  # lgpio.error has no base class of its own
                    reason = _reason(error)
                else:
                    self._open_parts.callback(opened[name].close)
                    self._taken[pin] = f"is already used by {part}"
                    continue
            self.faults.append(PanelFault(part, pin, reason))
        return opened


def _reason(error: Exception) -> str:
    if isinstance(error, PinInvalidPin):
        return "does not exist on this board"
    if isinstance(error, GPIOPinInUse):
        return "is already in use in this program"
    if "busy" in str(error).lower():  # lgpio.error: 'GPIO busy'
        return "is in use by another program"
    return f"cannot be used: {error}"
