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


def reload(folder: Path) -> None:
    """Tell the site to read its users again. Blocks for its answers.

    Raises:
        NotRunning: it does not answer; it reads them when it starts.
        Denied: it could not read them.
    """
    try:
        with closing(sqlite3.connect(folder / "users.db")) as database:
            views = database.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall()
    except sqlite3.Error as error:
        raise Denied(f"{folder / 'users.db'}: {error}") from None
    wanted = {view.removesuffix("_in_memory") for (view,) in views}
    for table in ask(folder, "htable.listTables"):
        if table["name"] in wanted:
            ask(folder, "htable.reload", table["name"])
    known = set(ask(folder, "system.listMethods"))
    for method in ("dispatcher.reload", "uac.reg_reload"):
        if method in known:
            ask(folder, method)
