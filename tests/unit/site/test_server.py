"""The configuration that is made of the settings; Kamailio itself is asked only whether it can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intercom.settings.loading import WrongSettings
from intercom.site import places, server
from intercom.site.database import whole
from intercom.site.settings import SiteSettings

HERE = Path("/etc/intercom/site.toml")


def settings(**sections: Any) -> SiteSettings:
    listen = {"addresses": ["127.0.0.1"], "port": 5070, **sections.pop("listen", {})}
    return SiteSettings.model_validate({"listen": listen, **sections})


def made(tmp_path: Path, given: SiteSettings) -> list[str]:
    return (server.make(tmp_path, given, HERE) / "site.cfg").read_text().splitlines()


def test_says_what_was_set(tmp_path: Path) -> None:
    lines = made(
        tmp_path,
        settings(
            site={"domain": "house.example", "remembers": False},
            registration={"shortest": 20, "default": 60, "longest": 90},
            limits={"requests_per_second": 7},
            numbers={"country": "49"},
        ),
    )
    for line in (
        '#!define DOMAIN "house.example"',
        "#!define LOCATION_DB_MODE 0",
        "#!define SHORTEST_EXPIRES 20",
        "#!define DEFAULT_EXPIRES 60",
        "#!define LONGEST_EXPIRES 90",
        "#!define REQUESTS_PER_2S 14",
        '#!define COUNTRY "49"',
    ):
        assert line in lines
    assert [line for line in lines if line.startswith("listen=")] == [
        "listen=udp:127.0.0.1:5070",
        "listen=tcp:127.0.0.1:5070",
    ]
    assert not any("WITH_" in line for line in lines)


def test_every_transport_and_node_has_a_socket(tmp_path: Path) -> None:
    everything = settings(
        listen={"transports": ["udp", "tcp", "tls", "ws", "wss"]},
        nodes={"own": "127.0.0.1:5066", "others": ["10.0.0.2:5066", "10.0.0.3:5066"]},
    )
    lines = made(tmp_path, everything)
    assert [line.removeprefix("listen=") for line in lines if line.startswith("listen=")] == [
        "udp:127.0.0.1:5070",
        "tcp:127.0.0.1:5070",
        "tls:127.0.0.1:5061",
        "tcp:127.0.0.1:8088",
        "tls:127.0.0.1:8089",
        "udp:127.0.0.1:5066",
    ]
    for name in ("WITH_TLS", "WITH_WEBSOCKET", "WITH_NODES"):
        assert f"#!define {name}" in lines
    assert '#!define OTHER_NODE_2 "sip:10.0.0.3:5066"' in lines


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        (
            {"nodes": {"own": "127.0.0.1:5070", "others": ["10.0.0.2:5066"]}},
            "nodes.own: 127.0.0.1:5070 is where phones come to: the nodes need a port of their own",
        ),
        (
            {"listen": {"addresses": ["127.255.255.255"]}},  # the broadcast address of loopback
            "listen.addresses: 127.255.255.255 is no address of this machine",
        ),
    ],
)
def test_an_address_that_would_silence_the_house(
    tmp_path: Path, sections: dict[str, Any], reason: str
) -> None:
    with pytest.raises(WrongSettings) as said:
        server.make(tmp_path, settings(**sections), HERE)
    assert str(said.value) == f"{HERE}: {reason}"


def test_a_configuration_knows_what_it_was_made_from(tmp_path: Path) -> None:
    """So that its certificate is renewed although the settings of the file are wrong by now."""
    given = settings(listen={"transports": ["udp", "tls"]}, numbers={"country": "49"})
    assert server.settings_of(server.make(tmp_path, given, HERE)) == given


def test_keys_and_users_are_for_the_owner_alone(tmp_path: Path) -> None:
    server.prepare(tmp_path / "site", settings(listen={"transports": ["udp", "tls"]}), HERE)
    configuration = server.in_place(tmp_path / "site")
    assert configuration is not None
    assert (tmp_path / "site").stat().st_mode & 0o077 == 0
    secret = [configuration / "site.cfg", configuration / server.CERTIFICATE, tmp_path / "site/site.key"]
    for file in [*secret, *(tmp_path / "site").glob("*.db*")]:
        assert file.stat().st_mode & 0o077 == 0, file


def test_two_sites_have_two_keys_and_one_keeps_its_own(tmp_path: Path) -> None:
    key = server.site_key(tmp_path)
    assert server.site_key(tmp_path) == key
    (tmp_path / "b").mkdir()
    assert server.site_key(tmp_path / "b") != key


@pytest.mark.parametrize("text", ["", "0" * 31, "x" * 32, "\xff"])
def test_a_broken_key_is_refused_and_another_nodes_takes_its_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.key").write_text(text, encoding="latin-1")
    with pytest.raises(WrongSettings, match=r"site\.key: the site's key is 32 hexadecimal digits: remove"):
        server.site_key(tmp_path)
    assert server.set_site_key(tmp_path, "0" * 32)
    assert server.site_key(tmp_path) == "0" * 32


def test_a_mistake_leaves_what_was_there(tmp_path: Path) -> None:
    server.prepare(tmp_path, settings(), HERE)
    before = server.in_place(tmp_path)
    wrong = settings(
        listen={"addresses": ["192.0.2.1", "127.0.0.1"]}, tls={"certificate": "/no", "key": "/no"}
    )
    with pytest.raises(WrongSettings) as said:
        server.prepare(tmp_path, wrong, HERE)
    assert str(said.value) == f"{HERE}: listen.addresses: 192.0.2.1 is no address of this machine"
    assert server.in_place(tmp_path) == before
    assert list(tmp_path.glob("configuration-*")) == [before]


def test_what_kamailio_cannot_read_is_one_line_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration that was changed by hand, or one for another version of Kamailio."""
    parts = tmp_path / "parts"
    parts.mkdir()
    for part in places.data().iterdir():
        (parts / part.name).write_text(part.read_text())
    nat = parts / "nat.cfg"
    number = len(nat.read_text().splitlines()) + 2
    nat.write_text(nat.read_text() + "\nroute[X] { if ( }\n")
    monkeypatch.setattr(places, "data", lambda name="": parts / name)
    with pytest.raises(WrongSettings) as said:
        server.make(tmp_path / "site", settings(), HERE)
    assert str(said.value) == f"{nat}: line {number}: syntax error"


def test_the_relay_needs_no_users(tmp_path: Path) -> None:
    made = server.make(tmp_path, settings(), HERE, to="sip:10.0.0.9:5060")
    assert '#!define TO "sip:10.0.0.9:5060"' in (made / "site.cfg").read_text()
    assert not (tmp_path / "users.db").exists()


def test_what_cannot_be_read_of_the_past_is_set_aside(tmp_path: Path) -> None:
    server.prepare(tmp_path, settings(), HERE)
    (tmp_path / "state.db").write_bytes(b"torn" * 1000)
    server.prepare(tmp_path, settings(), HERE)
    assert (tmp_path / "state.db.broken").exists()
    assert whole(tmp_path / "state.db", "location")
