"""The step loop: an event goes in, the state moves, the actions are carried out, the next deadline is set.

Rule: everything happens on the event loop's thread, one event at a time; other threads use
`post_from_thread`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from intercom.core.actions import Action
from intercom.core.events import (
    CallHeld,
    CallReplaced,
    CallResumed,
    CallTransferred,
    Event,
    HealthChanged,
    HoursChanged,
    SoundCame,
    SoundStopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.policy import Policy
from intercom.core.state import State, next_deadline
from intercom.core.station import step

log = logging.getLogger(__name__)

RECENT_STEPS = 256
TOLD = (
    StrikeMoved
    | HealthChanged
    | HoursChanged
    | CallHeld
    | CallResumed
    | SoundStopped
    | SoundCame
    | CallTransferred
    | CallReplaced
)
"""Events that are told also when nothing is done about them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that did something: what it was told and shown by."""

    at: float
    event: Event
    before: str
    after: str
    actions: tuple[Action, ...]


class Runtime:
    """Holds the state, and moves it."""

    def __init__(self, policy: Policy, perform: Callable[[Action], None]) -> None:
        """Start idle. Needs a running event loop.

        Args:
            policy: the owner's rules.
            perform: carries out one action. Must not block.
        """
        self.state = State()
        self.recent: deque[Step] = deque(maxlen=RECENT_STEPS)
        self._policy = policy
        self._perform = perform
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._watchers: set[Callable[[Step], None]] = set()

    def post(self, event: Event) -> tuple[Action, ...]:
        """Take one step and carry out its actions, which are returned for those who asked for it."""
        now = self._loop.time()
        before = self.state
        self.state, actions = step(before, event, now, self._policy)
        for action in actions:
            try:
                self._perform(action)
            except Exception:  # the next action, and the next deadline, matter as much
                log.exception("%s was not carried out", action)
        self._arm()
        moved = type(before.phase) is not type(self.state.phase)
        if actions or moved or isinstance(event, TOLD):
            names = type(before.phase).__name__, type(self.state.phase).__name__
            self._tell(Step(now, event, *names, actions))
        return actions

    def post_from_thread(self, event: Event) -> None:
        """Take a step soon; for threads other than the event loop's. Never blocks."""
        self._loop.call_soon_threadsafe(self.post, event)

    def watch(self, watcher: Callable[[Step], None]) -> Callable[[], None]:
        """Have every step told from now on; returns what ends it."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)

    def close(self) -> None:
        """Forget the next deadline."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        deadline = next_deadline(self.state, self._policy.settle_seconds)
        if self._timer is not None:
            if self._timer.when() == deadline and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self.post(TimePassed())

    def _tell(self, step: Step) -> None:
        self.recent.append(step)
        log.info(
            "%s: %s -> %s%s",
            step.event,
            step.before,
            step.after,
            "".join(f"; {action}" for action in step.actions),
        )
        for watcher in tuple(self._watchers):
            watcher(step)
