"""The sockets that pjsip speaks through, and why one that TLS protects was not opened."""

import ctypes
import ssl
from datetime import UTC, datetime

import _pjsua2
import pjsua2 as pj

from intercom.sip.certificate import Trust, objection
from intercom.sip.wire import printable

CLASS_3, EXPEDITED = 24, 46
"""Of DiffServ: for signalling, and for sound (RFC 4594 sections 4.1 and 4.2)."""
HANDSHAKE_SECONDS = 5.0
TLS_1_2_AND_1_3 = pj.PJ_SSL_SOCK_PROTO_TLS1_2 | pj.PJ_SSL_SOCK_PROTO_TLS1_3
UNKNOWN_AUTHORITY = pj.PJ_SSL_CERT_EUNTRUSTED | pj.PJ_SSL_CERT_EISSUER_NOT_FOUND
SYSTEM_FAILURES = range(120_000, 170_000)
"""pjlib's numbers for the system's errors (PJ_ERRNO_START_SYS)."""


def mark(config: pj.TransportConfig, code_point: int) -> None:
    """Have what a socket sends marked for the network's routers."""
    config.qosParams.flags = pj.PJ_QOS_PARAM_HAS_DSCP
    config.qosParams.dscp_val = code_point


def plain() -> pj.TransportConfig:
    """A transport in the clear."""
    config = pj.TransportConfig()
    mark(config, CLASS_3)
    return config


def secured(trust: Trust) -> pj.TransportConfig:
    """A transport that sends nothing to a server that is not believed (pjsua2/patches/tls-trust.patch)."""
    config = plain()
    config.tlsConfig.proto = TLS_1_2_AND_1_3
    config.tlsConfig.msecTimeout = int(HANDSHAKE_SECONDS * 1000)
    config.tlsConfig.verifyServer = True
    config.tlsConfig.CaListFile = trust.authorities
    config.tlsConfig.serverName = trust.host
    config.tlsConfig.fingerprint = trust.fingerprint
    return config


def leave(connection: int) -> None:
    """Send nothing new over a connection; pjsip closes it when nothing waits for an answer over it.

    pjsua2's own verb for it takes no handle from Python: what it is generated with turns handles into
    integers, and not back.

    Args:
        connection: the handle that `onTransportState` told, not destroyed since.
    """
    library = ctypes.PyDLL(_pjsua2.__file__)  # loaded already; keeps the lock, for pjsip calls back
    library.pjsip_transport_shutdown(ctypes.c_void_p(connection))


def _shown(prm: pj.OnTransportStateParam) -> bytes:
    """The certificate (DER) that the far end of a connection has shown."""
    return ssl.PEM_cert_to_DER_cert(prm.tlsInfo.remoteCertInfo.raw.strip())


def refusal(endpoint: pj.Endpoint, trust: Trust | None, prm: pj.OnTransportStateParam) -> str:
    """Why there is no connection, where TLS is the reason; else empty: pjsip's own answer says it."""
    faults = prm.tlsInfo.verifyStatus
    if trust is None or prm.type != "TLS":
        return ""
    if faults:
        unknown = bool(faults & UNKNOWN_AUTHORITY)
        other = "; ".join(prm.tlsInfo.verifyMsgs)
        return objection(_shown(prm), trust, datetime.now(UTC), unknown=unknown, other=other)
    if prm.lastError and prm.lastError not in SYSTEM_FAILURES:
        return f"takes no TLS as it should be ({printable(endpoint.utilStrError(prm.lastError))})"
    return ""
