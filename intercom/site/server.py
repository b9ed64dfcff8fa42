"""Kamailio for a site: its folder, and its configuration made from the settings.

Rule: a configuration is made in a folder of its own and takes the old one's place only when no mistake was
found in it. Everything lies in one folder, which alone is enough to start the site again.
"""

import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import get_args

from intercom.settings.loading import Mistake, WrongSettings
from intercom.site import control, forms, places
from intercom.site.database import empty, remove_log, set_aside, whole
from intercom.site.settings import SiteSettings, Transport
from intercom.site.users import Refused, Users

CERTIFICATE, TRUNK_AUTHORITY = "certificate.pem", "trunk-authority.pem"
_CURRENT = "current"
_SETTINGS = "settings.json"
_MAIN = "main.cfg"
_SCHEMA = Path("/usr/share/kamailio/db_sqlite")
_STATE_TABLES = ("standard", "usrloc", "msilo", "dialog")
# MB, shared and of each process; taken only as it is needed. A call holds 32 kB of the first until 5 s after
# its end; to read 2,000 locations at the start takes 5 MB of the second. Kamailio's usual memory manager
# looks for faults of its users; with tlsf a call costs half as much, and memory stays in one piece for years.
_MEMORY = ("-m", "64", "-M", "32", "-x", "tlsf")
_CHECK_SECONDS = 30.0
_SECURE: tuple[Transport, ...] = ("tls", "wss")
_WEB: tuple[Transport, ...] = ("ws", "wss")
_log = logging.getLogger(__name__)


def open_users(folder: Path, settings: SiteSettings) -> Users:
    """Open the users of a site; its folder and the database are made when missing. Blocks on the disk.

    Never an empty database while a server runs: it would forget everybody at the next change.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Users(folder / "users.db", settings.site.domain, may_begin=lambda: not control.answers(folder))


def prepare(folder: Path, settings: SiteSettings, settings_file: Path = places.SETTINGS) -> None:
    """Make the configuration and put it in place, and the databases when they are missing.

    Blocks on the disk and for Kamailio's check.

    Args:
        folder: of the site; a full path.
        settings: what the configuration is made from.
        settings_file: named in the mistakes.

    Raises:
        WrongSettings: with every mistake found. What was in place before is there as it was.
        Unwritable: the users' database cannot be opened.
    """
    repair(folder)
    put_in_place(folder, make(folder, settings, settings_file))


def make(
    folder: Path, settings: SiteSettings, settings_file: Path = places.SETTINGS, to: str | None = None
) -> Path:
    """Make a configuration without a mistake beside the one in place; returns its folder.

    Args and errors as for `prepare`, and
        to: the server, with an address, that a stateless relay passes everything on to; None for a site.
    """
    if to is None:
        try:
            open_users(folder, settings)
        except Refused as error:
            raise WrongSettings([Mistake(settings_file, "site.domain", str(error))]) from None
        _make_state(folder / "state.db")
    key = site_key(folder)
    with _new(folder) as new:
        mistakes = _wrong_addresses(settings, settings_file) + _missing_sctp(settings, settings_file)
        for part in places.data().glob("*.cfg"):
            (new / part.name).write_bytes(part.read_bytes())
        relayed = "" if to is None else f'#!define TO "{to}"\n'
        _write_secret(new / "site.cfg", relayed + _site_cfg(folder, new, settings, key))
        (new / _SETTINGS).write_text(settings.model_dump_json())
        (new / _MAIN).symlink_to("kamailio.cfg" if to is None else "stateless.cfg")
        if with_tls(settings):
            _write_secret(new / "tls.cfg", _tls_cfg(new, settings))
            mistakes += copy_certificate(folder, new, settings, settings_file)
        mistakes += _check(new / _MAIN, settings_file)
        if mistakes:
            raise WrongSettings(mistakes)
    return new


def site_key(folder: Path) -> str:
    """The secret of a site, which all its servers share; made when there is none. Blocks on the disk.

    Raises:
        WrongSettings: it is broken.
    """
    path = folder / "site.key"
    if not path.exists():
        _write_secret(path, secrets.token_hex(16))
    try:
        return forms.key(_text(path))
    except ValueError as error:
        used = in_place(folder)
        remedy = f"put back SITE_KEY of {used / 'site.cfg'}" if used else "remove the file for a new one"
        raise WrongSettings([Mistake(path, "", f"{error}: {remedy}")]) from None


def _text(path: Path) -> str:
    return path.read_text(errors="replace").strip()


def set_site_key(folder: Path, key: str) -> bool:
    """Take over the key of another server of this site; returns whether it is another one than before.

    The next configuration that is made holds it.

    Raises:
        Refused: it is not a key.
    """
    try:
        forms.key(key)
    except ValueError as error:
        raise Refused(str(error)) from None
    path = folder / "site.key"
    changed = not path.exists() or _text(path) != key
    if changed:
        _write_secret(path, key)
    return changed


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder for a configuration; removed when it does not come to be."""
    new = folder / f"configuration-{secrets.token_hex(4)}"
    new.mkdir(mode=0o700)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new)
        raise


def in_place(folder: Path) -> Path | None:
    """The configuration that the site runs with, or will; None if there was never a good one."""
    current = (folder / _CURRENT).resolve()
    return current if current.is_dir() else None


def settings_of(configuration: Path) -> SiteSettings:
    """The settings that a configuration was made from, which may not be those of the file any more."""
    return SiteSettings.model_validate_json((configuration / _SETTINGS).read_bytes())


def put_in_place(folder: Path, configuration: Path) -> None:
    """Let the next start use this configuration, and remove every other."""
    link = folder / f".{_CURRENT}"
    link.unlink(missing_ok=True)
    link.symlink_to(configuration.name)
    link.replace(folder / _CURRENT)
    for old in folder.glob("configuration-*"):
        if old != configuration:
            shutil.rmtree(old)


def command(folder: Path, configuration: Path) -> list[str | Path]:
    """The command that runs Kamailio in the foreground. Blocks on the disk.

    Raises:
        FileNotFoundError: it is not installed.
    """
    users = _readable_users(folder)
    return [program(), "-f", configuration / _MAIN, "-Y", folder, *_MEMORY, "-DD", "-E", *users]


def _readable_users(folder: Path) -> list[str]:
    """What tells Kamailio to read the users' safety copy, which holds every change, where it has to."""
    path = folder / "users.db"
    copy = folder / "users.db.bak"
    try:
        if path.exists():
            whole(path, "user")
    except sqlite3.OperationalError as error:
        if copy.exists():
            _log.warning("%s cannot be read (%s); until the next start it is %s", path, error, copy)
            return ["-A", f'USERS_DB="sqlite:///{copy}"']
    return []


def program() -> str:
    """Where Kamailio is. It lies in a folder that an ordinary user's PATH leaves out.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError("kamailio is not installed: apt install kamailio")
    return found


def sockets(settings: SiteSettings) -> list[str]:
    """What it listens on, in Kamailio's spelling: `udp:127.0.0.1:5060`."""
    return _phone_sockets(settings) + ([f"udp:{settings.nodes.own}"] if settings.nodes.own else [])


def _phone_sockets(settings: SiteSettings) -> list[str]:
    spelled: dict[Transport, str] = {"ws": "tcp", "wss": "tls"}
    own = [
        f"{spelled.get(transport, transport)}:{address}:{settings.listen.port_of(transport)}"
        for address in addresses(settings)
        for transport in settings.listen.transports
    ]
    if "udp" not in settings.listen.transports:
        own.append(f"udp:{_self(settings)}")
    return own


def addresses(settings: SiteSettings) -> list[str]:
    """The addresses it listens on: those of the settings, or the one this machine reaches others from."""
    return settings.listen.addresses or [_own_address()]


def wrong_gateway(uri: str, settings: SiteSettings) -> str:
    """Why a server cannot be a gateway of this site; empty if it can. The URI may be wrong otherwise."""
    where, _, transport = uri.removeprefix("sip:").partition(";transport=")
    host, _, port = where.partition(":")
    if host == settings.site.domain:
        return f"{host} is this site"
    if any(name.endswith(f":{host}:{port or 5060}") for name in sockets(settings)):
        return f"{where} is this site"
    if transport in get_args(Transport) and transport not in settings.listen.transports:
        return f"the site does not listen for {transport}: add it to listen.transports"
    return ""


def with_tls(settings: SiteSettings) -> bool:
    """Whether any phone comes over TLS."""
    return not set(_SECURE).isdisjoint(settings.listen.transports)


def copy_certificate(
    folder: Path, configuration: Path, settings: SiteSettings, settings_file: Path
) -> list[Mistake]:
    """Put the certificate that phones are shown into a configuration; returns why it cannot be used.

    The site's own authority makes one when none was given. The copies keep the configuration whole when the
    given files go.
    """
    from intercom.site import certificates

    key = "tls.certificate"
    try:
        if settings.tls.certificate and settings.tls.key:
            certificate = certificates.given(Path(settings.tls.certificate), Path(settings.tls.key))
            if problem := certificates.problem(certificate, settings.site.domain):
                return [Mistake(settings_file, key, problem)]
        else:
            certificate = certificates.own(folder / "tls", settings.site.domain, addresses(settings))
        # One file, so that the certificate and its key are replaced together or not at all.
        both = certificate.chain.read_text() + certificate.key.read_text()
        _write_secret(configuration / CERTIFICATE, both)
        if settings.tls.trunk_authority:
            key = "tls.trunk_authority"
            trusted = certificates.authorities(Path(settings.tls.trunk_authority))
            (configuration / TRUNK_AUTHORITY).write_text(trusted)
    except certificates.WrongCertificate as error:
        return [Mistake(settings_file, key, str(error))]
    return []


def authority(folder: Path, settings: SiteSettings) -> Path | None:
    """The certificate that phones must trust, made when it is missing; None if another authority's is used.

    Raises:
        WrongCertificate: it cannot be used.
    """
    from intercom.site import certificates

    if settings.tls.certificate:
        return None
    return certificates.own(folder / "tls", settings.site.domain, addresses(settings)).authority


def _own_address() -> str:
    """Loopback without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: nobody's; connecting a datagram socket sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address


def _contact(settings: SiteSettings) -> str:
    """Where a trunk that we register with calls back: host, port and transport of a URI."""
    first: Transport = "udp" if "udp" in settings.listen.transports else settings.listen.transports[0]
    transport = "" if first == "udp" else f";transport={first}"
    return f"{addresses(settings)[0]}:{settings.listen.port_of(first)}{transport}"


def _self(settings: SiteSettings) -> str:
    """Where the server sends what it tells itself: always UDP, on loopback if no phone uses that."""
    address = addresses(settings)[0] if "udp" in settings.listen.transports else "127.0.0.1"
    return f"{address}:{settings.listen.port}"


def _site_cfg(folder: Path, configuration: Path, settings: SiteSettings, key: str) -> str:
    registration, transports = settings.registration, settings.listen.transports
    defines = {
        "DOMAIN": f'"{settings.site.domain}"',
        "STATE_DB": f'"sqlite:///{folder / "state.db"}"',
        "STATE_CONNECTION": f'"state=>sqlite:///{folder / "state.db"}"',
        "LOCATION_DB_MODE": str(int(settings.site.remembers)),
        "SITE_KEY": f'"{key}"',
        # Trunks see what is masked with it and could work it out, so it tells nothing about the site's key.
        "MASK_KEY": f'"{hashlib.sha256(f"mask {key}".encode()).hexdigest()}"',
        "ADDRESS": f'"{addresses(settings)[0]}"',
        "CONTACT": f'"{_contact(settings)}"',
        "PING_FROM": f'"sip:ping@{addresses(settings)[0]}"',
        "CONTROL": f'"{folder / "control.sock"}"',
        "SELF": f'"sip:{_self(settings)}"',
        "REQUESTS_PER_2S": str(2 * settings.limits.requests_per_second),
        "SHORTEST_EXPIRES": str(registration.shortest),
        "DEFAULT_EXPIRES": str(registration.default),
        "LONGEST_EXPIRES": str(registration.longest),
    }
    if settings.numbers.country is not None:
        defines["COUNTRY"] = f'"{settings.numbers.country}"'
    if with_tls(settings):
        defines["WITH_TLS"] = ""
        defines["TLS_CONFIG"] = f'"{configuration / "tls.cfg"}"'
    if not set(_WEB).isdisjoint(transports):
        defines["WITH_WEBSOCKET"] = ""
    if "sctp" in transports:
        defines["WITH_SCTP"] = ""
    if settings.nodes.own:
        defines["WITH_NODES"] = ""
        defines["NODE"] = f'"sip:{settings.nodes.own}"'
        # A positive number of 31 bits that no other node has; Kamailio knows no larger one.
        defines["NODE_NUMBER"] = str(int(ip_address(settings.nodes.own.partition(":")[0])) % 2**31)
        for number, other in enumerate(settings.nodes.others, 1):
            defines["OTHER_NODE" if number == 1 else f"OTHER_NODE_{number}"] = f'"sip:{other}"'
    lines = [f"#!define {name} {value}".rstrip() for name, value in defines.items()]
    lines.append(f'#!trydef USERS_DB "sqlite:///{folder / "users.db"}"')  # unless the command says otherwise
    lines += [f"listen={socket}" for socket in sockets(settings)]
    return "\n".join(lines) + "\n"


def _tls_cfg(configuration: Path, settings: SiteSettings) -> str:
    trusts = f"ca_list = {configuration / TRUNK_AUTHORITY}\n" if settings.tls.trunk_authority else ""
    return (
        "[server:default]\n"
        "method = TLSv1.2+\n"
        "verify_certificate = no\n"
        "require_certificate = no\n"
        f"certificate = {configuration / CERTIFICATE}\n"
        f"private_key = {configuration / CERTIFICATE}\n"
        "[client:default]\n"
        "method = TLSv1.2+\n"
        "verify_certificate = yes\n"
        "require_certificate = yes\n" + trusts
    )


def _wrong_addresses(settings: SiteSettings, settings_file: Path) -> list[Mistake]:
    """Addresses that Kamailio finds out to be wrong only when it starts, or never."""
    mistakes = []
    if any(name.endswith(f":{settings.nodes.own}") for name in _phone_sockets(settings)):
        reason = f"{settings.nodes.own} is where phones come to: the nodes need a port of their own"
        mistakes.append(Mistake(settings_file, "nodes.own", reason))
    own = [("nodes.own", settings.nodes.own.partition(":")[0])] if settings.nodes.own else []
    for key, address in [("listen.addresses", address) for address in settings.listen.addresses] + own:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
                probe.connect((address, 9))  # sends nothing, and is not permitted to a broadcast address
            except OSError:
                mistakes.append(Mistake(settings_file, key, f"{address} is no address of this machine"))
    return mistakes


def _missing_sctp(settings: SiteSettings, settings_file: Path) -> list[Mistake]:
    """Kamailio would pass over the socket and say nothing that anybody sees."""
    if "sctp" in settings.listen.transports:
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        except OSError:
            reason = "sctp: the kernel of this machine has none (modprobe sctp)"
            return [Mistake(settings_file, "listen.transports", reason)]
    return []


def taken(settings: SiteSettings, running: Path | None) -> str:
    """The socket that another program holds; empty if all are free.

    Args:
        settings: whose sockets are looked at.
        running: the configuration that a running server has; its sockets become free when it ends.
    """
    kinds = {"udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP)}
    lines = (running / "site.cfg").read_text().splitlines() if running else []
    held = {_kernels(line.removeprefix("listen=")) for line in lines if line.startswith("listen=")}
    for name in sockets(settings):
        if _kernels(name) in held:
            continue
        transport, address, port = name.split(":")
        try:
            with socket.socket(socket.AF_INET, *kinds.get(transport, (socket.SOCK_STREAM, 0))) as probe:
                if transport != "udp":
                    # Connections that have ended do not count.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, int(port)))
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def _kernels(name: str) -> str:
    """A socket as the kernel sees it: TLS is TCP."""
    return name.replace("tls:", "tcp:", 1)


_PARSE_ERROR = re.compile(
    r"parse error in config file (?P<file>[^,]+), (from )?line (?P<line>\d+)[^:]*: (?P<reason>.+)"
)
_ERROR = re.compile(r"(CRITICAL|ERROR): .*\): (?P<reason>.+)")


def _check(configuration: Path, settings_file: Path) -> list[Mistake]:
    """What Kamailio says is wrong: the first place, of which the others are mostly consequences."""
    try:
        done = subprocess.run(
            [program(), "-c", "-f", configuration],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CHECK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Mistake(settings_file, "", str(error))]
    if done.returncode == 0:
        return []
    cause = ""
    for line in done.stderr.splitlines():
        if match := _PARSE_ERROR.search(line):
            reason = f"{match['reason']} ({cause})" if cause else match["reason"]
            part = (configuration.parent / match["file"]).resolve().name
            return [Mistake(places.data(part), f"line {match['line']}", reason)]
        if match := _ERROR.search(line):
            cause = match["reason"]
    return [Mistake(configuration, "", cause or f"kamailio -c ends with {done.returncode}")]


def repair(folder: Path) -> None:
    """Before the start, set aside what the server remembers when it cannot be read: phones register again."""
    path = folder / "state.db"
    try:
        if path.exists() and not whole(path, "location"):
            _log.warning("%s cannot be read; it is %s now", path, set_aside(path).name)
    except sqlite3.OperationalError as error:
        # Kamailio does not start without it, and a house that rings is worth more than what is remembered.
        _log.warning("%s cannot be read (%s); it is %s now", path, error, set_aside(path).name)


def _make_state(path: Path) -> None:
    """Make the database; one of an earlier version gets the tables that it lacks."""
    if path.exists():
        # One that cannot be read is set aside at the next start.
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as database:
            if not database.execute("SELECT 1 FROM version WHERE table_name = 'dialog'").fetchone():
                script = (_SCHEMA / "dialog-create.sql").read_text()
                database.executescript(f"BEGIN; {script} COMMIT;")
        return
    remove_log(path)
    fresh = empty(path.with_name(path.name + ".new"))
    with closing(sqlite3.connect(fresh)) as database:
        for part in _STATE_TABLES:
            database.executescript((_SCHEMA / f"{part}-create.sql").read_text())
        database.executescript(places.data("state.sql").read_text())
        # With a write-ahead log the server's processes do not lock each other out.
        database.execute("PRAGMA journal_mode = WAL")
    fresh.replace(path)


def _write_secret(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner alone."""
    fresh = empty(path.with_name(path.name + ".new"))
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
