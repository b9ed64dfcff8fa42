"""How records hang together: each has a hash over itself and the hash before. Pure.

Rule: who changes a record changes every hash after it, and the last of them is sealed with the device's key.
"""

import hmac
from dataclasses import dataclass
from hashlib import sha256

NEWEST, DROPPED = "newest", "dropped"


def content(at: int, clock: str, kind: str, data: str) -> bytes:
    """The bytes of a record that its hash covers, beside its number.

    The last part is JSON in ASCII, so that it has no line feed and the parts cannot be moved about.
    """
    return f"{at}\n{clock}\n{kind}\n{data}".encode()


def link(before: bytes, number: int, content: bytes) -> bytes:
    """The hash of a record: SHA-256 over the hash before it, its number and its content."""
    return sha256(b"%b%d\n%b" % (before, number, content)).digest()


@dataclass(frozen=True, slots=True)
class Seal:
    """What the device vouches for at one end of the chain.

    Attributes:
        name: `newest`, or `dropped` for the end from which old records were taken.
        number: of the last record that is there, or that was dropped.
        hash: of that record; of a new chain, random bytes.
        data: for `dropped`, in JSON: how many of each kind, and from when to when.
    """

    name: str
    number: int
    hash: bytes
    data: str

    def mac(self, key: bytes) -> bytes:
        """HMAC-SHA-256 of the seal under the device's key."""
        text = f"{self.name}\n{self.number}\n{self.hash.hex()}\n{self.data}"
        return hmac.digest(key, text.encode(), "sha256")

    def is_signed(self, key: bytes, mac: bytes) -> bool:
        """Tell whether a signature is that of the device."""
        return hmac.compare_digest(self.mac(key), mac)
