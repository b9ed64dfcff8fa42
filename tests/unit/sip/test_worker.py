"""The one thread of the SIP engine, driven with an engine that speaks to nobody."""

import threading
from collections.abc import Callable, Iterator

import pytest

from intercom.sip.worker import KEEP_ALIVE, LONGEST_POLL_SECONDS, Later, Worker
from tests.fakes import TIME_LIMIT, Ear, FakeEngine


class Thread:
    """A worker with its engine, as a test sees them."""

    def __init__(self, engine: FakeEngine | None) -> None:
        self.engine = engine or FakeEngine()
        self.broken = engine is None
        self.deaths: Ear[str] = Ear()
        self.later: Later = lambda seconds, job: None
        self.built_on = ""
        self.worker: Worker[FakeEngine] = Worker(self._build, self.deaths)

    def _build(self, later: Later) -> FakeEngine:
        self.built_on = threading.current_thread().name
        self.later = later
        if self.broken:
            raise OSError("the port is taken")
        return self.engine


Start = Callable[[FakeEngine | None], Thread]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(engine: FakeEngine | None) -> Thread:
        thread = Thread(engine)
        thread.worker.start()
        started.append(thread)
        return thread

    yield start
    for thread in started:
        assert thread.worker.stop(TIME_LIMIT)
        assert thread.engine.closed or thread.broken
        thread.engine.close()


def test_jobs_are_done_in_order_on_the_thread_that_built_the_engine(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    done: Ear[tuple[int, str, bool]] = Ear()

    def job(number: int) -> Callable[[FakeEngine], None]:
        return lambda engine: done((number, threading.current_thread().name, engine is thread.engine))

    for number in range(100):
        thread.worker.submit(job(number))
    assert [done.next() for _ in range(100)] == [(number, "sip", True) for number in range(100)]
    assert thread.built_on == "sip"


def test_a_job_from_before_the_start_waits_for_the_engine() -> None:
    thread = Thread(FakeEngine(patient=True))
    done: Ear[str] = Ear()
    thread.worker.submit(lambda engine: done("first"))
    assert done.rest() == []
    thread.worker.start()
    assert done.next() == "first"
    assert thread.worker.stop(TIME_LIMIT)


def test_a_job_ends_a_poll_with_a_datagram_that_a_sip_stack_drops(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    thread.engine.polling.next()
    done: Ear[str] = Ear()
    thread.worker.submit(lambda engine: done("done"))
    assert done.next() == "done"
    assert thread.engine.datagrams == [KEEP_ALIVE]


def test_an_idle_thread_polls_no_more_than_once_a_second(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    thread.engine.polling.next()
    assert thread.engine.waits == [LONGEST_POLL_SECONDS]


def test_a_job_may_be_submitted_by_a_job(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    done: Ear[str] = Ear()
    thread.worker.submit(lambda engine: thread.worker.submit(lambda engine: done("inner")))
    assert done.next() == "inner"


def test_timers_run_on_the_thread_in_the_order_of_their_time(start: Start) -> None:
    thread = start(FakeEngine())
    done: Ear[tuple[str, str]] = Ear()

    def note(word: str) -> Callable[[], None]:
        return lambda: done((word, threading.current_thread().name))

    def arm(engine: FakeEngine) -> None:
        thread.later(0.02, note("last"))
        thread.later(0.01, note("first"))
        thread.later(0.01, note("second"))
        thread.later(0, note("at once"))

    thread.worker.submit(arm)
    words = [done.next() for _ in range(4)]
    assert words == [(word, "sip") for word in ("at once", "first", "second", "last")]


def test_a_poll_lasts_no_longer_than_the_next_timer(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    thread.engine.polling.next()
    thread.worker.submit(lambda engine: thread.later(0.5, lambda: None))
    thread.engine.polling.next()
    assert 0 < thread.engine.waits[1] <= 0.5
    thread.worker.submit(lambda engine: thread.later(3600, lambda: None))
    thread.engine.polling.next()
    assert 0 < thread.engine.waits[2] <= 0.5


def test_a_far_timer_does_not_prolong_the_poll(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    thread.engine.polling.next()
    thread.worker.submit(lambda engine: thread.later(3600, lambda: None))
    thread.engine.polling.next()
    assert thread.engine.waits == [LONGEST_POLL_SECONDS] * 2


def test_stopping_does_the_jobs_that_are_left_and_closes_the_engine(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    thread.engine.polling.next()
    holding, held, done = threading.Event(), threading.Event(), []

    def hold(engine: FakeEngine) -> None:
        held.set()
        assert holding.wait(TIME_LIMIT)

    thread.worker.submit(hold)
    assert held.wait(TIME_LIMIT)
    thread.worker.submit(lambda engine: done.append(engine.closed))
    assert not thread.worker.stop(0), "it is still held"
    holding.set()
    assert thread.worker.stop(TIME_LIMIT)
    assert done == [False]
    assert thread.engine.closed
    assert thread.deaths.rest() == []


def test_a_job_that_comes_while_the_thread_ends_is_still_done(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    thread.engine.polling.next()
    done: Ear[bool] = Ear()
    thread.engine.on_wake = lambda: thread.worker.submit(lambda engine: done(engine.closed))
    assert thread.worker.stop(TIME_LIMIT)
    assert done.rest() == [False]


def test_after_the_end_jobs_are_not_an_error(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    assert thread.worker.stop(TIME_LIMIT)
    done: Ear[str] = Ear()
    thread.worker.submit(lambda engine: done("never"))
    assert thread.worker.stop(0)
    assert done.rest() == []


# Death


def test_an_engine_that_cannot_be_built_is_told(start: Start) -> None:
    thread = start(None)
    assert thread.deaths.next() == "OSError: the port is taken"


def test_a_job_that_fails_is_logged_and_the_next_is_done(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    thread = start(FakeEngine(patient=True))
    done = Ear[str]()

    def fail(engine: FakeEngine) -> None:
        raise KeyError("no such call")

    def fail_later() -> None:
        raise ValueError("no such tone")

    thread.worker.submit(fail)
    thread.worker.submit(lambda engine: thread.later(0, fail_later))
    thread.worker.submit(lambda engine: thread.later(0, lambda: done("rings")))
    assert done.next() == "rings"
    assert "no such call" in caplog.text
    assert "no such tone" in caplog.text


def test_an_engine_that_breaks_down_is_told(start: Start) -> None:
    thread = start(FakeEngine(patient=True))
    thread.worker.submit(lambda engine: engine.break_down(RuntimeError("pjsip has asserted")))
    assert thread.deaths.next() == "RuntimeError: pjsip has asserted"
    assert thread.engine.closed
