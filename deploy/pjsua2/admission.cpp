/*
 * A pjsip module below the transaction layer that swallows the requests of
 * strangers, and their questions for a password. See admission.hpp.
 */
#include <pjsua2/admission.hpp>
#include <pjsip.h>
#include <pjsua-lib/pjsua.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

#define THIS_FILE "admission.cpp"

using std::string;

namespace pj
{

namespace
{

/* Enough to tell a person why he is refused, too few to reflect a flood. */
const unsigned REPLIES_PER_SECOND = 10;

/* One entry of the list. */
struct Peer
{
    pj_sockaddr addr;       /* Port 0: any. */
    int         transport;  /* PJSIP_TRANSPORT_UDP, _TCP, _TLS; 0: any. */

    bool sent(const pj_sockaddr &source, int via) const
    {
        if (transport && transport != via)
            return false;
        if (addr.addr.sa_family != source.addr.sa_family ||
            pj_memcmp(pj_sockaddr_get_addr(&addr),
                      pj_sockaddr_get_addr(&source),
                      pj_sockaddr_get_addr_len(&addr)))
            return false;
        return via != PJSIP_TRANSPORT_UDP || !pj_sockaddr_get_port(&addr) ||
               pj_sockaddr_get_port(&addr) == pj_sockaddr_get_port(&source);
    }
};

std::mutex              lock;       /* Guards the next four. */
std::vector<Peer>       admitted;
bool                    everybody = false;
std::chrono::steady_clock::time_point second;   /* The current one began. */
unsigned                replies;    /* 403s sent in that second. */

std::atomic<unsigned>   refusals(0);

/* A dual-stack socket shows 192.0.2.1 as ::ffff:192.0.2.1. */
pj_sockaddr unmapped(const pj_sockaddr &addr)
{
    static const pj_uint8_t PREFIX[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                          0xff, 0xff};
    const pj_uint8_t *bytes = (const pj_uint8_t*)pj_sockaddr_get_addr(&addr);
    pj_sockaddr plain;

    if (addr.addr.sa_family != pj_AF_INET6() ||
        pj_memcmp(bytes, PREFIX, sizeof(PREFIX)))
        return addr;
    pj_sockaddr_init(pj_AF_INET(), &plain, NULL, pj_sockaddr_get_port(&addr));
    pj_memcpy(pj_sockaddr_get_addr(&plain), bytes + sizeof(PREFIX), 4);
    return plain;
}

/* False if the text is no literal address: nothing is ever looked up. */
bool parse(const string &text, Peer &peer)
{
    static const string KEY = ";transport=";
    const string::size_type end = text.find(';');
    const string address = text.substr(0, end);
    pj_str_t host, whole;
    pj_uint16_t port;
    int family;

    peer.transport = 0;
    if (end != string::npos) {
        const string name = text.substr(end);
        peer.transport = name == KEY + "udp" ? PJSIP_TRANSPORT_UDP :
                         name == KEY + "tcp" ? PJSIP_TRANSPORT_TCP :
                         name == KEY + "tls" ? PJSIP_TRANSPORT_TLS : 0;
        if (!peer.transport)
            return false;
    }
    pj_strset(&whole, (char*)address.data(), address.size());
    if (pj_sockaddr_parse2(pj_AF_UNSPEC(), 0, &whole, &host, &port,
                           &family) != PJ_SUCCESS)
        return false;
    pj_sockaddr_init(family, &peer.addr, NULL, port);
    if (pj_inet_pton(family, &host, pj_sockaddr_get_addr(&peer.addr))
        != PJ_SUCCESS)
        return false;
    peer.addr = unmapped(peer.addr);
    return true;
}

bool is_admitted(const pjsip_rx_data *rdata)
{
    const pj_sockaddr source = unmapped(rdata->pkt_info.src_addr);
    const int via = rdata->tp_info.transport->key.type & ~PJSIP_TRANSPORT_IPV6;
    std::lock_guard<std::mutex> guard(lock);

    if (everybody)
        return true;
    for (const Peer &peer : admitted) {
        if (peer.sent(source, via))
            return true;
    }
    return false;
}

bool may_reply()
{
    const auto now = std::chrono::steady_clock::now();
    std::lock_guard<std::mutex> guard(lock);

    if (now - second >= std::chrono::seconds(1)) {
        second = now;
        replies = 0;
    }
    return replies < REPLIES_PER_SECOND && ++replies;
}

/*
 * Answer the datagram's or connection's source. Never what Via names (maddr,
 * sent-by): a stranger would choose whom we query and whom we hit.
 */
void reply(pjsip_rx_data *rdata, int code)
{
    pjsip_endpoint *endpt = pjsua_get_pjsip_endpt();
    pjsip_tx_data *tdata;

    if (pjsip_endpt_create_response(endpt, rdata, code, NULL, &tdata)
        != PJ_SUCCESS)
        return;
    if (code == PJSIP_SC_METHOD_NOT_ALLOWED) {
        const pjsip_hdr *allow =
            pjsip_endpt_get_capability(endpt, PJSIP_H_ALLOW, NULL);
        if (allow)
            pjsip_msg_add_hdr(tdata->msg,
                              (pjsip_hdr*)pjsip_hdr_clone(tdata->pool, allow));
    }
    pjsip_transport_send(rdata->tp_info.transport, tdata,
                         &rdata->pkt_info.src_addr,
                         rdata->pkt_info.src_addr_len, NULL, NULL);
    /* A send that is still under way holds a reference of its own. */
    pjsip_tx_data_dec_ref(tdata);
}

pj_bool_t on_rx_request(pjsip_rx_data *rdata)
{
    if (is_admitted(rdata))
        return PJ_FALSE;

    const pjsip_method_e method = rdata->msg_info.msg->line.req.method.id;
    ++refusals;
    if ((method == PJSIP_INVITE_METHOD || method == PJSIP_OPTIONS_METHOD) &&
        may_reply())
        reply(rdata, PJSIP_SC_FORBIDDEN);
    return PJ_TRUE;
}

/*
 * An answer comes from whoever was asked, or from an admitted server: nobody
 * else can end or begin anything with one that he has read on the wire.
 */
bool was_asked(pjsip_rx_data *rdata)
{
    const pj_sockaddr source = unmapped(rdata->pkt_info.src_addr);
    pjsip_transaction *tsx;
    pj_str_t key;
    bool same;

    if (pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAC,
                             &rdata->msg_info.cseq->method, rdata)
        != PJ_SUCCESS)
        return false;
    tsx = pjsip_tsx_layer_find_tsx2(&key, PJ_TRUE);
    if (!tsx)
        return false;
    const pj_sockaddr asked = unmapped(tsx->addr);
    same = tsx->addr_len &&
           asked.addr.sa_family == source.addr.sa_family &&
           pj_memcmp(pj_sockaddr_get_addr(&asked),
                     pj_sockaddr_get_addr(&source),
                     pj_sockaddr_get_addr_len(&asked)) == 0;
    pj_grp_lock_dec_ref(tsx->grp_lock);
    return same;
}

/*
 * Whoever is in a call may answer our BYE with 407 and would be given a digest
 * of the password to work on. Only who is admitted may ask for it.
 */
pj_bool_t on_rx_response(pjsip_rx_data *rdata)
{
    const int code = rdata->msg_info.msg->line.status.code;

    if (is_admitted(rdata))
        return PJ_FALSE;
    return code == PJSIP_SC_UNAUTHORIZED ||
           code == PJSIP_SC_PROXY_AUTHENTICATION_REQUIRED ||
           !was_asked(rdata);
}

pjsip_module admission_module;

/*
 * Requests of who is admitted that nothing in the library takes: news that
 * nobody asked for (NOTIFY check-sync), methods that are unknown. Without an
 * answer each would come eleven times.
 */
pj_bool_t on_rx_leftover(pjsip_rx_data *rdata)
{
    const pjsip_method *method = &rdata->msg_info.msg->line.req.method;

    if (method->id == PJSIP_ACK_METHOD)
        return PJ_FALSE;
    if (method->id == PJSIP_CANCEL_METHOD)
        reply(rdata, PJSIP_SC_CALL_TSX_DOES_NOT_EXIST);
    else if (!pj_stricmp2(&method->name, "NOTIFY") ||
             !pj_stricmp2(&method->name, "SUBSCRIBE"))
        reply(rdata, PJSIP_SC_BAD_EVENT);
    else
        reply(rdata, PJSIP_SC_METHOD_NOT_ALLOWED);
    return PJ_TRUE;
}

/* A 415 to a MESSAGE names what would be taken (RFC 3261 section 21.4.13). */
pj_status_t on_tx_response(pjsip_tx_data *tdata)
{
    const pjsip_cseq_hdr *cseq = PJSIP_MSG_CSEQ_HDR(tdata->msg);
    pjsip_accept_hdr *accept;

    if (tdata->msg->line.status.code != PJSIP_SC_UNSUPPORTED_MEDIA_TYPE ||
        !cseq || pj_stricmp2(&cseq->method.name, "MESSAGE"))
        return PJ_SUCCESS;
    accept = pjsip_accept_hdr_create(tdata->pool);
    accept->values[accept->count++] = pj_str((char*)"text/plain");
    pjsip_msg_add_hdr(tdata->msg, (pjsip_hdr*)accept);
    return PJ_SUCCESS;
}

pjsip_module leftover_module;

} // namespace

void Admission::set(const StringVector &peers) PJSUA2_THROW(Error)
{
    std::vector<Peer> list(peers.size());

    if (peers.size() > MAX_PEERS)
        throw Error(PJ_ETOOMANY, "Admission::set()", "Too many peers",
                    __FILE__, __LINE__);
    for (size_t i = 0; i < peers.size(); ++i) {
        if (!parse(peers[i], list[i]))
            throw Error(PJ_EINVAL, "Admission::set()",
                        "Not a literal address: " + peers[i],
                        __FILE__, __LINE__);
    }
    std::lock_guard<std::mutex> guard(lock);
    admitted.swap(list);
    everybody = false;
}

void Admission::open()
{
    std::lock_guard<std::mutex> guard(lock);
    everybody = true;
}

unsigned Admission::refused()
{
    return refusals;
}

void Admission::watch() PJSUA2_THROW(Error)
{
    pj_bzero(&admission_module, sizeof(admission_module));
    admission_module.name = pj_str((char*)"mod-admission");
    admission_module.id = -1;
    admission_module.priority = PJSIP_MOD_PRIORITY_TSX_LAYER - 1;
    admission_module.on_rx_request = &on_rx_request;
    admission_module.on_rx_response = &on_rx_response;
    PJSUA2_CHECK_EXPR( pjsip_endpt_register_module(pjsua_get_pjsip_endpt(),
                                                   &admission_module) );
    pj_bzero(&leftover_module, sizeof(leftover_module));
    leftover_module.name = pj_str((char*)"mod-leftover");
    leftover_module.id = -1;
    leftover_module.priority = PJSIP_MOD_PRIORITY_APPLICATION + 99;
    leftover_module.on_rx_request = &on_rx_leftover;
    leftover_module.on_tx_response = &on_tx_response;
    PJSUA2_CHECK_EXPR( pjsip_endpt_register_module(pjsua_get_pjsip_endpt(),
                                                   &leftover_module) );
}

} // namespace pj
