"""An ordinary caller: Python's xmlrpc.client over mutual TLS.

stdin:  {"url", "ca", "cert", "key", "calls": [[method, params...]...]}
stdout: a list with, for each call, {"result": ...} or {"fault": [code, text]} or {"error": ...}
Bytes are {"bytes": base64} and times {"time": text} on the way out; {"bytes": base64} on the way in.
"""
import base64
import datetime
import json
import ssl
import sys
import xmlrpc.client


def show(v):
    if isinstance(v, bytes):
        return {"bytes": base64.b64encode(v).decode()}
    if isinstance(v, datetime.datetime):
        return {"time": v.isoformat() + "Z"}
    if isinstance(v, (list, tuple)):
        return [show(x) for x in v]
    if isinstance(v, dict):
        return {k: show(x) for k, x in v.items()}
    return v


def read(v):
    if isinstance(v, dict):
        if list(v) == ["bytes"]:
            return base64.b64decode(v["bytes"])
        return {k: read(x) for k, x in v.items()}
    if isinstance(v, list):
        return [read(x) for x in v]
    return v


job = json.load(sys.stdin)
context = ssl.create_default_context(cafile=job["ca"])
if job.get("cert"):
    context.load_cert_chain(job["cert"], job["key"])
service = xmlrpc.client.ServerProxy(job["url"], context=context, use_builtin_types=True)
out = []
for method, *params in job["calls"]:
    try:
        out.append({"result": show(getattr(service, method)(*read(params)))})
    except xmlrpc.client.Fault as fault:
        out.append({"fault": [fault.faultCode, fault.faultString]})
    except Exception as error:
        out.append({"error": "%s: %s" % (type(error).__name__, error)})
json.dump(out, sys.stdout)
