"""What the stories' Python programs share. It needs nothing but the standard library."""

import base64
import json
import os
import sqlite3
import ssl
import xmlrpc.client


def context(dir, cert="callers/provisioning.pem", key="callers/provisioning.key"):
    """The caller's side of mutual TLS; cert is None for nobody."""
    c = ssl.create_default_context(cafile=os.path.join(dir, "trust/root.pem"))
    if cert:
        c.load_cert_chain(os.path.join(dir, cert), os.path.join(dir, key))
    return c


def connect(dir, cert="callers/provisioning.pem", key="callers/provisioning.key"):
    """What a provisioning script begins with."""
    return xmlrpc.client.ServerProxy(os.environ["URL"], context=context(dir, cert, key))


def leaves(dir):
    """The log as it stands in the database, octet by octet."""
    db = sqlite3.connect("file:%s/state/store.db?mode=ro" % dir, uri=True)
    rows = db.execute("SELECT position, leaf FROM leaf ORDER BY position").fetchall()
    db.close()
    assert [p for p, _ in rows] == list(range(len(rows))), "the log has gaps"
    return [leaf for _, leaf in rows]


def events(dir, kind=None):
    """The log as (type, event), of one kind or all."""
    decoded = [json.loads(leaf) for leaf in leaves(dir)]
    return [(d["type"], d["event"]) for d in decoded if kind in (None, d["type"])]


def count(dir, kind):
    return len(events(dir, kind))


def pem(der):
    return ssl.DER_cert_to_PEM_cert(der)


def der(text):
    """The first certificate in a PEM text."""
    return ssl.PEM_cert_to_DER_cert(text[:text.index("-----END") + len("-----END CERTIFICATE-----") + 1])


def directory(dir):
    """directory.ldif as {dn: {attribute: [octets]}}."""
    with open(os.path.join(dir, "directory.ldif")) as f:
        text = f.read().replace("\n ", "")
    entries = {}
    for block in text.split("\n\n"):
        entry = {}
        for line in block.splitlines():
            if line.startswith("#") or not line:
                continue
            name, value = line.split(":", 1)
            if value.startswith(":"):
                value = base64.b64decode(value[1:].strip())
            else:
                value = value.strip().encode()
            entry.setdefault(name, []).append(value)
        if "dn" in entry:
            entries[entry.pop("dn")[0].decode()] = entry
    return entries


def certificates(dir, name):
    """The certificates that the directory holds for a name."""
    found = [e for dn, e in directory(dir).items() if dn.split(",")[0].split("=")[1] == name]
    assert len(found) == 1, (name, found)
    return found[0].get("userCertificate;binary", [])


def save(name, data):
    with open(name, "wb" if isinstance(data, bytes) else "w") as f:
        f.write(data)
