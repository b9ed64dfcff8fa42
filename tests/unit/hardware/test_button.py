"""A visitor presses; nothing is lost, nothing is filtered."""

import logging
from collections.abc import Iterator

import pytest
from gpiozero import Device, GPIOPinInUse

from hardware.button import Button
from hardware.simulator import SimulatedPins
from tests.unit.hardware.conftest import Ear

BELL = 17


@pytest.fixture
def bell(pins: SimulatedPins, ear: Ear[str, bool]) -> Iterator[Button]:
    button = Button("bell", BELL, ear, pins)
    yield button
    button.close()


def test_a_press_and_its_end_are_two_edges(bell: Button, pins: SimulatedPins, ear: Ear[str, bool]) -> None:
    pins.press(BELL)
    assert bell.is_pressed
    pins.release(BELL)
    assert not bell.is_pressed
    assert ear.all() == [("bell", True), ("bell", False)]


def test_every_edge_of_a_bouncing_contact_is_reported(
    bell: Button, pins: SimulatedPins, ear: Ear[str, bool]
) -> None:
    pins.bounce(BELL, edges=9, seconds=0.02)
    assert [ear.next() for _ in range(9)] == [("bell", edge % 2 == 0) for edge in range(9)]
    assert bell.is_pressed


def test_a_short_press_right_after_a_bounce_is_not_swallowed(
    bell: Button, pins: SimulatedPins, ear: Ear[str, bool]
) -> None:
    for _ in range(3):
        pins.press(BELL)
        pins.release(BELL)
    assert len(ear.all()) == 6


def test_a_button_held_at_opening_is_reported_once(pins: SimulatedPins, ear: Ear[str, bool]) -> None:
    pins.press(BELL)
    button = Button("bell", BELL, ear, pins)
    assert ear.all() == [("bell", True)]
    pins.release(BELL)
    assert ear.all() == [("bell", False)]
    button.close()


def test_a_button_at_rest_says_nothing_at_opening(bell: Button, ear: Ear[str, bool]) -> None:
    assert ear.all() == []


def test_a_listener_that_fails_hears_the_next_edge_too(
    pins: SimulatedPins, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bool] = []

    def listener(name: str, pressed: bool) -> None:
        heard.append(pressed)
        raise RuntimeError("the loop is closed")

    button = Button("bell", BELL, listener, pins)
    with caplog.at_level(logging.ERROR):
        pins.press(BELL)
        pins.release(BELL)
    assert heard == [True, False]
    assert "bell" in caplog.text
    button.close()


def test_a_closed_button_is_silent_and_gives_its_pin_back(pins: SimulatedPins, ear: Ear[str, bool]) -> None:
    button = Button("bell", BELL, ear, pins)
    button.close()
    button.close()
    pins.press(BELL)
    assert ear.all() == []
    pins.release(BELL)
    Button("bell", BELL, ear, pins).close()


def test_a_pin_cannot_be_two_buttons(bell: Button, pins: SimulatedPins, ear: Ear[str, bool]) -> None:
    with pytest.raises(GPIOPinInUse):
        Button("second", BELL, ear, pins)


def test_gpiozeros_global_factory_is_never_made(bell: Button) -> None:
    assert Device.pin_factory is None
