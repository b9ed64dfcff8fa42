"""Strangers and forgers: nothing they try gets in. `make bench-attacks` shows that elsewhere it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import attacks
from tests.bench.attacks import Counts, Ours, Victim

WHAT = {
    "injection": "RTP, digits and RTCP BYE of a stranger change nothing in a call",
    "strangers": "strangers are not answered, ring nobody and take nothing over",
    "passwords": "no digest for whoever is in the call, nor for a forged challenge",
    "odd_digits": "each press counts once, however the network and the telephone spoil it",
    "wrong_paths": "the code opens in the established call only, never as sound",
    "forged_answers": "answers from a foreign address are not believed",
    "forged_requests": "BYE, CANCEL, INFO and INVITE from a foreign address change nothing",
}


@pytest.mark.parametrize(
    ("attack", "limits"),
    [
        pytest.param(
            attack,
            limits,
            id=attack.__name__,
            marks=[
                pytest.mark.item(10, WHAT[attack.__name__], "own messages"),
                *([pytest.mark.long] if attack in {attacks.odd_digits, attacks.wrong_paths} else []),
            ],
        )
        for attack, limits in attacks.ATTACKS
    ],
)
def test_nothing_gets_in(
    tmp_path: Path, attack: Callable[[Victim], Counts], limits: dict[str, float]
) -> None:
    with Ours(tmp_path / "door") as station:
        counts = attacks.attacked(station, attack)
    assert {name: count for name, count in counts.items() if count > limits.get(name, 0)} == {}


@pytest.mark.item(10, "hundreds of digits are each taken once, also when packets are lost", "own messages")
@pytest.mark.parametrize(
    ("presses", "loss", "disorder"),
    [(200, 0.0, False), pytest.param(1000, 0.3, True, marks=pytest.mark.long)],
)
def test_every_press_is_one_digit(tmp_path: Path, presses: int, loss: float, disorder: bool) -> None:
    with Ours(tmp_path / "door") as station:
        assert attacks.many(station, presses, 7, loss=loss, disorder=disorder) == 0
