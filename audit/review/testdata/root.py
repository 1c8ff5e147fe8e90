"""Recompute the Merkle tree hash of RFC 6962 section 2.1 over the lines of an audit log.

usage: root.py SIZE < lines

It follows the recursive definition and shares no code with the CA. It checks that the lines are
well-formed JSON, that the indexes are dense, and that each hash is that of its leaf; then it prints
the root of the first SIZE leaves in base64.
"""

import base64
import hashlib
import json
import sys


def root(hashes):
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + root(hashes[:k]) + root(hashes[k:])).digest()


hashes = []
for number, line in enumerate(sys.stdin.buffer):
    row = json.loads(line)
    leaf = line[line.index(b'"leaf":') + len(b'"leaf":') : -2]
    assert json.loads(leaf) == row["leaf"], number
    assert row["index"] == number, number
    hashes.append(hashlib.sha256(b"\x00" + leaf).digest())
    assert row["hash"] == hashes[-1].hex(), number
print(base64.b64encode(root(hashes[: int(sys.argv[1])])).decode())
