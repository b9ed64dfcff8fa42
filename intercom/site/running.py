"""`intercom site` while it runs: keeps one Kamailio alive, and changes it when the settings change.

Rule: a house must go on ringing. Settings that are wrong, or that Kamailio does not start with, are told, and
the last configuration that worked goes on.
"""

import ctypes
import fcntl
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from intercom.settings.loading import WrongSettings
from intercom.site import control, server
from intercom.site.settings import load
from intercom.site.users import Unwritable
from intercom.system.notify import notify, watchdog_seconds

START_SECONDS = 10.0
APPLY_SECONDS = 60.0  # stop, start, and start the one before it again
_STOP_SECONDS = 5.0
_RENEW_SECONDS = 86400.0
_RESOLVE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1  # prctl(2)
_GLANCE_SECONDS = 0.5  # so long, and much shorter, `running` holds the lock
_log = logging.getLogger(__name__)


class Failed(RuntimeError):
    """The site does not run, or not with these settings; the text says why."""


def serve(folder: Path, settings_file: Path, to: str | None = None) -> int:
    """Run the site of a folder until SIGTERM or SIGINT; returns its exit code. SIGHUP makes it `apply`.

    Args:
        folder: a full path; created when missing.
        settings_file: read at the start and at every SIGHUP.
        to: the server, with an address, that a stateless relay passes everything on to; None for a site.

    Raises:
        WrongSettings: they are wrong, and there is no earlier configuration to run.
        Failed: another one runs in this folder, or Kamailio does not start.
        Unwritable: the users' database cannot be opened, and there is no earlier configuration.
        OSError: the folder cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder), _Signals() as signals, _Site(folder, settings_file, to) as site:
        server.repair(folder)
        if reason := site.use_settings():
            _log.error("%s", reason)
            _log.warning("the last configuration that worked is used instead")
        _log.info("the site answers")
        notify("READY=1")
        return _watch(site, signals)


def apply(folder: Path) -> None:
    """Let the running site use the settings as they are now; blocks until it does, at most a minute.

    Raises:
        NotRunning: none runs in this folder.
        Failed: it goes on as before, for the reason given.
    """
    pid = running(folder)
    if pid is None:
        raise control.NotRunning(f"no site runs in {folder}")
    result = folder / "applied"
    result.unlink(missing_ok=True)
    os.kill(pid, signal.SIGHUP)
    if not _wait_until(result.exists, APPLY_SECONDS):
        raise Failed(f"the site has not said within {APPLY_SECONDS:g} s whether it uses them")
    if reason := result.read_text():
        raise Failed(reason)


def running(folder: Path) -> int | None:
    """The process that runs the site of a folder; None if there is none."""
    try:
        with (folder / "lock").open() as file:
            return None if _lock(file) else int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a+") as file:
        if not _wait_until(lambda: _lock(file), _GLANCE_SECONDS):
            raise Failed(f"another site runs in {folder}")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _watch(site: "_Site", signals: "_Signals") -> int:
    """Until it ends, or is told to."""
    feeding = watchdog_seconds()
    tick = min(feeding / 2, _RESOLVE_SECONDS) if feeding else _RESOLVE_SECONDS
    renewal = time.monotonic() + _RENEW_SECONDS
    resolution = time.monotonic() + _RESOLVE_SECONDS
    while True:
        told = signals.wait(tick)
        if not {signal.SIGTERM, signal.SIGINT}.isdisjoint(told):
            return site.end()
        if signal.SIGHUP in told:
            _change(site)
        if not site.alive:
            _log.error("Kamailio has ended")
            return site.end() or 1
        if feeding and site.answers():
            notify("WATCHDOG=1")
        if time.monotonic() >= resolution:
            resolution = time.monotonic() + _RESOLVE_SECONDS
            site.resolve_gateways()
        if time.monotonic() >= renewal:
            renewal += _RENEW_SECONDS
            renew_certificate(site.folder)


def _change(site: "_Site") -> None:
    reason = site.use_settings()
    if reason:
        _log.error("%s", reason)
        _log.warning("nothing was changed")
    else:
        _log.info("the settings are in use")
    fresh = site.folder / "applied.new"
    fresh.write_text(reason)
    fresh.replace(site.folder / "applied")


def renew_certificate(folder: Path) -> None:
    """Show phones a new certificate when there is one: ours is made anew before its end. Blocks on the disk.

    Also with the last good settings, when those of the file are wrong.
    """
    configuration = server.in_place(folder)
    if configuration is None or not server.with_tls(settings := server.settings_of(configuration)):
        return
    shown = configuration / server.CERTIFICATE
    before = shown.read_bytes()
    try:
        for mistake in server.copy_certificate(folder, configuration, settings, shown):
            _log.error("%s", mistake)
        if shown.read_bytes() != before:
            control.ask(folder, "tls.reload")
            _log.info("phones are shown the new certificate")
    except (OSError, control.NotRunning, control.Denied) as error:
        _log.error("the certificate cannot be renewed: %s", error)


class _Site:
    """Kamailio with the configuration of a folder. Ends with the block."""

    def __init__(self, folder: Path, settings_file: Path, to: str | None) -> None:
        self.folder = folder
        self._settings_file = settings_file
        self._to = to
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it does as it is asked. Not over SIP: a flood would hide that, and no restart ends one."""
        return control.answers(self.folder)

    def use_settings(self) -> str:
        """Run with the settings as they are now; returns why the last good ones are used, if they are.

        Raises:
            WrongSettings, Unwritable, OSError: there is no good configuration.
            Failed: Kamailio does not start, with neither.
        """
        good = server.in_place(self.folder)
        try:
            settings = load(self._settings_file)
            new = server.make(self.folder, settings, self._settings_file, self._to)
        except (WrongSettings, Unwritable, OSError) as error:
            if good is None:
                raise
            if not self.alive:
                self._begin(good)
            if isinstance(error, OSError):
                return f"{error.filename or self.folder}: {error.strerror}"
            return str(error)
        try:
            if taken := server.taken(settings, good if self.alive else None):
                raise Failed(f"{self._settings_file}: {taken}")  # noqa: TRY301 - as if Kamailio had said it
            self.end()
            self._begin(new)
        except Failed as error:
            shutil.rmtree(new)
            if good is None:
                raise
            if not self.alive:
                self._begin(good)
            return str(error)
        server.put_in_place(self.folder, new)
        return ""

    def end(self) -> int:
        """End it; returns its exit code. Harmless when it does not run."""
        if self._process is None:
            return 0
        code = _stop(self._process)
        self._process = None
        return code

    def resolve_gateways(self) -> None:
        """Use a gateway as soon as its name resolves: after a power cut we are up before the router is."""
        if self._to is None:
            with suppress(control.NotRunning, control.Denied):
                control.reload_gateways(self.folder)

    def _begin(self, configuration: Path) -> None:
        self._process = process = _start(server.command(self.folder, configuration))
        if not _wait_until(lambda: process.poll() is not None or self.answers(), START_SECONDS):
            self.end()
            raise Failed(f"Kamailio does not answer within {START_SECONDS:g} s")
        if not self.alive:
            raise Failed(f"Kamailio ends at its start with {self.end()}: its own lines say why")


def _start(command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    # setpriv(1) would do the same, but the sandbox of the unit does not let it.
    libc = ctypes.CDLL(None)

    def end_with_us() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

    # A preexec_fn can hang when another thread holds a lock: there is no other thread here.
    return subprocess.Popen(command, stdout=sys.stderr, process_group=0, preexec_fn=end_with_us)  # noqa: PLW1509


def _stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, which it passes to its workers; SIGKILL to all of them when it takes too long."""
    process.terminate()
    try:
        code = process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        code = 1
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return code if code >= 0 else 128 - code


def _wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as clock:
        while not condition():
            if time.monotonic() > end:
                return False
            clock.select(pause)
    return True


class _Signals:
    """SIGTERM, SIGINT, SIGHUP and SIGCHLD as something to wait for, while the block lasts."""

    _NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

    def __enter__(self) -> Self:
        self._ours, theirs = socket.socketpair()
        self._theirs = theirs
        self._theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        self._before = [signal.signal(number, lambda number, frame: None) for number in self._NUMBERS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in zip(self._NUMBERS, self._before, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._ours.close()
        self._theirs.close()

    def wait(self, seconds: float | None) -> set[int]:
        """The signals that have come; blocks for the first, at most some seconds."""
        self._ours.settimeout(seconds)
        try:
            return set(self._ours.recv(64))
        except TimeoutError:
            return set()
