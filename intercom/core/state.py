"""What the station is doing, as frozen data. Deadlines are part of it: they vanish with what they belong to.

All times are on one monotonic clock, in seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from intercom.core.policy import Mode, Target
from intercom.core.ringing import Outcome


@dataclass(frozen=True, slots=True)
class Idle:
    """Nobody calls and nobody is called."""


@dataclass(frozen=True, slots=True)
class Calling:
    """A call is being placed. `targets` holds the one being tried and those still to come."""

    call: int
    button: str | None
    targets: tuple[Target, ...]
    until: float
    rang: bool = False
    early_media: bool = False

    @property
    def peer(self) -> str:
        """The address being rung."""
        return self.targets[0].to


@dataclass(frozen=True, slots=True)
class Offered:
    """A permitted peer calls the station; `accepted` once the answer is on its way."""

    call: int
    peer: str
    until: float
    accepted: bool = False
    mode: Mode = Mode.TALK
    diverted_by: str = ""


@dataclass(frozen=True, slots=True)
class Talking:
    """Both sides have agreed; the microphone is live but for an announcement.

    `digits` is the code typed so far, forgotten at `digits_until`.

    `wrong` counts the wrong codes of this call, since the last right one.
    """

    call: int
    direction: str
    button: str | None
    peer: str
    since: float
    until: float
    digits: str = field(default="", repr=False)
    digits_until: float = 0.0
    wrong: int = 0
    mode: Mode = Mode.TALK
    diverted_by: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """The station has hung up and waits for the SIP side to say so.

    Attributes:
        ended: the phase that was ended, from which the record is made.
        outcome: how the call will be recorded.
        button: what is rung next, if anything.
        targets: the addresses to ring next, empty for none.
        until: when to stop waiting.
    """

    ended: Calling | Offered | Talking
    outcome: Outcome
    button: str | None
    targets: tuple[Target, ...]
    talked: float
    until: float

    @property
    def call(self) -> int:
        """The number of the call that is ending."""
        return self.ended.call


@dataclass(frozen=True, slots=True)
class Concluded:
    """The call is over; lamp and tone still tell how it went."""

    outcome: Outcome
    until: float


@dataclass(frozen=True, slots=True)
class Off:
    """The service is going down; nothing is accepted any more."""


Phase = Idle | Calling | Offered | Talking | Ending | Concluded | Off


@dataclass(frozen=True, slots=True)
class Contact:
    """A button's contact while it is anything but quietly up.

    Attributes:
        down: the raw level now.
        since: when the level last changed.
        down_for: how long it had been down before that, in all.
        counted: this press has been taken.
    """

    down: bool
    since: float
    down_for: float = 0.0
    counted: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """All that the station knows.

    Attributes:
        phase: what it does about calls.
        contacts: buttons that are down, or were a moment ago.
        released: doors whose strike is released, and when each is to be locked.
        faults: parts that do not work, and why.
        last_press: when the last press was taken, and
        last_button: of which button.
        calls: how many calls have been numbered so far.
        wrong_messages: how many messages in a row held a wrong code, and
        deaf_until: until when none is looked at because of them.
    """

    phase: Phase = field(default_factory=Idle)
    contacts: Mapping[str, Contact] = field(default_factory=dict)
    released: Mapping[str, float] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    last_press: float = float("-inf")
    last_button: str | None = None
    calls: int = 0
    wrong_messages: int = 0
    deaf_until: float = float("-inf")


def contact_deadline(contact: Contact, settle_seconds: float) -> float | None:
    """When a contact has settled: down long enough to count, or up long enough to be forgotten."""
    if not contact.down:
        return contact.since + settle_seconds
    if contact.counted:
        return None
    return contact.since + settle_seconds - contact.down_for


def _deadlines(state: State, settle_seconds: float) -> Iterator[float]:
    for contact in state.contacts.values():
        deadline = contact_deadline(contact, settle_seconds)
        if deadline is not None:
            yield deadline
    yield from state.released.values()
    if not isinstance(state.phase, Idle | Off):
        yield state.phase.until


def next_deadline(state: State, settle_seconds: float) -> float | None:
    """The earliest time at which the state changes by itself, or None."""
    return min(_deadlines(state, settle_seconds), default=None)
