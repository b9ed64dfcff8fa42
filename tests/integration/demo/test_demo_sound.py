"""The virtual card is a loudspeaker and a microphone for every ALSA program, in real time."""

from __future__ import annotations

import time
from pathlib import Path

from deploy.demo.hearing import heard
from deploy.demo.program import Program
from deploy.demo.sound import VirtualCard
from tests.integration.conftest import Voices


def test_both_directions_at_once(tmp_path: Path, voices: Voices) -> None:
    played, captured = tmp_path / "played.wav", tmp_path / "captured.wav"
    with VirtualCard(tmp_path / "card") as card, card.record_loudspeaker(played):
        began = time.monotonic()
        form = ["-D", "door", "-f", "S16_LE", "-r", "16000", "-c", "1"]
        capture = Program(["arecord", *form, "-d", "8", captured], tmp_path / "log", card.environment)
        visitor = card.say(voices.visitor)
        player = Program(["aplay", "-D", "door", voices.resident], tmp_path / "log", card.environment)
        with capture, player:
            assert player.wait(15) == 0
            took = time.monotonic() - began
            assert capture.wait(15) == 0
        assert visitor.wait(5) == 0

    # The files last 10 s: a card that is slower than real time takes 12 s and more.
    assert 9.5 < took < 10.8
    assert heard(voices.visitor, captured).score > 0.95
    assert heard(voices.resident, played).score > 0.95
    assert abs(heard(voices.resident, played).delay_s) < 0.3
    assert not heard(voices.resident, captured).clearly
    assert not heard(voices.visitor, played).clearly


def test_two_cards_do_not_hear_each_other(tmp_path: Path, voices: Voices) -> None:
    left, right = tmp_path / "left.wav", tmp_path / "right.wav"
    with (
        VirtualCard(tmp_path / "1") as one,
        VirtualCard(tmp_path / "2") as two,
        one.record_loudspeaker(left),
        two.record_loudspeaker(right),
    ):
        play = ["aplay", "-D", "door", "-d", "6"]
        with (
            Program([*play, voices.visitor], tmp_path / "log", one.environment) as first,
            Program([*play, voices.resident], tmp_path / "log", two.environment) as second,
        ):
            assert [first.wait(15), second.wait(15)] == [0, 0]
    assert heard(voices.visitor, left).clearly
    assert heard(voices.resident, right).clearly
    assert not heard(voices.resident, left).clearly
