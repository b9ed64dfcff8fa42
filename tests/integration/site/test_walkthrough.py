"""What an installer does with a new site, from the first user to the second trunk, typed as it is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.account import Account, Transport
from deploy.demo.linphone import Linphone
from deploy.demo.phone import Phone
from deploy.demo.program import Program, free_port
from deploy.demo.trunk import Trunk

INTERCOM = Path(sys.executable).with_name("intercom")
FIRST, SECOND = "127.0.3.11", "127.0.3.12"
SETTINGS = """\
[site]
domain = "house.example"

[listen]
addresses = ["127.0.0.1"]
port = {port}

[numbers]
country = "49"
"""


class Installer:
    """Somebody at a shell, with a site of his own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "site.toml"
        self.settings.write_text(SETTINGS.format(port=free_port()))

    def types(self, *words: str, stdin: str = "") -> str:
        """Run `intercom site WORDS`, and return what it prints."""
        command = [str(INTERCOM), "site", *words]
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env=self.environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "INTERCOM_SITE": str(self.settings),
            "STATE_DIRECTORY": str(self.folder / "state"),
        }

    def adds(self, name: str) -> Account:
        """Run `intercom site add`, and read from it what is typed into a phone."""
        printed = dict(
            line.split("  ", 1) for line in self.types("add", name).splitlines() if line[:1].islower()
        )
        printed = {key.strip(): value.strip() for key, value in printed.items()}
        transport: Transport = "tcp" if printed["transport"] == "TCP" else "udp"
        return Account(
            printed["user name"], printed["password"], printed["domain"], printed["proxy"], transport
        )


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[Installer]:
    installer = Installer(tmp_path)
    command = [str(INTERCOM), "site"]
    program = Program(command, tmp_path / "site.log", installer.environment, tmp_path)
    try:
        program.wait_for("the site answers", 10.0)
        yield installer
    finally:
        program.stop()


@pytest.mark.long
@pytest.mark.item(9, "from `add kitchen` to the second trunk", "baresip, linphonec, SIPp")
def test_an_installer_sets_a_house_up(tmp_path: Path, installer: Installer) -> None:
    kitchen, hall, door = (installer.adds(name) for name in ("kitchen", "hall", "door"))
    with Phone(tmp_path / "door", door) as caller:
        caller.wait_registered()
        with Phone(tmp_path / "table", kitchen) as table, Linphone(tmp_path / "wall", kitchen) as wall:
            table.wait_registered()
            wall.wait_registered()
            assert "kitchen registered" in installer.types("list")
            both_ring_and_one_answers(caller, table, wall)
        with Phone(tmp_path / "table", kitchen) as table, Linphone(tmp_path / "wall", hall) as wall:
            table.wait_registered()
            wall.wait_registered()
            installer.types("group", "add", "flat", "kitchen", "hall", "--serial", "--seconds", "3")
            one_rings_after_the_other(caller, table, wall)
            installer.types("redirect", "office", "sip:hall@house.example")
            a_redirect_is_followed(caller, wall)
            wall.watch("sip:kitchen@house.example")
            wall.wait_event("PRESENCE", text="Online")
        with Linphone(tmp_path / "writer", kitchen) as writer:
            writer.wait_registered()
            writer.write("sip:hall@house.example", "the parcel is in the cellar")
            writer.wait_event("MESSAGE_SENT", text="Delivered")
        with Linphone(tmp_path / "wall", hall) as wall:
            assert "the parcel is in the cellar" in wall.wait_event("MESSAGE").text
        installer.types("allow", "door", "+49")
        with Trunk(tmp_path / "second", SECOND, account=("house", "secret")) as second:
            with Trunk(tmp_path / "first", FIRST, account=("house", "secret")) as first:
                for name, trunk, priority in (("one", first, "10"), ("two", second, "5")):
                    words = ["gateway", "add", name, trunk.uri, "--priority", priority, "--username", "house"]
                    installer.types(*words, "--password-file", "-", stdin="secret\n")
                a_number_reaches(caller, first)
            a_number_reaches(caller, second)
        assert "two" in installer.types("status")


def both_ring_and_one_answers(caller: Phone, table: Phone, wall: Linphone) -> None:
    caller.dial("sip:kitchen@house.example")
    wall.wait_ringing()
    table.wait_ringing()
    table.answer()
    caller.wait_established()
    wall.wait_closed()
    caller.hang_up()
    table.wait_closed()
    caller.wait_closed()


def one_rings_after_the_other(caller: Phone, table: Phone, wall: Linphone) -> None:
    caller.dial("sip:flat@house.example")
    table.wait_ringing()
    assert not [event for event in wall.events if event.type == "CALL_INCOMING"]
    wall.wait_ringing()
    table.wait_closed()
    wall.answer()
    caller.wait_established()
    wall.hang_up()
    caller.wait_closed()


def a_redirect_is_followed(caller: Phone, wall: Linphone) -> None:
    caller.dial("sip:office@house.example")
    wall.wait_ringing()
    wall.reject()
    caller.wait_closed()


def a_number_reaches(caller: Phone, trunk: Trunk) -> None:
    caller.dial("sip:030123@house.example")
    caller.wait_established()
    assert trunk.received("INVITE")[0].startswith("INVITE sip:+4930123@")
    caller.hang_up()
    caller.wait_closed()
