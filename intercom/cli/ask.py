"""The commands that ask the running service over its socket."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from intercom.cli.main import NOT_RUNNING, fail, json_option, print_json, socket_option
from intercom.control import client
from intercom.system.places import control_socket

T = TypeVar("T")


def _reached(request: Callable[[], T]) -> T:
    try:
        return request()
    except client.NotRunning as error:
        fail(str(error), NOT_RUNNING)
    except client.Denied as error:
        fail(str(error))


def _ask(socket: Path | None, method: str, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    return _reached(lambda: client.ask(socket or control_socket(), method, target, body))


@click.command()
@socket_option
@json_option
def status(socket: Path | None, as_json: bool) -> None:
    """Show what the running service does."""
    data = _ask(socket, "GET", "/status")
    if as_json:
        print_json(data)
        return
    click.echo(f"{data['name']}: {data['state']}, up {data['uptime_s']:.0f} s, version {data['version']}")
    for account in data["accounts"]:
        why = f": {account['reason']}" if account["reason"] else ""
        at = account["server"] or account["registrar"]
        click.echo(f"account {account['name']} at {at}: {account['state']}{why}")
    if (call := data["call"]) is not None:
        arrow = "to" if call["direction"] == "out" else "from"
        flow = (
            f", {call['codec']}, {call['rx']['packets']} packets in, {call['tx']['packets']} out"
            if call["rx"]
            else ""
        )
        click.echo(f"call {call['id']} {arrow} {call['peer']}: {call['state']}{flow}")
    panel = data["panel"]
    for name, pressed in panel["buttons"].items():
        click.echo(f"button {name}: {'pressed' if pressed else 'up'}")
    for name, lamp in panel["lamps"].items():
        click.echo(f"lamp {name}: {lamp['pattern']}")
    for name, door in panel["doors"].items():
        click.echo(f"door {name}: {'released' if door['released'] else 'locked'}")
    click.echo(f"sound: {data['audio']['device']}")
    messages = data["messages"]
    if any(messages[count] for count in ("sent", "failed", "waiting")):
        click.echo("messages: {sent} sent, {waiting} on their way, {failed} lost".format_map(messages))
    for to, reason in messages["faults"].items():
        click.echo(f"no message to {to}: {reason}")
    for part, fault in data["faults"].items():
        click.echo(f"FAULT {part}: {fault}")


@click.command()
@socket_option
@json_option
def watch(socket: Path | None, as_json: bool) -> None:
    """Show each step of the running service as it happens, until Ctrl-C."""

    def lines() -> None:
        for step in client.follow(socket or control_socket(), "/watch"):
            if as_json:
                click.echo(json.dumps(step))
            elif "event" in step:
                click.echo(
                    " ".join((_words(step["event"]), "->", step["after"], *map(_words, step["actions"])))
                )
            else:
                click.echo(f"watching {step['watching']}", err=True)

    _reached(lines)


def _words(fact: dict[str, Any]) -> str:
    values = ", ".join(str(value) for key, value in fact.items() if key != "type" and value is not None)
    return f"{fact['type']}({values})"


@click.command()
@click.argument("button", required=False)
@socket_option
def press(button: str | None, socket: Path | None) -> None:
    """Press a bell button: the first one, or BUTTON."""
    _ask(socket, "POST", "/press", {} if button is None else {"button": button})


@click.command()
@click.argument("address")
@socket_option
def call(address: str, socket: Path | None) -> None:
    """Call ADDRESS, such as sip:flat1@site.example."""
    _ask(socket, "POST", "/call", {"to": address})


@click.command()
@socket_option
def hangup(socket: Path | None) -> None:
    """End the call."""
    _ask(socket, "POST", "/hangup", {})


@click.command("open")
@click.argument("door", required=False)
@socket_option
def open_door(door: str | None, socket: Path | None) -> None:
    """Release a door: the only one, or DOOR."""
    answer = _ask(socket, "POST", "/open", {} if door is None else {"door": door})
    click.echo(f"door {answer['door']} is released for {answer['seconds']:g} s", err=True)
