"""What is refused stands in the log, and a flood of it does not."""

import logging

import pytest

from intercom.sip.tally import QUIET_SECONDS, Tally


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def all_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_first_is_told_at_once_and_a_flood_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    tally = Tally("call", clock)
    for _ in range(600):
        tally.add(["sip:evil@bad.example"], "not permitted by the settings")
        clock.now += QUIET_SECONDS / 300
    assert caplog.messages == [
        "refused a call from sip:evil@bad.example: not permitted by the settings",
        "refused 300 calls, the last one from sip:evil@bad.example: not permitted by the settings",
    ]


def test_after_a_quiet_minute_one_is_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    tally = Tally("message", clock)
    tally.add(["sip:a@b.example"], 403)
    clock.now += QUIET_SECONDS
    tally.add(["sip:c@b.example", "sip:d@b.example"], 415)
    assert caplog.messages == [
        "refused a message from sip:a@b.example: 403",
        "refused a message from sip:c@b.example, sip:d@b.example: 415",
    ]


def test_many_names_are_no_long_line(caplog: pytest.LogCaptureFixture) -> None:
    Tally("call", Clock()).add(["sip:evil@bad.example"] * 1000, "no")
    assert len(caplog.messages[0]) < 300
