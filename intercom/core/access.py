"""Who may call the station, whom a visitor may be sent to, and which door a typed code releases."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hmac import compare_digest

from intercom.core.policy import Caller, Door

LONGEST_CODE = 16
_KEYS = frozenset("0123456789*")


def caller_of(callers: Mapping[str, Caller], peer: str) -> Caller | None:
    """Tell how a peer's call is taken; None if he may not call the station.

    Args:
        callers: `sip:user@host` entries, or `sip:*@host` for the others of a domain, in lower case.
        peer: the caller's address of record, `sip:user@host` without port, parameters or display name.
            It is worth no more than the word of whoever relayed it: the SIP side lets in only the
            configured servers, before this is asked.
    """
    user, at, host = peer.lower().partition("@")
    if not (user and at and host):
        return None
    return callers.get(f"{user}@{host}") or callers.get(f"sip:*@{host}")


def written_code(text: str) -> str | None:
    """The code that a message consists of, its `#` added where it was left out; None for any other text."""
    keys = text.strip().removesuffix("#")
    return f"{keys}#" if 0 < len(keys) < LONGEST_CODE and _KEYS.issuperset(keys) else None


def may_talk(known: AbstractSet[str], hosts: AbstractSet[str], peer: str) -> bool:
    """Tell whether somebody in a call may send the visitor to this peer, or this peer may take the call over.

    Args:
        known: who may call and who is rung, `sip:user@host` or `sip:*@host`, in lower case.
        hosts: the domain of the station's account and its server, in lower case: whoever is there may.
        peer: `sip:user@host`.
    """
    scheme, _, address = peer.lower().partition(":")
    user, _, host = address.partition("@")
    return (
        scheme == "sip"
        and bool(user)
        and (host in hosts or not known.isdisjoint({f"sip:{address}", f"sip:*@{host}"}))
    )


def door_for(doors: Mapping[str, Door], code: str) -> str | None:
    """Return the door that a code releases, or None. Looks at every code, each in constant time."""
    found = None
    for name, door in doors.items():
        for known in door.codes:
            if compare_digest(known.encode(), code.encode(errors="surrogatepass")):
                found = name
    return found
