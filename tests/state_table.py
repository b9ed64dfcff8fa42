"""Makes the state table of docs/architecture.md by running `step`, so that page and code cannot differ.

python -m tests.state_table            print the table
python -m tests.state_table --write    put it into docs/architecture.md
"""

import sys
from dataclasses import replace
from pathlib import Path

from intercom.core.actions import Connect, Play, ShowLamp
from intercom.core.events import (
    ButtonPressed,
    CallAnswered,
    CallEnded,
    CallHeld,
    CallOffered,
    CallRang,
    CallReplaced,
    CallRequested,
    CallResumed,
    CallTransferred,
    DigitReceived,
    Event,
    HangUpRequested,
    HoursChanged,
    MessageReceived,
    OpenRequested,
    SoundCame,
    SoundStopped,
    Stopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import lamp_of, tone_of
from intercom.core.policy import Caller, Door, Plan, Policy, Target
from intercom.core.ringing import Outcome, Way
from intercom.core.state import (
    Attempt,
    Calling,
    Concluded,
    Ending,
    Idle,
    Move,
    Moving,
    Off,
    Offered,
    Phase,
    State,
    Talking,
)
from intercom.core.station import step

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
BEGIN, END = "<!-- state table: begin -->\n", "<!-- state table: end -->\n"

NOW, SOON = 1000.0, 1010.0
OURS, OTHERS, OTHER, NEXT = 1, 2, -2, -1
FLAT, GUARD = "sip:flat1@site.example", "sip:guard@site.example"
BELL = Plan((Target(FLAT, 25),))
OFFICE = Plan((Target("sip:office@site.example", 20), Target(GUARD, 20)))
CAREFUL = Plan(BELL.targets, confirm=True)
POLICY = Policy(
    {"bell": BELL, "office": OFFICE},
    {"front": Door(5, frozenset({"5#"}), by_message=True)},
    callers={FLAT: Caller()},
    redirects=frozenset({"sip:*@site.example"}),
)
FIRST = Attempt(OURS, Way(FLAT), until=SOON)
SECOND = Attempt(OTHERS, Way(GUARD), until=SOON + 5)
CALLING = Calling("bell", BELL, (FIRST,), (), 0, None, placed=1)
WAITING = replace(FIRST, rang=True, answered=True)
ENDED = replace(CALLING, attempts=(replace(FIRST, given_up=Outcome.CANCELLED),))
TALKING = Talking(
    OURS, "out", "bell", FLAT, since=900.0, until=SOON, digits="5", digits_until=SOON, warned=True
)
MOVE = Move(NEXT, "out", GUARD, until=SOON)

PHASES: dict[str, Phase] = {
    "Idle": Idle(),
    "Calling": CALLING,
    "Calling, more to ring": replace(CALLING, to_come=OFFICE.targets),
    "Calling two": replace(CALLING, attempts=(FIRST, SECOND), placed=2),
    "Calling, a key is awaited": replace(CALLING, plan=CAREFUL, attempts=(WAITING,)),
    "Offered": Offered(OURS, FLAT, until=SOON),
    "Offered, accepted": Offered(OURS, FLAT, until=SOON, accepted=True),
    "Talking": TALKING,
    "Talking, transferred": replace(TALKING, move=MOVE),
    "Moving": Moving(MOVE, "bell", talk_until=SOON),
    "Ending": Ending(ENDED, Outcome.CANCELLED, None, None, 0.0, until=SOON),
    "Ending, more to ring": Ending(ENDED, Outcome.CANCELLED, "bell", OFFICE, 0.0, until=SOON),
    "Concluded": Concluded(Outcome.BUSY, until=SOON),
    "Off": Off(),
}
EVENTS: dict[str, tuple[Event, float]] = {
    "its time is up": (TimePassed(), SOON),
    "the button pressed": (ButtonPressed("bell"), NOW),
    "another button pressed": (ButtonPressed("office"), NOW),
    "call requested": (CallRequested(FLAT), NOW),
    "hang-up requested": (HangUpRequested(), NOW),
    "call offered": (CallOffered(OTHER, FLAT), NOW),
    "it rang": (CallRang(OURS), NOW),
    "it was answered": (CallAnswered(OURS), NOW),
    "it ended": (CallEnded(OURS, 486, "Busy Here"), NOW),
    "it was redirected": (CallEnded(OURS, 302, "Moved Temporarily", (GUARD,)), NOW),
    "another time of day": (HoursChanged({}), NOW),
    "the next call was answered": (CallAnswered(NEXT), NOW),
    "the next call ended": (CallEnded(NEXT, 486, "Busy Here"), NOW),
    "held": (CallHeld(OURS), NOW),
    "resumed": (CallResumed(OURS), NOW),
    "sound stopped": (SoundStopped(OURS, 2.0), NOW),
    "sound came": (SoundCame(OURS), NOW),
    "transferred": (CallTransferred(OURS, OTHER, FLAT), NOW),
    "replaced": (CallReplaced(OURS, OTHER, FLAT), NOW),
    "right code completed": (DigitReceived(OURS, "#"), NOW),
    "wrong code completed": (DigitReceived(OURS, "1#"), NOW),
    "right code in a message": (MessageReceived(FLAT, "5", True), NOW),
    "open requested": (OpenRequested("front"), NOW),
    "open requested, released": (OpenRequested("front"), NOW),
    "strike locked, released": (StrikeMoved("front", False), NOW),
    "release time is up": (TimePassed(), NOW),
    "stopped": (Stopped(), NOW),
}
RELEASED_UNTIL = {
    "open requested, released": SOON,
    "strike locked, released": SOON,
    "release time is up": NOW,
}


def _cell(phase: Phase, name: str) -> str:
    event, now = EVENTS[name]
    if isinstance(event, DigitReceived) and event.digit == "1#":
        before = State(phase, calls=OTHERS)
        before, _ = step(before, DigitReceived(OURS, "1"), now, POLICY)
        event = DigitReceived(OURS, "#")
    else:
        released = {"front": RELEASED_UNTIL[name]} if name in RELEASED_UNTIL else {}
        before = State(phase, released={} if isinstance(phase, Off) else released, calls=OTHERS)
    after, actions = step(before, event, now, POLICY)
    names = [type(action).__name__ for action in actions if not isinstance(action, ShowLamp | Play | Connect)]
    moved = type(after.phase) is not type(phase)
    if moved:
        names.insert(0, f"**{type(after.phase).__name__}**")
    elif after.phase != before.phase or (not names and after != before and after.released != before.released):
        names.insert(0, "*noted*")
    return "<br>".join(names) or "·"


def table() -> str:
    """The table in Markdown: a column for each phase, a row for each event."""
    rows = [["event", *PHASES], ["---"] * (len(PHASES) + 1)]
    rows += [[name, *(_cell(phase, name) for phase in PHASES.values())] for name in EVENTS]
    rows.append(["*lamp*", *(lamp_of(State(phase)).value for phase in PHASES.values())])
    rows.append(["*tone*", *(tone_of(State(phase)).value for phase in PHASES.values())])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(page: str) -> str:
    """The page with a fresh table between its markers."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END.strip()}")
    return f"{head}{BEGIN}{table()}{END}{tail}"


def main() -> None:
    """Print the table, or write it with `--write`."""
    if "--write" in sys.argv[1:]:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(table())


if __name__ == "__main__":
    main()
