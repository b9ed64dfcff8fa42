"""Which ports and kinds of reader are taken; what they do is in tests/integration/hardware."""

from pathlib import Path

import pytest

from hardware.reader import KINDS, Reader, _reason, check_port

BY_ID = "usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0"
BY_PATH = "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.1:1.0-port0"


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """One adapter with the names that udev gives it, one that udev does not know, and the Pi's own ports."""
    for name in ("ttyUSB0", "ttyUSB1", "ttyACM0", "ttyAMA0"):
        (tmp_path / name).touch()
    (tmp_path / "serial0").symlink_to("ttyAMA0")
    for folder, name in (("by-id", BY_ID), ("by-path", BY_PATH)):
        (tmp_path / "serial" / folder).mkdir(parents=True)
        (tmp_path / "serial" / folder / name).symlink_to("../../ttyUSB0")
    return tmp_path


def test_a_number_that_moves_is_refused_with_the_names_that_stay(dev: Path) -> None:
    with pytest.raises(ValueError, match=r"number moves .* use .*/by-id/usb-FTDI.* or .*/by-path/platform"):
        check_port(f"{dev}/ttyUSB0", dev)


@pytest.mark.parametrize("name", ["ttyUSB7", "ttyACM7"])
def test_a_number_that_is_not_plugged_in_is_refused(dev: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"number moves .* use a name in .*/serial/by-id"):
        check_port(f"{dev}/{name}", dev)


@pytest.mark.parametrize(
    "name",
    [
        "ttyUSB1",  # its only name
        "ttyACM0",
        "ttyAMA0",
        "serial0",
        "ttyS0",
        f"serial/by-id/{BY_ID}",
        f"serial/by-path/{BY_PATH}",
        "serial/by-id/usb-to-come",
    ],
)
def test_a_name_that_stays_is_taken(dev: Path, name: str) -> None:
    check_port(f"{dev}/{name}", dev)


@pytest.mark.parametrize("port", ["", "ttyUSB0", "COM3"])
def test_a_port_is_a_path(port: str) -> None:
    with pytest.raises(ValueError, match=r"is no path like /dev/serial/by-id/"):
        check_port(port)


def nobody(*_: object) -> None:
    pytest.fail("nothing was opened")


def test_an_unknown_kind_is_refused() -> None:
    known = ", ".join(sorted(KINDS))
    with pytest.raises(ValueError, match=f"'em18' is not known; known are {known}"):
        Reader("front", "em18", "/dev/serial0", nobody, nobody)


def test_a_speed_that_no_port_has_is_refused() -> None:
    with pytest.raises(ValueError, match="9601 baud"):
        Reader("front", "rdm6300", "/dev/serial0", nobody, nobody, baud=9601)


def test_a_pn532_has_no_beeper_to_be_told() -> None:
    with pytest.raises(ValueError, match="takes no bytes"):
        Reader("front", "pn532", "/dev/serial0", nobody, nobody, good=b"\a")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "may not be opened: the service needs the group dialout"),
        (OSError(5, "Input/output error"), "was unplugged"),
        (OSError("odd"), "cannot be used: odd"),
        (OSError(), "cannot be used: "),
    ],
)
def test_what_is_wrong_is_said_in_words(error: OSError, reason: str) -> None:
    assert _reason(error) == reason
