"""What the owner of the door has decided: the rules `step` reads and never changes.

A policy is made once from the settings. All times are seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Target:
    """One address to ring and how long to wait for its answer; `together` with the one before it."""

    to: str
    seconds: float
    together: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom a press rings, and when an answer counts.

    Attributes:
        targets: in order; those that ring together follow each other.
        rounds: how often the whole list is rung.
        last_resort: rung once at the end, when nobody has answered.
        confirm: whether an answer counts only once a key is pressed on the telephone, which a voicemail
            does not do.
    """

    targets: tuple[Target, ...]
    rounds: int = 1
    last_resort: Target | None = None
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class Door:
    """How long a door's strike is released, and which DTMF codes release it (each ends in `#`).

    `by_message` is whether a code in a SIP message does, too.
    """

    release_seconds: float
    codes: frozenset[str] = frozenset()
    by_message: bool = False

    def __repr__(self) -> str:
        """Codes are secrets and stay out of logs."""
        return f"Door(release_seconds={self.release_seconds}, codes=*** x {len(self.codes)})"


class Mode(StrEnum):
    """Who hears whom in a call that comes in."""

    TALK = "talk"
    LISTEN = "listen"
    ANNOUNCE = "announce"


@dataclass(frozen=True, slots=True)
class Caller:
    """How somebody's call is taken: with or without a press, and who hears whom then."""

    automatic: bool = False
    mode: Mode = Mode.TALK


class Occasion(StrEnum):
    """What people are written about."""

    PRESS = "press"
    MISSED = "missed"
    RELEASED = "released"
    REFUSED = "refused"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Notice:
    """Who is written to on which occasions; of presses only those of these buttons, if there are any."""

    to: tuple[str, ...]
    on: frozenset[Occasion]
    buttons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything `step` needs to know beyond the state.

    Attributes:
        buttons: for each button whom it rings.
        doors: the doors that can be released.
        callers: addresses that may call the station, and how they are answered: `sip:user@host`, or
            `sip:*@host` for the others of a domain.
        notices: who is written to, and when.
        publishes: whether watchers are told how the station is.
        join: whether a permitted call that comes in during another joins the conversation.
        settle_seconds: a button counts as pressed once it has been down this long in all.
        repeat_seconds: a press this soon after the one before is impatience, not a new wish.
        ring_seconds: how long an incoming call, or one asked for by an operator, may ring.
        talk_seconds: longest conversation.
        hold_seconds: longest time that the far side may hold a conversation.
        silence_seconds: a conversation is over when no sound has come for as long, unless it is held.
        code_seconds: a DTMF code is typed within this time of its first digit.
        outcome_seconds: how long lamp and tone show how a call ended.
        hang_up_seconds: after this a hang-up counts as done, even if the SIP side never says so.
        hours: for each button that has any the plans for times of day, by which the state counts them.
        redirects: addresses that a redirection may lead to, written as in `callers`.
        key_seconds: so long at least somebody who has answered may look for a key.
    """

    buttons: Mapping[str, Plan]
    doors: Mapping[str, Door]
    callers: Mapping[str, Caller] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    publishes: bool = False
    join: bool = False
    settle_seconds: float = 0.03
    repeat_seconds: float = 2.0
    ring_seconds: float = 30.0
    talk_seconds: float = 300.0
    hold_seconds: float = 180.0
    silence_seconds: float = 9.5
    code_seconds: float = 10.0
    outcome_seconds: float = 3.0
    hang_up_seconds: float = 5.0
    hours: Mapping[str, tuple[Plan, ...]] = field(default_factory=dict)
    redirects: frozenset[str] = frozenset()
    key_seconds: float = 10.0
