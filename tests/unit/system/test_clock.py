"""How far the wall clock is believed, by what systemd-timesyncd leaves in its folder."""

from pathlib import Path

from intercom.system.clock import FREE, SYNCHRONIZED, UNKNOWN, clock_source, wall_milliseconds


def test_the_clock_is_believed_once_a_time_server_has_set_it(tmp_path: Path) -> None:
    sign = tmp_path / "timesync" / "synchronized"
    assert clock_source(sign) == UNKNOWN, "no time service that we know"
    sign.parent.mkdir()
    assert clock_source(sign) == FREE
    sign.touch()
    assert clock_source(sign) == SYNCHRONIZED


def test_the_time_is_in_milliseconds_since_1970() -> None:
    assert 1_700_000_000_000 < wall_milliseconds() < 4_000_000_000_000
