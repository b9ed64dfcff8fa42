"""The questions an administrator may ask a running site: JSON-RPC over Kamailio's datagram socket.

Rule: the socket lies in the site's folder, so who may read the folder may ask.
"""

import json
import secrets
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 5.0
_LARGEST_REPLY = 1 << 20


class NotRunning(RuntimeError):
    """No site answers; the text says where."""


class Denied(RuntimeError):
    """The site does not do what was asked; the text holds its reason."""


def request(
    folder: Path, method: str, *parameters: str | int, timeout: float = ANSWER_SECONDS
) -> dict[str, Any]:
    """Put one question to the site in a folder; blocks for its reply, which holds `result` or `error`.

    Raises:
        NotRunning: no reply within `timeout` seconds.
    """
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    own = folder / f"ask-{secrets.token_hex(4)}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(timeout)
        try:
            channel.bind(str(own))
            channel.sendto(json.dumps(question).encode(), str(folder / "control.sock"))
            reply: dict[str, Any] = json.loads(channel.recv(_LARGEST_REPLY))
        except OSError as error:
            raise NotRunning(f"no site answers in {folder}: {error.strerror or error}") from None
        finally:
            with suppress(OSError):
                own.unlink()
    return reply


def ask(folder: Path, method: str, *parameters: str | int) -> Any:
    """Put one question to the site in a folder; blocks for its answer.

    Raises:
        NotRunning: no answer within 5 s.
        Denied: it answers with an error.
    """
    reply = request(folder, method, *parameters)
    if "error" in reply:
        raise Denied(f"{method}: {reply['error']['message']}")
    return reply["result"]


def answers(folder: Path) -> bool:
    """Tell whether a site answers in a folder. Blocks for its answer."""
    try:
        ask(folder, "core.uptime")
    except (NotRunning, Denied):
        return False
    return True


def reload(folder: Path) -> list[str]:
    """Tell the site to read its users again; returns what `reload_gateways` does. Blocks for its answers.

    Raises:
        NotRunning: it does not answer; it reads them when it starts.
        Denied: it could not read all of them. It has read what it could.
    """
    views = _rows(folder, "SELECT name FROM sqlite_master WHERE type = 'view'")
    wanted = {view.removesuffix("_in_memory") for (view,) in views}
    parts = [
        ("htable.reload", table["name"])
        for table in ask(folder, "htable.listTables")
        if table["name"] in wanted
    ]
    failed = []
    for part in [*parts, ("uac.reg_reload",)]:
        try:
            ask(folder, *part)
        except Denied as error:
            failed.append(f"{part[-1]}: {error}")
    missing = reload_gateways(folder)
    if failed:
        raise Denied("; ".join(failed))
    return missing


def reload_gateways(folder: Path) -> list[str]:
    """Let the site use the gateways as they are now; returns those whose addresses it cannot find out.

    It goes on without them. When nothing has changed it is not disturbed: it would forget which ones are
    down, and lose those whose names cannot be resolved just now. Blocks for its answers.

    Raises:
        NotRunning: it does not answer.
        Denied: it could not read them.
    """
    wanted = set(_rows(folder, "SELECT setid, destination, priority, attrs FROM dispatcher"))
    if wanted == _in_use(folder):
        return []
    reply = request(folder, "dispatcher.reload")
    missing = sorted({attributes.partition("=")[2] for *_, attributes in wanted - _in_use(folder)})
    if "error" in reply and not missing:
        raise Denied(f"dispatcher.reload: {reply['error']['message']}")
    return missing


def gateways(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """The gateways that a site uses, each with its set, in the words of Kamailio's dispatcher.

    Raises:
        NotRunning: it does not answer.
    """
    reply = request(folder, "dispatcher.list")
    sets = reply["result"]["RECORDS"] if "result" in reply else []  # none at all is an error there
    return [(each["SET"]["ID"], entry["DEST"]) for each in sets for entry in each["SET"]["TARGETS"]]


def _in_use(folder: Path) -> set[tuple[Any, ...]]:
    return {
        (number, entry["URI"], entry["PRIORITY"], entry["ATTRS"]["BODY"])
        for number, entry in gateways(folder)
    }


def _rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    try:
        with closing(sqlite3.connect(f"{(folder / 'users.db').as_uri()}?mode=rw", uri=True)) as database:
            return database.execute(query).fetchall()
    except sqlite3.Error as error:
        raise Denied(f"{folder / 'users.db'}: {error}") from None
