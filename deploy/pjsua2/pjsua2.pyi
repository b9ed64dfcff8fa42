"""The part of pjsua2 that the station uses, for the type checker."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, SupportsInt

INVALID_ID: int
PJSIP_EVENT_RX_MSG: int
PJSIP_EVENT_TSX_STATE: int
PJSIP_INV_STATE_CONFIRMED: int
PJSIP_INV_STATE_DISCONNECTED: int
PJSIP_INV_STATE_EARLY: int
PJSIP_ROLE_UAC: int
PJSIP_SC_ACCEPTED: int
PJSIP_SC_BAD_EVENT: int
PJSIP_SC_DECLINE: int
PJSIP_SC_FORBIDDEN: int
PJSIP_SC_INTERNAL_SERVER_ERROR: int
PJSIP_SC_NOT_ACCEPTABLE_HERE: int
PJSIP_SC_OK: int
PJSIP_SC_REQUEST_TERMINATED: int
PJSIP_SC_SERVICE_UNAVAILABLE: int
PJSIP_TP_STATE_CONNECTED: int
PJSIP_TP_STATE_DESTROY: int
PJSIP_TP_STATE_DISCONNECTED: int
PJSIP_TRANSPORT_IPV6: int
PJ_QOS_PARAM_HAS_DSCP: int
PJSIP_TRANSPORT_TCP: int
PJSIP_TRANSPORT_TLS: int
PJSIP_TRANSPORT_UDP: int
PJ_SSL_CERT_EISSUER_NOT_FOUND: int
PJ_SSL_CERT_EUNTRUSTED: int
PJ_SSL_SOCK_PROTO_TLS1_2: int
PJ_SSL_SOCK_PROTO_TLS1_3: int
PJMEDIA_DIR_ENCODING: int
PJMEDIA_DIR_NONE: int
PJMEDIA_ECHO_WEBRTC_AEC3: int
PJRPID_ACTIVITY_BUSY: int
PJRPID_ACTIVITY_UNKNOWN: int
PJSUA_BUDDY_STATUS_OFFLINE: int
PJSUA_BUDDY_STATUS_ONLINE: int
PJMEDIA_SRTP_DISABLED: int
PJMEDIA_SRTP_KEYING_DTLS_SRTP: int
PJMEDIA_SRTP_KEYING_SDES: int
PJMEDIA_SRTP_MANDATORY: int
PJMEDIA_SRTP_OPTIONAL: int
PJMEDIA_TYPE_AUDIO: int
PJSUA_100REL_OPTIONAL: int
PJSUA_CALL_MEDIA_ACTIVE: int
PJSUA_CALL_MEDIA_REMOTE_HOLD: int
PJSUA_DTMF_METHOD_RFC2833: int
PJSUA_IPV6_DISABLED: int
PJSUA_IPV6_ENABLED_USE_IPV6_ONLY: int
PJSUA_SIP_TIMER_OPTIONAL: int
PJSUA_STUN_USE_DEFAULT: int
PJSUA_STUN_USE_DISABLED: int
PJ_TURN_TP_TCP: int
PJ_TURN_TP_UDP: int
PJSIP_INV_STATE_NULL: int

class Error(Exception):
    reason: str
    status: int

class StringVector(list[str]): ...

class Admission:
    @staticmethod
    def set(peers: Sequence[str]) -> None: ...
    @staticmethod
    def open() -> None: ...
    @staticmethod
    def refused() -> int: ...

class LogConfig:
    level: int
    consoleLevel: int
    msgLogging: int

class UaConfig:
    threadCnt: int
    mainThreadOnly: bool
    maxCalls: int
    userAgent: str

class MediaConfig:
    threadCnt: int
    hasIoqueue: bool
    clockRate: int
    noVad: bool
    ecTailLen: int
    ecOptions: int

class EpConfig:
    logConfig: LogConfig
    uaConfig: UaConfig
    medConfig: MediaConfig

class TlsConfig:
    CaListFile: str
    serverName: str
    fingerprint: str
    proto: int
    verifyServer: bool
    msecTimeout: int

class QosParams:
    flags: int
    dscp_val: int

class TransportConfig:
    qosParams: QosParams
    port: int
    boundAddress: str
    tlsConfig: TlsConfig

class TransportInfo:
    localAddress: str

class CodecInfo:
    codecId: str

class AudioMedia:
    def startTransmit(self, sink: AudioMedia) -> None: ...
    def stopTransmit(self, sink: AudioMedia) -> None: ...

class ToneDesc:
    freq1: int
    on_msec: int
    off_msec: int

class ToneDescVector(list[ToneDesc]): ...

class ToneGenerator(AudioMedia):
    def createToneGenerator(self, clock_rate: int = ..., channel_count: int = ...) -> None: ...
    def play(self, tones: ToneDescVector, loop: bool = ...) -> None: ...
    def isBusy(self) -> bool: ...
    def stop(self) -> None: ...

class AudDevManager:
    def setNoDev(self) -> Any: ...
    def setNullDev(self) -> None: ...
    def refreshDevs(self) -> None: ...
    def lookupDev(self, driver: str, name: str) -> int: ...
    def setCaptureDev(self, device: int) -> None: ...
    def setPlaybackDev(self, device: int) -> None: ...
    def getCaptureDevMedia(self) -> AudioMedia: ...
    def getPlaybackDevMedia(self) -> AudioMedia: ...

class Endpoint:
    def libCreate(self) -> None: ...
    def libInit(self, config: EpConfig) -> None: ...
    def libStart(self) -> None: ...
    def libDestroy(self) -> None: ...
    def libHandleEvents(self, milliseconds: int) -> int: ...
    def transportCreate(self, kind: int, config: TransportConfig) -> int: ...
    def utilStrError(self, status: int) -> str: ...
    def transportGetInfo(self, transport: int) -> TransportInfo: ...
    def audDevManager(self) -> AudDevManager: ...
    def codecEnum2(self) -> Iterator[CodecInfo]: ...
    def codecSetPriority(self, codec: str, priority: int) -> None: ...
    def hangupAllCalls(self) -> None: ...
    def natUpdateStunServers(self, servers: StringVector, wait: bool) -> None: ...

class AuthCredInfo:
    def __init__(self, scheme: str, realm: str, user: str, kind: int, data: str) -> None: ...

class RegConfig:
    registrarUri: str
    disableRegOnModify: bool
    registerOnAdd: bool
    timeoutSec: int
    retryIntervalSec: int
    firstRetryIntervalSec: int

class SipConfig:
    autoRespondSipMessage: bool
    ipv6Use: int
    transportId: int
    authCreds: list[AuthCredInfo]
    proxies: list[str]

class CallConfig:
    prackUse: int
    timerUse: int

class SrtpOpt:
    keyings: list[int]

class AccountPresConfig:
    publishEnabled: bool
    publishShutdownWaitMsec: int

class AccountMediaConfig:
    ipv6Use: int
    srtpUse: int
    srtpSecureSignaling: int
    srtpOpt: SrtpOpt
    transportConfig: TransportConfig

class AccountNatConfig:
    udpKaIntervalSec: int
    contactRewriteUse: int
    viaRewriteUse: int
    iceEnabled: bool
    sipStunUse: int
    mediaStunUse: int
    turnEnabled: bool
    turnServer: str
    turnConnType: int
    turnUserName: str
    turnPassword: str

class AccountConfig:
    natConfig: AccountNatConfig
    idUri: str
    regConfig: RegConfig
    sipConfig: SipConfig
    callConfig: CallConfig
    presConfig: AccountPresConfig
    mediaConfig: AccountMediaConfig

class AccountInfo:
    regIsActive: bool

class SipRxData:
    srcAddress: str
    wholeMsg: str

class SslCertInfo:
    raw: str

class TlsInfo:
    verifyStatus: int
    verifyMsgs: list[str]
    remoteCertInfo: SslCertInfo

class OnTransportStateParam:
    hnd: SupportsInt
    type: str
    remoteAddress: str
    state: int
    lastError: int
    tlsInfo: TlsInfo

class OnSelectAccountParam:
    rdata: SipRxData
    accountIndex: int

class OnRegStateParam:
    code: int
    reason: str
    expiration: int
    rdata: SipRxData

class OnDtmfDigitParam:
    digit: str

class OnCallReplacedParam:
    newCallId: int

class OnIncomingCallParam:
    callId: int
    rdata: SipRxData

class Account:
    def create(self, config: AccountConfig) -> None: ...
    def modify(self, config: AccountConfig) -> None: ...
    def shutdown(self) -> None: ...
    def getId(self) -> int: ...
    def getInfo(self) -> AccountInfo: ...
    def setRegistration(self, renew: bool) -> None: ...
    onRegState: Callable[..., None]
    def setOnlineStatus(self, status: PresenceStatus) -> None: ...
    def sendResponse(self, param: SendResponseParam) -> None: ...
    onIncomingCall: Callable[..., None]

class DeferredResponse:
    def __init__(self, param: OnInstantMessageParam) -> None: ...

class SendResponseParam:
    deferredResponse: DeferredResponse
    code: int

class OnIncomingSubscribeParam:
    code: int

class OnInstantMessageParam:
    fromUri: str
    contentType: str
    msgBody: str
    rdata: SipRxData

class OnInstantMessageStatusParam:
    toUri: str
    msgBody: str
    code: int
    reason: str

class PresenceStatus:
    status: int
    activity: int
    note: str

class BuddyConfig:
    uri: str
    subscribe: bool

class SendInstantMessageParam:
    contentType: str
    content: str

class Buddy:
    def create(self, account: Account, config: BuddyConfig) -> None: ...
    def sendInstantMessage(self, param: SendInstantMessageParam) -> None: ...

class CallSetting:
    textCount: int
    videoCount: int

class SipHeader:
    hName: str
    hValue: str

class SipHeaderVector(list[SipHeader]): ...

class SipTxOption:
    headers: SipHeaderVector

class CallOpParam:
    opt: CallSetting
    txOption: SipTxOption
    statusCode: int
    def __init__(self, useDefaultCallSetting: bool = ...) -> None: ...

class CallMediaInfo:
    index: int
    type: int
    dir: int
    status: int

class CallInfo:
    state: int
    role: int
    lastStatusCode: int
    lastReason: str
    remoteUri: str
    media: list[CallMediaInfo]

class RtcpStreamStat:
    pkt: int
    loss: int

class RtcpStat:
    rxStat: RtcpStreamStat
    txStat: RtcpStreamStat

class StreamStat:
    rtcp: RtcpStat

class StreamInfo:
    codecName: str
    codecClockRate: int

class TsxStateEventSrc:
    rdata: SipRxData

class TsxStateEvent:
    type: int
    src: TsxStateEventSrc

class SipEventBody:
    tsxState: TsxStateEvent

class SipEvent:
    type: int
    body: SipEventBody

class OnCallStateParam:
    e: SipEvent

class OnCallTsxStateParam:
    e: SipEvent

class OnCallMediaStateParam: ...

class OnDtmfEventParam:
    method: int
    timestamp: int
    digit: str

class OnCallTransferRequestParam:
    dstUri: str
    statusCode: int
    newCall: Call

class OnCallReplaceRequestParam:
    rdata: SipRxData
    statusCode: int
    newCall: Call

class Call:
    def __init__(self, account: Account, call_id: int = ...) -> None: ...
    def getId(self) -> int: ...
    def getInfo(self) -> CallInfo: ...
    def getAudioMedia(self, index: int) -> AudioMedia: ...
    def getStreamInfo(self, index: int) -> StreamInfo: ...
    def getStreamStat(self, index: int) -> StreamStat: ...
    def makeCall(self, to: str, param: CallOpParam) -> None: ...
    def answer(self, param: CallOpParam) -> None: ...
    def hangup(self, param: CallOpParam) -> None: ...
    def dump(self, with_media: bool, indent: str) -> str: ...
