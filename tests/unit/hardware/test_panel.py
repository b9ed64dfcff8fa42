"""The whole door, and what happens when a part of it is broken."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import Protocol

import pytest
from gpiozero import OutputDevice

from hardware.board import DoorWiring, Panel, PanelFault, load_board
from hardware.simulator import SimulatedPins
from tests.unit.hardware.conftest import Ear

BELL, LAMP, FRONT, CODEC_CLOCK = 17, 22, 27, 18


class OpenPanel(Protocol):
    """Opens a panel that differs from the usual one in what is given."""

    def __call__(
        self,
        board: str = ...,
        buttons: Mapping[str, int] | None = ...,
        lamps: Mapping[str, int] | None = ...,
        doors: Mapping[str, DoorWiring] | None = ...,
    ) -> Panel: ...


class KernelError(Exception):
    """Like what lgpio raises, which has no other base class."""


@pytest.fixture
def opened(pins: SimulatedPins, ear: Ear[str, bool]) -> Iterator[OpenPanel]:
    panels: list[Panel] = []

    def panel(
        board: str = "simulated",
        buttons: Mapping[str, int] | None = None,
        lamps: Mapping[str, int] | None = None,
        doors: Mapping[str, DoorWiring] | None = None,
    ) -> Panel:
        panels.append(
            Panel(
                load_board(board),
                {"bell": BELL} if buttons is None else buttons,
                {"status": LAMP} if lamps is None else lamps,
                {"front": DoorWiring(FRONT, 0.5)} if doors is None else doors,
                ear,
                ear,
                pins,
            )
        )
        return panels[-1]

    yield panel
    for each in panels:
        each.close()


def test_a_healthy_panel_works_as_a_whole(
    opened: OpenPanel, pins: SimulatedPins, ear: Ear[str, bool]
) -> None:
    panel = opened()
    assert panel.faults == []
    pins.press(BELL)
    panel.show("ringing")
    panel.release("front", 3600)
    assert panel.snapshot() == {
        "buttons": {"bell": True},
        "lamps": {"status": {"pattern": "ringing", "lit": True}},
        "doors": {"front": {"released": True, "contact": None}},
    }
    panel.lock("front")
    assert ear.all() == [("bell", True), ("front", True), ("front", False)]


def test_the_snapshot_is_ready_for_json(opened: OpenPanel) -> None:
    assert json.loads(json.dumps(opened().snapshot()))["doors"]["front"]["released"] is False


def test_strikes_are_opened_first_and_buttons_last(
    opened: OpenPanel, pins: SimulatedPins, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    real_pin = pins.pin

    def pin(name: int) -> object:
        if name not in order:
            order.append(name)
        return real_pin(name)

    monkeypatch.setattr(pins, "pin", pin)
    opened()
    assert order == [FRONT, LAMP, BELL]


def test_a_reserved_pin_is_a_fault_and_the_rest_works(
    opened: OpenPanel, pins: SimulatedPins, ear: Ear[str, bool]
) -> None:
    panel = opened("respeaker-2mic", lamps={"status": CODEC_CLOCK})
    (fault,) = panel.faults
    assert str(fault) == "lamp 'status': pin 18 is reserved for the codec, I2S bit clock"
    assert (fault.part, fault.pin) == ("lamp 'status'", CODEC_CLOCK)
    panel.show("ready")
    pins.press(BELL)
    assert ear.next() == ("bell", True)


def test_a_pin_used_twice_stays_with_the_door(opened: OpenPanel) -> None:
    panel = opened(buttons={"bell": FRONT})
    assert [str(fault) for fault in panel.faults] == ["button 'bell': pin 27 is already used by door 'front'"]
    panel.release("front", 3600)
    assert panel.snapshot()["doors"]["front"]["released"]


def test_two_buttons_on_one_pin_are_one_button_and_a_fault(opened: OpenPanel) -> None:
    panel = opened(buttons={"first": BELL, "second": BELL})
    assert [str(fault) for fault in panel.faults] == [
        "button 'second': pin 17 is already used by button 'first'"
    ]
    assert panel.snapshot()["buttons"] == {"first": False}


def test_a_pin_that_does_not_exist_is_a_fault(opened: OpenPanel) -> None:
    assert [str(fault) for fault in opened(buttons={"bell": 99}).faults] == [
        "button 'bell': pin 99 does not exist on this board"
    ]


def test_a_pin_held_in_this_program_is_a_fault(opened: OpenPanel, pins: SimulatedPins) -> None:
    holder = OutputDevice(LAMP, pin_factory=pins)
    assert [str(fault) for fault in opened().faults] == [
        "lamp 'status': pin 22 is already in use in this program"
    ]
    holder.close()


def test_a_pin_held_by_another_program_is_a_fault(
    opened: OpenPanel, pins: SimulatedPins, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_pin = pins.pin

    def pin(name: int) -> object:
        if name == FRONT:
            raise KernelError("'GPIO busy'")
        return real_pin(name)

    monkeypatch.setattr(pins, "pin", pin)
    panel = opened()
    assert [str(fault) for fault in panel.faults] == ["door 'front': pin 27 is in use by another program"]
    with pytest.raises(PanelFault, match="door 'front': pin 27 is in use by another program"):
        panel.release("front", 1)
    panel.lock_all()


def test_anything_else_that_is_wrong_is_told_in_its_own_words(opened: OpenPanel) -> None:
    panel = opened(doors={"front": DoorWiring(FRONT, 0)})
    assert [str(fault) for fault in panel.faults] == [
        "door 'front': pin 27 cannot be used: limit_seconds must be above 0 and finite, not 0"
    ]


def test_a_door_that_is_not_there_is_a_key_error(opened: OpenPanel) -> None:
    with pytest.raises(KeyError, match="garage"):
        opened().release("garage", 1)


def test_closing_locks_and_gives_every_pin_back(opened: OpenPanel, pins: SimulatedPins) -> None:
    panel = opened()
    panel.release("front", 3600)
    panel.close()
    panel.close()
    assert not pins.pin(FRONT).state
    assert opened().faults == []


def test_one_strike_that_will_not_lock_does_not_keep_the_other_open(
    opened: OpenPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = opened(doors={"front": DoorWiring(FRONT, 60), "yard": DoorWiring(23, 60)})
    panel.release("front", 60)
    panel.release("yard", 60)
    real_off = OutputDevice.off
    broken = chain([OSError("the chip is gone")], repeat(None))

    def off(device: OutputDevice) -> None:
        if error := next(broken):
            raise error
        real_off(device)

    monkeypatch.setattr(OutputDevice, "off", off)
    with pytest.raises(OSError, match="the chip is gone"):
        panel.lock_all()
    released = [door["released"] for door in panel.snapshot()["doors"].values()]
    assert sorted(released) == [False, True]


def test_a_program_that_ends_without_closing_locks_first() -> None:
    program = """
from hardware.board import DoorWiring, Panel, load_board
from hardware.simulator import SimulatedPins
pins = SimulatedPins()
pins.watch(27, lambda level, at: print(level, flush=True))
ignore = lambda name, on: None
panel = Panel(load_board("simulated"), {}, {}, {"front": DoorWiring(27, 60)}, ignore, ignore, pins)
panel.release("front", 60)
raise SystemExit(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.split()) == (3, ["True", "False"])


def test_the_drivers_bring_neither_the_application_nor_asyncio() -> None:
    program = (
        "import sys, hardware.board, hardware.pins, hardware.codec, hardware.simulator\n"
        "print(sorted({'asyncio', 'intercom', 'lgpio', 'pyaudio'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
