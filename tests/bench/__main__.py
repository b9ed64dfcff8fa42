"""`python -m tests.bench`: the table, `build/bench.json`, and exit code 1 if a limit does not hold."""

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
from tests.bench import flood, idle, press, soak, start
from tests.bench.rows import Row, show

PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "press": press.measure,
    "start": start.measure,
    "idle": idle.measure,
    "flood": flood.measure,
    "soak": soak.measure,
}
REPORT = Path("build/bench.json")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
def main(parts: tuple[str, ...]) -> None:
    """Run all PARTS, or only those named."""
    before = os.getloadavg()[0]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in parts or PARTS:
            click.echo(f"{name} …", err=True)
            try:
                rows += PARTS[name](Path(folder, name))
            except (ProgramError, OSError, queue.Empty) as error:
                click.echo(f"{name} could not be measured: {error!r}", err=True)
                rows.append(Row(f"{name}: not measured", 1, "", 0))
    load = f"load {before:.2f} before, {os.getloadavg()[0]:.2f} after"
    show(
        f"{os.cpu_count()} cores {platform.machine()}, {platform.system()} {platform.release()}, {load}", rows
    )
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps([asdict(row) | {"holds": row.holds} for row in rows], indent=2) + "\n")
    sys.exit(not all(row.holds for row in rows))


if __name__ == "__main__":
    main()
