"""What is typed into a phone."""

from __future__ import annotations

import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

from intercom.settings.schema import Account
from intercom.site import sheet
from intercom.site.settings import SiteSettings

SETTINGS = SiteSettings.model_validate(
    {"listen": {"addresses": ["10.0.0.1"], "transports": ["udp", "tcp", "tls", "wss"]}}
)


def test_passwords_differ_and_can_be_read_aloud() -> None:
    passwords = {sheet.new_password() for _ in range(100)}
    assert len(passwords) == 100
    assert {len(password) for password in passwords} == {20}
    assert not set("".join(passwords)) & set("0O1lIi")


def test_udp(tmp_path: Path) -> None:
    facts = sheet.make(tmp_path, SETTINGS, "hall", "pass-word", "", "udp").facts()
    assert facts == {
        "domain": "site.example",
        "user name": "hall",
        "authentication name": "hall",
        "password": "pass-word",
        "proxy": "10.0.0.1:5060",
        "transport": "UDP",
        "expiry": 300,
    }


def test_tls_names_the_authority_and_websocket_the_address(tmp_path: Path) -> None:
    facts = sheet.make(tmp_path, SETTINGS, "hall", "pass-word", "", "tls").facts()
    assert facts["proxy"] == "10.0.0.1:5061"
    assert facts["TLS server name"] == "site.example"
    assert Path(str(facts["CA certificate"])).read_text().startswith("-----BEGIN CERTIFICATE-----")
    facts = sheet.make(tmp_path, SETTINGS, "hall", "pass-word", "", "wss").facts()
    assert facts["WebSocket"] == "wss://10.0.0.1:8089/ws"


def test_the_qr_code_holds_the_account(tmp_path: Path) -> None:
    text = sheet.make(tmp_path, SETTINGS, "hall", "pass-word", "Küche & Flur", "udp").qr_text()
    account = ET.fromstring(text)[0]
    assert {field.tag: field.text for field in account} == {
        "RegisterServer": "site.example",
        "OutboundServer": "10.0.0.1:5060",
        "UserID": "hall",
        "AuthID": "hall",
        "AuthPass": "pass-word",
        "AccountName": "hall at site.example",
        "DisplayName": "Küche & Flur",
    }
    assert sheet.make(tmp_path, SETTINGS, "hall", "pass-word", "", "tcp").qr_text() == ""


def test_a_door_station_takes_its_lines(tmp_path: Path) -> None:
    made = sheet.make(tmp_path, SETTINGS, "door", "pass-word", "", "tcp")
    (account,) = tomllib.loads(made.station())["account"]
    assert Account.model_validate(account).registrar == "sip:10.0.0.1:5060;transport=tcp"
    assert "pass-word" not in made.station()
    assert "pass-word" not in repr(made)
