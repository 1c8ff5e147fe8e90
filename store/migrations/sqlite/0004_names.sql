-- Each further name of each certificate, as it stands in sans, so that a certificate is found by any of them.
CREATE TABLE san (
    name   TEXT    NOT NULL,
    intent INTEGER NOT NULL REFERENCES certificate (intent),
    PRIMARY KEY (name, intent)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO san (name, intent)
SELECT entry.value, certificate.intent
FROM certificate, json_each(certificate.sans) AS kind, json_each(kind.value) AS entry;

-- A caller's certificates in the order of the log.
CREATE INDEX certificate_caller ON certificate (caller, intent);
