"""A name server for a demonstration or a test: dnsmasq with the records it is given, and no others.

Rule: everything it writes lies in one folder; it asks no other server and reads no file of the system.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.demo.program import Program, ProgramError, free_port, udp_port_open, wait_until


class Names:
    """A name server on loopback.

    Args:
        folder: for its log; created when missing.
        services: SRV records by name: each a host, port, priority and weight.
        hosts: addresses by host name: of IPv4, IPv6, or both with a comma.
        ways: NAPTR records by name: each an order, preference, service and prefix of its SRV records.
        address: IPv4 address to listen on.
    """

    def __init__(
        self,
        folder: Path,
        services: Mapping[str, Sequence[tuple[str, int, int, int]]],
        hosts: Mapping[str, str],
        *,
        ways: Mapping[str, Sequence[tuple[int, int, str, str]]] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.folder = folder.resolve()
        self.services = dict(services)
        self.hosts = dict(hosts)
        self.ways = dict(ways or {})
        self.address = address
        self.port = free_port(address)
        self.log = self.folder / "names.log"
        self._program: Program | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def server(self) -> str:
        """Where it listens, as `address:port`."""
        return f"{self.address}:{self.port}"

    @property
    def settings(self) -> str:
        """The station's settings that make it ask here, as TOML."""
        return f'[network]\nnameservers = ["{self.server}"]\n'

    def start(self) -> None:
        """Start it; it answers when this returns.

        Raises:
            ProgramError: it does not start.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        options = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        ]
        options += ["--log-facility=-", "--user=", "--group=", "--local-ttl=1"]
        options += [f"--listen-address={self.address}", "--bind-interfaces", f"--port={self.port}"]
        options += ["--local=/example/"]  # what is not given does not exist
        for name, services in self.services.items():
            options += [
                f"--srv-host={name},{host},{port},{priority},{weight}"
                for host, port, priority, weight in services
            ]
        for name, ways in self.ways.items():
            options += [
                f"--naptr-record={name},{order},{preference},s,{service},,{prefix}.{name}"
                for order, preference, service, prefix in ways
            ]
        options += [f"--host-record={host},{address}" for host, address in self.hosts.items()]
        self._program = Program(["dnsmasq", *options], self.log, folder=self.folder)
        if not wait_until(lambda: udp_port_open(self.port) or not self._running, 5.0) or not self._running:
            tail = self._program.tail()
            self.stop()
            raise ProgramError(f"the name server does not start; the end of {self.log}:\n{tail}")

    def stop(self) -> None:
        """End it. Harmless when it does not run."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    def change(
        self,
        services: Mapping[str, Sequence[tuple[str, int, int, int]]] | None = None,
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        """Have other records; those of a kind that is not given stay."""
        self.stop()
        self.services = dict(self.services if services is None else services)
        self.hosts = dict(self.hosts if hosts is None else hosts)
        self.start()

    def freeze(self) -> None:
        """Answer nothing and still hold the port, until `thaw()`."""
        if self._program is not None:
            self._program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze()`."""
        if self._program is not None:
            self._program.signal(signal.SIGCONT)

    @property
    def _running(self) -> bool:
        return self._program is not None and self._program.running
