"""The files that describe boards: each one loads, and each mistake in one is a clear line."""

import re
from pathlib import Path

import pytest
from gpiozero.pins.mock import MockFactory

from hardware.board import BOARDS, known_boards, load_board, read_board

GOOD = """
name = "trial"
description = "a board for this test"
gpio = "mock"
codec = ""
serial_ports = ["/dev/ttyS0"]
wiring = ""
[reserved]
18 = "the codec"
[[terminal]]
name = "bell"
kind = "button"
pin = 17
header = 11
note = ""
"""


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    file = tmp_path / "trial.toml"
    file.write_text(GOOD)
    return file


def test_the_boards_people_can_name() -> None:
    assert set(known_boards()) >= {"raspberry-pi", "respeaker-2mic", "simulated"}


@pytest.mark.parametrize("name", known_boards())
def test_a_shipped_board_loads(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    assert board.description
    assert board.wiring.strip()


@pytest.mark.parametrize("name", known_boards())
def test_the_wiring_of_a_shipped_board_has_no_clash(name: str) -> None:
    board = load_board(name)
    pins = [terminal.pin for terminal in board.terminals]
    assert len(set(pins)) == len(pins)
    assert not set(pins) & set(board.reserved)
    assert {terminal.kind for terminal in board.terminals} == {"button", "lamp", "door"}


@pytest.mark.parametrize("name", known_boards())
def test_the_header_numbers_of_a_shipped_board_are_right(name: str) -> None:
    header = MockFactory().board_info.headers["J8"]
    for terminal in load_board(name).terminals:
        assert header.pins[terminal.header].name == f"GPIO{terminal.pin}"


@pytest.mark.parametrize("name", known_boards())
def test_no_shipped_door_is_on_a_pin_that_is_high_at_power_on(name: str) -> None:
    assert all(terminal.pin >= 9 for terminal in load_board(name).terminals if terminal.kind == "door")


@pytest.mark.parametrize("name", known_boards())
def test_every_line_of_a_shipped_board_fits_the_page(name: str) -> None:
    assert max(map(len, (BOARDS / f"{name}.toml").read_text().splitlines())) <= 120


def test_the_codec_hat_keeps_its_pins() -> None:
    board = load_board("respeaker-2mic")
    assert {2, 3, 18, 19, 20, 21} <= set(board.reserved)
    assert board.codec == "seeed2micvoicec"


def test_a_good_file_is_read(trial: Path) -> None:
    board = read_board(trial)
    assert (board.gpio, board.serial_ports, board.reserved) == ("mock", ("/dev/ttyS0",), {18: "the codec"})
    assert board.terminals[0].pin == 17


@pytest.mark.parametrize("name", ["nowhere", "../board", ""])
def test_an_unknown_board_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not known; known are .*simulated"):
        load_board(name)


@pytest.mark.parametrize(
    ("good", "wrong", "line"),
    [
        ('gpio = "mock"', 'gpio = "rpigpio"', "trial.toml: gpio: must be 'lgpio' or 'mock', not 'rpigpio'"),
        ('gpio = "mock"', "gpio = 1", "trial.toml: gpio: must be a text, not 1"),
        ('codec = ""', "", "trial.toml: codec: is missing"),
        ('codec = ""', 'codec = ""\nspeed = 1', "trial.toml: speed: there is no such key"),
        ('name = "trial"', 'name = "other"', "trial.toml: name: must be the name of the file, not 'other'"),
        ('["/dev/ttyS0"]', "[1]", "trial.toml: serial_ports: must be a text, not 1"),
        ('18 = "the codec"', "18 = 1", "trial.toml: reserved: 18: must be a text, not 1"),
        ("18 =", "sda =", "trial.toml: reserved: 'sda' is not the number of a pin"),
        ("pin = 17", "pin = true", "trial.toml: terminal: pin: must be a whole number, not True"),
        ("header = 11", "", "trial.toml: terminal: header: is missing"),
        ("header = 11", "header = 11\nx = 1", "trial.toml: terminal: x: there is no such key"),
        (
            'kind = "button"',
            'kind = "gong"',
            "trial.toml: terminal: kind: must be 'button', 'lamp' or 'door'",
        ),
        ('gpio = "mock"', "gpio =", "trial.toml: Invalid value"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_reason(
    trial: Path, good: str, wrong: str, line: str
) -> None:
    assert GOOD.count(good) == 1
    trial.write_text(GOOD.replace(good, wrong))
    with pytest.raises(ValueError, match=re.escape(line)) as caught:
        read_board(trial)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_a_clear_error_too(trial: Path) -> None:
    trial.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"trial\.toml: "):
        read_board(trial)
