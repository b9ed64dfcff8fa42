"""`python -m tests.bench`: the table, a report, and exit code 1 if a limit does not hold."""

import json
import os
import platform
import queue
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from deploy.demo.program import ProgramError
from tests.bench import (
    attacks,
    flood,
    guardian,
    idle,
    journal,
    press,
    readers,
    registering,
    site,
    soak,
    start,
    transfer,
)
from tests.bench.rows import Row, show

PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "press": press.measure,
    "start": start.measure,
    "idle": idle.measure,
    "flood": flood.measure,
    "soak": soak.measure,
}
ALONE = {
    "attacks": attacks.measure,
    "guardian": guardian.measure,
    "journal": journal.measure,
    "readers": readers.measure,
    "site": site.measure,
    "transfer": transfer.measure,
    "registrar": registering.measure,
}  # only when it is named


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS, *ALONE]))
@click.option("--report", type=click.Path(path_type=Path), default="build/bench.json", show_default=True)
def main(parts: tuple[str, ...], report: Path) -> None:
    """Run all PARTS but those that are measured alone, or only those named."""
    before = os.getloadavg()[0]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in parts or PARTS:
            click.echo(f"{name} …", err=True)
            try:
                rows += (PARTS | ALONE)[name](Path(folder, name))
            except (ProgramError, OSError, queue.Empty) as error:
                click.echo(f"{name} could not be measured: {error!r}", err=True)
                rows.append(Row(f"{name}: not measured", 1, "", 0))
    load = f"load {before:.2f} before, {os.getloadavg()[0]:.2f} after"
    show(
        f"{os.cpu_count()} cores {platform.machine()}, {platform.system()} {platform.release()}, {load}", rows
    )
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps([asdict(row) | {"holds": row.holds} for row in rows], indent=2) + "\n")
    sys.exit(not all(row.holds for row in rows))


if __name__ == "__main__":
    main()
