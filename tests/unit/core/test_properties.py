"""What must hold whatever happens: random events at random times, beside a model of the world outside.

The model knows only what the station was told and what it asked for; it keeps its own account of strikes,
calls and typed digits, and never looks into the state to make up its mind.
"""

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from intercom.core.actions import (
    Action,
    Alert,
    Answer,
    Connect,
    Dial,
    HangUp,
    Lock,
    Mix,
    Play,
    RecordAccess,
    Release,
    SendMessage,
    ShowLamp,
    ShowPresence,
    Warn,
)
from intercom.core.events import (
    ButtonDown,
    ButtonPressed,
    ButtonUp,
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
    HealthChanged,
    HoursChanged,
    MessageReceived,
    OpenRequested,
    SoundCame,
    SoundStopped,
    Stopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import Hearing, Lamp, Tone, hearing_of, lamp_of, tone_of
from intercom.core.notices import presence_of
from intercom.core.policy import Caller, Door, Mode, Notice, Occasion, Plan, Policy, Target
from intercom.core.state import Calling, Idle, Off, State, next_deadline
from intercom.core.station import step
from intercom.runtime import Step
from tests.fakes import FLAT, GUARD, OFFICE, Story

NIGHT, TRUNK = "sip:night@site.example", "sip:+49891234@site.example"
CAREFUL = {NIGHT, TRUNK}
MOST_TOGETHER = 2
MICROPHONE_OPEN = {Hearing.TALK, Hearing.MICROPHONE}
CODES = {"front": "47*11#", "gate": "*0*#"}  # stars: no number looks like one
POLICY = Policy(
    buttons={
        "bell": Plan((Target(FLAT, 25),)),
        "office": Plan((Target(OFFICE, 20), Target(GUARD, 15, together=True), Target(FLAT, 10)), rounds=2),
    },
    hours={"bell": (Plan((Target(NIGHT, 5),), last_resort=Target(TRUNK, 20), confirm=True),)},
    redirects=frozenset({"sip:*@site.example"}),
    doors={"front": Door(5, frozenset({CODES["front"]})), "gate": Door(3, frozenset({CODES["gate"]}))},
    callers={FLAT: Caller(), "sip:*@home.example": Caller()},
)
AUTOMATIC = replace(POLICY, callers={FLAT: Caller(automatic=True)})
ONE_WAY = replace(
    POLICY,
    callers={
        FLAT: Caller(automatic=True, mode=Mode.ANNOUNCE),
        "sip:*@home.example": Caller(mode=Mode.LISTEN),
    },
)
WRITING = replace(
    POLICY,
    doors={"front": Door(5, frozenset({CODES["front"]}), by_message=True), "gate": POLICY.doors["gate"]},
    callers={FLAT: Caller()},
    notices=(Notice((FLAT, GUARD), frozenset(Occasion)),),
    publishes=True,
)
JOINING = replace(POLICY, join=True)
HASTY = replace(POLICY, settle_seconds=0, repeat_seconds=0, outcome_seconds=0, hang_up_seconds=0.01)

buttons = st.sampled_from(["bell", "office", "no such button"])
doors = st.sampled_from(["front", "gate", "no such door"])
calls = st.one_of(st.integers(1, 6), st.integers(-4, -1))
texts = st.one_of(st.text(max_size=8), st.just("\udce9"))
presses = st.one_of(
    st.builds(ButtonDown, buttons), st.builds(ButtonUp, buttons), st.builds(ButtonPressed, buttons)
)
operators = st.one_of(
    st.builds(CallRequested, st.sampled_from([FLAT, GUARD])),
    st.just(HangUpRequested()),
    st.builds(OpenRequested, doors),
)
sip = st.one_of(
    st.builds(CallRang, calls, st.booleans()),
    st.builds(CallAnswered, calls),
    st.builds(CallHeld, calls),
    st.builds(CallResumed, calls),
    st.builds(SoundStopped, calls, st.floats(0, 5)),
    st.builds(SoundCame, calls),
    st.builds(CallEnded, calls, st.sampled_from([0, 200, 404, 408, 480, 486, 487, 503, 603, 999]), texts),
    st.builds(
        CallEnded,
        calls,
        st.sampled_from([300, 302, 305, 380]),
        texts,
        st.lists(st.sampled_from([FLAT, OFFICE, "sip:a@site.example", "sip:b@evil.example"])).map(tuple),
    ),
)
parts = st.one_of(
    st.builds(StrikeMoved, doors, st.booleans()),
    st.builds(HealthChanged, st.sampled_from(["sound", "pin"]), st.sampled_from([None, "gone"])),
    st.builds(HoursChanged, st.sampled_from([{}, {"bell": 0}])),
    st.just(TimePassed()),
)
written = st.builds(
    MessageReceived,
    st.sampled_from([FLAT, "sip:stranger@site.example"]),
    st.sampled_from([*CODES.values(), "47*11", " 47*11#\n", "1", "hello", "\udce9"]),
    st.booleans(),
)
digits = st.builds(DigitReceived, calls, st.one_of(st.sampled_from("0147#*#"), texts))
events = st.one_of(presses, operators, sip, digits, parts, written)
pauses = st.one_of(st.just(0.0), st.floats(0, 0.05), st.floats(0, 3), st.floats(0, 60), st.just(5.0))


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[float, Event]]:
    """Events with the pause before each; rows of digits and visits come whole, so as not to be rare."""
    happened: list[tuple[float, Event]] = []
    offered = 0
    for kind in draw(st.lists(st.integers(0, 8), max_size=40)):
        pause = draw(pauses)
        if kind == 0:
            offered -= 1  # the SIP side numbers each offer anew
            happened.append(
                (pause, CallOffered(offered, draw(st.sampled_from([FLAT, "sip:x@home.example", GUARD]))))
            )
        elif kind == 1:
            call = draw(calls)
            code = draw(st.sampled_from([*CODES.values(), "47*12#", "47*11", "*11#"]))
            happened += [
                (draw(st.sampled_from([0.0, 0.4, 4.0])), DigitReceived(call, digit)) for digit in code
            ]
        elif kind == 2:
            call = draw(calls)
            happened += [(pause, ButtonPressed("bell")), (1.0, CallRang(call)), (1.0, CallAnswered(call))]
        elif kind == 8:
            offered -= 1
            call = draw(calls)
            moved = draw(st.booleans())
            new = CallTransferred(call, offered, OFFICE) if moved else CallReplaced(call, offered, OFFICE)
            happened.append((pause, new))
        elif kind == 3:
            happened.append((min(pause, 4.0), OpenRequested(draw(st.sampled_from(["front", "gate"])))))
        else:
            happened.append((pause, draw(events)))
    if draw(st.integers(0, 2)) == 0:
        happened.append((draw(pauses), Stopped()))
    return happened


policies = st.sampled_from([POLICY, AUTOMATIC, ONE_WAY, WRITING, HASTY, JOINING])


@dataclass
class World:
    """What is outside the station, moved by its actions and by what it was told."""

    policy: Policy
    locks_at: dict[str, float] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    keyed: set[int] = field(default_factory=set)
    careful: set[int] = field(default_factory=set)
    hearings: dict[int, Hearing] = field(default_factory=dict)
    hung_up: dict[int, float] = field(default_factory=dict)
    losers: set[int] = field(default_factory=set)
    redirected: bool = False
    typed: dict[int, tuple[str, float]] = field(default_factory=dict)
    dialled: int = 0
    lamp: Lamp = Lamp.READY
    tone: Tone = Tone.SILENCE
    presence: ShowPresence = field(default_factory=lambda: presence_of(State()))
    wrong: int = 0
    deaf_until: float = 0.0

    @property
    def established(self) -> set[int]:
        """The calls towards which the microphone is open."""
        return {call for call, hearing in self.hearings.items() if hearing in MICROPHONE_OPEN}

    @property
    def connected(self) -> set[int]:
        """Those who talk, listen or announce something."""
        return {
            call for call, hearing in self.hearings.items() if hearing is not Hearing.PROMPT
        } & self.answered

    def heard(self, event: Event, now: float, actions: tuple[Action, ...]) -> list[str]:
        """Take in what happened; returns the doors that this event permits to open."""
        for action in actions:
            if isinstance(action, HangUp):
                self.hearings.pop(action.call, None)
                if any(isinstance(other, Connect) for other in actions):
                    self.losers.add(action.call)
        match event:
            case CallAnswered(call) if call in self.live and call not in self.hung_up:
                self.answered.add(call)
            case CallTransferred(call, new) | CallReplaced(call, new):
                self.live.add(new)
            case CallEnded(call, contacts=contacts):
                self.redirected |= bool(contacts)
                self.live.discard(call)
                self.hearings.pop(call, None)
                self.typed.pop(call, None)
                self.hung_up.pop(call, None)
            case OpenRequested(door):
                return [door]
            case MessageReceived(peer, text, secure) if peer in self.policy.callers:
                return self._wrote(text, secure, now)
            case DigitReceived(call) if call not in self.connected:
                self.keyed.add(call)
            case DigitReceived(call, digit):
                typed, until = self.typed.pop(call, ("", 0.0))
                if not typed or now >= until:
                    typed, until = "", now + self.policy.code_seconds
                code = typed + digit
                if digit != "#":
                    self.typed[call] = code, until
                else:
                    return [door for door, known in CODES.items() if known == code]
        return []

    def _wrote(self, text: str, secure: bool, now: float) -> list[str]:
        """A right code opens what may be opened so, unless five wrong ones came before it."""
        code = text.strip().removesuffix("#")
        if now < self.deaf_until or not any(door.by_message for door in self.policy.doors.values()):
            return []
        if secure and code == CODES["front"].removesuffix("#"):
            self.wrong = 0
            return ["front"]
        if code in {"1", *(known.removesuffix("#") for known in CODES.values())}:
            self.wrong += 1
            if self.wrong >= 5:
                self.deaf_until = now + min(30 * 2 ** (self.wrong - 5), 900)
        return []

    def did(self, action: Action, now: float, permitted: list[str]) -> None:
        """Carry out an action, and see that it may be carried out."""
        match action:
            case Dial(call, to):
                assert call == self.dialled + 1, "each call has its own number"
                self.dialled = call
                if to in CAREFUL:
                    self.careful.add(call)
                self._ring(call, now)
            case Connect(call, hearing):
                assert call in self.live - self.hung_up.keys(), "only who is there is connected"
                if hearing in MICROPHONE_OPEN:
                    assert call in self.answered, "only who has answered hears the door"
                    assert call in self.keyed or call not in self.careful, "without a key nobody hears it"
                self.hearings[call] = hearing
            case Alert(call):
                assert not self.live - self.hung_up.keys() | self._unconfirmed(now), (
                    f"{call} is a second call"
                )
            case Answer(call):
                self.live.add(call)
            case HangUp(call):
                assert call in self.live or call < 0, "only what lives can be hung up"
                self.hung_up[call] = now + self.policy.hang_up_seconds
            case Release(door, seconds):
                assert door in permitted, "nobody asked for this door"
                assert door not in self.locks_at, "one release for one request"
                assert seconds == self.policy.doors[door].release_seconds
                self.locks_at[door] = now + seconds
            case Lock(door):
                self.locks_at.pop(door, None)
            case ShowLamp(lamp):
                self.lamp = lamp
            case Play(tone):
                self.tone = tone
            case ShowPresence():
                self.presence = action
            case Mix(calls) | Warn(calls):
                assert set(calls) <= self.established, "only who talks hears it"
            case RecordAccess(door=str(door), granted=True):
                assert door in permitted

    def _ring(self, call: int, now: float) -> None:
        others = self.live - self.hung_up.keys()
        assert len(others) < MOST_TOGETHER, f"{others} still live while {call} begins"
        assert not self.established, f"{call} is rung beside a talk"
        if not others and not self.redirected:
            assert not self._unconfirmed(now), f"{call} begins before those before it are over"
        self.live.add(call)

    def _unconfirmed(self, now: float) -> set[int]:
        """Those that were hung up and may still be there, but for who was too late to answer.

        Whoever the SIP side has brought into a conversation is hung up on before the next call begins.
        """
        return {old for old, until in self.hung_up.items() if now < until and old > 0} - self.losers


def play(
    happened: list[tuple[float, Event]], policy: Policy, *, punctual: bool
) -> tuple[World, State, float]:
    """Let it all happen and check each step; a punctual runtime meets each deadline when it is due."""
    state, now, world = State(), 1000.0, World(policy)
    for pause, event in happened:
        end = now + pause
        while punctual and (due := next_deadline(state, policy.settle_seconds)) is not None and due <= end:
            now = max(now, due)
            state = check(world, state, TimePassed(), now)
        now = end
        state = check(world, state, event, now)
    return world, state, now


def check(world: World, state: State, event: Event, now: float) -> State:
    """Take a step, which must be the same as to meet what is due first and to take in the event then."""
    at_once, done = step(state, event, now, world.policy)
    parts: list[Action] = []
    for each in (TimePassed(), event):
        state, actions = step(state, each, now, world.policy)
        parts += actions
        look(world, state, each, now, actions)
    assert at_once == state
    derived = ShowLamp | Play | Connect | ShowPresence
    assert [action for action in done if not isinstance(action, derived)] == [
        action for action in parts if not isinstance(action, derived)
    ]
    return state


def look(world: World, state: State, event: Event, now: float, actions: tuple[Action, ...]) -> None:
    """Carry out the actions of a step in the model, and see that nothing is wrong with the world."""
    permitted = world.heard(event, now, actions)
    for action in actions:
        world.did(action, now, permitted)
    heard = [hearing for hearing in world.hearings.values() if hearing is not Hearing.PROMPT]
    assert len(heard) <= 1 or not isinstance(state.phase, Calling), "one voice at a time"
    if not world.policy.join:
        assert len(world.established) <= 1, "no press has two live calls"
    assert world.hearings == hearing_of(state)
    assert all(now < until for until in world.locks_at.values()), "a strike is released past its deadline"
    assert world.lamp is lamp_of(state), "the lamp tells what the station does"
    assert world.tone is tone_of(state), "the tone tells what the station does"
    assert not world.policy.publishes or world.presence == presence_of(state), "watchers see what it does"
    if isinstance(event, MessageReceived):
        refused = [action for action in actions if isinstance(action, RecordAccess) and not action.granted]
        assert all(action.how == "message" for action in refused)
    if not world.policy.notices:
        assert not any(isinstance(action, SendMessage) for action in actions), "nobody wants to be told"
    if world.lamp is not Lamp.DOOR_OPEN:
        live = world.established
        assert (world.lamp is Lamp.TALKING) == bool(live), "it tells when the microphone is live"
    deadline = next_deadline(state, world.policy.settle_seconds)
    assert deadline is None or deadline > now, "what is due is done"
    if isinstance(state.phase, Off):
        assert not world.locks_at, "a station that is off holds no door open"
        assert not world.live - world.hung_up.keys(), "a station that is off holds no call"


@given(happenings(), policies, st.booleans())
def test_doors_calls_lamp_and_tone(
    happened: list[tuple[float, Event]], policy: Policy, punctual: bool
) -> None:
    play(happened, policy, punctual=punctual)


@given(happenings(), policies, st.booleans())
def test_every_call_ends_and_every_door_locks_even_if_the_sip_side_never_speaks_again(
    happened: list[tuple[float, Event]], policy: Policy, punctual: bool
) -> None:
    world, state, now = play(happened, policy, punctual=punctual)
    story = Story(policy, state, now)
    for action in story.wait(2 * (policy.talk_seconds + 60)):
        if isinstance(action, HangUp):
            world.hung_up[action.call] = story.now
        elif isinstance(action, Dial):
            world.live.add(action.call)
        elif isinstance(action, Lock):
            world.locks_at.pop(action.door)
    assert isinstance(story.phase, Idle | Off)
    assert world.locks_at == {}
    assert world.live <= world.hung_up.keys()
    assert next_deadline(story.state, policy.settle_seconds) is None


@given(happenings(), policies, st.integers(1000, 1099), st.text(max_size=2))
def test_what_is_said_about_a_call_that_is_not_ours_changes_nothing(
    happened: list[tuple[float, Event]], policy: Policy, number: int, digit: str
) -> None:
    _, state, now = play(happened, policy, punctual=True)
    number += state.calls
    for event in (
        CallRang(number, early_media=True),
        CallAnswered(number),
        CallEnded(number, 200, "OK"),
        DigitReceived(number, digit),
        DigitReceived(number, "#"),
        CallHeld(number),
        CallResumed(number),
        SoundStopped(number, 2.0),
        SoundCame(number),
        CallRang(-number),
        CallAnswered(-number),
        CallEnded(-number, 487, "Request Terminated"),
        DigitReceived(-number, "#"),
    ):
        assert step(state, event, now, policy) == (state, ())


@given(happenings(), policies, st.permutations(list(CODES.values())))
def test_no_code_is_ever_shown(happened: list[tuple[float, Event]], policy: Policy, codes: list[str]) -> None:
    """Neither in an event, an action, a record or a step, nor in the state, while codes are typed."""
    typed: list[Event] = [DigitReceived(1, digit) for code in codes for digit in code]
    typed += [MessageReceived(FLAT, code, True) for code in codes]
    visit: list[tuple[float, Event]] = [(1.0, ButtonPressed("bell")), (1.0, CallAnswered(1))]
    visit += [(0.1, digit) for digit in typed]
    story, shown, opened = Story(policy), [repr(policy)], 0
    for pause, event in visit + happened:
        actions = tuple(story.wait(pause) + story.tell(event))
        opened += sum(isinstance(action, Release) for action in actions)
        line = f"{event}: {''.join(f'; {action}' for action in actions)}"
        shown += [line, repr(Step(0, event, "Idle", "Talking", actions)), repr(story.state)]
    assert opened >= 2
    for line in shown:
        for code in codes:
            assert code.removesuffix("#") not in line


@given(happenings(), policies)
def test_two_runs_of_the_same_events_are_the_same(
    happened: list[tuple[float, Event]], policy: Policy
) -> None:
    assert play(happened, policy, punctual=False) == play(happened, policy, punctual=False)
