"""Where the pins come from, on a computer with a GPIO chip and on one without."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from gpiozero import Device, OutputDevice
from gpiozero.pins.pi import PiFactory

from hardware.board import BoardDescription, load_board
from hardware.pins import PinsUnavailable, open_pin_factory
from hardware.simulator import SimulatedPins

RELAY = 27


class FakeKernel(ModuleType):
    """What lgpio offers, on lines that remember the levels they were driven to."""

    SET_PULL_NONE, SET_PULL_UP, SET_PULL_DOWN = 128, 32, 64
    RISING_EDGE, FALLING_EDGE, BOTH_EDGES = 1, 2, 3

    class error(Exception):  # noqa: N801  # the name it has in lgpio
        pass

    def __init__(self) -> None:
        super().__init__("lgpio")
        self.driven: dict[int, list[int]] = {}
        self.outputs: set[int] = set()
        self.refuses = ""

    def gpiochip_open(self, chip: int) -> int:
        if self.refuses:
            raise self.error(self.refuses)
        return 0

    def gpiochip_close(self, handle: int) -> None: ...

    def gpio_claim_input(self, handle: int, line: int, flags: int = 0) -> None:
        self.outputs.discard(line)

    def gpio_claim_output(self, handle: int, line: int, level: int = 0, flags: int = 0) -> None:
        self.outputs.add(line)
        self.driven.setdefault(line, []).append(level)

    def gpio_get_mode(self, handle: int, line: int) -> int:
        return 2 if line in self.outputs else 0

    def gpio_write(self, handle: int, line: int, level: bool) -> None:
        self.driven[line].append(int(level))

    def gpio_read(self, handle: int, line: int) -> int:
        return self.driven[line][-1]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    fake = FakeKernel()
    modules = ["lgpio", "gpiozero.pins.lgpio", "hardware.kernel"]
    for module in modules:
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "lgpio", fake)
    monkeypatch.setattr("gpiozero.pins.local.get_pi_revision", lambda: 0xC03111)
    yield fake
    for module in modules[1:]:
        sys.modules.pop(module, None)


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    (tmp_path / "gpiochip0").touch()
    return tmp_path


@pytest.fixture
def pi() -> BoardDescription:
    return load_board("raspberry-pi")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPIOZERO_PIN_FACTORY", raising=False)


def test_the_simulated_board_gets_simulated_pins() -> None:
    with open_pin_factory(load_board("simulated")) as pins:
        assert isinstance(pins, SimulatedPins)


def test_a_real_board_gets_the_pins_of_the_kernel(
    kernel: FakeKernel, dev: Path, pi: BoardDescription
) -> None:
    with open_pin_factory(pi, dev) as pins:
        assert isinstance(pins, PiFactory)
        assert Device.pin_factory is None


@pytest.mark.parametrize("first", [True, False])
def test_an_output_starts_at_its_level_without_passing_through_the_other(
    kernel: FakeKernel, dev: Path, pi: BoardDescription, first: bool
) -> None:
    with open_pin_factory(pi, dev) as pins:
        OutputDevice(RELAY, initial_value=first, pin_factory=pins).close()
    assert kernel.driven == {RELAY: [int(first)]}


def test_the_working_directory_is_kept(
    kernel: FakeKernel, dev: Path, pi: BoardDescription, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    open_pin_factory(pi, dev).close()
    assert Path.cwd() == tmp_path


def test_without_a_gpio_chip_the_error_says_so(tmp_path: Path, pi: BoardDescription) -> None:
    with pytest.raises(PinsUnavailable, match=r"board 'raspberry-pi' needs .*/gpiochip\*"):
        open_pin_factory(pi, tmp_path)


def test_without_lgpio_the_error_says_so(
    kernel: FakeKernel, dev: Path, pi: BoardDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lgpio", None)
    with pytest.raises(PinsUnavailable, match="needs the package lgpio"):
        open_pin_factory(pi, dev)


def test_without_permission_the_error_says_so(kernel: FakeKernel, dev: Path, pi: BoardDescription) -> None:
    kernel.refuses = "can not open gpiochip"
    with pytest.raises(PinsUnavailable, match="can not open gpiochip") as caught:
        open_pin_factory(pi, dev)
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("asked", ["rpigpio", "RPi.GPIO", "RPiGPIOPin"])
@pytest.mark.parametrize("board", ["simulated", "raspberry-pi"])
def test_rpi_gpio_is_refused(monkeypatch: pytest.MonkeyPatch, dev: Path, asked: str, board: str) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", asked)
    with pytest.raises(PinsUnavailable, match=r"RPi\.GPIO fails on current kernels"):
        open_pin_factory(load_board(board), dev)


def test_another_wish_of_the_environment_does_not_change_the_board(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pi: BoardDescription
) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    with pytest.raises(PinsUnavailable):
        open_pin_factory(replace(pi, name="other"), tmp_path)
