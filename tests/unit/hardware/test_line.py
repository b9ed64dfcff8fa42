"""A line of the kernel, asked for as the kernel's own header says."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
from pathlib import Path

import pytest

from hardware import line
from hardware.line import KernelLine, SimulatedLine

HEADER = """
#include <linux/gpio.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    struct gpio_v2_line_request r;
    struct gpio_v2_line_values v;
    memset(&r, 0, sizeof r);
    memset(&v, 0, sizeof v);
    r.offsets[0] = 27;
    strcpy(r.consumer, "intercom-guardian");
    r.config.flags = GPIO_V2_LINE_FLAG_OUTPUT | GPIO_V2_LINE_FLAG_BIAS_PULL_UP;
    r.config.num_attrs = 1;
    r.config.attrs[0].attr.id = GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES;
    r.config.attrs[0].attr.values = 1;
    r.config.attrs[0].mask = 1;
    r.num_lines = 1;
    v.bits = 0;
    v.mask = 1;
    printf("%lx ", (unsigned long)GPIO_V2_GET_LINE_IOCTL);
    for (size_t i = 0; i < sizeof r; i++) printf("%02x", ((unsigned char *)&r)[i]);
    printf("\\n%lx ", (unsigned long)GPIO_V2_LINE_SET_VALUES_IOCTL);
    for (size_t i = 0; i < sizeof v; i++) printf("%02x", ((unsigned char *)&v)[i]);
    printf("\\n%lx %zu %zu", (unsigned long)GPIO_GET_CHIPINFO_IOCTL, sizeof(struct gpiochip_info),
           offsetof(struct gpiochip_info, label));
}
"""


class Kernel:
    """What the driver asks of the kernel, and a chip that answers."""

    def __init__(self, label: bytes = b"pinctrl-bcm2711", refuses: int = 0) -> None:
        self.asked: list[tuple[int, bytes]] = []
        self._label, self._refuses = label, refuses

    def ioctl(self, file: int, request: int, data: bytearray | bytes) -> int:
        if request == line._GET_CHIP:
            assert isinstance(data, bytearray)
            data[32:64] = self._label.ljust(32, b"\0")
            return 0
        self.asked.append((request, bytes(data)))
        if request == line._GET_LINE:
            if self._refuses:
                raise OSError(self._refuses, os.strerror(self._refuses))
            assert isinstance(data, bytearray)
            data[588:592] = os.dup(file).to_bytes(4, "little")
        return 0


@pytest.fixture
def dev(tmp_path: Path) -> str:
    (tmp_path / "gpiochip0").touch()
    (tmp_path / "null").touch()
    return str(tmp_path)


def test_it_asks_in_the_words_of_the_kernels_header(
    dev: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request claims the line and drives it, and one changes its level."""
    source, program = tmp_path / "words.c", tmp_path / "words"
    source.write_text(HEADER)
    subprocess.run(["gcc", "-o", program, source], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    kernel = Kernel()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    opened = KernelLine(27, True, dev)
    opened.set(False)
    opened.close()
    assert [f"{request:x} {data.hex()}" for request, data in kernel.asked] == said[:2]
    assert said[2] == f"{line._GET_CHIP:x} {line._CHIP.size} 32"


def test_it_is_pulled_to_where_it_begins(dev: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    for level, pull in ((True, 1 << 8), (False, 1 << 9)):
        KernelLine(27, level, dev).close()
        flags = int.from_bytes(kernel.asked.pop()[1][288:296], "little")
        assert flags == (1 << 3) | pull


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EBUSY, "is in use by another program"),
        (errno.EINVAL, "does not exist on this board"),
        (errno.EIO, "cannot be used: Input/output error"),
    ],
)
def test_a_line_that_is_refused_has_a_reason(
    dev: str, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", Kernel(refuses=number).ioctl)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=re.escape(reason)):
        KernelLine(27, False, dev)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_only_the_pis_own_chip_will_do(dev: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="no GPIO chip of a Raspberry Pi"):
        KernelLine(27, False, dev)  # an empty file is not a chip
    monkeypatch.setattr(fcntl, "ioctl", Kernel(label=b"raspberrypi-exp-gpio").ioctl)
    with pytest.raises(OSError, match="no GPIO chip of a Raspberry Pi"):
        KernelLine(27, False, dev)


def test_a_chip_without_permission_is_named(dev: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="gpiochip0: Permission denied"):
        KernelLine(27, False, dev)


def test_a_simulated_line_tells_each_level_with_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERCOM_LINES", str(tmp_path / "lines"))
    opened = SimulatedLine(27, False)
    opened.set(True)
    opened.close()
    first, second = (tmp_path / "lines").read_text().splitlines()
    assert (first.split()[1:], second.split()[1:]) == (["27", "0"], ["27", "1"])
    assert float(first.split()[0]) <= float(second.split()[0])
