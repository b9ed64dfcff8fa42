"""The page about the architecture tells what the code does."""

import pytest

from intercom.core import events
from intercom.core.state import Phase
from tests.state_table import BEGIN, EVENTS, PAGE, PHASES, table, with_table


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python -m tests.state_table --write"


def test_every_phase_is_in_the_table() -> None:
    assert {type(phase) for phase in PHASES.values()} == set(Phase.__args__)


def test_every_event_that_concerns_calls_or_doors_is_in_the_table() -> None:
    told_apart = {type(event) for event, _ in EVENTS.values()}
    contacts_and_faults = {events.ButtonDown, events.ButtonUp, events.HealthChanged}
    assert told_apart == set(events.Event.__args__) - contacts_and_faults


def test_a_page_without_the_place_for_it_is_not_touched() -> None:
    with pytest.raises(ValueError, match="state table"):
        with_table("a page")


def test_the_table_replaces_the_one_before_and_nothing_else() -> None:
    page = f"above\n{BEGIN}old\n<!-- state table: end -->\nbelow\n"
    assert with_table(page) == f"above\n{BEGIN}{table()}<!-- state table: end -->\nbelow\n"
