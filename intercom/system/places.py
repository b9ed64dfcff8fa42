"""Where the settings, the socket and the records lie, as systemd or the user says (systemd.exec(5))."""

import os
import tempfile
from pathlib import Path

SETTINGS = Path("/etc/intercom/intercom.toml")
RUNNING = Path("/run/intercom")
GUARDIAN = Path("/run/intercom-guardian/guardian.sock")


def settings_file() -> Path:
    """The settings file: `$INTERCOM_CONFIG`, else the system's."""
    return Path(os.environ.get("INTERCOM_CONFIG", SETTINGS))


def control_socket() -> Path:
    """The running service's socket: in `$RUNTIME_DIRECTORY`, the system's, or the user's own folder."""
    if "RUNTIME_DIRECTORY" in os.environ:
        folder = Path(os.environ["RUNTIME_DIRECTORY"])
    elif os.geteuid() == 0 or RUNNING.is_dir():
        folder = RUNNING
    else:
        folder = Path(
            os.environ.get("XDG_RUNTIME_DIR", f"{tempfile.gettempdir()}/intercom-{os.getuid()}"), "intercom"
        )
    return folder / "control.sock"


def guardian_socket() -> Path:
    """The socket of the doors' guardian: `$INTERCOM_GUARDIAN`, else the system's."""
    return Path(os.environ.get("INTERCOM_GUARDIAN", GUARDIAN))


def journal_file() -> Path:
    """The record of calls and accesses: in `$STATE_DIRECTORY`, the system's, or the user's own folder."""
    if "STATE_DIRECTORY" in os.environ:
        folder = Path(os.environ["STATE_DIRECTORY"])
    elif os.geteuid() == 0:
        folder = Path("/var/lib/intercom")
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state"), "intercom")
    return folder / "journal.db"
