"""What can be asked of the station, byte for byte over its socket."""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from intercom import __version__
from intercom.control.handlers import _shown
from intercom.core.actions import Dial, HangUp, RecordAccess, RecordCall, Release
from intercom.core.events import (
    ButtonPressed,
    CallAnswered,
    CallOffered,
    CallRang,
    DigitReceived,
    HangUpRequested,
    HealthChanged,
    MessageReceived,
    OpenRequested,
    Stopped,
)
from intercom.core.ringing import Outcome
from intercom.journal.store import Journal
from intercom.runtime import Step
from intercom.settings.schema import Settings
from tests.fakes import FLAT, FRONT_CODE, GUARD, Site, get, http, live, open_site, post, timeless, turns


async def ask(path: Path, raw: bytes) -> tuple[int, dict[str, Any]]:
    status, body = await http(path, raw)
    return status, json.loads(body)


# Status


@live
async def test_the_status_of_an_idle_station(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        place.counters["releases"] = 3
        status, data = await ask(place.path, get("/status"))
    assert status == 200
    assert 0 <= data.pop("uptime_s") < 60
    assert data == {
        "version": __version__,
        "name": "Side door",
        "state": "idle",
        "accounts": [
            {
                "name": "door@site.example",
                "uri": "sip:door@site.example",
                "registrar": "sip:pbx.example",
                "server": "",
                "state": "registering",
                "reason": "",
                "expires_s": 0,
            }
        ],
        "call": None,
        "panel": {
            "buttons": {"bell": True},
            "lamps": {},
            "doors": {"front": {"released": False, "contact": None}},
        },
        "audio": {"device": "none", "fault": None},
        "presence": {"state": "open", "note": ""},
        "messages": {"sent": 0, "failed": 0, "waiting": 0, "faults": {}},
        "faults": {},
        "counters": {"calls_placed": 0, "calls_accepted": 0, "calls_refused": 0, "releases": 3},
    }


@live
async def test_faults_are_in_the_status(tmp_path: Path) -> None:
    async with open_site(tmp_path, panel=False) as place:
        place.runtime.post(HealthChanged("sound", "no card"))
        _, data = await ask(place.path, get("/status"))
    assert data["faults"] == {"sound": "no card"}
    assert data["audio"]["fault"] == "no card"
    assert data["panel"] == {"buttons": {}, "lamps": {}, "doors": {}}


NO_FLOW = {"codec": None, "secure": False, "rx": None, "tx": None}


@timeless
async def test_a_call_from_ring_to_end_is_in_the_status(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        place.runtime.post(ButtonPressed("bell"))
        _, ringing = await ask(place.path, get("/status"))
        place.runtime.post(CallRang(1))
        place.runtime.post(CallAnswered(1))
        place.line.flow = {"codec": "opus/48000", "secure": False, "rx": {"packets": 5}, "tx": {"packets": 6}}
        await asyncio.sleep(40)
        _, talking = await ask(place.path, get("/status"))
        place.runtime.post(HangUpRequested())
        _, ending = await ask(place.path, get("/status"))
    assert ringing["call"] == {
        "id": 1, "state": "calling", "direction": "out", "peer": FLAT, "mode": "talk",
        "diverted_by": "", "since": None, "held": False, "others": [], **NO_FLOW
    }  # fmt: skip
    since = datetime.fromisoformat(talking["call"].pop("since"))
    assert timedelta(seconds=38) < datetime.now(UTC) - since < timedelta(seconds=60)
    expected = {"id": 1, "state": "talking", "direction": "out", "peer": FLAT, **place.line.flow}
    assert talking["call"] == expected | {"mode": "talk", "diverted_by": "", "held": False, "others": []}
    assert talking["state"] == "talking"
    assert ending["call"]["state"] == "ending"
    assert ending["call"]["since"] is not None


@live
async def test_an_incoming_call_is_in_the_status(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        place.runtime.post(CallOffered(-1, FLAT, GUARD))
        _, offered = await ask(place.path, get("/status"))
        place.runtime.post(ButtonPressed("bell"))
        place.runtime.post(CallAnswered(-1))
        _, talking = await ask(place.path, get("/status"))
    for data in (offered, talking):
        assert (data["call"]["direction"], data["call"]["peer"], data["call"]["id"]) == ("in", FLAT, -1)
        assert (data["call"]["mode"], data["call"]["diverted_by"]) == ("talk", GUARD)


@timeless
async def test_a_sip_side_that_does_not_answer_does_not_hold_up_the_status(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        place.runtime.post(ButtonPressed("bell"))
        place.line.silent = True
        status, data = await ask(place.path, get("/status"))
    assert status == 200
    assert {key: data["call"][key] for key in NO_FLOW} == NO_FLOW


# Commands


@live
async def test_a_button_is_pressed(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        assert await ask(place.path, post("/press", b'{"button": "office"}')) == (200, {"pressed": "office"})
        assert await ask(place.path, post("/press", b"{}")) == (200, {"pressed": "bell"})
        assert await ask(place.path, post("/press", b"")) == (200, {"pressed": "bell"})
    assert place.pressed == ["office", "bell", "bell"]


@pytest.mark.parametrize("button", ["cellar", "", None, 5, ["bell"], {"bell": 1}])
@live
async def test_a_button_that_does_not_exist(tmp_path: Path, button: object) -> None:
    async with open_site(tmp_path) as place:
        status, data = await ask(place.path, post("/press", json.dumps({"button": button}).encode()))
    assert (status, data) == (404, {"error": f"there is no button {button!r}; there is bell, office"})
    assert place.pressed == []


@live
async def test_an_address_is_called_and_hung_up(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        body = json.dumps({"to": GUARD}).encode()
        assert await ask(place.path, post("/call", body)) == (200, {"call": 1, "to": GUARD})
        assert place.done[0] == Dial(1, GUARD)
        assert await ask(place.path, post("/call", body)) == (
            409, {"error": "the station is busy with another call"}
        )  # fmt: skip
        assert await ask(place.path, post("/hangup", b"")) == (200, {"call": 1})
        assert HangUp(1) in place.done
        assert await ask(place.path, post("/hangup", b"")) == (
            409, {"error": "there is no call to hang up"}
        )  # fmt: skip


@pytest.mark.parametrize(
    "to",
    [
        None,
        5,
        "",
        "flat",
        "sip:flat",
        "sip:a@b\r\nX: y",
        "sip:a@b>",
        "tel:123",
        "sip:@b",
        "sip:a b@c",
        ["sip:a@b"],
    ],
)
@live
async def test_what_is_no_address_is_not_called(tmp_path: Path, to: object) -> None:
    async with open_site(tmp_path) as place:
        status, data = await ask(place.path, post("/call", json.dumps({"to": to}).encode()))
    assert (status, data) == (
        400, {"error": "'to' must be a SIP address such as sip:flat1@site.example"}
    )  # fmt: skip
    assert place.done == []


@live
async def test_a_door_is_opened(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        opened = await ask(place.path, post("/open", b'{"door": "front"}'))
        again = await ask(place.path, post("/open", b'{"door": "front"}'))
    assert opened == (200, {"door": "front", "seconds": 5})
    assert again == (409, {"error": "door 'front': already released"})
    assert place.done[0] == Release("front", 5)


@pytest.mark.parametrize("door", ["vault", "", 5, None, ["front"]])
@live
async def test_a_door_that_does_not_exist(tmp_path: Path, door: object) -> None:
    async with open_site(tmp_path) as place:
        status, data = await ask(place.path, post("/open", json.dumps({"door": door}).encode()))
    assert (status, data) == (404, {"error": f"there is no door {door!r}; there is front, gate"})
    assert place.done == []


@live
async def test_the_only_door_needs_no_name(tmp_path: Path) -> None:
    one = Settings.model_validate({**SETTINGS_WITHOUT_DOORS, "door": [{"name": "gate", "pin": 27}]})
    async with open_site(tmp_path, one) as place:
        assert await ask(place.path, post("/open", b"")) == (200, {"door": "gate", "seconds": 3})


@live
async def test_a_station_without_doors_opens_none(tmp_path: Path) -> None:
    async with open_site(tmp_path, Settings.model_validate(SETTINGS_WITHOUT_DOORS)) as place:
        assert await ask(place.path, post("/open", b"")) == (
            404, {"error": "there is no door None; there is none"}
        )  # fmt: skip


@live
async def test_a_station_that_goes_down_opens_no_door(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        place.runtime.post(Stopped())
        assert await ask(place.path, post("/open", b'{"door": "front"}')) == (
            409, {"error": "the service is going down"}
        )  # fmt: skip


SETTINGS_WITHOUT_DOORS: dict[str, Any] = {
    "station": {"board": "simulated"},
    "account": [
        {"uri": "sip:door@x", "registrar": "sip:x", "username": "door", "password_file": "door.secret"}
    ],
    "button": [{"name": "bell", "pin": 17, "ring": [{"to": FLAT}]}],
}


# Records


@live
async def test_records_are_shown(tmp_path: Path) -> None:
    written = Journal(tmp_path / "journal.db", lambda fault: None)
    written.append(RecordCall("out", "bell", FLAT, Outcome.BUSY, "Busy Here", 0.0))
    written.append(RecordAccess("front", "operator", "", True, ""))
    written.close()
    async with open_site(tmp_path) as place:
        _, both = await ask(place.path, get("/log"))
        _, last = await ask(place.path, get("/log?count=7&count=1"))
    assert [record["kind"] for record in both["records"]] == ["call", "access"]
    assert [record["id"] for record in last["records"]] == [2]


@live
async def test_no_records_are_no_error(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        assert await ask(place.path, get("/log?count=10000")) == (200, {"records": []})


@pytest.mark.parametrize("count", ["0", "-1", "10001", "x", "1.5", "%C2%B2", "%D9%A1", "1" * 100])
@live
async def test_a_count_must_be_a_number(tmp_path: Path, count: str) -> None:
    async with open_site(tmp_path) as place:
        assert await ask(place.path, get(f"/log?count={count}")) == (
            400, {"error": "count must be a number from 1 to 10000"}
        )  # fmt: skip


# Watching


class Watcher:
    """A client that watches."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.close = writer.close

    @classmethod
    async def start(cls, path: Path) -> "Watcher":
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(get("/watch"))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        watcher = cls(reader, writer)
        assert await watcher.next() == {"watching": "Side door"}
        return watcher

    async def next(self) -> Any:
        """The next line, out of its chunk (RFC 9112 section 7.1); None at the end."""
        size = await self._reader.readline()
        if not size.strip(b"0\r\n"):
            return None
        line = await self._reader.readexactly(int(size, 16))
        assert await self._reader.readexactly(2) == b"\r\n"
        return json.loads(line)


@live
async def test_steps_are_watched_as_they_happen(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        first, second = await Watcher.start(place.path), await Watcher.start(place.path)
        place.runtime.post(OpenRequested("front"))
        told = await first.next()
        assert told == await second.next()
        first.close()
        second.close()
    assert told.pop("at") > 0
    assert told == {
        "event": {"type": "OpenRequested", "door": "front"},
        "before": "Idle",
        "after": "Idle",
        "actions": [
            {"type": "Release", "door": "front", "seconds": 5},
            {
                "type": "RecordAccess",
                "door": "front",
                "how": "operator",
                "peer": "",
                "granted": True,
                "reason": "",
            },
            {"type": "ShowLamp", "lamp": "door_open"},
            {"type": "Play", "tone": "door_open"},
        ],
    }


@live
async def test_a_digit_is_not_watched(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        place.runtime.post(ButtonPressed("bell"))
        place.runtime.post(CallAnswered(1))
        watcher = await Watcher.start(place.path)
        for digit in FRONT_CODE:
            place.runtime.post(DigitReceived(1, digit))
        told = await watcher.next()
        watcher.close()
    assert told["event"] == {"type": "DigitReceived", "call": 1, "digit": "*"}


def test_a_code_in_a_message_is_not_shown() -> None:
    step = Step(0.0, MessageReceived(FLAT, FRONT_CODE, True), "Idle", "Idle", ())
    assert _shown(step)["event"] == {"type": "MessageReceived", "peer": FLAT, "text": "*", "secure": True}


@live
async def test_a_client_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        watcher = await Watcher.start(place.path)
        assert len(place.runtime._watchers) == 1
        watcher.close()
        await gone(place)


@live
async def test_a_client_that_leaves_before_the_first_line_is_forgotten(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        for _ in range(10):
            _, writer = await asyncio.open_unix_connection(place.path)
            writer.write(get("/watch"))
            writer.close()
        await ask(place.path, get("/status"))
        await gone(place)


async def gone(place: Site) -> None:
    """Waits until nobody watches any more; the time limit of the test is what fails it."""
    while place.runtime._watchers:
        await turns(1)


@live
async def test_a_client_that_does_not_read_loses_steps_and_holds_up_nobody(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        asleep = await Watcher.start(place.path)
        for _ in range(5000):
            place.runtime.post(OpenRequested("vault"))
        status, _ = await ask(place.path, get("/status"))
        assert status == 200
        asleep.close()


@live
async def test_watching_ends_with_the_service(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        watcher = await Watcher.start(place.path)
    assert await watcher.next() is None
    watcher.close()


# Damage


@live
async def test_a_journal_that_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        (tmp_path / "journal.db").write_bytes(b"\xff" * 4096)
        with (
            pytest.raises(sqlite3.DatabaseError),
            closing(sqlite3.connect(tmp_path / "journal.db")) as database,
        ):
            database.execute("SELECT * FROM record")
        status, data = await ask(place.path, get("/log"))
    assert status >= 500
    assert "error" in data
