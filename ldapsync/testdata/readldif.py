"""Reads LDIF by RFC 2849 and knows nothing of the code under test.

Prints JSON: a list of {"dn": text, "attrs": [[name, base64 of the value], ...]}.
"""
import base64
import json
import sys

data = open(sys.argv[1], "rb").read().replace(b"\r\n", b"\n")
entries = []
for chunk in data.replace(b"\n ", b"").split(b"\n\n"):
    attrs = []
    for row in chunk.split(b"\n"):
        if not row or row.startswith(b"#") or row.startswith(b"version:"):
            continue
        attr, sep, rest = row.partition(b":")
        assert sep, row
        if rest.startswith(b":"):
            value = base64.b64decode(rest[1:].strip(b" "), validate=True)
        else:  # a URL stays what it is
            value = rest.lstrip(b" ")
        attrs.append([attr.decode("ascii"), base64.b64encode(value).decode("ascii")])
    if attrs:
        assert attrs[0][0] == "dn", attrs[0]
        entries.append({
            "dn": base64.b64decode(attrs[0][1]).decode("utf-8"),
            "attrs": attrs[1:],
        })
json.dump(entries, sys.stdout)
