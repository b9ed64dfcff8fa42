"""What a step of `intercom check` gives back, and how it waits for what may never come."""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step found.

    Attributes:
        step: its name. A step that looks at several things has one entry for each.
        ok: whether it is well; None when the step was skipped.
        detail: what was found.
        advice: what to do next, or a hint.
    """

    step: str
    ok: bool | None
    detail: str
    advice: str = ""

    def __str__(self) -> str:
        """One line for a person. Words of a server or a device cannot move the cursor."""
        word = {True: "ok", False: "FAIL", None: "skip"}[self.ok]
        line = f"{word:<4} {self.step:<9} {self.detail}" + (f" -> {self.advice}" if self.advice else "")
        return "".join(letter if letter.isprintable() else "?" for letter in line)


Found = Generator[Step, None, T]


def words(error: Exception) -> str:
    """What an error says, without its number."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do work that may block for ever. Raises TimeoutError, and what the work raises."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result(seconds)
