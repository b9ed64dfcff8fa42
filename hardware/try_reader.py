"""`python -m hardware.try_reader`: shows what a reader reads, or plays one, before anything uses it.

One rule: it is for the person at the terminal. It alone shows card numbers and keys, on standard output.
"""

import sys
from pathlib import Path
from threading import Event

import click

from hardware.frames import Card, Key, Reading
from hardware.reader import KINDS, Reader
from hardware.simulated_readers import (
    SimulatedCard,
    SimulatedPn532,
    SimulatedPort,
    id12la_frame,
    rdm6300_frame,
    wiegand_frame,
)

SHOWN_SECONDS = 1.5
"""How long a simulated card is held before the PN532."""


@click.group()
def main() -> None:
    """Try a card reader or keypad; without one, play it in a second terminal."""


@main.command()
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("port")
@click.option("--baud", type=int, help="The speed, if it is not the usual one of this kind.")
def read(kind: str, port: str, baud: int | None) -> None:
    """Show what the reader at PORT reads, until Ctrl-C or the end of standard input."""
    try:
        reader = Reader("here", kind, port, _show, _complain, baud=baud)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"reading {port}", err=True)
    try:
        while sys.stdin.readline():
            reader.good()
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        reader.close()


@main.command()
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("link", type=click.Path(path_type=Path))
def play(kind: str, link: Path) -> None:
    """Be a reader behind LINK: each line of standard input is a card that is shown, or keys that are typed.

    Cards are numbers in hexadecimal, for wiegand 26 or 34 bits as 0 and 1.
    """
    with SimulatedPn532(link) if kind == "pn532" else SimulatedPort(link) as port:
        click.echo(f"a {kind} is plugged in at {link}", err=True)
        for line in sys.stdin:
            try:
                _play(port, kind, line.strip())
            except ValueError as error:
                click.echo(f"not shown: {error}", err=True)


def _play(port: SimulatedPort, kind: str, what: str) -> None:
    match kind:
        case "rdm6300":
            port.send(rdm6300_frame(what))
        case "id12la":
            port.send(id12la_frame(what))
        case "wiegand":
            port.send(wiegand_frame(what))
        case "keypad":
            port.type(what)
    if isinstance(port, SimulatedPn532):
        port.show(SimulatedCard(bytes.fromhex(what)))
        Event().wait(SHOWN_SECONDS)
        port.show(None)


def _show(_: str, reading: Reading) -> None:
    match reading:
        case Card(kind, number, strength):
            click.echo(f"{kind} {number} ({strength})")
        case Key(key):
            click.echo(f"key {key}")
        case _:
            click.echo("garbled keys")


def _complain(_: str, why: str | None) -> None:
    click.echo("is well again" if why is None else why, err=True)


if __name__ == "__main__":
    main()
