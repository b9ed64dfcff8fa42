"""Makes the state table of docs/architecture.md by running `step`, so that page and code cannot differ.

python -m tests.state_table            print the table
python -m tests.state_table --write    put it into docs/architecture.md
"""

import sys
from dataclasses import replace
from pathlib import Path

from intercom.core.actions import Play, ShowLamp
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
    MessageReceived,
    OpenRequested,
    SoundCame,
    SoundStopped,
    Stopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import lamp_of, tone_of
from intercom.core.policy import Caller, Door, Policy, Target
from intercom.core.ringing import Outcome
from intercom.core.state import (
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
OURS, OTHER, NEXT = 1, -2, -1
BELL = (Target("sip:flat1@site.example", 25),)
OFFICE = (Target("sip:office@site.example", 20), Target("sip:guard@site.example", 20))
POLICY = Policy(
    {"bell": BELL, "office": OFFICE},
    {"front": Door(5, frozenset({"5#"}), by_message=True)},
    callers={BELL[0].to: Caller()},
)
CALLING = Calling(OURS, "bell", BELL, until=SOON)
TALKING = Talking(
    OURS, "out", "bell", BELL[0].to, since=900.0, until=SOON, digits="5", digits_until=SOON, warned=True
)
MOVE = Move(NEXT, "out", OFFICE[0].to, until=SOON)

PHASES: dict[str, Phase] = {
    "Idle": Idle(),
    "Calling": CALLING,
    "Calling, more to ring": Calling(OURS, "bell", OFFICE, until=SOON),
    "Offered": Offered(OURS, BELL[0].to, until=SOON),
    "Offered, accepted": Offered(OURS, BELL[0].to, until=SOON, accepted=True),
    "Talking": TALKING,
    "Talking, transferred": replace(TALKING, move=MOVE),
    "Moving": Moving(MOVE, "bell"),
    "Ending": Ending(CALLING, Outcome.CANCELLED, None, (), 0.0, until=SOON),
    "Ending, more to ring": Ending(CALLING, Outcome.CANCELLED, "bell", OFFICE, 0.0, until=SOON),
    "Concluded": Concluded(Outcome.BUSY, until=SOON),
    "Off": Off(),
}
EVENTS: dict[str, tuple[Event, float]] = {
    "its time is up": (TimePassed(), SOON),
    "the button pressed": (ButtonPressed("bell"), NOW),
    "another button pressed": (ButtonPressed("office"), NOW),
    "call requested": (CallRequested(BELL[0].to), NOW),
    "hang-up requested": (HangUpRequested(), NOW),
    "call offered": (CallOffered(OTHER, BELL[0].to), NOW),
    "it rang": (CallRang(OURS), NOW),
    "it was answered": (CallAnswered(OURS), NOW),
    "it ended": (CallEnded(OURS, 486, "Busy Here"), NOW),
    "the next call was answered": (CallAnswered(NEXT), NOW),
    "the next call ended": (CallEnded(NEXT, 486, "Busy Here"), NOW),
    "held": (CallHeld(OURS), NOW),
    "resumed": (CallResumed(OURS), NOW),
    "sound stopped": (SoundStopped(OURS, 2.0), NOW),
    "sound came": (SoundCame(OURS), NOW),
    "transferred": (CallTransferred(OURS, OTHER, BELL[0].to), NOW),
    "replaced": (CallReplaced(OURS, OTHER, BELL[0].to), NOW),
    "right code completed": (DigitReceived(OURS, "#"), NOW),
    "wrong code completed": (DigitReceived(OURS, "1#"), NOW),
    "right code in a message": (MessageReceived(BELL[0].to, "5", True), NOW),
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
        before = State(phase, calls=OURS)
        before, _ = step(before, DigitReceived(OURS, "1"), now, POLICY)
        event = DigitReceived(OURS, "#")
    else:
        released = {"front": RELEASED_UNTIL[name]} if name in RELEASED_UNTIL else {}
        before = State(phase, released={} if isinstance(phase, Off) else released, calls=OURS)
    after, actions = step(before, event, now, POLICY)
    names = [type(action).__name__ for action in actions if not isinstance(action, ShowLamp | Play)]
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
