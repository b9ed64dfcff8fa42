"""Builds every part of the station from its settings, starts them, and stops them in reverse.

The only importer of `hardware`. A part that does not work is reported and left out; the rest rings.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

from hardware.board import Panel, load_board
from hardware.pins import PinsUnavailable, open_pin_factory
from hardware.simulator import SimulatedPins
from hardware.strike import FEED_SECONDS, OwnGuardian, StrikeFault, Strikes, SystemGuardian, lock_all
from intercom import __version__
from intercom.core.access import caller_of, may_talk
from intercom.core.actions import (
    Action,
    Alert,
    Answer,
    Connect,
    Dial,
    HangUp,
    Lock,
    Mix,
    Play,
    RecordAccess,
    RecordCall,
    RecordPress,
    RecordRing,
    Refuse,
    Release,
    SendMessage,
    ShowLamp,
    ShowPresence,
    Warn,
)
from intercom.core.events import (
    ButtonDown,
    ButtonPressed,
    ButtonUp,
    HealthChanged,
    HoursChanged,
    Stopped,
    StrikeMoved,
)
from intercom.core.guide import Lamp, lamp_of
from intercom.journal.database import Bounds
from intercom.journal.records import RecordService, RecordSettings
from intercom.journal.store import Journal
from intercom.runtime import Runtime
from intercom.settings.hours import hours_at, until_next_look
from intercom.settings.loading import Mistake, callers, policy, read_password
from intercom.settings.schema import Settings
from intercom.sip.config import AccountConfig, LineConfig, nat_of
from intercom.sip.line import Line
from intercom.sip.outbox import Outbox
from intercom.sip.wire import address_of
from intercom.system.notify import notify, watchdog_seconds
from intercom.system.places import GUARDIAN, guardian_socket

log = logging.getLogger(__name__)

RINGING, OK = 180, 200
PUSH_SECONDS = 0.05


class Station:
    """A door station, from its settings to its last breath. Lives on the event loop's thread."""

    def __init__(self, settings: Settings, settings_file: Path, socket: Path, journal: Path) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            settings: checked settings.
            settings_file: where they came from; the password file is seen from its folder.
            socket: of the control interface.
            journal: the database of records.
        """
        self._settings = settings
        self._settings_file = settings_file
        self._socket = socket
        self._journal_file = journal
        self._counters: Counter[str] = Counter()
        self._panel: Panel | None = None
        self._strikes: Strikes | None = None
        self._newest: dict[str, int] = {}
        self._feed: asyncio.TimerHandle | None = None
        self._pins: object = None
        self._death = ""

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Returns the exit code: 0, or 1 if a part that must live has died.

        Raises:
            OSError: the control socket cannot be used, for instance because another service answers on it.
        """
        # Automatic collection could run on any thread and destroy a pjsua2 object there, which aborts the
        # process: the SIP thread collects.
        gc.disable()
        # pjsip looks up the names that stand in messages (Contact, Record-Route, SDP), and waits: a silent
        # name server would hold the SIP thread for 10 s each time.
        os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = self._loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._finish, 0)
        self._runtime = Runtime(policy(self._settings), self._perform)
        async with AsyncExitStack() as parts:
            parts.callback(self._runtime.close)
            kept = self._settings.record
            self._journal = Journal(
                self._journal_file, self._journal_health, Bounds(kept.keep_days, kept.keep_megabytes)
            )
            parts.callback(self._journal.close)
            self._record_start()
            parts.callback(self._record_stop)
            self._open_panel(parts)
            self._line = Line(self._line_config(), self._runtime.post, self._died)
            self._outbox = Outbox(self._settings.station.name, self._line.write)
            self._line.start()
            parts.push_async_callback(self._line.stop)
            parts.callback(self._outbox.close)
            await self._open_control(parts)
            self._look_for_sound()
            parts.callback(self._runtime.post, Stopped())
            hours = asyncio.create_task(self._keep_hours(), name="hours")
            parts.callback(hours.cancel)
            watchdog = asyncio.create_task(self._feed_watchdog(), name="watchdog")
            parts.callback(watchdog.cancel)
            notify("READY=1")
            code = await self._end
            notify("STOPPING=1")
        return code

    def _finish(self, code: int) -> None:
        if not self._end.done():
            self._end.set_result(code)

    def _record_start(self) -> None:
        self._journal.append(RecordService("started", __version__))
        with contextlib.suppress(OSError):  # it was there a moment ago, and will be at the next start
            self._journal.append(RecordSettings(self._settings_file.read_bytes()))

    def _record_stop(self) -> None:
        self._journal.append(RecordService("stopped", __version__, self._death))

    def _died(self, reason: str) -> None:
        log.critical("the SIP side has died: %s", reason)
        self._death = f"the SIP side has died: {reason}"
        self._finish(1)

    async def _keep_hours(self) -> None:
        """Tell the core what time of day it is for each button, whenever that changes."""
        buttons = self._settings.button
        while any(button.hours for button in buttons):
            hours = hours_at(buttons, datetime.now())  # noqa: DTZ005 - by the clock on the wall
            if hours != self._runtime.state.hours:
                self._runtime.post(HoursChanged(hours))
            await asyncio.sleep(until_next_look(datetime.now()))  # noqa: DTZ005

    async def _feed_watchdog(self) -> None:
        """Tell systemd that we live, but only after the SIP thread has done a job since the last time."""
        seconds = watchdog_seconds()
        while seconds is not None:
            await self._line.ping()
            notify("WATCHDOG=1")
            await asyncio.sleep(seconds / 2)

    # Parts

    def _open_panel(self, parts: AsyncExitStack) -> None:
        settings = self._settings
        try:
            board = load_board(settings.station.board)
            pins = open_pin_factory(board)
        except (PinsUnavailable, ValueError) as error:
            self._runtime.post(HealthChanged("panel", str(error)))
            return
        parts.callback(pins.close)
        self._pins = pins
        # Simulated strikes are nobody's but ours, unless a guardian for them is named.
        own = board.gpio == "mock" and guardian_socket() == GUARDIAN
        self._strikes = Strikes(
            [door.name for door in settings.door],
            OwnGuardian(self._settings_file) if own else SystemGuardian(guardian_socket()),
            self._strike_moves,
            lambda door, fault: self._runtime.post_from_thread(HealthChanged(f"door {door!r}", fault)),
        )
        self._panel = Panel(
            board,
            {button.name: button.pin for button in settings.button},
            {lamp.name: lamp.pin for lamp in settings.lamp},
            {door.name: door.pin for door in settings.door},
            self._contact,
            self._strikes,
            pins,
        )
        parts.callback(self._panel.close)
        for fault in self._panel.faults:
            self._runtime.post(HealthChanged(fault.part, f"pin {fault.pin} {fault.reason}"))
        self._panel.show(lamp_of(self._runtime.state).value)

    def _contact(self, button: str, down: bool) -> None:
        """Take an edge on the thread of the pins, with its own time: the event loop may be late."""
        edge = ButtonDown if down else ButtonUp
        self._runtime.post_from_thread(edge(button, time.monotonic()))

    def _line_config(self) -> LineConfig:
        settings, file = self._settings, self._settings_file
        device, turn = settings.sound.device, settings.network.turn
        return LineConfig(
            name=settings.station.name,
            accounts=[
                AccountConfig.of(account, read_password(account.password_file, file), file.parent)
                for account in settings.account
            ],
            port=settings.sip.port,
            name_servers=settings.network.servers,
            device=None if device == "none" else functools.partial(_find_device, device),
            caller=functools.partial(caller_of, callers(settings.incoming)),
            may_talk=functools.partial(may_talk, *_acquaintances(settings)),
            agent=f"intercom/{__version__}",
            nat=nat_of(settings.network, read_password(turn.password_file, file) if turn else ""),
        )

    async def _open_control(self, parts: AsyncExitStack) -> None:
        # Imported late: neither is needed to ring.
        from intercom.control.handlers import Controls
        from intercom.control.server import ControlServer

        controls = Controls(
            self._settings,
            self._runtime,
            self._line,
            self._journal,
            self._panel,
            self._outbox,
            self._counters,
            self._press,
        )
        server = ControlServer(self._socket, controls.handlers())
        await server.start()
        parts.push_async_callback(server.stop)

    def _look_for_sound(self) -> None:
        """Say at the start that the card is missing, not at the first call."""
        device = self._settings.sound.device
        if device != "none":
            try:
                _find_device(device)
            except (OSError, ValueError) as error:
                self._runtime.post(HealthChanged("sound", str(error)))

    def _journal_health(self, fault: str | None) -> None:
        self._runtime.post_from_thread(HealthChanged("journal", fault))

    async def _press(self, button: str) -> None:
        """Press a button for an operator: the contact itself where it is simulated, its meaning elsewhere.

        Done when the contact has settled again, so that the next press is a new one.
        """
        if not isinstance(self._pins, SimulatedPins):
            self._runtime.post(ButtonPressed(button))
            return
        pin = next(each.pin for each in self._settings.button if each.name == button)
        settle = self._settings.timing.settle_seconds
        self._pins.push(pin, settle + PUSH_SECONDS)
        await asyncio.sleep(2 * settle + 2 * PUSH_SECONDS)

    # Actions

    def _perform(self, action: Action) -> None:
        match action:
            case Dial(call, to, via):
                self._counters["calls_placed"] += 1
                self._line.dial(call, to, via)
            case Alert(call):
                self._line.respond(call, RINGING)
            case Answer(call):
                self._counters["calls_accepted"] += 1
                self._line.respond(call, OK)
            case Refuse(call, status):
                self._counters["calls_refused"] += 1
                self._line.respond(call, status)
            case HangUp(call):
                self._line.hang_up(call)
            case Mix(calls):
                self._line.mix(calls)
            case Warn(calls):
                self._line.warn(calls)
            case Connect(call, hearing):
                self._line.connect(call, hearing)
            case Play(tone):
                self._line.play(tone)
            case ShowLamp(lamp):
                self._show(lamp)
            case Release(door, seconds):
                self._counters["releases"] += 1
                self._move_strike(door, seconds)
            case Lock(door):
                self._move_strike(door, None)
            case RecordCall() | RecordRing() | RecordPress() | RecordAccess():
                self._journal.append(action)
            case SendMessage(to, text):
                self._outbox.put(to, text)
            case ShowPresence():
                self._line.show(action)

    def _show(self, lamp: Lamp) -> None:
        if self._panel is not None:
            self._panel.show(lamp.value)

    def _move_strike(self, door: str, seconds: float | None) -> None:
        """Release a strike for some seconds, or lock it; one that cannot be driven is a fault, not an end."""
        if self._strikes is None:
            return
        if seconds is None:
            self._strikes.lock(door)
            return
        try:
            self._newest[door] = self._strikes.release(door, seconds)
        except StrikeFault as fault:
            log.warning("door %r was not released: %s", door, fault)
            self._runtime.post_from_thread(StrikeMoved(door, False))
        else:
            self._feed_guardian()

    def _feed_guardian(self) -> None:
        """Tell the guardian from this loop that the loop lives, as long as a door is released."""
        if self._feed is not None:
            self._feed.cancel()
        again = self._strikes is not None and self._strikes.feed()
        self._feed = self._loop.call_later(FEED_SECONDS, self._feed_guardian) if again else None

    def _strike_moves(self, door: str, released: bool, number: int) -> None:
        self._loop.call_soon_threadsafe(self._strike_moved, door, released, number)

    def _strike_moved(self, door: str, released: bool, number: int) -> None:
        """Take the guardian's word; on a release before the newest one it comes too late."""
        if released or number == self._newest.get(door, number):
            self._runtime.post(StrikeMoved(door, released))


def _acquaintances(settings: Settings) -> tuple[frozenset[str], frozenset[str]]:
    """Whom a visitor may be sent to: who is rung or may call, and everybody at the account's host."""
    rung = (address_of(to) for button in settings.button for to in button.rung)
    known = frozenset(address.lower() for address in (*rung, *callers(settings.incoming)))
    return known, frozenset().union(*(account.hosts for account in settings.account))


def _find_device(device: str) -> str:
    # Imported when the sound is first opened: it is not needed to ring.
    from hardware.codec import find

    return find(device)


def board_mistakes(settings: Settings, path: Path) -> list[Mistake]:
    """What the board says against the settings: it is unknown, or a pin has another purpose on it."""
    try:
        board = load_board(settings.station.board)
    except ValueError as error:
        return [Mistake(path, "station.board", str(error))]
    pins = {
        **{f"button[{number}].pin": part.pin for number, part in enumerate(settings.button, 1)},
        **{f"lamp[{number}].pin": part.pin for number, part in enumerate(settings.lamp, 1)},
        **{f"door[{number}].pin": part.pin for number, part in enumerate(settings.door, 1)},
    }
    return [
        Mistake(path, key, f"{pin} is reserved for {board.reserved[pin]}")
        for key, pin in pins.items()
        if pin in board.reserved
    ]


def lock_doors(path: Path) -> int:
    """Lock every strike, by the guardian or, where there is none, by its program; returns its exit code.

    Args:
        path: the settings.

    Raises:
        OSError: the guardian is there, and not for us or not alive.
    """
    from hardware import guardian  # another program's

    try:
        lock_all(SystemGuardian(guardian_socket()))
    except (FileNotFoundError, ConnectionError):
        return guardian.main(["--lock", str(path)])
    return 0
