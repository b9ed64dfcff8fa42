"""What a registrar's refusal means, in words that tell an installer what to do next."""

_REFUSALS = {
    401: "does not accept the user name or password of {user}",
    407: "does not accept the user name or password of {user}",
    403: "refuses {user}: wrong password, or this user may not register from here",
    404: "knows no user {user}",
    408: "is silent: wrong address or port, a firewall, or (a FRITZ!Box) a wrong user name",
    423: "wants a longer registration than the settings ask for (expires_seconds)",
    480: "says that {user} is unavailable",
    502: "cannot be reached",
    503: "is not available or refuses the connection",
}


def explain_refusal(status: int, reason: str, uri: str, server: str) -> str:
    """Put a failed REGISTER into words.

    Args:
        status: the SIP status; pjsip uses 408 for silence and 503 for a transport that failed.
        reason: the reason phrase, shown behind what we make of it.
        uri: the account's address of record.
        server: the registrar as `host:port`.
    """
    user = f"'{uri.partition(':')[2].partition('@')[0]}'"
    if 200 <= status < 300:
        return f"{server} took the registration without granting any time"
    meaning = _REFUSALS.get(status, "refuses the registration").format(user=user)
    return f"{server} {meaning} ({status} {reason})"
