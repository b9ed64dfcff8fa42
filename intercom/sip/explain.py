"""What a registrar's refusal means, in words that tell an installer what to do next."""

_REFUSALS = {
    400: "does not understand the registration: is it a SIP registrar?",
    401: "does not accept the user name or password of {user}",
    407: "does not accept the user name or password of {user}",
    403: "refuses {user}: wrong password, or this user may not register from here",
    404: "knows no user {user}",
    405: "registers nobody: it is a proxy or a trunk, or the address is wrong",
    408: "is silent: wrong address or port, a firewall, or (a FRITZ!Box) a wrong user name",
    423: "wants a longer registration than the settings ask for (expires_seconds)",
    480: "says that {user} is unavailable",
    482: "sees the registration go in circles: look at account.registrar and account.proxy",
    483: "sees the registration go in circles: look at account.registrar and account.proxy",
    500: "has a fault of its own, which its log explains",
    501: "registers nobody: it is a proxy or a trunk, or the address is wrong",
    502: "cannot be reached",
    503: "is not available or refuses the connection",
    504: "gets no answer from the registrar behind it",
}
_ELSEWHERE = "sends {user} elsewhere: set account.registrar to where that is"


def explain_refusal(status: int, reason: str, uri: str, server: str) -> str:
    """Put a failed REGISTER into words.

    Args:
        status: the SIP status; pjsip uses 408 for silence and 503 for a transport that failed.
        reason: the reason phrase, shown behind what we make of it.
        uri: the account's address of record.
        server: the registrar as `host:port`.
    """
    user = _user(uri)
    if 200 <= status < 300:
        return f"{server} took the registration, but granted no time or did not confirm the address"
    other = _ELSEWHERE if 300 <= status < 400 else "refuses the registration"
    return f"{server} {_REFUSALS.get(status, other).format(user=user)} ({status} {reason})"


def explain_silence(uri: str, server: str) -> str:
    """Say what it means that a registrar answers OPTIONS, but no REGISTER."""
    meaning = "so a FRITZ!Box treats a wrong user name"
    return f"{server} answers OPTIONS, but not the REGISTER of {_user(uri)}: {meaning}"


def _user(uri: str) -> str:
    return f"'{uri.partition(':')[2].partition('@')[0]}'"
