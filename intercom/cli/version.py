"""`intercom version`: what this is made of."""

import importlib.metadata
import platform

import click

from intercom import __version__
from intercom.cli.main import json_option, print_json


def versions() -> dict[str, str]:
    """Return the version of every part; pjproject's is the one that the wheel was built from."""
    parts = {"intercom": __version__, "python": platform.python_version(), "kernel": platform.release()}
    for name in ("pjsua2", "gpiozero", "lgpio", "PyAudio", "pydantic"):
        try:
            parts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            parts[name] = "not installed"
    return parts


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Show the versions of what this is made of."""
    parts = versions()
    if as_json:
        print_json(parts)
    else:
        for name, value in parts.items():
            click.echo(f"{name} {value}")
