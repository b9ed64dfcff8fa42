"""`intercom log`: the record, as text, JSON or CSV, and the proof that nobody changed it.

The running service is asked; where none runs, the file is read. Proving always reads the file.
"""

import csv
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from intercom.cli.main import FAILED, NOT_RUNNING, fail, json_option, print_json, socket_option
from intercom.control import client
from intercom.journal.reader import Wanted, read, verify
from intercom.journal.records import COLUMNS, KINDS
from intercom.system.places import control_socket, journal_file

USUAL_COUNT = 50
AT_ONCE = 1000
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Fact = dict[str, Any]


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """A date or time, here where no zone is given, or an age such as 90m, 12h or 7d; in milliseconds."""
    if value is None:
        return None
    try:
        if age := re.fullmatch(r"(\d{1,9})([smhdw])", value):
            moment = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            moment = datetime.fromisoformat(value).astimezone(UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a time such as 2026-11-21T18:00 nor an age such as 12h or 7d"
        ) from None


@click.group(invoke_without_command=True)
@click.option("--since", callback=_moment, help="From this time on, or for this long: 2026-11-21, 12h, 7d.")
@click.option("--until", callback=_moment, help="Before this time.")
@click.option("--kind", type=click.Choice(list(KINDS.values())), help="Records of one kind only.")
@click.option("--door", help="About one door only.")
@click.option("--who", help="With this in the other side's address.")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1, 10_000),
    help=f"The newest so many. Usually {USUAL_COUNT}, and all where --since or --until is given.",
)
@click.option("--follow", is_flag=True, help="Show each new record as it comes, until Ctrl-C.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--file", type=click.Path(path_type=Path), help="Read this database instead of asking the service."
)
@socket_option
@json_option
@click.pass_context
def log(
    context: click.Context,
    since: int | None,
    until: int | None,
    kind: str | None,
    door: str | None,
    who: str | None,
    count: int | None,
    follow: bool,
    as_csv: bool,
    file: Path | None,
    socket: Path | None,
    as_json: bool,
) -> None:
    """Show records, the oldest of them first."""
    if context.invoked_subcommand is not None:
        return
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    if follow and file is not None:
        raise click.UsageError("--follow asks the service, so --file says nothing")
    wanted = Wanted(count or USUAL_COUNT, None, since, until, kind, door, who)
    place = socket or control_socket()
    try:
        if follow:
            _print(client.follow(place, _target("/log/follow", wanted)), as_csv, as_json, stream=True)
            return
        ask = _asking(place, file)
        if count is None and (since is not None or until is not None):
            records = _pages(ask, replace(wanted, count=AT_ONCE, after=0))
        else:
            records = iter(ask(wanted))
        _print(records, as_csv, as_json, stream=False)
    except client.NotRunning as error:
        fail(str(error), NOT_RUNNING)
    except (client.Denied, sqlite3.Error) as error:
        fail(str(error))


def _asking(place: Path, file: Path | None) -> Callable[[Wanted], list[Fact]]:
    """Whom to ask: the service, or the file where that is named or no service runs."""

    def served(wanted: Wanted) -> list[Fact]:
        records: list[Fact] = client.ask(place, "GET", _target("/log", wanted))["records"]
        return records

    if file is not None:
        return lambda wanted: read(file, wanted)
    try:
        served(Wanted(1))
    except client.NotRunning:
        if not journal_file().exists():
            raise
        return lambda wanted: read(journal_file(), wanted)
    return served


def _target(path: str, wanted: Wanted) -> str:
    values = {key: value for key, value in asdict(wanted).items() if value is not None}
    return f"{path}?{urlencode(values, errors='replace')}"


def _pages(ask: Callable[[Wanted], list[Fact]], wanted: Wanted) -> Iterator[Fact]:
    while records := ask(wanted):
        yield from records
        if len(records) < wanted.count:
            return
        wanted = replace(wanted, after=records[-1]["id"])


def _print(records: Iterable[Fact], as_csv: bool, as_json: bool, *, stream: bool) -> None:
    if as_csv:
        _print_csv(records)
    elif as_json and not stream:
        # A line for each: the indented form takes as long as all the rest.
        lines = ",\n ".join(map(json.dumps, records))
        click.echo(f"[{lines}]")
    else:
        for record in records:
            click.echo(json.dumps(record) if as_json else _line(record))


def _print_csv(records: Iterable[Fact]) -> None:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _cell(value) for key, value in record.items()})
        sys.stdout.flush()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is quoted: some of it comes from the network."""
    if isinstance(value, str):
        text = _plain(value)
        return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text
    return value


def _plain(text: str) -> str:
    """Without what would move the cursor or change the terminal's colours."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _line(record: Fact) -> str:
    said = _LINES.get(record["kind"], _other)(record)
    free = " (the clock was not set)" if record["clock"] == "free" else ""
    return _plain(f"{record['at']}{free} {said}")


def _call(record: Fact) -> str:
    way = "called" if record["direction"] == "out" else "was called by"
    button = f"button {record['button']} " if record["button"] else ""
    return (
        f"{button}{way} {record['peer']}: {record['outcome']}, {record['seconds']:.0f} s ({record['reason']})"
    )


def _ring(record: Fact) -> str:
    button = f"button {record['button']}" if record["button"] else "operator"
    return f"{button} rang in {record['calls']} calls: {record['outcome']}"


def _access(record: Fact) -> str:
    who = f" {record['peer']}" if record["peer"] else ""
    answer = "released" if record["granted"] else f"refused ({record['reason']})"
    return f"door {record['door'] or '-'} by {record['how']}{who}: {answer}"


def _service(record: Fact) -> str:
    reason = f" ({record['reason']})" if record["reason"] else ""
    return f"service {record['what']}, version {record['version']}{reason}"


def _gap(record: Fact) -> str:
    return (
        f"GAP from {record['since']} to {record['until']}: {record['late']} records came late,"
        f" {record['lost']} are lost ({record['reason']})"
    )


def _other(record: Fact) -> str:
    facts = (f"{key} {value}" for key, value in record.items() if key not in {"id", "at", "clock", "kind"})
    return f"{record['kind']}: {', '.join(facts)}"


_LINES: dict[str, Callable[[Fact], str]] = {
    "call": _call,
    "ring": _ring,
    "access": _access,
    "press": lambda record: f"button {record['button']} pressed: nothing done, {record['reason']}",
    "service": _service,
    "settings": lambda record: f"settings changed: {record['digest']}",
    "gap": _gap,
    "begun": lambda record: f"BEGUN ANEW: {record['reason']}; the records before are in {record['aside']}",
}


@log.command("verify")
@click.option("--file", type=click.Path(path_type=Path), help="This database instead of the service's.")
@json_option
def verify_command(file: Path | None, as_json: bool) -> None:
    """Prove that no record was changed, removed or put in between.

    Names the first that does not hold, and ends with 1.
    """
    place = file or journal_file()
    try:
        verdict = verify(place)
    except PermissionError:
        fail(f"no permission to read {place}: try with sudo")
    except OSError as error:
        fail(f"{place} cannot be read: {error.strerror}")
    except sqlite3.Error as error:
        fail(f"{place} is no record of ours: {error}")
    if as_json:
        print_json(asdict(verdict) | {"holds": verdict.holds})
    else:
        if verdict.dropped:
            dropped = verdict.dropped
            click.echo(
                f"{dropped['count']} records from {dropped['since']} to {dropped['until']} were dropped"
            )
        held = f", {verdict.first} to {verdict.last}" if verdict.count else ""
        click.echo(f"{verdict.count} records hold{held}")
        if verdict.signed is None:
            click.echo("the signatures were not looked at: the key cannot be read", err=True)
        if not verdict.holds:
            place_of_it = "" if verdict.bad is None else f"record {verdict.bad}: "
            click.echo(f"DOES NOT HOLD: {place_of_it}{verdict.why}")
    sys.exit(0 if verdict.holds else FAILED)
