"""`intercom check`: find what keeps the station from ringing.

Rule: each step takes what the steps before it have found, and gives what later ones need, or None when it
has failed; what needs that is skipped. Nothing is taken away from a running service.
"""

import asyncio
import gc
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intercom import __version__
from intercom.cli import servers
from intercom.cli.main import FAILED, WRONG, config_option, json_option, print_json, socket_option
from intercom.cli.step import Found, Step, within
from intercom.control import client
from intercom.settings.loading import Mistake, WrongSettings, load, read_password
from intercom.settings.schema import Account, Settings
from intercom.system.places import control_socket, guardian_socket, settings_file

if TYPE_CHECKING:
    from gpiozero import Factory

    from hardware.board import BoardDescription
    from intercom.core.events import Event
    from intercom.sip.config import LineConfig

LISTEN_SECONDS = 0.3
SOUND_SECONDS = 5.0
REGISTER_SECONDS = 6.0

Status = dict[str, Any]


@click.command()
@config_option
@socket_option
@json_option
def check(config: Path | None, socket: Path | None, as_json: bool) -> None:
    """Find what keeps the station from ringing, step by step."""
    logging.disable()  # the SIP side logs what is told here in our own words
    steps: list[Step] = []
    try:
        for step in _steps(config or settings_file(), socket or control_socket()):
            steps.append(step)
            if not as_json:
                click.echo(step)
    except Exception as error:  # an installer is helped by the steps before it, not by a traceback
        steps.append(Step("check", False, f"broke off: {type(error).__name__}: {error}", "report this"))
        if not as_json:
            click.echo(steps[-1])
    if as_json:
        print_json([asdict(step) for step in steps])
    failed = {step.step for step in steps if step.ok is False}
    sys.exit(WRONG if "settings" in failed else FAILED if failed else 0)


def _steps(path: Path, socket: Path) -> Iterator[Step]:
    settings = yield from _settings(path)
    status = yield from _service(socket, settings, path)
    if settings is None:
        names = ("pins", "sound", "name", "registrar", "register", "addresses", "codes")
        yield from _skipped("needs the settings", *names)
        return
    if status is None:
        yield from _skipped("needs the status of the service", "pins", "sound")
    elif status:
        yield from _service_pins(settings, status)
        yield from _service_sound(settings, status)
    else:
        yield from _pins(settings)
        yield from _sound(settings)
    for account in settings.account:
        for step in _account(account, settings, path, status):
            several = len(settings.account) > 1
            yield replace(step, detail=f"{account.name}: {step.detail}") if several else step
    yield from _relays(settings, path)
    yield from _addresses(settings)
    yield from _codes(settings)


def _relays(settings: Settings, path: Path) -> Iterator[Step]:
    from intercom.sip.config import nat_of

    turn = settings.network.turn
    password = read_password(turn.password_file, path) if turn else ""
    yield from servers.relays(nat_of(settings.network, password), settings.network)


def _account(account: Account, settings: Settings, path: Path, status: Status | None) -> Iterator[Step]:
    found = yield from servers.name(account, settings.network)
    if not found:
        yield from _skipped("needs the registrar's address", "registrar", "register")
    elif not (yield from servers.registrar(account, found, path.parent)):
        yield from _skipped("needs the registrar's answer", "register")
    elif status and _holds(account, status, settings, path):
        yield from _service_register(account, status)
    else:
        yield from _register(account, settings, path, REGISTER_SECONDS * len(found))


def _skipped(reason: str, *steps: str) -> Iterator[Step]:
    for step in steps:
        yield Step(step, None, reason)


# Settings and service


def _settings(path: Path) -> Found[Settings | None]:
    try:
        settings = load(path)
    except WrongSettings as wrong:
        for mistake in wrong.mistakes:
            yield Step("settings", False, str(mistake), _correction(mistake))
        return None
    yield Step("settings", True, f"{path}; the password file is there and protected")
    return settings


def _correction(mistake: Mistake) -> str:
    if not mistake.key:
        return "create it, name another with --config, or try with sudo"
    if mistake.key.endswith("password_file"):
        return "keep the password there as one line, chmod 600"
    return "correct it in the file"


def _service(socket: Path, settings: Settings | None, path: Path) -> Found[Status | None]:
    """Ask the service for its status, which is empty when it does not run."""
    try:
        status = client.ask(socket, "GET", "/status")
    except client.NotRunning as error:
        if isinstance(error.__context__, FileNotFoundError | ConnectionRefusedError):
            yield Step("service", True, "not running: pins and sound are tried here")
            return {}
        remedy = "sudo systemctl restart intercom"
        if isinstance(error.__context__, PermissionError):
            remedy = "use sudo, or join the group of the socket: ls -l shows it, usermod -aG joins"
        yield Step("service", False, str(error), remedy)
        return None
    except (client.Denied, ValueError) as error:
        yield Step("service", False, f"{socket} does not answer as ours does: {error}", "stop what it is")
        return None
    stale = settings is not None and _stale(status, settings, path)
    advice = "it runs with other settings than these: sudo systemctl restart intercom" if stale else ""
    yield Step("service", True, f"runs since {status['uptime_s']:.0f} s, version {status['version']}", advice)
    return status


def _stale(status: Status, settings: Settings, path: Path) -> bool:
    """Tell whether the service was started with other settings, or before they were changed."""
    wanted = [(account.name, account.uri, account.registrar) for account in settings.account]
    running = [(account["name"], account["uri"], account["registrar"]) for account in status["accounts"]]
    files = [path, *(path.parent / account.password_file for account in settings.account)]
    changed = max(file.stat().st_mtime for file in files if file.exists())
    return running != wanted or changed > time.time() - status["uptime_s"]


# Pins


def _pins(settings: Settings) -> Iterator[Step]:
    from hardware.board import load_board
    from hardware.pins import PinsUnavailable, open_pin_factory

    try:
        board = load_board(settings.station.board)
        pins = open_pin_factory(board)
    except ValueError as error:
        yield Step("pins", False, str(error), "correct station.board in the settings")
    except PinsUnavailable as error:
        yield Step("pins", False, str(error), _pins_remedy(str(error)))
    else:
        with closing(pins):
            yield from panel(settings, board, pins)


def panel(settings: Settings, board: "BoardDescription", pins: "Factory") -> Iterator[Step]:
    """Open every lamp and button for a moment, ask the guardian for the doors, and say how each is."""
    from hardware.board import Panel

    doors = {door.name: door.pin for door in settings.door}
    buttons = {button.name: button.pin for button in settings.button}
    lamps = {lamp.name: lamp.pin for lamp in settings.lamp}
    with closing(Panel(board, buttons, lamps, doors, lambda name, down: None, None, pins)) as opened:
        faults = {fault.part: f"pin {fault.pin} {fault.reason}" for fault in opened.faults}
        held = opened.snapshot()["buttons"]
    if board.gpio != "mock":
        faults |= _door_faults(settings)
    yield from _parts(settings, faults, held, "")


def _door_faults(settings: Settings) -> dict[str, str]:
    from hardware.strike import SystemGuardian, look

    socket = guardian_socket()
    try:
        known = look(SystemGuardian(socket))
    except OSError as error:
        known = dict.fromkeys(
            (door.name for door in settings.door), f"its guardian is not there: {error.strerror or error}"
        )
    unknown = "its guardian does not know it: are its settings older?"
    faults = {door.name: known.get(door.name, unknown) for door in settings.door}
    return {f"door {name!r}": fault for name, fault in faults.items() if fault}


def _service_pins(settings: Settings, status: Status) -> Iterator[Step]:
    faults: dict[str, str] = status["faults"]
    if "panel" in faults:
        yield Step("pins", False, faults["panel"], _pins_remedy(faults["panel"]))
        return
    yield from _parts(settings, faults, status["panel"]["buttons"], ", in the hands of the service")


def _parts(settings: Settings, faults: dict[str, str], held: dict[str, bool], where: str) -> Iterator[Step]:
    for kind, parts in (("button", settings.button), ("lamp", settings.lamp), ("door", settings.door)):
        for part in parts:
            name = f"{kind} {part.name!r}"
            if name in faults:
                yield Step("pins", False, f"{name}: {faults[name]}", _pin_remedy(faults[name]))
            elif kind == "button" and held.get(part.name):
                detail = f"{name}: pin {part.pin} is held down{where}"
                yield Step("pins", False, detail, "if nobody presses it, look for a short in its cable")
            else:
                yield Step("pins", True, f"{name}: pin {part.pin}{where}")


def _pins_remedy(fault: str) -> str:
    if "GPIOZERO_PIN_FACTORY" in fault:
        return "unset GPIOZERO_PIN_FACTORY in the shell and in the unit"
    if "has none" in fault:
        return "run it on the Raspberry Pi, or try without pins: station.board = 'simulated'"
    return "try with sudo, or join the group gpio"


def _pin_remedy(fault: str) -> str:
    if "another program" in fault:
        return "end the program that holds it: sudo gpioinfo names it"
    if "guardian" in fault:
        return "sudo systemctl restart intercom-guardian, and look at journalctl -u intercom-guardian"
    if "rests" in fault:
        return "wait for a minute; duty_percent says how much the strike bears"
    return "use another pin, see the wiring of the board in hardware/boards"


# Sound


def _sound(settings: Settings) -> Iterator[Step]:
    from hardware.codec import SILENCE_DBFS, measure

    device = settings.sound.device
    if device == "none":
        yield _no_sound()
        return
    try:
        level = within(SOUND_SECONDS, lambda: measure(device, LISTEN_SECONDS))
    except TimeoutError:
        yield Step("sound", False, f"{device!r} gives no sound", "look at dmesg, and restart the Pi")
    except (OSError, ValueError) as error:
        yield Step("sound", False, _sound_fault(device, error), _sound_remedy(error))
    else:
        heard = f"{device!r} hears {level.rms_dbfs:.0f} dBFS, peak {level.peak_dbfs:.0f} dBFS"
        if level.peak_dbfs <= SILENCE_DBFS:
            nothing = f"{device!r} can be opened, but its microphone hears nothing at all"
            yield Step("sound", False, nothing, "unmute and raise its capture with alsamixer")
        else:
            yield Step("sound", True, heard, "too loud: lower its capture in alsamixer" * level.clipped)


def _service_sound(settings: Settings, status: Status) -> Iterator[Step]:
    """Look for the card without opening it: the service may be in a call."""
    from hardware.codec import find

    device, fault = settings.sound.device, status["audio"]["fault"]
    if device == "none":
        yield _no_sound()
        return
    try:
        pcm = find(device)
    except (OSError, ValueError) as error:
        yield Step("sound", False, _sound_fault(device, error), _sound_remedy(error))
        return
    if fault is not None:
        yield Step("sound", False, f"{device!r}: {fault}", "end what else uses it: fuser -v /dev/snd/*")
        return
    yield Step("sound", True, f"{pcm!r} is there, in the hands of the service, which reports no fault")


def _no_sound() -> Step:
    return Step("sound", True, "none: calls will be silent", "set sound.device to the id of a card")


def _sound_fault(device: str, error: Exception) -> str:
    return str(error) if device in str(error) else f"{device!r} cannot be opened: {error}"


def _sound_remedy(error: Exception) -> str:
    from hardware.codec import CardMissing

    if isinstance(error, CardMissing | ValueError):
        return "set sound.device to the id of a card, or plug the card in; arecord -L lists what there is"
    return "end what else uses it: fuser -v /dev/snd/*"


# Registration


def _holds(account: Account, status: Status, settings: Settings, path: Path) -> bool:
    """Tell whether the service has registered this account, with these settings.

    Then its word is taken: a registrar that keeps one contact for each user (a FRITZ!Box, Asterisk with
    `max_contacts=1`) would give the door's calls to us, and lose them when we have gone.
    """
    return not _stale(status, settings, path) and _of(account, status)["state"] == "registered"


def _of(account: Account, status: Status) -> Status:
    """What the service says of an account that it has."""
    return next(each for each in status["accounts"] if each["name"] == account.name)


def _service_register(account: Account, status: Status) -> Iterator[Step]:
    seconds = _of(account, status)["expires_s"]
    yield Step("register", True, f"the service is registered as {account.name}, {seconds} s at a time")


def _register(account: Account, settings: Settings, path: Path, patience: float) -> Iterator[Step]:
    from intercom.sip.config import AccountConfig, LineConfig

    config = LineConfig(
        name=settings.station.name,
        accounts=[AccountConfig.of(account, read_password(account.password_file, path), path.parent)],
        port=0,
        name_servers=settings.network.servers,
        device=None,
        caller=lambda peer: None,
        may_talk=lambda peer: False,
        agent=f"intercom/{__version__}",
    )
    gc.disable()  # only the SIP thread may collect pjsua2's objects
    try:
        fault = asyncio.run(_registration(config, patience))
    except TimeoutError:
        fault = (
            f"{account.host} answers OPTIONS, but not the REGISTER of '{account.username}' in"
            f" {patience:.0f} s: so a FRITZ!Box treats a user name that it does not know"
        )
    if fault is None:
        yield Step("register", True, f"registered as {account.name}, and un-registered again")
    else:
        yield Step("register", False, fault, _register_remedy(fault))


async def _registration(config: "LineConfig", patience: float) -> str | None:
    """Register, un-register, and return the fault. Raises TimeoutError when nothing is said in time."""
    from intercom.core.events import HealthChanged
    from intercom.sip.line import Line

    said: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def tell(fault: str | None) -> None:
        if not said.done():
            said.set_result(fault)

    def post(event: "Event") -> None:
        if isinstance(event, HealthChanged) and event.part.startswith("account"):
            tell(event.fault)

    line = Line(config, post, lambda reason: tell(f"the SIP side cannot start: {reason}"))
    line.start()
    try:
        async with asyncio.timeout(patience):
            return await said
    finally:
        await line.stop()


_REMEDIES = {
    "401": "compare account.username and the password file with the user at the registrar",
    "407": "compare account.username and the password file with the user at the registrar",
    "403": "compare the password file with the user at the registrar, and ask who may register from where",
    "404": "compare account.uri with the users at the registrar",
    "423": "raise account.expires_seconds",
    "503": "look at the registrar's log, and at its transports",
}


def _register_remedy(fault: str) -> str:
    status = re.search(r"\((\d{3}) ", fault)
    return _REMEDIES.get(
        status[1] if status else "", "compare username and uri with the registrar's, see its log"
    )


# What the rest of the house is asked for


def _addresses(settings: Settings) -> Iterator[Step]:
    domains = {_domain(account.uri) for account in settings.account}
    for button in settings.button:
        rung = button.rung
        foreign = ", ".join(to for to in rung if _domain(to) not in domains)
        ours = ", ".join(sorted(domains))
        hint = f"not in the account's domain {ours}, may be refused: {foreign}" if foreign else ""
        yield Step("addresses", True, f"button {button.name!r} rings {', '.join(rung)}", hint)


def _domain(uri: str) -> str:
    host = uri.partition("@")[2].partition(";")[0].lower()
    return host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _codes(settings: Settings) -> Iterator[Step]:
    if not settings.door:
        yield Step("codes", True, "there is no door in the settings")
    for door in settings.door:
        count = len(door.codes)
        hint = "" if count else "no telephone can open it: add codes = [{ dtmf = ... }]"
        yield Step("codes", True, f"door {door.name!r} has {count} code{'s' * (count != 1)}", hint)
