"""What the station is doing, as frozen data. Deadlines are part of it: they vanish with what they belong to.

All times are on one monotonic clock, in seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from intercom.core.policy import Mode, Plan, Target
from intercom.core.ringing import Outcome, Way

WARNING_SECONDS = 10.0
"""How long before the end of the talk time both sides are warned."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nobody calls and nobody is called."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of a ring, from its `Dial` until the SIP side says that it is over.

    Attributes:
        call: its number.
        way: whom it was sent to.
        until: when we give it up, and after that when a hang-up counts as done.
        rang: whether a telephone rings.
        answered: whether somebody has answered, where that does not count without a key.
        hops: how many redirections led to it.
        further: where else the redirections lead, tried when this call fails.
        given_up: how it will be recorded, once we have hung up, and
        why: the reason.
    """

    call: int
    way: Way
    until: float
    rang: bool = False
    answered: bool = False
    hops: int = 0
    further: tuple[Way, ...] = ()
    given_up: Outcome | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Calling:
    """A list of addresses is being rung.

    Attributes:
        button: that was pressed; None for an operator's wish.
        plan: the list.
        attempts: the calls that are not over, in the order in which they were placed.
        to_come: what is rung after them in this round.
        rounds: how many more rounds there are.
        last_resort: what is rung after these.
        placed: how many calls there were in all.
        outcome: the most telling end of those that are over or given up.
        tried: where calls of this round were sent.
        early: those with early media, in the order in which it came.
    """

    button: str | None
    plan: Plan
    attempts: tuple[Attempt, ...]
    to_come: tuple[Target, ...]
    rounds: int
    last_resort: Target | None
    placed: int
    outcome: Outcome | None = None
    tried: frozenset[Way] = frozenset()
    early: tuple[int, ...] = ()

    @property
    def live(self) -> tuple[Attempt, ...]:
        """Those that were not hung up."""
        return tuple(attempt for attempt in self.attempts if attempt.given_up is None)

    @property
    def more(self) -> bool:
        """Whether there is anybody left to be rung after these."""
        return bool(self.to_come or self.rounds or self.last_resort)

    @property
    def heard(self) -> int | None:
        """The call whose early media is heard at the door: the first that had any and still has."""
        heard = {attempt.call for attempt in self.live if not attempt.answered}
        return next((call for call in self.early if call in heard), None)

    @property
    def shown(self) -> Attempt:
        """The one that stands for all: who has answered, or else rings, or was called first."""
        return max(self.attempts, key=lambda attempt: (attempt.answered, attempt.rang))

    @property
    def call(self) -> int:
        """The number of the call that is shown."""
        return self.shown.call

    @property
    def peer(self) -> str:
        """The address of the call that is shown."""
        return self.shown.way.to

    @property
    def until(self) -> float:
        """When the first of the attempts is to be given up."""
        return min(attempt.until for attempt in self.attempts)


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

    Attributes:
        held_until: while the far side holds the call, when its patience is taken to be lost.
        quiet_until: while no sound comes from the far side, when it counts as gone.
        warned: both sides have heard that the time is nearly up.
        move: a call that is to take this one's place.
        stranded_until: a transfer has failed; who leaves before this has left the visitor with nobody.
        others: who else takes part, each with a call of its own; these have neither `others` nor `move`.
        joining: who has been accepted into the conversation and is not in it yet.
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
    held_until: float | None = None
    quiet_until: float | None = None
    warned: bool = False
    move: "Move | None" = None
    stranded_until: float = 0.0
    others: tuple["Talking", ...] = ()
    joining: tuple[Offered, ...] = ()

    @property
    def parties(self) -> tuple["Talking", ...]:
        """Everybody who takes part, the one that the visit belongs to first."""
        return (self, *self.others)

    @property
    def warns_at(self) -> float:
        """When both sides are to hear that the time is nearly up."""
        return self.until - min(WARNING_SECONDS, (self.until - self.since) / 2)

    @property
    def lost_at(self) -> float | None:
        """When the far side of this one call counts as gone; a held call may be silent."""
        return self.quiet_until if self.held_until is None else self.held_until

    def deadlines(self) -> Iterator[float]:
        """When something is to be done by itself."""
        yield self.until
        if not self.warned:
            yield self.warns_at
        yield from (party.lost_at for party in self.parties if party.lost_at is not None)
        yield from (offer.until for offer in self.joining)
        if self.move is not None:
            yield self.move.until


@dataclass(frozen=True, slots=True)
class Move:
    """A call that takes the place of another: a transfer (RFC 5589) as it looks to the one transferred."""

    call: int
    direction: str
    peer: str
    until: float
    rang: bool = False
    early_media: bool = False


@dataclass(frozen=True, slots=True)
class Moving:
    """Whoever talked has gone, and the call that takes his place is not answered yet.

    `talk_until` and `wrong` are those of the conversation, which has one limit however often it moves.
    """

    move: Move
    button: str | None
    talk_until: float
    mode: Mode = Mode.TALK
    wrong: int = 0

    @property
    def call(self) -> int:
        """The number of the call that is awaited."""
        return self.move.call

    @property
    def peer(self) -> str:
        """Whom the visitor was sent to."""
        return self.move.peer

    @property
    def until(self) -> float:
        """How long it may ring."""
        return self.move.until


@dataclass(frozen=True, slots=True)
class Ending:
    """The station has hung up and waits for the SIP side to say so.

    Attributes:
        ended: the phase that was ended, from which the record is made.
        outcome: how the call will be recorded.
        button: what is rung next, if anything.
        plan: how.
        until: when to stop waiting.
        why: why the station has hung up, for the record; empty if the SIP side's reason says it.
    """

    ended: Calling | Offered | Talking | Moving
    outcome: Outcome
    button: str | None
    plan: Plan | None
    talked: float
    until: float
    why: str = ""

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


Phase = Idle | Calling | Offered | Talking | Moving | Ending | Concluded | Off


@dataclass(frozen=True, slots=True)
class Contact:
    """A button's contact while it is anything but quietly up.

    Attributes:
        down: the raw level now.
        since: when the change to it was taken.
        edge: when the level itself changed, which may have been earlier.
        down_for: how long it had been down before that, in all.
        counted: this press has been taken.
    """

    down: bool
    since: float
    edge: float
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
        hours: for each button that has a plan for this time of day its number.
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
    hours: Mapping[str, int] = field(default_factory=dict)


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
    if isinstance(state.phase, Talking):
        yield from state.phase.deadlines()
    elif not isinstance(state.phase, Idle | Off):
        yield state.phase.until


def next_deadline(state: State, settle_seconds: float) -> float | None:
    """The earliest time at which the state changes by itself, or None."""
    return min(_deadlines(state, settle_seconds), default=None)
