"""The command's front: which commands there are, their common options, and their exit codes.

Facts go to standard output, everything else to standard error. 0 done, 1 failed, 2 wrong settings or
arguments, 3 the service is not running.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

FAILED, WRONG, NOT_RUNNING = 1, 2, 3

_COMMANDS = {
    "run": ("serve:run", "Run the door station."),
    "lock": ("serve:lock", "Lock every strike at once, without the service."),
    "check": ("check:check", "Find what keeps the station from ringing, step by step."),
    "status": ("ask:status", "Show what the running service does."),
    "watch": ("ask:watch", "Show each step of the running service as it happens."),
    "press": ("ask:press", "Press a bell button."),
    "call": ("ask:call", "Call an address."),
    "hangup": ("ask:hangup", "End the call."),
    "open": ("ask:open_door", "Release a door."),
    "log": ("log:log", "Show the record of calls and accesses, or verify it."),
    "site": ("site:site", "Run a SIP server for the house, and say who may use it."),
    "version": ("version:version", "Show the versions of what this is made of."),
}


class _Lazy(click.Group):
    """Imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"intercom.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A SIP door station."""


def config_option(command: Any) -> Any:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        envvar="INTERCOM_CONFIG",
        type=click.Path(path_type=Path),
        help="The settings file instead of /etc/intercom/intercom.toml.",
    )(command)


def socket_option(command: Any) -> Any:
    """Add `--socket PATH`."""
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        help="The running service's socket, if not the usual one.",
    )(command)


def json_option(command: Any) -> Any:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def fail(reason: str, code: int = FAILED) -> NoReturn:
    """End with one clear line on standard error."""
    click.echo(f"intercom: {reason}", err=True)
    sys.exit(code)


def print_json(data: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
