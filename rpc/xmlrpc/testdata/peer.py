"""The other side of the wire: reads with, and writes with, xmlrpc.client.

stdin:  {"load": [document...], "dump": [tree...]}, one or both
stdout: {"loaded": [tree or fault...], "dumped": [document...]}
A tree is a pair of a type and a value, so that JSON loses no type.
"""
import base64
import datetime
import json
import sys
import xmlrpc.client


def pack(v):
    if isinstance(v, bool):
        return ["bool", v]
    if isinstance(v, int):
        return ["int", v]
    if isinstance(v, str):
        return ["string", v]
    if isinstance(v, bytes):
        return ["bytes", base64.b64encode(v).decode()]
    if isinstance(v, datetime.datetime):
        return ["time", v.isoformat() + "Z"]
    if isinstance(v, list):
        return ["array", [pack(x) for x in v]]
    return ["struct", {k: pack(x) for k, x in v.items()}]


def unpack(pair):
    kind, v = pair
    if kind == "bytes":
        return base64.b64decode(v)
    if kind == "time":
        return datetime.datetime.strptime(v, "%Y-%m-%dT%H:%M:%SZ")
    if kind == "array":
        return [unpack(x) for x in v]
    if kind == "struct":
        return {k: unpack(x) for k, x in v.items()}
    return v


def load(document):
    try:
        (value,), method = xmlrpc.client.loads(document, use_builtin_types=True)
    except xmlrpc.client.Fault as fault:
        return ["fault", [fault.faultCode, fault.faultString]]
    return pack(value)


work = json.load(sys.stdin)
json.dump({
    "loaded": [load(d) for d in work.get("load", [])],
    "dumped": [xmlrpc.client.dumps((unpack(t),), "ca.issue") for t in work.get("dump", [])],
}, sys.stdout)
