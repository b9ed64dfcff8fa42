"""Who a phone or a station is at a SIP server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Transport = Literal["udp", "tcp", "tls", "ws", "wss"]


@dataclass(frozen=True)
class Account:
    """A user with his password, and the server (`address:port`) that all his requests go to."""

    user: str
    password: str = field(repr=False)
    realm: str
    proxy: str
    transport: Transport = "udp"

    @property
    def uri(self) -> str:
        """The address of record."""
        return f"sip:{self.user}@{self.realm}"
