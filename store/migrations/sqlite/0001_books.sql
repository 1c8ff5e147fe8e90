-- The log: leaves by index, and the nodes of the Merkle tree by stored-hash index.
CREATE TABLE leaf (
    position INTEGER PRIMARY KEY,
    leaf     BLOB NOT NULL
) STRICT;

CREATE TABLE node (
    position INTEGER PRIMARY KEY,
    hash     BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- The books. Times are microseconds since 1970 in UTC, 0 when there is none.
-- No certificate without the leaf that announced it: the leaves of a batch are inserted after its
-- changes, so the reference is checked at the commit.
CREATE TABLE certificate (
    intent       INTEGER PRIMARY KEY REFERENCES leaf (position) DEFERRABLE INITIALLY DEFERRED,
    serial       TEXT    NOT NULL UNIQUE,
    issuer       TEXT    NOT NULL,
    purpose      TEXT    NOT NULL,
    cn           TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    sans         TEXT    NOT NULL,
    key_type     TEXT    NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('open', 'live', 'revoked', 'abandoned')),
    caller       TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    body_sha256  TEXT    NOT NULL,
    reserved     INTEGER NOT NULL,
    not_before   INTEGER NOT NULL,
    not_after    INTEGER NOT NULL,
    deadline     INTEGER NOT NULL,
    done         INTEGER NOT NULL,
    spki_sha256  TEXT    NOT NULL,
    tbs_sha256   TEXT    NOT NULL,
    entry        TEXT    NOT NULL,
    revoked_at   INTEGER NOT NULL DEFAULT 0,
    reason       INTEGER NOT NULL DEFAULT 0,
    revoke_asked INTEGER NOT NULL DEFAULT 0,
    csr          BLOB,
    sealed       BLOB,
    der          BLOB,
    CHECK ((state = 'open') = (done = -1)),
    CHECK ((state IN ('live', 'revoked')) = (der IS NOT NULL)),
    CHECK (revoke_asked = 0 OR state = 'open'),
    CHECK ((state = 'revoked' OR revoke_asked = 1) = (revoked_at <> 0))
) STRICT;

CREATE INDEX certificate_name ON certificate (purpose, name);
CREATE INDEX certificate_request ON certificate (caller, request_id);
CREATE INDEX certificate_state ON certificate (state);
CREATE INDEX certificate_sealed ON certificate (reserved) WHERE sealed IS NOT NULL;

CREATE TABLE request (
    caller      TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    body_sha256 TEXT    NOT NULL,
    serial      TEXT    NOT NULL,
    position    INTEGER NOT NULL,
    PRIMARY KEY (caller, id)
) STRICT, WITHOUT ROWID;

-- The newest signed list of each issuer, and which one is known to be published.
CREATE TABLE list (
    issuer                TEXT    NOT NULL PRIMARY KEY,
    number                TEXT    NOT NULL,
    this_update           INTEGER NOT NULL,
    next_update           INTEGER NOT NULL,
    entries               INTEGER NOT NULL,
    sha256                TEXT    NOT NULL,
    signed                INTEGER NOT NULL,
    published_number      TEXT    NOT NULL DEFAULT '',
    published_commit      TEXT    NOT NULL DEFAULT '',
    published_at          INTEGER NOT NULL DEFAULT 0,
    published_next_update INTEGER NOT NULL DEFAULT 0,
    der                   BLOB    NOT NULL
) STRICT;

-- What is owed to the world. generation is the index of the newest leaf that owed it, oldest the
-- first generation that nobody has paid.
CREATE TABLE debt (
    topic        TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    generation   INTEGER NOT NULL,
    oldest       INTEGER NOT NULL,
    since        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_at      INTEGER NOT NULL,
    leased_until INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT    NOT NULL DEFAULT '',
    parked       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX debt_due ON debt (topic, next_at) WHERE parked = 0;
