"""`intercom check` names the step that fails, why, and what to do, against real counterparts."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.account import Transport
from deploy.demo.names import Names
from deploy.demo.program import free_port
from deploy.demo.site import Site
from deploy.demo.sound import VirtualCard
from hardware.board import load_board
from hardware.simulator import SimulatedPins
from intercom.cli.check import panel
from intercom.settings.loading import load
from tests.guarding import Guardian, doors
from tests.system.conftest import PASSWORD, Door, account_at

NAMES = ["settings", "service", "pins", "sound", "name", "registrar", "register", "addresses", "codes"]


def checked(door: Door, code: int, *arguments: str, **environment: str) -> dict[str, list[dict[str, Any]]]:
    """What `check --json` found, by step; every failing step says what to do next."""
    answer = door.intercom("check", "--json", *arguments, environment=environment)
    assert answer.err == ""
    found: dict[str, list[dict[str, Any]]] = {}
    for step in json.loads(answer.out):
        assert list(step) == ["step", "ok", "detail", "advice"]
        assert step["ok"] is not False or step["advice"], step
        found.setdefault(step["step"], []).append(step)
    assert list(found) == NAMES
    assert answer.code == code, answer.out
    return found


def failing(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [name for name, steps in found.items() if any(step["ok"] is False for step in steps)]


def skipped(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [name for name, steps in found.items() if all(step["ok"] is None for step in steps)]


@contextmanager
def box(register: int | None, software: str = "FRITZ!OS", family: int = socket.AF_INET) -> Iterator[str]:
    """A server that answers OPTIONS, and every REGISTER with one status or (None) with silence."""
    answered = threading.Event()

    def serve() -> None:
        while raw := server.recvfrom(65535)[0]:
            text = raw.decode()
            status = 200 if text.startswith("OPTIONS ") else register
            if status is None or not text.startswith(("OPTIONS ", "REGISTER ")):
                continue
            kept = re.findall(r"^(?:Via|From|To|Call-ID|CSeq):.*\r\n", text, re.MULTILINE)
            via = re.search(r"^Via: \S+ ([^;]+):(\d+)", text, re.MULTILINE)
            assert via is not None
            answer = f"SIP/2.0 {status} No\r\n{''.join(kept)}Server: {software}\r\nContent-Length: 0\r\n\r\n"
            server.sendto(answer.encode(), (via[1].strip("[]"), int(via[2])))
            answered.set()

    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        thread = threading.Thread(target=serve, name="box")
        thread.start()
        host, port = server.getsockname()[:2]
        try:
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        finally:
            with socket.socket(family, socket.SOCK_DGRAM) as end:
                end.sendto(b"", (host, port))
            thread.join()


# Right settings


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_right_settings(door: Door, site: Site, transport: Transport) -> None:
    door.write(site.account("door", transport))
    found = checked(door, 0)
    assert failing(found) == []
    assert "not running" in found["service"][0]["detail"]
    assert [step["detail"] for step in found["pins"]] == [
        "button 'bell': pin 17",
        "lamp 'status': pin 22",
        "door 'front': pin 27",
    ]
    assert found["sound"][0]["detail"].startswith("none")
    assert f"over {transport.upper()}: OPTIONS is answered with 200 OK" in found["registrar"][0]["detail"]
    assert "un-registered" in found["register"][0]["detail"]
    assert found["codes"][0]["detail"] == "door 'front' has 1 code"
    assert not any(step["advice"] for name in ("addresses", "codes") for step in found[name])
    assert site.registered("door") == []


def test_each_step_is_a_line_for_people(door: Door) -> None:
    answer = door.intercom("check")
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert list(dict.fromkeys(line.split()[1] for line in lines)) == NAMES
    assert {line.split()[0] for line in lines} == {"ok"}


def test_the_microphone_is_measured(door: Door, tmp_path: Path) -> None:
    with VirtualCard(tmp_path / "card") as card:
        door.change('device = "none"', 'device = "door"')
        assert failing(silent := checked(door, 1, **card.environment)) == ["sound"]
        assert "hears nothing at all" in silent["sound"][0]["detail"]
        noise = tmp_path / "noise.wav"
        sox = ["sox", "-n", "-r", "48000", "-b", "16", "-c", "1", str(noise)]
        subprocess.run([*sox, "synth", "60", "whitenoise", "vol", "0.1"], check=True)
        card.say(noise)
        card._programs[0].wait_for("Created input .* on microphone", 5.0)
        heard = re.search(r"hears (-\d+) dBFS", checked(door, 0, **card.environment)["sound"][0]["detail"])
        assert heard is not None
        assert -30 < int(heard[1]) < -20


def test_hints_are_no_failures(door: Door) -> None:
    door.change("sip:flat1@site.example", "sip:flat1@elsewhere.example")
    door.config.write_text(re.sub("codes = .*", "", door.config.read_text()))
    found = checked(door, 0)
    assert "site.example" in found["addresses"][0]["advice"]
    assert "no telephone can open it" in found["codes"][0]["advice"]


# Wrong settings


def test_every_mistake_at_once(door: Door) -> None:
    door.change('username = "door"', f'username = 5\npassword = "{PASSWORD}"')
    door.change("pin = 27", "pin = 17")
    door.change("release_seconds = 0.5", 'release_seconds = "long"')
    found = checked(door, 2)
    mistakes = "\n".join(step["detail"] for step in found["settings"])
    assert re.search(r"intercom\.toml: account\[1\]\.username: .*string", mistakes)
    assert "account[1].password: is not a known setting" in mistakes
    assert re.search(r"door\[1\]\.release_seconds: .*number", mistakes)
    assert "door[1].pin: 17 is already the pin of button[1]" in mistakes
    assert len(found["settings"]) == 4
    assert skipped(found) == NAMES[2:]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[[account]", "is not TOML"), ("", "account: is missing"), ("x" * 2_000_000, "larger than 1 MiB")],
)
def test_no_settings_file_at_all(door: Door, text: str, reason: str) -> None:
    door.config.write_text(text)
    assert any(reason in step["detail"] for step in checked(door, 2)["settings"])


def test_a_settings_file_that_is_not_there(door: Door) -> None:
    found = checked(door, 2, "--config", str(door.folder / "other.toml"))
    assert found["settings"][0]["detail"].endswith("other.toml: cannot be read: No such file or directory")


def test_the_password_file_is_missing(door: Door) -> None:
    door.secret.unlink()
    step = checked(door, 2)["settings"][0]
    assert f"{door.secret} cannot be read: No such file" in step["detail"]
    assert "chmod 600" in step["advice"]


def test_the_password_file_may_be_read_by_others(door: Door) -> None:
    door.secret.chmod(0o640)
    step = checked(door, 2)["settings"][0]
    assert f"account[1].password_file: {door.secret} may be read by others" in step["detail"]


# Pins and sound


def test_no_gpio(door: Door) -> None:
    door.change("simulated", "raspberry-pi")
    found = checked(door, 1)
    assert failing(found) == ["pins"]
    assert "this computer has none" in found["pins"][0]["detail"]
    assert "Raspberry Pi" in found["pins"][0]["advice"]


def test_rpigpio(door: Door) -> None:
    found = checked(door, 1, GPIOZERO_PIN_FACTORY="rpigpio")
    assert failing(found) == ["pins"]
    assert "unset GPIOZERO_PIN_FACTORY" in found["pins"][0]["advice"]


def test_an_unknown_board(door: Door) -> None:
    door.change("simulated", "toaster")
    found = checked(door, 1)
    assert failing(found) == ["pins"]
    assert "known are raspberry-pi, respeaker-2mic, simulated" in found["pins"][0]["detail"]


def test_pins_are_looked_at_and_the_strike_is_left_alone(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.change("pin = 22", "pin = 14")
    monkeypatch.setenv("INTERCOM_GUARDIAN", str(tmp_path / "guardian.sock"))
    levels = []
    with SimulatedPins() as pins:
        pins.press(17)
        pins.watch(27, lambda level, at: levels.append(level))
        board = load_board("raspberry-pi")
        steps = list(panel(load(door.config), board, pins))
        with Guardian(tmp_path, doors({"name": "front", "pin": 27})):
            guarded = list(panel(load(door.config), board, pins))
    assert levels == []
    assert [step.ok for step in steps] == [False, False, False]
    assert [step.ok for step in guarded] == [False, False, True]
    assert steps[2].detail.startswith("door 'front': its guardian is not there: ")
    assert "systemctl restart intercom-guardian" in steps[2].advice
    assert steps[0].detail == "button 'bell': pin 17 is held down"
    assert steps[1].detail == "lamp 'status': pin 14 is reserved for the serial port /dev/serial0"


def test_the_sound_card_is_missing(door: Door) -> None:
    door.change('device = "none"', 'device = "seeed2micvoicec"')
    found = checked(door, 1)
    assert failing(found) == ["sound"]
    assert "'seeed2micvoicec' is not there; cards: " in found["sound"][0]["detail"]


# Registrar


def test_the_name_does_not_resolve(door: Door) -> None:
    door.write(account_at("pbx.invalid:5060"))
    found = checked(door, 1)
    assert failing(found) == ["name"]
    assert skipped(found) == ["registrar", "register"]
    assert found["name"][0]["detail"].startswith("pbx.invalid does not resolve: ")


def test_a_name_that_resolves(door: Door, site: Site) -> None:
    door.write(account_at(f"localhost:{site.port}"))
    found = checked(door, 1)  # the server takes no requests for a domain of this name
    assert re.match(r"localhost is 127\.0\.0\.1 \(\d+ ms\)", found["name"][0]["detail"])


def test_several_servers_of_a_name(door: Door, site: Site, tmp_path: Path) -> None:
    listed = [("one.example", free_port(), 10, 0), ("two.example", site.port, 20, 0)]
    hosts = {"one.example": "127.0.0.1", "two.example": "127.0.0.1"}
    with Names(tmp_path / "names", {"_sip._udp.site.example": listed}, hosts) as names:
        door.write(account_at("site.example"))
        door.config.write_text(door.config.read_text() + names.settings)
        found = checked(door, 1)
    assert [step["detail"].partition(" is ")[2].partition(" (1")[0] for step in found["name"]] == [
        f"one.example:{listed[0][1]}",
        f"two.example:{site.port}",
    ]
    assert "priority 10" in found["name"][0]["detail"]
    assert [step["ok"] for step in found["registrar"]] == [False, True]
    assert found["registrar"][0]["detail"].startswith(f"one.example:{listed[0][1]} (127.0.0.1) over UDP: ")
    assert found["register"][0]["ok"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_nobody_listens(door: Door, transport: Transport) -> None:
    door.write(account_at(f"127.0.0.1:{free_port()}", transport=transport))
    found = checked(door, 1)
    assert failing(found) == ["registrar"]
    assert skipped(found) == ["register"]
    assert "nobody listens on this port" in found["registrar"][0]["detail"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_silence(door: Door, transport: Transport) -> None:
    with socket.socket(type=socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM) as mute:
        mute.bind(("127.0.0.1", 0))
        if transport == "tcp":
            mute.listen()
        door.write(account_at(f"127.0.0.1:{mute.getsockname()[1]}", transport=transport))
        found = checked(door, 1)
    assert failing(found) == ["registrar"]
    assert "no answer to OPTIONS in 3 s" in found["registrar"][0]["detail"]
    assert "firewall" in found["registrar"][0]["advice"]


def test_nobody_listens_over_ipv6(door: Door) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::1", 0))
        port = taken.getsockname()[1]
    door.write(account_at(f"[::1]:{port}"))
    found = checked(door, 1)
    assert found["name"][0]["detail"] == "::1 is an address, no name is looked up"
    assert f"[::1]:{port} over UDP" in found["registrar"][0]["detail"]


def test_something_that_is_not_sip(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65535)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        door.write(account_at(f"127.0.0.1:{server.getsockname()[1]}", transport="tcp"))
        found = checked(door, 1)
        thread.join()
    assert "not in SIP: HTTP/1.1 400 Bad Request" in found["registrar"][0]["detail"]


# Registration


def test_a_wrong_password(door: Door, site: Site) -> None:
    door.secret.write_text("another-password\n")
    found = checked(door, 1)
    assert failing(found) == ["register"]
    assert "does not accept the user name or password of 'door' (401 " in found["register"][0]["detail"]
    assert "password file" in found["register"][0]["advice"]


def test_an_unknown_user(door: Door, site: Site) -> None:
    door.write(account_at(site.proxy, user="nobody"))
    found = checked(door, 1)
    assert failing(found) == ["register"]
    assert "does not accept the user name or password of 'nobody' (401 " in found["register"][0]["detail"]


@pytest.mark.parametrize(
    ("status", "detail", "advice"),
    [
        (403, "refuses 'door'", "password file"),
        (404, "knows no user 'door'", "account.uri"),
        (423, "wants a longer registration", "expires_seconds"),
        (500, "has a fault of its own, which its log explains (500 No)", "log"),
    ],
)
def test_a_refusal_is_explained(door: Door, status: int, detail: str, advice: str) -> None:
    with box(status) as proxy:
        door.write(account_at(proxy))
        found = checked(door, 1)
    assert failing(found) == ["register"]
    assert detail in found["register"][0]["detail"]
    assert advice in found["register"][0]["advice"]


def test_silence_to_a_register_alone(door: Door) -> None:
    with box(None, software="FRITZ!OS \x1b[2J") as proxy:
        door.write(account_at(proxy))
        found = checked(door, 1)
    assert found["registrar"][0]["detail"].endswith("by FRITZ!OS [2J")
    assert failing(found) == ["register"]
    assert "FRITZ!Box" in found["register"][0]["detail"]


# Beside the running service


def test_the_service_keeps_its_pins_and_its_registration(door: Door, site: Site) -> None:
    with door.serving():
        contacts = site.wait_registered("door")
        found = checked(door, 0)
        assert found["service"][0]["detail"].startswith("runs since ")
        assert found["service"][0]["advice"] == ""
        assert all("in the hands of the service" in step["detail"] for step in found["pins"])
        assert "the service is registered as door@site.example" in found["register"][0]["detail"]
        assert site.registered("door") == contacts


def test_changed_settings_are_tried_beside_the_service(door: Door, site: Site) -> None:
    with door.serving() as service:
        contacts = site.wait_registered("door")
        door.config.touch()
        found = checked(door, 0)
        assert "restart" in found["service"][0]["advice"]
        assert "un-registered" in found["register"][0]["detail"]
        assert site.registered("door") == contacts
        assert json.loads(door.intercom("status", "--json").out)["accounts"][0]["state"] == "registered"
        assert service.running


def test_the_service_without_pins_and_sound(door: Door) -> None:
    door.change("simulated", "raspberry-pi")
    door.change('device = "none"', 'device = "seeed2micvoicec"')
    with door.serving():
        found = checked(door, 1)
    assert failing(found) == ["pins", "sound"]
    assert "this computer has none" in found["pins"][0]["detail"]


def test_the_sound_is_left_to_the_service(door: Door, tmp_path: Path) -> None:
    with VirtualCard(tmp_path / "card") as card:
        door.environment = card.environment
        door.change('device = "none"', 'device = "door"')
        with door.serving():
            assert "in the hands of the service" in checked(door, 0)["sound"][0]["detail"]


def test_the_service_that_is_not_registered(door: Door) -> None:
    door.secret.write_text("another-password\n")
    with door.serving("does not accept"):
        found = checked(door, 1)
    assert failing(found) == ["register"]
    assert found["service"][0]["ok"]


def test_wrong_settings_beside_the_service(door: Door) -> None:
    with door.serving():
        door.change("pin = 27", "pin = 17")
        found = checked(door, 2)
        assert found["service"][0]["ok"]
        assert skipped(found) == NAMES[2:]


def test_no_permission_to_ask_the_service(door: Door) -> None:
    with door.serving():
        door.socket.chmod(0)
        drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
        answer = door.intercom("check", prefix=drop)
    assert answer.code == 1
    assert re.search(r"^FAIL service .*no permission.*sudo", answer.out, re.MULTILINE)
    assert re.search(r"^skip pins .*status of the service", answer.out, re.MULTILINE)
