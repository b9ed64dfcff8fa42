"""Where things lie."""

import os
from pathlib import Path

import pytest

from intercom.system import places
from intercom.system.places import control_socket, journal_file, settings_file

VARIABLES = ("INTERCOM_CONFIG", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_systemd_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/door")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/door")
    monkeypatch.setenv("INTERCOM_CONFIG", "/etc/door.toml")
    assert control_socket() == Path("/run/door/control.sock")
    assert journal_file() == Path("/var/lib/door/journal.db")
    assert settings_file() == Path("/etc/door.toml")


def test_the_system_has_its_own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert control_socket() == Path("/run/intercom/control.sock")
    assert journal_file() == Path("/var/lib/intercom/journal.db")
    assert settings_file() == Path("/etc/intercom/intercom.toml")


def test_a_person_has_their_own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "RUNNING", tmp_path / "no-service")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/p/state")
    assert control_socket() == Path("/run/user/1000/intercom/control.sock")
    assert journal_file() == Path("/home/p/state/intercom/journal.db")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/p")
    assert control_socket().name == "control.sock"
    assert str(os.getuid()) in str(control_socket())
    assert journal_file() == Path("/home/p/.local/state/intercom/journal.db")
