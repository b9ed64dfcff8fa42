"""Where a site's settings, its folder and the files it is made from lie.

Rule: everything a site writes lies in one folder.
"""

import os
import re
import sys
from pathlib import Path

SETTINGS = Path("/etc/intercom/site.toml")
FOLDER = Path("/var/lib/intercom-site")
_LONGEST_FOLDER = 83


def settings_file() -> Path:
    """The settings file: `$INTERCOM_SITE`, else the system's."""
    return Path(os.environ.get("INTERCOM_SITE", SETTINGS))


def folder() -> Path:
    """The site's folder: `$STATE_DIRECTORY`, the system's, or the user's own."""
    if "STATE_DIRECTORY" in os.environ:
        return Path(os.environ["STATE_DIRECTORY"])
    if os.geteuid() == 0:
        return FOLDER
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state"), "intercom-site")


def wrong_folder(folder: Path) -> str:
    """Why a folder cannot be a site's; empty if it can.

    Kamailio reads its path in four languages that agree on no way to quote it, and a socket in it or in the
    relay's folder has a name of at most 107 bytes.
    """
    if not re.fullmatch(r"[A-Za-z0-9/._+@%,=:-]+", str(folder)):
        return f"{str(folder)!r} cannot be the site's folder: only letters a to z, digits and /._+@%,=:- can"
    if len(str(folder)) > _LONGEST_FOLDER:
        return f"{folder} cannot be the site's folder: it is longer than {_LONGEST_FOLDER} letters"
    return ""


def data(name: str = "") -> Path:
    """A file of `deploy/site`: of the source tree, or of the installed program."""
    source = Path(__file__).parents[2] / "deploy" / "site"
    return (source if source.is_dir() else Path(sys.prefix, "share", "intercom", "site")) / name
