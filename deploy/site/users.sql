-- What the site knows of its users: written by `intercom site`, only read by Kamailio.
--
-- The tables hold facts. The views under them say the same in the form in which Kamailio's htable and
-- dispatcher modules load it into memory: a row per key, its value a list of name=value with ';'
-- between them. No call waits for this file.

CREATE TABLE site (domain TEXT NOT NULL);     -- the one that every ha1 was made for

CREATE TABLE user (
    name        TEXT PRIMARY KEY,             -- what stands before the @, and the digest user name
    display     TEXT NOT NULL DEFAULT '',
    digest      TEXT NOT NULL CHECK (digest IN ('MD5', 'SHA-256')),
    ha1         TEXT NOT NULL,                -- H(name:domain:password), RFC 3261 22.4 and RFC 8760
    transport   TEXT NOT NULL DEFAULT 'udp',  -- what its phone was told to use
    busy        TEXT NOT NULL DEFAULT '',     -- forwards: a user, a group, a number, or nothing
    unanswered  TEXT NOT NULL DEFAULT '',
    away        TEXT NOT NULL DEFAULT '',     -- when the user is not registered
    seconds     INTEGER NOT NULL DEFAULT 20   -- ringing time before `unanswered`
);

CREATE TABLE ring_group (
    name        TEXT PRIMARY KEY,             -- never also the name of a user
    display     TEXT NOT NULL DEFAULT '',
    serial      INTEGER NOT NULL DEFAULT 0 CHECK (serial IN (0, 1)),
    seconds     INTEGER NOT NULL DEFAULT 20   -- ringing time of each member (serial) or of all (parallel)
);

CREATE TABLE member (
    ring_group  TEXT NOT NULL REFERENCES ring_group (name) ON DELETE CASCADE ON UPDATE CASCADE,
    position    INTEGER NOT NULL,
    user        TEXT NOT NULL REFERENCES user (name) ON DELETE CASCADE ON UPDATE CASCADE,
    PRIMARY KEY (ring_group, position),
    UNIQUE (ring_group, user)
);

-- A caller of this name or number is told to call these addresses instead (RFC 3261 21.3).
CREATE TABLE redirect (
    name        TEXT NOT NULL,
    position    INTEGER NOT NULL,
    code        INTEGER NOT NULL CHECK (code IN (301, 302)),
    uri         TEXT NOT NULL CHECK (instr(uri, '|') = 0),
    PRIMARY KEY (name, position)
);

-- Numbers beginning so may be called by the user.
CREATE TABLE permission (
    user        TEXT NOT NULL REFERENCES user (name) ON DELETE CASCADE ON UPDATE CASCADE,
    prefix      TEXT NOT NULL,                -- '+49', '112', '' for every number
    PRIMARY KEY (user, prefix)
);

-- A trunk: somebody else's server that takes our numbers and brings calls.
CREATE TABLE gateway (
    name        TEXT PRIMARY KEY,
    uri         TEXT NOT NULL UNIQUE,         -- sip:HOST:PORT;transport=udp
    priority    INTEGER NOT NULL DEFAULT 0,   -- the highest is tried first
    username    TEXT NOT NULL DEFAULT '',     -- digest towards the trunk; none if empty
    password    TEXT NOT NULL DEFAULT '',     -- a trunk's challenge can be answered only with the text itself
    registers   INTEGER NOT NULL DEFAULT 0 CHECK (registers IN (0, 1))  -- whether we REGISTER there
);

-- The numbers a gateway takes.
CREATE TABLE number_range (
    id          INTEGER PRIMARY KEY,          -- dispatcher's set
    prefix      TEXT NOT NULL UNIQUE          -- '+49', '' for every number
);

CREATE TABLE gateway_range (
    gateway     TEXT NOT NULL REFERENCES gateway (name) ON DELETE CASCADE ON UPDATE CASCADE,
    number_range INTEGER NOT NULL REFERENCES number_range (id) ON DELETE CASCADE,
    PRIMARY KEY (gateway, number_range)
);

-- Whom a call from a trunk to one of our own numbers rings.
CREATE TABLE own_number (
    number      TEXT PRIMARY KEY,             -- +4930123456
    target      TEXT NOT NULL                 -- a user or a group
);

CREATE TABLE version (table_name TEXT PRIMARY KEY, table_version INTEGER NOT NULL);
INSERT INTO version VALUES ('dispatcher', 4), ('uacreg', 5);

-- htable "users": name => digest=MD5;ha1=...;seconds=20;busy=...;unanswered=...;away=...
-- A forward that is not set is left out: Kamailio cannot read an empty parameter.
CREATE VIEW users_in_memory AS
SELECT name AS key_name, 0 AS key_type, 0 AS value_type,
       'digest=' || digest || ';ha1=' || ha1 || ';seconds=' || seconds
       || iif(busy = '', '', ';busy=' || busy) || iif(unanswered = '', '', ';unanswered=' || unanswered)
       || iif(away = '', '', ';away=' || away) AS key_value,
       0 AS expires
FROM user;

-- htable "groups": name => order=parallel;seconds=20;members=kitchen,hall
CREATE VIEW groups_in_memory AS
SELECT name AS key_name, 0 AS key_type, 0 AS value_type,
       'order=' || iif(serial, 'serial', 'parallel') || ';seconds=' || seconds || ';members='
       || (SELECT group_concat(user, ',') FROM
           (SELECT user FROM member WHERE ring_group = name ORDER BY position)) AS key_value,
       0 AS expires
FROM ring_group WHERE name IN (SELECT ring_group FROM member);

-- htable "redirects": name => 302|sip:a@one.example|sip:b@two.example;transport=tcp
CREATE VIEW redirects_in_memory AS
SELECT name AS key_name, 0 AS key_type, 0 AS value_type,
       min(code) || '|' || group_concat(uri, '|') AS key_value, 0 AS expires
FROM (SELECT * FROM redirect ORDER BY name, position)
GROUP BY name;

-- htable "permissions": user:prefix => 1
CREATE VIEW permissions_in_memory AS
SELECT user || ':' || prefix AS key_name, 0 AS key_type, 0 AS value_type, '1' AS key_value, 0 AS expires
FROM permission;

-- htable "ranges": prefix => dispatcher set. The key of '' is '*', since a key cannot be empty.
CREATE VIEW ranges_in_memory AS
SELECT iif(prefix = '', '*', prefix) AS key_name, 0 AS key_type, 0 AS value_type,
       CAST(id AS TEXT) AS key_value, 0 AS expires
FROM number_range WHERE id IN (SELECT number_range FROM gateway_range);

-- htable "own_numbers": number => user or group
CREATE VIEW own_numbers_in_memory AS
SELECT number AS key_name, 0 AS key_type, 0 AS value_type, target AS key_value, 0 AS expires
FROM own_number;

-- htable "gateways": name => its digest user name; "gateway_passwords": name => password
CREATE VIEW gateways_in_memory AS
SELECT name AS key_name, 0 AS key_type, 0 AS value_type, username AS key_value, 0 AS expires
FROM gateway WHERE username <> '';

CREATE VIEW gateway_passwords_in_memory AS
SELECT name AS key_name, 0 AS key_type, 0 AS value_type, password AS key_value, 0 AS expires
FROM gateway WHERE username <> '';

-- dispatcher: a destination for every gateway in every range it serves
CREATE VIEW dispatcher AS
SELECT gateway_range.rowid AS id, number_range AS setid, uri AS destination, 0 AS flags, priority,
       'gateway=' || name AS attrs, name AS description
FROM gateway_range JOIN gateway ON gateway.name = gateway_range.gateway;

-- uac: an account of ours that is registered with a trunk. The contact's user is the gateway's name. A user name
-- with a domain is the address of record; otherwise the trunk's host is its domain.
CREATE VIEW uacreg AS
SELECT id, name AS l_uuid, name AS l_username, host AS l_domain,
       iif(at, substr(username, 1, at - 1), username) AS r_username,
       iif(at, substr(username, at + 1), host) AS r_domain,
       '' AS realm, username AS auth_username, password AS auth_password, '' AS auth_ha1, uri AS auth_proxy,
       300 AS expires, 0 AS flags, 0 AS reg_delay, '' AS contact_addr, '' AS socket
FROM (SELECT rowid AS id, *, instr(username, '@') AS at,
             substr(uri, 5, min(instr(substr(uri, 5) || ':', ':'), instr(substr(uri, 5) || ';', ';')) - 1) AS host
      FROM gateway WHERE registers);
