"""A DNS server over TCP for the tests: one zone, and names whose answers are lies. Writes who asked for what to a file."""

import ipaddress
import socket
import struct
import sys
import threading

address, log = sys.argv[1], open(sys.argv[2], "a", buffering=1)
AAAA, CNAME, A = 28, 5, 1
AP = ipaddress.ip_address(address).packed
FOREIGN = ipaddress.ip_address("2001:db8::1").packed


def packed(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(name, kind, data, ttl=300):
    return packed(name) + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


ZONE = {
    "shop.example": [record("shop.example", AAAA, AP)],
    "www.shop.example": [record("www.shop.example", CNAME, packed("shop.example")), record("shop.example", AAAA, AP)],
    "mixed.example": [record("mixed.example", AAAA, FOREIGN), record("mixed.example", AAAA, AP)],
    "plain.example": [record("plain.example", AAAA, FOREIGN), record("plain.example", A, b"\xc0\0\2\1")],
    "four.example": [record("four.example", A, b"\xc0\0\2\1")],
    "circle.example": [record("circle.example", CNAME, packed("circle.example"))],
    "other.example": [record("victim.example", AAAA, AP)],
}
SILENT = ("liar.example", "wrong.example", "huge.example", "endless.example", "loop.example", "gone.example")


def parse(question):
    at, labels = 12, []
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    return ".".join(labels).lower(), question[12 : at + 5]


def take(client, length):
    data = b""
    while len(data) < length:
        part = client.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def lie(client, name, question, section):
    identity, rest = question[:2], struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0)
    if name == "liar.example":
        identity = bytes([question[0] ^ 0xFF, question[1]])
    elif name == "wrong.example":
        section = packed("shop.example") + section[-4:]
    elif name == "huge.example":
        client.sendall(b"\xff\xff" + identity + rest + section + b"\0" * 65000)
        return
    elif name == "endless.example":
        client.sendall(b"\x10\0" + identity + rest)
        while True:
            client.sendall(b"\0")
            threading.Event().wait(1)
    elif name == "loop.example":
        start = 12 + len(section)
        answer = identity + rest + section + struct.pack(">HHHIH", 0xC000 | start, AAAA, 1, 60, 16) + AP
        client.sendall(struct.pack(">H", len(answer)) + answer)
        return
    elif name == "gone.example":
        return
    answer = identity + rest + section + record(name, AAAA, AP)
    client.sendall(struct.pack(">H", len(answer)) + answer)


def serve(client, peer):
    try:
        with client:
            while True:
                question = take(client, struct.unpack(">H", take(client, 2))[0])
                name, section = parse(question)
                print(peer[0], name, file=log)
                if name in SILENT:
                    lie(client, name, question, section)
                    return
                records = ZONE.get(name)
                flags = 0x8180 if records is not None else 0x8183
                head = question[:2] + struct.pack(">HHHHH", flags, 1, len(records or []), 0, 0)
                answer = head + section + b"".join(records or [])
                client.sendall(struct.pack(">H", len(answer)) + answer)
    except (EOFError, OSError):
        pass


listener = socket.create_server(("::", 53), family=socket.AF_INET6)
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
