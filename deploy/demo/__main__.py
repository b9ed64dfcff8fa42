"""`make run`: our SIP server, a demo phone, the station with a simulated panel, and a console to play with.

In a terminal Enter presses the bell and `0-9 * #` are keys of the demo phone. Without one it prints each
step and runs until SIGTERM. Ctrl-C ends everything that was started.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import sys
import tempfile
import termios
import threading
import tty
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.demo.home import CODE, Home
from deploy.demo.program import ProgramError
from deploy.demo.speech import RESIDENT, spoken
from hardware.codec import cards
from intercom.control import client

REFRESH_SECONDS = 0.25
STEPS_SHOWN = 8
KEYS = "0123456789*#"
LAMPS = {
    "ready": "green",
    "fault": "red",
    "door_open": "bright_green",
    "talking": "cyan",
    "dark": "bright_black",
}
HELP = f"Enter bell   {CODE} on the phone opens   h phone hangs up   d demo phone on/off   Ctrl-C end"


class Playground:
    """The house, and what the person at the keyboard does with it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.steps: deque[str] = deque(maxlen=STEPS_SHOWN)
        self.phone_on = True

    def key(self, key: str) -> None:
        """Do what a key means; one that cannot be done now is said."""
        try:
            if key in "\r\n":
                self.home.station.press()
            elif key == "h":
                self.home.phone.hang_up()
            elif key == "d":
                self._switch_phone()
            elif key in KEYS:
                self.home.phone.press_digits(key)
        except (ProgramError, client.NotRunning, client.Denied) as error:
            self.steps.append(f"not now: {str(error).splitlines()[0]}")

    def _switch_phone(self) -> None:
        self.phone_on = not self.phone_on
        if self.phone_on:
            self.home.phone.start()
        else:
            self.home.phone.stop()

    def view(self) -> Group:
        """The whole screen."""
        try:
            status = self.home.status()
        except (client.NotRunning, client.Denied) as error:
            return Group(Text(str(error), style="red"))
        facts = Table.grid(padding=(0, 2))
        lamp = status["panel"]["lamps"]["status"]
        door = status["panel"]["doors"]["front"]["released"]
        account = status["accounts"][0]
        facts.add_row("bell", "pressed" if status["panel"]["buttons"]["bell"] else "up")
        shown = Text(("● " if lamp["lit"] else "○ ") + lamp["pattern"].replace("_", " "))
        shown.stylize(LAMPS.get(lamp["pattern"], "yellow"))
        facts.add_row("lamp", shown)
        facts.add_row("door", Text("RELEASED", style="bright_green") if door else "locked")
        facts.add_row("account", f"{account['uri']}: {account['state']} {account['reason']}")
        facts.add_row("call", _call(status["call"]))
        facts.add_row("sound", status["audio"]["fault"] or status["audio"]["device"])
        demo = "answers first; d switches it off" if self.phone_on else "is off; d switches it on"
        return Group(
            Panel(facts, title=status["name"], title_align="left"),
            Panel("\n".join(self.steps) or "nothing yet", title="steps", title_align="left"),
            Panel(
                f"{_softphone(self.home)}\nThe demo phone {demo}.",
                title="your own softphone",
                title_align="left",
            ),
            Text(HELP, style="bold"),
        )


def _call(call: dict[str, Any] | None) -> str:
    if call is None:
        return "none"
    flow = f", {call['codec']}, {call['rx']['packets']} in, {call['tx']['packets']} out" if call["rx"] else ""
    return f"{call['state']} {call['peer']}{flow}"


def _softphone(home: Home) -> str:
    """What to type into a softphone to be rung by the bell."""
    account = home.flat
    return (
        f"user {account.user}   password {account.password}   domain {account.realm}   "
        f"proxy {account.proxy} (UDP or TCP)"
    )


def _words(step: dict[str, Any]) -> str:
    actions = " ".join(action["type"] for action in step["actions"])
    return f"{step['event']['type']} -> {step['after']}   {actions}"


def main() -> int:
    """Run until Ctrl-C or SIGTERM; 0, or 1 if a part does not start or the station ends by itself."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--address", default="127.0.0.1", help="where the SIP server listens")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    device = "default" if cards() else "none"
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="door-")))
        print("starting our SIP server, a demo phone and the door station …", file=sys.stderr)
        home = Home(
            folder,
            answer="auto",
            device=device,
            speaks=spoken(RESIDENT, folder / "speech"),
            address=asked.address,
            release_seconds=5.0,
        )
        try:
            parts.enter_context(home)
        except ProgramError as error:
            print(f"make run: {error}", file=sys.stderr)
            return 1
        playground = Playground(home)
        with suppress(KeyboardInterrupt):
            if sys.stdin.isatty() and sys.stdout.isatty():
                _play(playground)
            else:
                _tell(home)
        if not home.station.program.running:
            print(f"make run: the station has ended:\n{home.station.program.tail()}", file=sys.stderr)
            return 1
    return 0


def _tell(home: Home) -> None:
    """Print each step, until the station ends."""
    socket = home.station.socket
    print(_softphone(home), flush=True)
    print(f"press the bell with: {Path(sys.executable).parent}/intercom press --socket {socket}", flush=True)
    for step in client.follow(socket, "/watch"):
        if "event" in step:
            print(_words(step), flush=True)


def _play(playground: Playground) -> None:
    """Show the console and obey its keys, until Ctrl-C or until the station ends."""
    home, console = playground.home, Console()

    def follow() -> None:
        with suppress(client.NotRunning, OSError):
            for step in client.follow(home.station.socket, "/watch"):
                if "event" in step:
                    playground.steps.append(_words(step))

    threading.Thread(target=follow, daemon=True).start()
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        with selectors.DefaultSelector() as keys, Live(console=console, auto_refresh=False) as live:
            keys.register(sys.stdin, selectors.EVENT_READ)
            while home.station.program.running:
                live.update(playground.view(), refresh=True)
                if keys.select(REFRESH_SECONDS):
                    for key in os.read(sys.stdin.fileno(), 64).decode(errors="ignore"):
                        playground.key(key)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


if __name__ == "__main__":
    sys.exit(main())
