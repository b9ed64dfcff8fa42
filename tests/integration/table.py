"""The tables of `make test-site` and `make test-sip`: a row for each test that is marked with an item.

Rule: a row says what was shown and with which counterpart. A test that measures adds its figures as rows of
their own, with the fixture `figure` of the integration tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ITEMS = {
    "site": {
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
    },
    "station": {
        1: "accounts and servers",
        2: "registration",
        3: "redirection",
        4: "ringing plans",
        5: "in the call",
        6: "being called",
        7: "capabilities and TLS",
        8: "messages and presence",
        9: "networks",
        10: "bad input and faults",
    },
}
"""What the numbers of the items mean, for the tests of each folder."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="JSON file for the rows of all tests that show an item")


def pytest_itemcollected(item: pytest.Item) -> None:
    mark = item.get_closest_marker("item")
    if mark is not None:
        number, what, counterpart = mark.args
        title = f"{number} {_ITEMS[item.path.parent.name][number]}"
        item.user_properties.append(("item", (title, what, counterpart)))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    table: Path | None = config.getoption("table", None)
    if table is None or hasattr(config, "workerinput"):  # a worker of xdist knows its own tests alone
        return
    rows = sorted(
        (row for outcome in ("passed", "failed", "error") for row in _rows(terminalreporter, outcome)),
        key=lambda row: (int(row["name"].split()[0]), row["name"]),
    )
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        value = row["value"] if isinstance(row["value"], str) else f"{row['value']:.4g}"
        terminalreporter.write_line(f"{value:7} {row['name']}  [{row['unit']}]")


def _rows(terminalreporter: Any, outcome: str) -> Iterator[dict[str, Any]]:
    for report in terminalreporter.stats.get(outcome, []):
        title = ""
        for key, value in report.user_properties:
            if key == "item":
                title, what, counterpart = value
                case = report.nodeid.partition("[")[2].rstrip("]")
                yield {
                    "name": f"{title}: {what}" + (f" ({case})" if case else ""),
                    "value": outcome,
                    "unit": counterpart,
                    "limit": "passed",
                    "holds": outcome == "passed",
                }
            elif key == "figure":
                yield {**value, "name": f"{title}: {value['name']}"}
