"""The simulated board behaves like wiring."""

import pytest
from gpiozero import InputDevice, OutputDevice

from hardware.simulator import SimulatedPins
from tests.unit.hardware.conftest import Ear

BELL, LAMP = 17, 22


def test_a_push_holds_and_lets_go_without_blocking(pins: SimulatedPins, levels: Ear[bool, float]) -> None:
    pins.watch(BELL, levels)
    device = InputDevice(BELL, pull_up=True, pin_factory=pins)
    levels.next()  # the pull-up
    pins.push(BELL, 0.05)
    assert device.is_active
    (down, pressed_at), (up, released_at) = levels.next(), levels.next()
    assert (down, up) == (False, True)
    assert released_at - pressed_at >= 0.05
    device.close()


def test_a_held_contact_is_stronger_than_the_pull_up(pins: SimulatedPins) -> None:
    pins.press(BELL)
    device = InputDevice(BELL, pull_up=True, pin_factory=pins)
    assert device.is_active
    pins.release(BELL)
    assert not device.is_active
    device.close()


def test_a_bounce_ends_where_its_edges_lead(pins: SimulatedPins, levels: Ear[bool, float]) -> None:
    device = InputDevice(BELL, pull_up=True, pin_factory=pins)
    pins.watch(BELL, levels)
    pins.bounce(BELL, edges=4, seconds=0.01)
    assert [levels.next()[0] for _ in range(4)] == [False, True, False, True]
    pins.press(BELL)
    pins.bounce(BELL, edges=2, seconds=0.01)
    assert [levels.next()[0] for _ in range(3)] == [False, True, False]
    device.close()


def test_an_output_can_be_watched_and_not_pressed(pins: SimulatedPins, levels: Ear[bool, float]) -> None:
    pins.watch(LAMP, levels)
    device = OutputDevice(LAMP, pin_factory=pins)
    device.on()
    assert levels.next()[0] is True
    with pytest.raises(ValueError, match="pin 22 is an output"):
        pins.press(LAMP)
    device.close()


def test_a_pin_that_does_not_exist_cannot_be_pressed(pins: SimulatedPins) -> None:
    with pytest.raises(ValueError, match="99"):
        pins.press(99)


def test_closing_ends_a_long_push(pins: SimulatedPins) -> None:
    pins.push(BELL, 3600)
    pins.close()  # the thread check of this folder sees whether it did
