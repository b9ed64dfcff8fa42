"""The whole door, and what happens when a part of it is broken."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Protocol

import pytest
from gpiozero import OutputDevice

from deploy.demo.program import wait_until
from hardware.board import Panel, load_board
from hardware.simulator import SimulatedPins
from hardware.strike import Strikes
from tests.unit.hardware.conftest import Ear, Guarded

BELL, LAMP, FRONT, CODEC_CLOCK = 17, 22, 27, 18


class OpenPanel(Protocol):
    """Opens a panel that differs from the usual one in what is given."""

    def __call__(
        self,
        board: str = ...,
        buttons: Mapping[str, int] | None = ...,
        lamps: Mapping[str, int] | None = ...,
        strikes: Strikes | None = ...,
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
        strikes: Strikes | None = None,
    ) -> Panel:
        panels.append(
            Panel(
                load_board(board),
                {"bell": BELL} if buttons is None else buttons,
                {"status": LAMP} if lamps is None else lamps,
                {"front": FRONT},
                ear,
                strikes,
                pins,
            )
        )
        return panels[-1]

    yield panel
    for each in panels:
        each.close()


def test_a_healthy_panel_works_as_a_whole(
    opened: OpenPanel, pins: SimulatedPins, ear: Ear[str, bool], guarded: Guarded
) -> None:
    panel = opened(strikes=guarded.strikes)
    assert panel.faults == []
    pins.press(BELL)
    panel.show("ringing")
    guarded.says("locked\tfront\t0", "released\tfront\t0", "ready")
    assert guarded.moved.next() == ("front", True, 0)
    assert wait_until(lambda: bool(guarded.strikes.released), 5), "all of the greeting was heard"
    assert panel.snapshot() == {
        "buttons": {"bell": True},
        "lamps": {"status": {"pattern": "ringing", "lit": True}},
        "doors": {"front": {"released": True, "contact": None}},
    }
    assert ear.all() == [("bell", True)]
    panel.close()
    assert guarded.moved.next() == ("front", False, 0)


def test_the_snapshot_is_ready_for_json(opened: OpenPanel) -> None:
    assert set(json.loads(json.dumps(opened().snapshot()))) == {"buttons", "lamps", "doors"}


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


def test_the_drivers_bring_neither_the_application_nor_asyncio() -> None:
    program = (
        "import sys, hardware.board, hardware.pins, hardware.codec, hardware.simulator\n"
        "print(sorted({'asyncio', 'intercom', 'lgpio', 'pyaudio'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_closing_gives_every_pin_back(opened: OpenPanel) -> None:
    panel = opened()
    panel.close()
    panel.close()
    assert opened().faults == []


def test_any_other_fault_is_told_in_its_own_words(
    opened: OpenPanel, pins: SimulatedPins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pin(name: int) -> object:
        raise KernelError({LAMP: "'GPIO busy'", BELL: "the chip is gone"}[name])

    monkeypatch.setattr(pins, "pin", pin)
    assert [str(fault) for fault in opened().faults] == [
        "lamp 'status': pin 22 is in use by another program",
        "button 'bell': pin 17 cannot be used: the chip is gone",
    ]
