"""Who may call the station, and which door a typed code releases."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hmac import compare_digest

from intercom.core.policy import Door

LONGEST_CODE = 16


def permits(permitted: AbstractSet[str], peer: str) -> bool:
    """Tell whether a peer may call the station.

    Args:
        permitted: `sip:user@host` entries, or `sip:*@host` for everyone of a domain, in lower case.
        peer: the caller's address of record, `sip:user@host` without port, parameters or display name.
            It is worth no more than the word of whoever relayed it: the SIP side lets in only the
            configured servers, before this is asked.
    """
    user, at, host = peer.lower().partition("@")
    return bool(user and at and host) and (f"{user}@{host}" in permitted or f"sip:*@{host}" in permitted)


def door_for(doors: Mapping[str, Door], code: str) -> str | None:
    """Return the door that a DTMF code releases, or None. Looks at every code, each in constant time."""
    found = None
    for name, door in doors.items():
        for known in door.codes:
            if compare_digest(known.encode(), code.encode(errors="surrogatepass")):
                found = name
    return found
