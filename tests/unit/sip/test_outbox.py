"""Messages on their way: how often they are tried, and what is said of those that are lost."""

import asyncio
from datetime import UTC, datetime

from intercom.sip.letter import judge
from intercom.sip.outbox import ANSWER_SECONDS, LONGEST_TEXT, MOST_A_MINUTE, Outbox
from tests.fakes import FLAT, GUARD, timeless

THEN = datetime(2026, 11, 21, 18, 3, tzinfo=UTC)


class Post:
    """What is sent, when, and what is answered: the last word for ever."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self._answers = list(answers)
        self.sent: list[tuple[float, str, str]] = []

    async def send(self, to: str, text: str) -> tuple[int, str]:
        self.sent.append((asyncio.get_running_loop().time(), to, text))
        if not self._answers:
            await asyncio.get_running_loop().create_future()
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    @property
    def pauses(self) -> list[float]:
        first = self.sent[0][0]
        return [round(at - first, 3) for at, _, _ in self.sent]


def outbox(post: Post) -> Outbox:
    return Outbox("Front door", post.send, lambda: THEN)


@timeless
async def test_a_message_says_where_and_when() -> None:
    post = Post((202, "Accepted"))
    box = outbox(post)
    box.put(FLAT, "somebody rings 'bell'")
    await asyncio.sleep(0)
    assert post.sent[0][1:] == (FLAT, "Front door, 2026-11-21 18:03: somebody rings 'bell'")
    await asyncio.sleep(100)
    assert box.status == {"sent": 1, "failed": 0, "waiting": 0, "faults": {}}


@timeless
async def test_what_may_pass_is_tried_three_times() -> None:
    post = Post((503, "Service Unavailable"))
    box = outbox(post)
    box.put(FLAT, "hello")
    await asyncio.sleep(10)
    assert box.status["waiting"] == 1
    await asyncio.sleep(1000)
    assert post.pauses == [0, 5, 35]
    faults = {FLAT: "503 Service Unavailable"}
    assert box.status == {"sent": 0, "failed": 1, "waiting": 0, "faults": faults}


@timeless
async def test_a_later_message_that_arrives_ends_the_fault() -> None:
    box = outbox(Post((404, "Not Found"), (200, "OK")))
    box.put(FLAT, "one")
    await asyncio.sleep(1)
    assert box.status["faults"] == {FLAT: "404 Not Found"}
    box.put(FLAT, "two")
    await asyncio.sleep(1)
    assert box.status == {"sent": 1, "failed": 1, "waiting": 0, "faults": {}}


@timeless
async def test_no_answer_is_not_waited_for_without_end() -> None:
    post = Post()
    box = outbox(post)
    box.put(FLAT, "hello")
    await asyncio.sleep(1000)
    assert post.pauses == [0, ANSWER_SECONDS + 5, 2 * ANSWER_SECONDS + 35]
    assert box.status["faults"] == {FLAT: "408 no answer"}


@timeless
async def test_one_who_is_away_does_not_hold_up_the_other() -> None:
    post = Post((480, "Away"))
    box = outbox(post)
    box.put(FLAT, "hello")
    box.put(GUARD, "hello")
    await asyncio.sleep(0)
    assert [to for _, to, _ in post.sent] == [FLAT, GUARD]
    box.close()
    await asyncio.sleep(1000)
    assert len(post.sent) == 2


@timeless
async def test_a_flood_is_cut() -> None:
    post = Post((200, "OK"))
    box = outbox(post)
    for _ in range(1000):
        box.put(FLAT, "hello")
    await asyncio.sleep(1)
    assert len(post.sent) == MOST_A_MINUTE
    assert box.status["failed"] == 1000 - MOST_A_MINUTE
    assert box.status["faults"] == {FLAT: "more than 30 messages in a minute"}
    await asyncio.sleep(60)
    box.put(FLAT, "hello")
    await asyncio.sleep(1)
    assert box.status["sent"] == MOST_A_MINUTE + 1


@timeless
async def test_a_message_is_one_bounded_line() -> None:
    post = Post((200, "OK"))
    box = outbox(post)
    box.put(FLAT, "a\r\nb\x1b[31m" + "x" * 10_000)
    await asyncio.sleep(1)
    assert post.sent[0][2].startswith("Front door, 2026-11-21 18:03: a??b?[31mx")
    assert len(post.sent[0][2]) == LONGEST_TEXT


def test_what_comes_in_is_judged() -> None:
    assert judge("text/plain", "ä" * 500, permitted=True) == 200
    assert judge("TEXT/Plain", "5#", permitted=True) == 200
    assert judge("text/plain", "5#", permitted=False) == 403
    assert judge("text/html", "5#", permitted=True) == 415
    assert judge("", "", permitted=True) == 415
    assert judge("text/plain", "ä" * 501, permitted=True) == 413
    assert judge("text/plain", "5\udce9#", permitted=True) == 400
    assert judge("text/plain", "5\ud800#", permitted=True) == 400
