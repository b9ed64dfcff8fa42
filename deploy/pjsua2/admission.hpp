#ifndef __PJSUA2_ADMISSION_HPP__
#define __PJSUA2_ADMISSION_HPP__

/**
 * @file admission.hpp
 * @brief Who may send us a SIP request at all.
 */
#include <pjsua2/types.hpp>

namespace pj
{

/**
 * The list of addresses whose SIP requests are listened to.
 *
 * A request from anybody else ends before a transaction, a dialog or a media
 * socket exists for it: an INVITE or OPTIONS is answered with a stateless 403,
 * at most ten a second in all; everything else, and whatever exceeds the ten,
 * is dropped without a word. A response passes if it comes from an admitted
 * address, or from the one that the request went to; a 401 or 407 only from the
 * former, for nobody else may ask for the password.
 *
 * A request of who is admitted that no part of the library takes is answered
 * with 489 (news and subscriptions) or 405: silence would bring it again.
 *
 * Nobody is admitted until set() or open() is called. The list belongs to the
 * process: it may be given before libCreate() (so that there is no moment
 * without it) and outlives libDestroy(). All of this may be called in any
 * thread.
 */
class Admission
{
public:
    /** Most entries a list may have. */
    enum { MAX_PEERS = 64 };

    /**
     * Replace the list.
     *
     * @param peers     Each "ADDRESS[:PORT][;transport=udp|tcp|tls]": a
     *                  literal IPv4 address or a literal IPv6 address, the
     *                  latter in brackets if a port follows. Without a port,
     *                  or with 0, any source port is admitted. Over TCP and
     *                  TLS the port is never compared, for a peer's source
     *                  port says nothing there. An empty list admits nobody.
     * @throw Error     for an entry that is none of these, and for more than
     *                  MAX_PEERS; the list in force stays.
     */
    static void set(const StringVector &peers) PJSUA2_THROW(Error);

    /** Admit everybody. For tests and for tools, never for a door. */
    static void open();

    /** How many requests were refused since the process began. */
    static unsigned refused();

#ifndef SWIG
    /** Begin to watch; Endpoint::libInit() calls this. */
    static void watch() PJSUA2_THROW(Error);
#endif
};

} // namespace pj

#endif  /* __PJSUA2_ADMISSION_HPP__ */
