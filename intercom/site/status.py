"""How a running site is: what an administrator looks at first.

Rule: nothing secret is in it; Kamailio's own lists hold passwords, so every fact is named here.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from intercom import __version__
from intercom.site import certificates, control, server
from intercom.site.settings import SiteSettings

_REGISTERED = 1 << 2  # in the flags of Kamailio's module uac


def status(folder: Path, settings: SiteSettings) -> dict[str, Any]:
    """Ask the running site; blocks for its answers.

    Raises:
        NotRunning: none answers.
        Denied: it does not know what it was asked.
        Unwritable: its users cannot be read.
    """
    uptime = control.ask(folder, "core.uptime")["uptime"]
    facts = server.open_users(folder, settings).facts()
    locations = control.ask(folder, "stats.fetch", "usrloc:")
    known = set(control.ask(folder, "system.listMethods"))
    return {
        "version": __version__,
        "domain": settings.site.domain,
        "uptime_s": int(uptime),
        "sockets": [
            "{proto}:{address}:{port}".format(**entry["socket"])
            for entry in control.ask(folder, "core.sockets_list")
        ],
        "users": len(facts["users"]),
        "registered": int(locations["usrloc.registered_users"]),
        "contacts": int(locations["usrloc.location_contacts"]),
        "groups": len(facts["groups"]),
        "gateways": _gateways(folder, facts["gateways"]),
        "nodes": nodes(folder) if "dmq.list_nodes" in known else [],
        "certificate": _certificate(folder) if server.with_tls(settings) else None,
        "folder": str(folder),
    }


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """The same for a person."""
    yield f"{facts['domain']}: up {timedelta(seconds=facts['uptime_s'])}, version {facts['version']}"
    yield f"listens on {' '.join(facts['sockets'])}"
    yield (
        f"{facts['users']} users, {facts['registered']} registered with {facts['contacts']} contacts, "
        f"{facts['groups']} groups"
    )
    for gateway in facts["gateways"]:
        registered = {None: "", True: ", registered", False: ", NOT REGISTERED"}[gateway["registered"]]
        reason = "" if gateway["resolved"] else " (its name does not resolve)"
        state = "up" if gateway["up"] else f"DOWN{reason}"
        yield f"gateway {gateway['name']} {gateway['uri']}: {state}{registered}"
    for node in facts["nodes"]:
        yield f"node {node['address']}: {'up' if node['up'] else 'DOWN'}"
    if (certificate := facts["certificate"]) is not None:
        yield f"certificate {certificate['file']}: {certificate['days_left']} days left"
    yield f"folder {facts['folder']}"


def _gateways(folder: Path, gateways: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not gateways:
        return []
    used = {entry["ATTRS"]["BODY"].partition("=")[2]: entry["FLAGS"] for _, entry in control.gateways(folder)}
    registered = set()
    if any(gateway["registers"] for gateway in gateways):
        dump = control.ask(folder, "uac.reg_dump")
        registered = {entry["l_uuid"] for entry in dump if entry["flags"] & _REGISTERED}
    return [
        {
            "name": gateway["name"],
            "uri": gateway["uri"],
            "up": used.get(gateway["name"], "").startswith("A"),
            "resolved": gateway["name"] in used,
            "registered": gateway["name"] in registered if gateway["registers"] else None,
        }
        for gateway in gateways
    ]


def nodes(folder: Path) -> list[dict[str, Any]]:
    """The other servers of the site, and whether each answers. Blocks and raises as `status`."""
    return [
        {"address": f"{node['host']}:{node['port']}", "up": node["status"] == "active"}
        for node in control.ask(folder, "dmq.list_nodes")
        if not node["local"]
    ]


def _certificate(folder: Path) -> dict[str, Any] | None:
    configuration = server.in_place(folder)
    if configuration is None or not (configuration / server.CERTIFICATE).exists():
        return None
    shown = certificates.Certificate(configuration / server.CERTIFICATE, configuration / server.CERTIFICATE)
    return {"file": str(shown.chain), "days_left": certificates.days_left(shown)}
