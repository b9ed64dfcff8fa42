"""Reading the settings: a file in, `Settings` out, or every mistake in it at once."""

import os
import ssl
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from intercom.core.policy import Caller, Door, Mode, Notice, Occasion, Plan, Policy, Target
from intercom.settings import schema
from intercom.settings.schema import SYSTEM_AUTHORITIES, Incoming, Settings

LARGEST_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: where (`key`, or the file itself if empty) and why."""

    file: Path
    key: str
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        text = f"{self.file}: {self.key}: {self.reason}" if self.key else f"{self.file}: {self.reason}"
        return " ".join(text.split())  # a key may hold a line break


class WrongSettings(ValueError):
    """The settings cannot be used. `mistakes` holds every reason found."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        """Keep the mistakes, in the order of the file."""
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


def load(path: Path, *, secrets: bool = True) -> Settings:
    """Read and check a settings file. Blocks on the disk.

    Args:
        path: the file.
        secrets: whether the files that it names are checked too. The unit's stop hook may not see them.

    Raises:
        WrongSettings: with every mistake in the file.
    """
    data = read(path)
    mistakes = (
        _clashes(path, data)
        + _messages(path, data)
        + (_secrets(path, data) + _authorities(path, data) if secrets else [])
    )
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise WrongSettings(schema_mistakes(path, error) + mistakes) from None
    if mistakes:
        raise WrongSettings(mistakes)
    return settings


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file of a bounded size. Blocks on the disk.

    Raises:
        WrongSettings: it cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise WrongSettings([Mistake(path, "", f"cannot be read: {error.strerror}")]) from None
    if len(raw) > LARGEST_FILE:
        raise WrongSettings([Mistake(path, "", "is larger than 1 MiB: this is not a settings file")])
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise WrongSettings([Mistake(path, "", f"is not UTF-8 text (byte {error.start})")]) from None
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits
        raise WrongSettings([Mistake(path, "", f"is not TOML: {error}")]) from None


_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known setting",
    "list_type": "must be a list: a table of it begins with two brackets, [[...]]",
    "model_type": "must be a table",
    "too_long": "has more entries than are possible",
    "too_short": "has no entry",
}


def schema_mistakes(path: Path, error: ValidationError) -> list[Mistake]:
    """What a schema finds wrong, in our own words, each with the key as it is written in the file."""
    mistakes = []
    for item in error.errors(include_input=False, include_url=False):
        key = ""
        for part in item["loc"]:
            key += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if key else part
        reason = _WORDS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        mistakes.append(Mistake(path, key, reason))
    return mistakes


def _tables(data: dict[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tables of an array, whatever else is wrong with the file, each with the key it is shown under."""
    entries = data.get(kind)
    for number, entry in enumerate(entries if isinstance(entries, list) else (), 1):
        if isinstance(entry, dict):
            yield f"{kind}[{number}]", entry


def _clashes(path: Path, data: dict[str, Any]) -> list[Mistake]:
    """Names, pins and codes used twice; from the raw data, so that no mistake hides another."""
    mistakes = _twins(path, data)
    pins: dict[int, str] = {}
    codes: dict[str, str] = {}
    for kind in ("button", "lamp", "door"):
        names: dict[str, str] = {}
        for key, table in _tables(data, kind):
            name, pin = table.get("name"), table.get("pin")
            if isinstance(name, str) and name and names.setdefault(name, key) != key:
                mistakes.append(
                    Mistake(path, f"{key}.name", f"'{name}' is already the name of {names[name]}")
                )
            if type(pin) is int and pins.setdefault(pin, key) != key:
                mistakes.append(Mistake(path, f"{key}.pin", f"{pin} is already the pin of {pins[pin]}"))
            for place, entry in _tables(table, "codes"):
                code = entry.get("dtmf")
                if not isinstance(code, str):
                    continue
                if code in codes:
                    mistakes.append(
                        Mistake(path, f"{key}.{place}.dtmf", f"is already a code of {codes[code]}")
                    )
                codes.setdefault(code, key)
    return mistakes


def _messages(path: Path, data: dict[str, Any]) -> list[Mistake]:
    """Buttons that messages name and nobody knows, and doors that no message can open."""
    mistakes = []
    buttons = [table.get("name") for _, table in _tables(data, "button")]
    for key, table in _tables(data, "message"):
        named = table.get("buttons")
        for number, name in enumerate(named if isinstance(named, list) else (), 1):
            if name not in buttons:
                mistakes.append(Mistake(path, f"{key}.buttons[{number}]", f"there is no button '{name}'"))
    secure = any(_is_tls(table) for _, table in _tables(data, "account"))
    incoming = data.get("incoming")
    for key, table in _tables(data, "door"):
        if table.get("open_by_message") is not True:
            continue
        if not secure:
            reason = "needs an account with ;transport=tls: a code in the clear opens nothing"
        elif not table.get("codes"):
            reason = "needs codes"
        elif not isinstance(incoming, dict) or not (incoming.get("permit") or incoming.get("peer")):
            reason = "needs people who may write: they are those who may call, in [incoming]"
        else:
            continue
        mistakes.append(Mistake(path, f"{key}.open_by_message", reason))
    return mistakes


def _twins(path: Path, data: dict[str, Any]) -> list[Mistake]:
    """Accounts with one name, so that nobody could tell which of them is meant."""
    mistakes = []
    names: dict[str, str] = {}
    for key, table in _tables(data, "account"):
        name = table.get("name") or str(table.get("uri")).partition(":")[2].partition(";")[0]
        if isinstance(name, str) and name and names.setdefault(name, key) != key:
            reason = f"'{name}' is already the name of {names[name]}: give it another with name = ..."
            mistakes.append(Mistake(path, f"{key}.name", reason))
    return mistakes


def _secrets(path: Path, data: dict[str, Any]) -> list[Mistake]:
    mistakes = []
    network = data.get("network")
    turn = network.get("turn") if isinstance(network, dict) else None
    relays = [("network.turn", turn)] if isinstance(turn, dict) else []
    for key, table in (*_tables(data, "account"), *relays):
        name = table.get("password_file")
        if isinstance(name, str) and name and min(name) >= " ":  # else the schema says why
            try:
                read_password(name, path)
            except WrongSettings as wrong:
                mistakes += [
                    Mistake(path, f"{key}.password_file", mistake.reason) for mistake in wrong.mistakes
                ]
    return mistakes


def _is_tls(account: dict[str, Any]) -> bool:
    """Tell whether an account's servers are spoken to over TLS."""
    return str(account.get("proxy") or account.get("registrar")).endswith(";transport=tls")


def _authorities(path: Path, data: dict[str, Any]) -> list[Mistake]:
    mistakes = []
    for key, table in _tables(data, "account"):
        tls = _is_tls(table) and "fingerprint" not in table
        name = table.get("ca_file", SYSTEM_AUTHORITIES if tls else None)
        if not isinstance(name, str) or not name or min(name) < " ":
            continue  # none is asked, or the schema says what is wrong
        file = path.parent / name
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError:
            mistakes.append(Mistake(path, f"{key}.ca_file", f"{file} holds no certificate in PEM form"))
        except OSError as error:
            mistakes.append(Mistake(path, f"{key}.ca_file", f"{file} cannot be read: {error.strerror}"))
    return mistakes


def read_password(name: str, settings_file: Path) -> str:
    """Read the password that a `password_file` names. Blocks on the disk.

    A systemd credential with the file's name wins (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)); otherwise
    the file, seen from the settings' folder, which nobody but its owner may read.

    Raises:
        WrongSettings: it is missing, empty, or readable by others. The password itself is never shown.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(credentials, Path(name).name) if credentials else None
    protected = credential is not None and os.path.isfile(credential)  # noqa: PTH113 - never raises
    path = credential if credential is not None and protected else settings_file.parent / name

    def wrong(reason: str) -> WrongSettings:
        return WrongSettings([Mistake(settings_file, "password_file", f"{path} {reason}")])

    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise wrong("is not a file")
        if not protected and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise wrong("may be read by others: chmod 600 it")
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise wrong(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise wrong("is not UTF-8 text") from None
    if not text or not text.isprintable():
        raise wrong("must hold the password as one line of text")
    return text


def callers(incoming: Incoming) -> dict[str, Caller]:
    """Make of the settings who may call, and how each is answered."""
    ways = [(uri, incoming) for uri in incoming.permit] + [(peer.uri, peer) for peer in incoming.peer]
    return {uri: Caller(way.answer == "automatic", Mode(way.mode)) for uri, way in ways}


def _plan(plan: schema.Plan) -> Plan:
    last = plan.last_resort
    return Plan(
        tuple(Target(ring.to, ring.seconds, ring.together) for ring in plan.ring),
        plan.repeat,
        None if last is None else Target(last.to, last.seconds),
        plan.confirm == "key",
    )


def policy(settings: Settings) -> Policy:
    """Make the core's rules out of the settings."""
    return Policy(
        buttons={button.name: _plan(button) for button in settings.button},
        doors={
            door.name: Door(
                door.release_seconds, frozenset(code.dtmf for code in door.codes), door.open_by_message
            )
            for door in settings.door
        },
        callers=callers(settings.incoming),
        join=settings.incoming.waiting == "join",
        notices=tuple(
            Notice(tuple(message.to), frozenset(map(Occasion, message.on)), frozenset(message.buttons))
            for message in settings.message
        ),
        publishes=any(account.presence for account in settings.account),
        hours={button.name: tuple(map(_plan, button.hours)) for button in settings.button if button.hours},
        redirects=frozenset(settings.redirect.permit)
        | {f"sip:*@{host}" for account in settings.account for host in account.hosts},
        settle_seconds=settings.timing.settle_seconds,
        repeat_seconds=settings.timing.repeat_seconds,
        talk_seconds=settings.timing.talk_seconds,
    )
