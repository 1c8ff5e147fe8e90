"""The ends of connections.

net.py listen PORT... udp/PORT@ADDRESS...
                                       answers every connection and every datagram, until it is killed
net.py reach FROM TO [udp/]PORT        prints "open", "closed" (told so) or "silent"; FROM is an address or -
"""
import socket, sys, threading


def endpoint(word):
    kind = socket.SOCK_DGRAM if word.startswith("udp/") else socket.SOCK_STREAM
    return kind, int(word.removeprefix("udp/"))


def serve(word):
    word, _, address = word.partition("@")
    kind, port = endpoint(word)
    s = socket.socket(socket.AF_INET if address else socket.AF_INET6, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address or "::", port))
    if kind == socket.SOCK_DGRAM:
        while True:
            data, peer = s.recvfrom(64)
            s.sendto(data, peer)
    s.listen()
    while True:
        s.accept()[0].close()


def reach(source, target, kind, port):
    s = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind)
    s.settimeout(2)
    try:
        if source != "-":
            s.bind((source, 0))
        s.connect((target, port))
        if kind == socket.SOCK_DGRAM:
            s.send(b"?")
            s.recv(64)
        return "open"
    except socket.timeout:
        return "silent"
    except OSError:
        return "closed"


if sys.argv[1] == "listen":
    threads = [threading.Thread(target=serve, args=[word]) for word in sys.argv[2:]]
    for t in threads:
        t.start()
else:
    print(reach(sys.argv[2], sys.argv[3], *endpoint(sys.argv[4])))
