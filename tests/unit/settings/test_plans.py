"""Whom a button rings, as the settings say it, and by which plan at which hour."""

import tomllib
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from intercom.app import _acquaintances
from intercom.core.access import may_talk
from intercom.core.policy import Plan, Target
from intercom.core.ringing import Way, refusal_of
from intercom.settings.hours import LONGEST_LOOK_SECONDS, hours_at, until_next_look
from intercom.settings.loading import policy, schema_mistakes
from intercom.settings.schema import Settings

FLAT, OFFICE, TRUNK = "sip:flat1@site.example", "sip:office@site.example", "sip:+49891@site.example"
HEAD = """
[station]
board = "simulated"
[[account]]
uri = "sip:door@Site.Example"
registrar = "sip:pbx.example"
username = "door"
password_file = "door.secret"
[[button]]
name = "bell"
pin = 17
"""
ONE = f'{{ to = "{FLAT}" }}'
RING = f'ring = [{{ to = "{FLAT}", seconds = 25 }}]\n'


def settings(text: str) -> Settings:
    return Settings.model_validate(tomllib.loads(HEAD + text))


def mistakes(text: str) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        settings(text)
    return [f"{each.key}: {each.reason}" for each in schema_mistakes(Path("x"), caught.value)]


def hours(text: str, moment: str) -> int | None:
    buttons = settings(RING + text).button
    return hours_at(buttons, datetime.fromisoformat(moment)).get("bell")


def test_a_whole_plan() -> None:
    made = policy(
        settings(f"""
ring = [{{ to = "{FLAT}", seconds = 25 }}, {{ to = "{OFFICE}", seconds = 10, together = true }}]
repeat = 2
last_resort = {{ to = "{TRUNK}", seconds = 40 }}
confirm = "key"
[[button.hours]]
days = ["sat", "sun"]
ring = [{{ to = "{OFFICE}" }}]
[redirect]
permit = ["sip:*@Mobile.Example"]
""")
    )
    both = (Target(FLAT, 25), Target(OFFICE, 10, together=True))
    assert made.buttons == {"bell": Plan(both, 2, Target(TRUNK, 40), confirm=True)}
    assert made.hours == {"bell": (Plan((Target(OFFICE, 30),)),)}
    assert made.redirects == {"sip:*@mobile.example", "sip:*@site.example", "sip:*@pbx.example"}


def test_an_address_may_be_rung_again_in_its_turn() -> None:
    assert len(settings(f"ring = [{ONE}, {ONE}]").button[0].ring) == 2


@pytest.mark.parametrize("server", ["pbx.example", "[::2]:5070"])
def test_a_call_may_be_sent_on_within_a_domain_that_is_an_address_of_ipv6(server: str) -> None:
    head = HEAD.replace("door@Site.Example", "door@[::1]").replace("pbx.example", server)
    made = Settings.model_validate(tomllib.loads(head + RING))
    permitted, (known, hosts) = policy(made).redirects, _acquaintances(made)
    at = server.removesuffix(":5070")
    for peer in ("sip:flat2@[::1]", f"sip:flat2@{at}"):
        assert refusal_of(Way(peer), permitted, frozenset(), 1) is None
        assert may_talk(known, hosts, peer)
    assert refusal_of(Way("sip:flat2@[::3]"), permitted, frozenset(), 1) is not None
    assert not may_talk(known, hosts, "sip:flat2@[::3]")


def test_all_who_may_be_rung_are_known() -> None:
    both = f'ring = [{{ to = "{OFFICE}" }}, {{ to = "{FLAT}" }}]'
    text = f'{RING}last_resort = {{ to = "{TRUNK}" }}\n[[button.hours]]\n{both}'
    assert settings(text).button[0].rung == [FLAT, TRUNK, OFFICE]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'ring = [{ to = "sip:a@b.example", together = true }]',
            ["button[1].ring: begins with together = true, but there is none before it"],
        ),
        (
            f"ring = [{ONE}{f', {ONE[:-2]}, together = true }}' * 6}]",
            ["button[1].ring: has more than 6 that ring together: let a group of the PBX do that"],
        ),
        (
            f'ring = [{ONE}, {{ to = "{OFFICE}", together = true }}, {{ to = "{FLAT}", together = true }}]',
            [f"button[1].ring: rings {FLAT} twice at once: name it once in those that ring together"],
        ),
        (RING + "repeat = 0", ["button[1].repeat: Input should be greater than or equal to 1"]),
        (RING + 'confirm = "yes"', ["button[1].confirm: Input should be 'key'"]),
        (
            RING + 'last_resort = { to = "x" }',
            ["button[1].last_resort.to: is not a SIP address such as sip:flat1@site.example"],
        ),
        (
            RING + f'[[button.hours]]\nfrom = "7:00"\n{RING}',
            ["button[1].hours[1].from: is not a time of day such as 07:30; 24:00 is midnight"],
        ),
        (
            RING + f'[[button.hours]]\nfrom = "07:00"\nto = "07:00"\n{RING}',
            ["button[1].hours[1]: from and to are the same: leave both out for the whole day"],
        ),
        (
            RING + f'[[button.hours]]\nfrom = "24:00"\nto = "00:00"\n{RING}',
            ["button[1].hours[1]: from 24:00 to 00:00 is no time at all: leave both out for the whole day"],
        ),
        (RING + f'[[button.hours]]\ndays = []\n{RING}', ["button[1].hours[1].days: has no entry"]),
        (RING + '[[button.hours]]\ndays = ["mon"]', ["button[1].hours[1].ring: is missing"]),
        (
            RING + f'[[button.hours]]\nbegin = "07:00"\n{RING}',
            ["button[1].hours[1].begin: is not a known setting"],
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_in_one_line(text: str, words: list[str]) -> None:
    assert mistakes(text) == words


NIGHT = f'[[button.hours]]\ndays = ["fri"]\nfrom = "22:00"\nto = "06:00"\n{RING}'
WEEKEND = f'[[button.hours]]\ndays = ["sat", "sun"]\n{RING}'
EVENING = f'[[button.hours]]\nfrom = "18:00"\n{RING}'


@pytest.mark.parametrize(
    ("text", "moment", "number"),
    [
        ("", "2026-11-20 12:00", None),
        (NIGHT, "2026-11-20 21:59:59", None),  # a Friday
        (NIGHT, "2026-11-20 22:00", 0),
        (NIGHT, "2026-11-20 05:00", None),
        (NIGHT, "2026-11-21 05:59:59", 0),
        (NIGHT, "2026-11-21 06:00", None),
        (NIGHT, "2026-11-21 22:00", None),
        (WEEKEND, "2026-11-21 00:00", 0),
        (WEEKEND, "2026-11-22 23:59:59", 0),
        (WEEKEND, "2026-11-23 00:00", None),
        (EVENING, "2026-11-23 23:59:59", 0),
        (NIGHT + WEEKEND, "2026-11-21 01:00", 0),  # the first that fits
        (WEEKEND + NIGHT, "2026-11-21 01:00", 0),
        (NIGHT + WEEKEND, "2026-11-21 07:00", 1),
        (NIGHT, "2026-03-28 02:30", 0),
    ],
)
def test_the_hours_of_a_moment(text: str, moment: str, number: int | None) -> None:
    assert hours(text, moment) == number


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [("12:00:00", LONGEST_LOOK_SECONDS), ("12:00:55", 5), ("12:00:59.750000", 0.25)],
)
def test_the_next_look_is_at_the_full_minute_or_soon(moment: str, seconds: float) -> None:
    assert until_next_look(datetime.fromisoformat(f"2026-11-20 {moment}")) == pytest.approx(seconds)
