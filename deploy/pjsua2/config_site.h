/*
 * Compile-time settings of pjproject for a door station: alone on a hostile
 * network, one call at a time, no video.
 */

/* A freed socket's key stays taken for 500 ms and an INVITE takes two sockets
 * before the application is asked: 64, the default, are gone after 34 calls. */
#define PJ_IOQUEUE_MAX_HANDLES                  1024

#define PJ_HAS_IPV6                             1

/* Media comes from the address that SDP names and goes there, whoever else
 * sends. Symmetric RTP ("latching") lets a stranger take a call over; see
 * patches/rtp-source.patch, which this setting switches on. */
#define PJMEDIA_TRANSPORT_SWITCH_REMOTE_ADDR    0
#define PJMEDIA_RTP_NAT_PROBATION_CNT           0x7fffffff
#define PJMEDIA_RTCP_NAT_PROBATION_CNT          0x7fffffff

/* Beside SDES, which is always there. */
#define PJMEDIA_SRTP_HAS_DTLS                   1

/* Size of the transaction table's index. It bounds nothing: a transaction is
 * refused by Admission (admission.hpp) or it exists. */
#define PJSIP_MAX_TSX_COUNT                     255

/* pjlib writes to standard output before the application can say where its log
 * goes; facts for scripts go there. Only warnings and errors are compiled in. */
#define PJ_LOG_MAX_LEVEL                        2

/* How long a request waits for a server that is silent. RFC 3261 has 32 s
 * (64 * T1), which nobody waits for at a door; 12 s still allow five sends. */
#define PJSIP_TD_TIMEOUT                        12000

/* TCP and TLS connect to the registrar and listen to nobody. */
#define PJSIP_TCP_TRANSPORT_DONT_CREATE_LISTENER 1
#define PJSIP_TLS_TRANSPORT_DONT_CREATE_LISTENER 1

/* When a registration is refreshed is decided by our own supervisor: pjsip
 * would send two REGISTERs a second if a registrar grants one second, and none
 * ever again if it grants 2^32 - 1. */
#define PJSUA_REG_AUTO_REG_REFRESH              0

/* The second stale nonce in a row is a failure: a registrar that never likes one
 * would get four REGISTERs a try. */
#define PJSIP_MAX_STALE_COUNT                   2

/* A STUN or TURN server that is silent is given up after 2.3 s (sends at 0, 0.1,
 * 0.3 and 0.7 s, and 1.6 s of waiting), not after 7.9: somebody is at the door. */
#define PJ_STUN_MAX_TRANSMIT_COUNT              4
