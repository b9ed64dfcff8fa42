"""The step loop on a clock that jumps."""

import asyncio
import logging
import threading

import pytest

from intercom.core.actions import Action, Dial, HangUp, Lock, Play, RecordAccess, Release, ShowLamp
from intercom.core.events import (
    ButtonPressed,
    ButtonUp,
    CallAnswered,
    CallEnded,
    DigitReceived,
    HealthChanged,
    OpenRequested,
    Stopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import Lamp, Tone
from intercom.core.state import Calling, Idle
from intercom.runtime import RECENT_STEPS, Runtime, Step
from tests.fakes import FLAT, FRONT_CODE, POLICY, JumpingLoop, live, timeless, turns

START = 1000.0
OPENED = (Release("front", 5), RecordAccess("front", "operator", "", True, ""))


def loop() -> JumpingLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, JumpingLoop)
    return running


@timeless
async def test_actions_are_carried_out_in_order_and_returned() -> None:
    done: list[Action] = []
    runtime = Runtime(POLICY, done.append)
    returned = runtime.post(ButtonPressed("bell"))
    assert done == [Dial(1, FLAT), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]
    assert list(returned) == done
    assert isinstance(runtime.state.phase, Calling)
    runtime.close()


@timeless
async def test_deadlines_are_met_at_their_time() -> None:
    done: list[tuple[float, Action]] = []
    runtime = Runtime(POLICY, lambda action: done.append((loop().time(), action)))
    runtime.post(OpenRequested("front"))
    await asyncio.sleep(60)
    assert (START, OPENED[0]) in done
    assert [round(at, 6) for at, action in done if action == Lock("front")] == [START + 5]
    runtime.close()


@timeless
async def test_a_nearer_deadline_does_not_wait_for_a_farther_one() -> None:
    done: list[tuple[float, Action]] = []
    runtime = Runtime(POLICY, lambda action: done.append((round(loop().time() - START, 6), action)))
    runtime.post(ButtonPressed("bell"))
    await asyncio.sleep(1)
    runtime.post(OpenRequested("front"))
    runtime.post(OpenRequested("gate"))
    await asyncio.sleep(60)
    assert [entry for entry in done if isinstance(entry[1], Lock | HangUp)] == [
        (4, Lock("gate")), (6, Lock("front")), (25, HangUp(1))
    ]  # fmt: skip
    runtime.close()


@timeless
async def test_a_deadline_that_is_due_comes_before_what_waits_in_the_inbox() -> None:
    done: list[Action] = []
    runtime = Runtime(POLICY, done.append)
    runtime.post(OpenRequested("front"))
    done.clear()
    loop().oversleep(5)
    for _ in range(1000):
        loop().call_soon(runtime.post, ButtonUp("bell"))
    loop().call_soon(done.clear)
    runtime.post(ButtonUp("bell"))
    assert done[0] == Lock("front")
    await turns()
    assert done == [], "and it is met only once"
    runtime.close()


@timeless
async def test_without_a_deadline_nothing_is_left_on_the_loop() -> None:
    runtime = Runtime(POLICY, lambda action: None)
    runtime.post(OpenRequested("front"))
    assert runtime._timer is not None
    runtime.post(Stopped())
    assert runtime._timer is None
    runtime.close()


@timeless
async def test_after_closing_no_deadline_is_met() -> None:
    done: list[Action] = []
    runtime = Runtime(POLICY, done.append)
    runtime.post(OpenRequested("front"))
    done.clear()
    runtime.close()
    await asyncio.sleep(60)
    assert done == []


@live
async def test_other_threads_post_without_waiting() -> None:
    stepped = asyncio.Event()
    runtime = Runtime(POLICY, lambda action: stepped.set())
    thread = threading.Thread(target=runtime.post_from_thread, args=(ButtonPressed("bell"),))
    thread.start()
    thread.join()
    assert isinstance(runtime.state.phase, Idle), "the step is taken on the loop's own thread"
    await stepped.wait()
    assert isinstance(runtime.state.phase, Calling)
    runtime.close()


# What is told


@timeless
async def test_steps_are_told_until_the_watcher_has_enough() -> None:
    told: list[Step] = []
    runtime = Runtime(POLICY, lambda action: None)
    unwatch = runtime.watch(told.append)
    runtime.post(OpenRequested("front"))
    unwatch()
    unwatch()
    runtime.post(OpenRequested("gate"))
    lamp_and_tone = (ShowLamp(Lamp.DOOR_OPEN), Play(Tone.DOOR_OPEN))
    assert told == [Step(START, OpenRequested("front"), "Idle", "Idle", OPENED + lamp_and_tone)]
    assert [step.event for step in runtime.recent] == [OpenRequested("front"), OpenRequested("gate")]
    runtime.close()


@timeless
async def test_only_steps_that_say_something_are_told() -> None:
    told: list[Step] = []
    runtime = Runtime(POLICY, lambda action: None)
    runtime.watch(told.append)
    runtime.post(ButtonUp("bell"))
    runtime.post(TimePassed())
    runtime.post(CallEnded(9, 200, "OK"))
    assert told == []
    runtime.post(StrikeMoved("front", True))
    runtime.post(HealthChanged("sound", "no card"))
    runtime.post(HealthChanged("pin", "taken"))
    runtime.post(ButtonPressed("bell"))
    runtime.post(CallAnswered(1))
    assert [(type(step.event).__name__, step.before, step.after) for step in told] == [
        ("StrikeMoved", "Idle", "Idle"),
        ("HealthChanged", "Idle", "Idle"),
        ("HealthChanged", "Idle", "Idle"),
        ("ButtonPressed", "Idle", "Calling"),
        ("CallAnswered", "Calling", "Talking"),
    ]
    runtime.close()


@timeless
async def test_a_watcher_may_leave_while_it_is_told() -> None:
    runtime = Runtime(POLICY, lambda action: None)
    told: list[Step] = []

    def once(step: Step) -> None:
        told.append(step)
        unwatch()

    unwatch = runtime.watch(once)
    runtime.post(OpenRequested("front"))
    runtime.post(OpenRequested("gate"))
    assert [step.event for step in told] == [OpenRequested("front")]
    runtime.close()


@timeless
async def test_only_the_newest_steps_are_kept() -> None:
    runtime = Runtime(POLICY, lambda action: None)
    for _ in range(RECENT_STEPS + 10):
        runtime.post(OpenRequested("vault"))
    assert len(runtime.recent) == RECENT_STEPS
    runtime.close()


def test_a_step_is_one_line_of_log_and_shows_no_digit(caplog: pytest.LogCaptureFixture) -> None:
    @timeless
    async def visit() -> None:
        runtime = Runtime(POLICY, lambda action: None)
        runtime.post(ButtonPressed("bell"))
        runtime.post(CallAnswered(1))
        for digit in FRONT_CODE + "9876#":
            runtime.post(DigitReceived(1, digit))
        runtime.close()

    with caplog.at_level(logging.DEBUG, "intercom"):
        visit()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == (
        "ButtonPressed(button='bell'): Idle -> Calling; Dial(call=1, to='sip:flat1@site.example', via='')"
        "; ShowLamp(lamp=<Lamp.CALLING: 'calling'>); Play(tone=<Tone.HEARD: 'heard'>)"
    )
    assert len(lines) == 4
    assert lines[2].startswith("DigitReceived(call=1, digit=*): Talking -> Talking; Release(door='front'")
    assert not [line for line in lines if "4711" in line or "9876" in line or "\n" in line]
