"""What a test asks of every telephone, whatever program it is.

Rule: what the phone reports is kept as an event, and each event is handed out once, so a test waits
for "the next ring" without looking at the clock.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.demo.account import Account
from deploy.demo.program import Program, ProgramError


@dataclass(frozen=True)
class PhoneEvent:
    """Something the phone reported: baresip's event name, its text, and when (monotonic seconds)."""

    type: str
    text: str
    peer: str
    call: str
    at: float


class Telephone(ABC):
    """A phone with one account and a folder of its own.

    Args:
        folder: for its configuration and log; one per phone.
        account: who it is and where it registers.
    """

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder = folder.resolve()
        self.account = account
        self.log = self.folder / "phone.log"
        self._program: Program | None = None
        self._news = threading.Condition()
        self._events: list[PhoneEvent] = []
        self._handed_out: dict[str, int] = {}
        self._ended = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start the phone; blocks until it takes commands.

        Raises:
            ProgramError: it does not start.
        """

    @abstractmethod
    def stop(self) -> None:
        """Unregister, hang up and end the phone. Harmless when it does not run."""

    @abstractmethod
    def answer(self) -> None:
        """Lift the receiver."""

    @abstractmethod
    def reject(self) -> None:
        """Refuse the ringing call."""

    @abstractmethod
    def hang_up(self) -> None:
        """End the call, or give up dialling."""

    @abstractmethod
    def dial(self, uri: str) -> None:
        """Call somebody; does not wait for an answer."""

    @property
    def events(self) -> list[PhoneEvent]:
        """All that was reported so far, the oldest first."""
        with self._news:
            return list(self._events)

    @property
    def digits(self) -> str:
        """The keys that the far end has pressed so far."""
        return "".join(event.text for event in self.events if event.type == "CALL_DTMF_START")

    @property
    def program(self) -> Program:
        """The phone's process.

        Raises:
            ProgramError: it is not started.
        """
        if self._program is None:
            raise ProgramError(f"the phone in {self.folder} is not started")
        return self._program

    def kill(self) -> None:
        """End the phone without a word to anybody, as a pulled plug does."""
        self.program.kill()
        self.stop()

    def wait_event(self, kind: str, timeout: float = 10.0, text: str = "") -> PhoneEvent:
        """Block for the next event of a kind that was not handed out before.

        Args:
            kind: baresip's name: REGISTER_OK, REGISTER_FAIL, CALL_INCOMING, CALL_RINGING, CALL_PROGRESS,
                CALL_ESTABLISHED, CALL_CLOSED, CALL_DTMF_START, CALL_RTCP, …
            timeout: seconds.
            text: must be part of the event's text; events without it are skipped for good.

        Raises:
            ProgramError: no such event within the time, or the phone has ended.
        """
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for index in range(self._handed_out.get(kind, 0), len(self._events)):
                    event = self._events[index]
                    if event.type == kind and text in event.text:
                        self._handed_out[kind] = index + 1
                        return event
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._news.wait(left):
                    break
            seen = ", ".join(f"{event.type} {event.text}".strip() for event in self._events[-20:])
        raise ProgramError(
            f"{self.account.user} saw no {kind} {text} within {timeout:g} s, but: {seen or 'nothing'}; "
            f"the end of {self.log}:\n{self.program.tail()}"
        )

    def wait_registered(self, timeout: float = 10.0) -> PhoneEvent:
        """Block until the server has accepted the registration."""
        return self.wait_event("REGISTER_OK", timeout)

    def wait_ringing(self, timeout: float = 10.0) -> PhoneEvent:
        """Block until a call comes in; `peer` of the event is who calls."""
        return self.wait_event("CALL_INCOMING", timeout)

    def wait_established(self, timeout: float = 10.0) -> PhoneEvent:
        """Block until a call, in or out, is answered."""
        return self.wait_event("CALL_ESTABLISHED", timeout)

    def wait_closed(self, timeout: float = 10.0) -> PhoneEvent:
        """Block until a call is over; the text says why, such as "486 Busy Here"."""
        return self.wait_event("CALL_CLOSED", timeout)

    def wait_digits(self, digits: str, timeout: float = 10.0) -> None:
        """Block until the far end has pressed exactly these keys, in this order, since the last such wait.

        Raises:
            ProgramError: other keys, or too few within the time.
        """
        for digit in digits:
            event = self.wait_event("CALL_DTMF_START", timeout)
            if event.text != digit:
                raise ProgramError(f"{self.account.user} heard {event.text!r}, not {digit!r} of {digits!r}")
