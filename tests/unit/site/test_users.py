"""Users, groups, redirects and gateways: what is taken, what is refused, and what survives."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from intercom.site import users as module
from intercom.site.users import Refused, Unwritable, Users

DOMAIN = "site.example"
PASSWORD = "planted-password"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(tmp_path / "users.db", DOMAIN)
    for name in ("door", "kitchen", "hall"):
        users.add(name, PASSWORD)
    return users


def in_memory(users: Users, table: str) -> dict[str, str]:
    """What Kamailio reads."""
    with closing(sqlite3.connect(users.path)) as database:
        return dict(database.execute(f"SELECT key_name, key_value FROM {table}_in_memory"))


def test_of_a_password_only_the_digest_is_kept(users: Users) -> None:
    users.set_password("hall", PASSWORD, digest="SHA-256")
    text = f"kitchen:{DOMAIN}:{PASSWORD}".encode()
    assert f"ha1={hashlib.md5(text).hexdigest()}" in in_memory(users, "users")["kitchen"]
    text = f"hall:{DOMAIN}:{PASSWORD}".encode()
    assert f"digest=SHA-256;ha1={hashlib.sha256(text).hexdigest()}" in in_memory(users, "users")["hall"]
    for file in users.path.parent.iterdir():
        assert PASSWORD.encode() not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


def test_kamailio_reads_what_was_set(users: Users) -> None:
    users.set_group("all", ["kitchen", "hall"], serial=True, seconds=15)
    users.set_forward("door", busy="kitchen", unanswered="all", away="+4930123", seconds=30)
    users.set_redirect("hall", ["sip:a@one.example", "tel:+4930"], permanent=True)
    users.permit("hall", ["+49", ""])
    users.set_gateway("one", "sip:one.example", priority=2, username="u", password="p;w", ranges=["+49", ""])
    users.set_gateway("two", "sip:two.example", ranges=["+49"])
    users.set_number("+49301", "all")
    assert in_memory(users, "groups") == {"all": "order=serial;seconds=15;members=kitchen,hall"}
    assert in_memory(users, "users")["door"].endswith("seconds=30;busy=kitchen;unanswered=all;away=+4930123")
    assert in_memory(users, "redirects") == {"hall": "301|sip:a@one.example|tel:+4930"}
    assert set(in_memory(users, "permissions")) == {"hall:", "hall:+49"}
    assert set(in_memory(users, "ranges")) == {"*", "+49"}
    assert in_memory(users, "own_numbers") == {"+49301": "all"}
    assert in_memory(users, "gateway_passwords") == {"one": "p;w"}
    users.remove_gateway("one")
    assert set(in_memory(users, "ranges")) == {"+49"}


def test_names_do_not_clash(users: Users) -> None:
    users.set_group("all", ["hall"])
    with pytest.raises(Refused, match="already a user"):
        users.add("hall", PASSWORD)
    with pytest.raises(Refused, match="already a group"):
        users.add("all", PASSWORD)
    with pytest.raises(Refused, match="already a user"):
        users.set_group("hall", ["door"])
    with pytest.raises(Refused, match="is not a name"):
        users.add("Hall", PASSWORD)
    for number in ("112", "0049301", "030"):
        with pytest.raises(Refused, match="outside the house"):
            users.add(number, PASSWORD)
        with pytest.raises(Refused, match="outside the house"):
            users.set_group(number, ["hall"])
    users.add("21", PASSWORD)
    users.remove("21")
    with pytest.raises(Refused, match="display name"):
        users.add("attic", PASSWORD, display='"')


def test_a_forward_leads_somewhere_and_never_back(users: Users) -> None:
    with pytest.raises(Refused, match="no user or group attic"):
        users.set_forward("hall", busy="attic")
    with pytest.raises(Refused, match="leads back"):
        users.set_forward("hall", away="hall")
    users.set_forward("hall", busy="kitchen")
    users.set_forward("kitchen", away="+49301")
    users.set_number("+49302", "hall")
    with pytest.raises(Refused, match="leads back"):
        users.set_number("+49301", "hall")
    with pytest.raises(Refused, match="leads back"):
        users.set_forward("kitchen", away="hall")
    assert users.user("kitchen")["away"] == "+49301"


def test_nobody_is_removed_while_calls_are_led_to_him(users: Users) -> None:
    users.set_group("all", ["kitchen", "hall"])
    users.set_forward("hall", busy="kitchen")
    with pytest.raises(Refused, match="forward of hall leads to kitchen"):
        users.remove("kitchen")
    users.set_forward("hall")
    users.set_number("+49301", "all")
    with pytest.raises(Refused, match=r"number \+49301 leads to all"):
        users.remove_group("all")
    users.set_redirect("kitchen", ["tel:112"])
    users.remove("kitchen")
    assert users.facts()["groups"][0]["members"] == ["hall"]
    assert users.facts()["redirects"] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda users: users.remove("attic"),
        lambda users: users.set_password("attic", "x"),
        lambda users: users.permit("attic", [""]),
        lambda users: users.permit("hall", ["+49-30"]),
        lambda users: users.set_group("all", []),
        lambda users: users.set_group("all", ["hall", "hall"]),
        lambda users: users.set_group("all", ["attic"]),
        lambda users: users.set_group("all", ["hall"], seconds=0),
        lambda users: users.set_redirect("hall", []),
        lambda users: users.set_redirect("hall", ["http://site.example"]),
        lambda users: users.remove_redirect("hall"),
        lambda users: users.set_number("112", "hall"),
        lambda users: users.set_number("+49301", "attic"),
        lambda users: users.remove_number("+49301"),
        lambda users: users.set_gateway("one", "trunk.example"),
        lambda users: users.set_gateway("one", "sip:trunk.example", username="u"),
        lambda users: users.set_gateway("one", "sip:trunk.example", registers=True),
        lambda users: users.set_gateway("one", "sip:trunk.example", ranges=[]),
        lambda users: users.remove_gateway("one"),
    ],
)
def test_what_makes_no_sense_changes_nothing(users: Users, change: Any) -> None:
    before = users.facts(secrets=True)
    with pytest.raises(Refused):
        change(users)
    assert users.facts(secrets=True) == before


def test_a_gateway_is_the_same_however_it_is_written(users: Users) -> None:
    users.set_gateway("trunk", "sip:192.0.2.7")
    for same in ("sip:192.0.2.7:5060", "sip:192.0.2.7;transport=udp"):
        with pytest.raises(Refused, match="is already gateway trunk"):
            users.set_gateway("twin", same)
    users.set_gateway("other", "sip:192.0.2.7;transport=tcp")
    users.set_gateway("trunk", "sip:192.0.2.7:5060")


def test_a_group_is_no_larger_than_one_call_can_ring(users: Users) -> None:
    names = [f"phone{number}" for number in range(31)]
    for name in names:
        users.add(name, "secret")
    users.set_group("many", names[:30])
    with pytest.raises(Refused, match="30 telephones at most"):
        users.set_group("many", names)
    assert len(users.facts()["groups"][-1]["members"]) == 30


def test_together_is_all_or_nothing(users: Users) -> None:
    def two() -> None:
        with users.together():
            users.add("attic", PASSWORD)
            users.add("attic", PASSWORD)

    with pytest.raises(Refused):
        two()
    assert users.names() == ["door", "hall", "kitchen"]


def everything(users: Users) -> dict[str, Any]:
    users.set_group("all", ["kitchen", "hall"], serial=True)
    users.set_forward("door", unanswered="all")
    users.set_redirect("99", ["sip:a@one.example"])
    users.permit("hall", ["", "+49"])
    users.set_gateway("one", "sip:one.example", username="u", password="trunk-secret", ranges=["+49"])
    users.set_number("+49301", "all")
    return users.facts(secrets=True)


def test_an_export_makes_the_same_site_elsewhere(users: Users, tmp_path: Path) -> None:
    facts = everything(users)
    other = Users(tmp_path / "other.db", DOMAIN)
    other.add("somebody", PASSWORD)
    other.replace(json.loads(json.dumps(facts)))
    assert other.facts(secrets=True) == facts
    assert in_memory(other, "users") == in_memory(users, "users")


def test_without_secrets_it_holds_none_and_serves_for_the_same_users(users: Users, tmp_path: Path) -> None:
    secret = everything(users)
    facts = json.loads(json.dumps(users.facts()))
    assert "trunk-secret" not in str(facts)
    assert secret["users"][0]["ha1"] not in str(facts)
    users.set_forward("door")
    users.replace(facts)
    assert users.facts(secrets=True) == secret
    with pytest.raises(Refused, match="--secrets"):
        Users(tmp_path / "other.db", DOMAIN).replace(facts)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts: facts.update(domain="other.example"),
        lambda facts: facts.pop("groups"),
        lambda facts: facts.update(users=3),
        lambda facts: facts["users"][0].update(name='x"y'),
        lambda facts: facts["users"][0].update(ha1="0"),
        lambda facts: facts["users"][0].update(digest="MD4"),
        lambda facts: facts["users"][0].update(transport="smoke"),
        lambda facts: facts["users"][0].update(seconds="now"),
        lambda facts: facts["users"][0].update(busy="nobody"),
        lambda facts: facts["users"][0].update(may_call="+49"),
        lambda facts: facts["users"][0].update(ha1="0" * 64),
        lambda facts: facts["users"][0].update(digest={}),
        lambda facts: facts["users"][0].update(seconds=20.5),
        lambda facts: facts["users"][0].update(name="112"),
        lambda facts: facts["groups"][0].update(serial="abc"),
        lambda facts: facts["gateways"][0].update(password={}),
        lambda facts: facts["gateways"][0].update(priority=1.5),
        lambda facts: facts["numbers"][0].update(target=["all"]),
        lambda facts: facts.update(colour="red"),
        lambda facts: facts["groups"][0].update(colour="red"),
        lambda facts: facts["numbers"].append({"number": "+49302", "target": "nobody"}),
    ],
)
def test_a_spoilt_export_changes_nothing(users: Users, spoil: Any) -> None:
    before = everything(users)
    facts = json.loads(json.dumps(before))
    spoil(facts)
    with pytest.raises(Refused):
        users.replace(facts)
    assert users.facts(secrets=True) == before


def test_a_lock_is_waited_for_and_then_told(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(users.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unwritable, match=r"is locked by another program for 0\.1 s; nothing was changed"):
            users.add("attic", PASSWORD)
        other.execute("ROLLBACK")
    assert "attic" not in users.names()


def test_a_full_disk_is_told_and_nothing_is_lost(users: Users) -> None:
    class OnAFullDisk(Users):
        def _open(self) -> sqlite3.Connection:
            database = super()._open()
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {pages}")
            return database

    before = users.facts(secrets=True)
    full = OnAFullDisk(users.path, DOMAIN)

    def add_a_thousand() -> None:
        with full.together():
            for number in range(1000):
                full.add(f"flat{number}", PASSWORD)

    with pytest.raises(Unwritable, match="the disk is full; nothing was changed"):
        add_a_thousand()
    assert Users(users.path, DOMAIN).facts(secrets=True) == before


def test_a_missing_or_broken_file_comes_back_from_its_copy(
    users: Users, caplog: pytest.LogCaptureFixture
) -> None:
    users.path.unlink()
    assert Users(users.path, DOMAIN).names() == ["door", "hall", "kitchen"]
    assert "taken from the safety copy" in caplog.text
    users.path.write_bytes(os.urandom(5000))
    assert Users(users.path, DOMAIN).names() == ["door", "hall", "kitchen"]
    assert "users.db cannot be read; it is users.db.broken now" in caplog.text


def test_without_a_copy_it_is_told_that_nobody_is_left(
    users: Users, caplog: pytest.LogCaptureFixture
) -> None:
    users.path.with_name("users.db.bak").unlink()
    users.path.write_bytes(b"not a database at all" * 100)
    assert Users(users.path, DOMAIN).names() == []
    assert "has no users" in caplog.text


def test_a_torn_file_is_found(users: Users) -> None:
    with closing(sqlite3.connect(users.path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(users.path, users.path.stat().st_size - 4096)
    assert Users(users.path, DOMAIN).names() == ["door", "hall", "kitchen"]
    assert users.path.with_name("users.db.broken").exists()


def test_users_are_of_one_domain(users: Users) -> None:
    with pytest.raises(Refused, match=r"are for site\.example: nobody could register at other\.example"):
        Users(users.path, "other.example")
    for name in users.names():
        users.remove(name)
    Users(users.path, "other.example")
    Users(users.path, DOMAIN).add("kitchen", PASSWORD)  # only a user makes it another one's
    users.remove("kitchen")
    Users(users.path, "other.example").add("hall", PASSWORD)
    with pytest.raises(Refused, match=r"are for other\.example"):
        Users(users.path, DOMAIN)


def test_views_of_an_older_version_are_renewed(users: Users) -> None:
    with closing(sqlite3.connect(users.path)) as database, database:
        database.execute("DROP VIEW users_in_memory")
        database.execute("CREATE VIEW old AS SELECT 1")
    again = Users(users.path, DOMAIN)
    assert set(in_memory(again, "users")) == {"door", "hall", "kitchen"}
    with pytest.raises(sqlite3.OperationalError):
        in_memory(again, "old")
