#!/usr/bin/env python3
"""Issue and revoke from Python, with its standard library.

chancery.py URL FOLDER issue PURPOSE NAME REQUEST_ID
chancery.py URL FOLDER revoke SERIAL REASON REQUEST_ID

URL is https://HOST:PORT/RPC2; FOLDER holds root.pem, caller.pem and caller.key. Exit code 0: done, 1: refused,
2: the call is wrong, 3: it is not known how it ended; run the same command again.
"""
import http.client
import os
import socket
import ssl
import sys
import time
import xml.parsers.expat
import xmlrpc.client

# With these codes ok is false and nothing was refused: the same call can be made again.
TROUBLE = {"outcome.unknown", "keyroom.unreachable", "keyroom.behind", "store.behind", "store.fork"}
TROUBLE_FAULTS = {-32603, 4290}  # an internal error; too many calls at once


class Unknown(Exception):
    pass


def ask(rpc, method, params):
    """Gives ok, msg and detail. params has a request_id, so asking again never does anything twice."""
    for wait in (1, 2, 4, None):
        try:
            ok, msg, detail = getattr(rpc, method)(params)
            if ok or detail["code"] not in TROUBLE:
                return ok, msg, detail
            why = msg
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in TROUBLE_FAULTS:
                raise
            why = fault.faultString
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, xml.parsers.expat.ExpatError) as error:
            why = error  # an answer that ends in the middle is an ExpatError
        if wait:
            time.sleep(wait)
    raise Unknown(why)


def main(url, folder, what, first, second, request_id):
    socket.setdefaulttimeout(90)  # the service gives up after 60 seconds
    tls = ssl.create_default_context(cafile=os.path.join(folder, "root.pem"))
    tls.load_cert_chain(os.path.join(folder, "caller.pem"), os.path.join(folder, "caller.key"))
    # use_builtin_types: base64 comes as bytes, and times as datetime, in UTC and without a zone.
    rpc = xmlrpc.client.ServerProxy(url, context=tls, use_builtin_types=True)
    if what == "issue":
        method, params = "ca.issue", {"purpose": first, "cn": second, "request_id": request_id}
    elif what == "revoke":
        method, params = "ca.revoke", {"serial": first, "reason": second, "request_id": request_id}
    else:
        raise ValueError("issue or revoke")
    try:
        ok, msg, detail = ask(rpc, method, params)
    except xmlrpc.client.Fault as fault:
        print("fault", fault.faultCode, fault.faultString, file=sys.stderr)
        return 2
    except Unknown as why:
        print("not known how it ended:", why, "- run the same command again", file=sys.stderr)
        return 3
    if not ok:
        print("refused:", msg, detail["code"], file=sys.stderr)
        return 1
    try:
        return hand(msg, detail, request_id)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try again when it ends
        print("done, and not written:", error, "- run the same command again", file=sys.stderr)
        return 3


def hand(msg, detail, request_id):
    print(msg, flush=True)
    if "revoked_at" in detail:
        return 1  # a retry, and somebody has revoked the certificate since
    if "pkcs12" in detail:
        # The same request_id always gets the same octets, so the file can be written again.
        with os.fdopen(os.open(request_id + ".p12", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(detail["pkcs12"])
        print("password", detail["password"], flush=True)
    return 0


if __name__ == "__main__":
    try:
        code = main(*sys.argv[1:])
    except (TypeError, ValueError, OSError) as error:  # the command line, or a file that is not there
        print(error, __doc__, sep="\n", file=sys.stderr)
        code = 2
    sys.exit(code)
