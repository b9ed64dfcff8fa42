"""What a measurement is shown and kept as."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure, and the most that it may be."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def holds(self) -> bool:
        return self.limit is None or self.value <= self.limit


def percentile(values: Sequence[float], rank: int) -> float:
    """The smallest value that at least `rank` percent of all values do not exceed."""
    return sorted(values)[-(-len(values) * rank // 100) - 1]


def slope(values: Sequence[float]) -> float:
    """The rise from one value to the next, by least squares."""
    middle = (len(values) - 1) / 2
    spread = sum((index - middle) ** 2 for index in range(len(values)))
    return sum((index - middle) * value for index, value in enumerate(values)) / spread


def show(title: str, rows: Iterable[Row]) -> None:
    table = Table(title=title, title_justify="left")
    for name, side in (
        ("what", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("limit", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:g}"
        verdict = "" if row.limit is None else "holds" if row.holds else "[bold red]FAILS[/]"
        table.add_row(row.name, f"{row.value:.4g}", row.unit, limit, verdict)
    Console(width=110).print(table)
