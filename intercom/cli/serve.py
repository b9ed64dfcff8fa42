"""`intercom run` and `intercom lock`: the commands that take the pins."""

import asyncio
import faulthandler
import logging
import os
import selectors
import signal
import sys
from pathlib import Path

import click

from intercom.cli.main import WRONG, config_option, fail, socket_option
from intercom.settings.loading import Mistake, WrongSettings, load
from intercom.system.places import control_socket, journal_file, settings_file


def _tell(mistakes: list[Mistake]) -> None:
    for mistake in mistakes:
        click.echo(mistake, err=True)


@click.command()
@config_option
@socket_option
def run(config: Path | None, socket: Path | None) -> None:
    """Run the door station until SIGTERM or Ctrl-C. SIGUSR1 prints where every thread is."""
    path = config or settings_file()
    try:
        settings = load(path)
    except WrongSettings as wrong:
        _tell(wrong.mistakes)
        sys.exit(WRONG)
    log_to_stderr()
    faulthandler.register(signal.SIGUSR1)
    from intercom.app import Station, board_mistakes

    if mistakes := board_mistakes(settings, path):
        _tell(mistakes)
        sys.exit(WRONG)
    station = Station(settings, path, socket or control_socket(), journal_file())
    try:
        # select() keeps time to the microsecond, epoll in asyncio rounds up to the millisecond.
        with asyncio.Runner(
            loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
        ) as runner:
            code = runner.run(station.run())
    except OSError as error:
        fail(str(error))
    sys.exit(code)


@click.command()
@config_option
def lock(config: Path | None) -> None:
    """Have the guardian lock every strike; without a guardian drive them to locked, and end.

    Wrong settings are told.
    """
    path = config or settings_file()
    try:
        load(path, secrets=False)
    except WrongSettings as wrong:
        _tell(wrong.mistakes)
    from intercom.app import lock_doors

    try:
        code = lock_doors(path)
    except OSError as error:
        fail(f"the guardian of the doors does not take the order: {error.strerror or error}; try with sudo")
    sys.exit(code)


def log_to_stderr() -> None:
    """Log to standard error; under systemd with syslog priorities in place of the time (sd-daemon(3))."""
    journal = "JOURNAL_STREAM" in os.environ
    logging.basicConfig(level=logging.INFO, format="%(message)s" if journal else "%(asctime)s %(message)s")
    if journal:
        priorities = {logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
        for level, priority in priorities.items():
            logging.addLevelName(level, f"<{priority}>")
        logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(levelname)s%(message)s"))
