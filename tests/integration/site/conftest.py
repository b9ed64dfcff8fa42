"""The table of `make test-site`: one row for each test, with the item of the site it shows and with what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ITEMS = {
    1: "registrar and location",
    2: "proxy",
    3: "redirect server",
    4: "gateway",
    5: "presence and messages",
    6: "transports",
    7: "protection",
    8: "growing",
    9: "intercom site",
    10: "bad input and faults",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="JSON file for one row of each site test")


def pytest_itemcollected(item: pytest.Item) -> None:
    mark = item.get_closest_marker("item")
    if mark is not None:
        number, what, counterpart = mark.args
        item.user_properties.append(("item", (number, what, counterpart)))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    table: Path | None = config.getoption("table", None)
    if table is None:
        return
    rows = sorted(
        (row for outcome in ("passed", "failed", "error") for row in _rows(terminalreporter, outcome)),
        key=lambda row: (int(row["name"].split()[0]), row["name"]),
    )
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        terminalreporter.write_line(f"{row['value']:7} {row['name']}  [{row['unit']}]")


def _rows(terminalreporter: Any, outcome: str) -> Iterator[dict[str, Any]]:
    for report in terminalreporter.stats.get(outcome, []):
        for number, what, counterpart in (value for key, value in report.user_properties if key == "item"):
            case = report.nodeid.partition("[")[2].rstrip("]")
            yield {
                "name": f"{number} {_ITEMS[number]}: {what}" + (f" ({case})" if case else ""),
                "value": outcome,
                "unit": counterpart,
                "limit": "passed",
                "holds": outcome == "passed",
            }
