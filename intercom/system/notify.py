"""Tells systemd how the service is (sd_notify(3)), and how often it wants to hear that it is alive."""

import os
import socket


def notify(state: str) -> None:
    """Send one message such as `READY=1` to the supervisor, if there is one. Never blocks, never raises."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket, unix(7)
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return  # a supervisor that is gone or busy must not stop the bell


def watchdog_seconds() -> float | None:
    """Return how often systemd wants `WATCHDOG=1`, or None if it does not watch this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) > 0 else None
