#!/usr/bin/env python3
"""Writes one message of each kind of the DHT, and the fields of Identify, from docs/protocol.md, section 7.3.

Needs the PyPI packages `blake3` and `cryptography`. Prints lines: name, bytes in hex. Messages of Kademlia are as they are on
their stream, behind their length; requests for records and answers to them fill their direction of a stream. The node that is asked knows one other node and is connected to it.
"""
from names import multiaddr, peer_id, public


def varint(value):
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def number(field, value):
    return varint(field * 8) + varint(value) if value else b""


def octets(field, value):
    return varint(field * 8 + 2) + varint(len(value)) + value


def delimited(*fields):
    message = b"".join(fields)
    return varint(len(message)) + message


ASKED, OTHER = bytes([1]) * 32, bytes([2]) * 32
WHERE = {ASKED: ("10.1.0.1", 443, b"\x01" * 32), OTHER: ("10.2.0.1", 443, b"\x02" * 32)}
KEY, VALUE = b"a" + bytes(range(32)), b"value"
FIND_NODE = 4

peer = octets(1, peer_id(public(OTHER))) + octets(2, multiaddr(public(OTHER), *WHERE[OTHER])) + number(3, 1)

print("# name bytes; made by scripts/vectors/dht.py")
print("# Seeds of the nodes' Ed25519 keys: 32 times 01 for the one that is asked, 32 times 02 for the one that it knows; they listen at 10.1.0.1")
print("# and 10.2.0.1, port 443, with link secrets of 32 times 01 and 02. Database key: 61, then 00 … 1f; value: `value`. Each line")
print("# identify is one field of one message, which may come in any order; who asks is seen from 10.3.0.1, port 443.")
for name, value in (
    ("find-node", delimited(number(1, FIND_NODE), octets(2, KEY), number(10, 10))),
    ("find-node-answer", delimited(number(1, FIND_NODE), octets(8, peer), number(10, 9))),
    ("get", b"\x00" + KEY),
    ("get-nothing", b"\x00"),
    ("get-record", b"\x01" + VALUE),
    ("put", b"\x01" + KEY + VALUE),
    ("put-stands", b"\x02"),
    ("put-refused", b"\x03"),
    ("identify", octets(1, bytes.fromhex("08011220") + public(ASKED))),
    ("identify", octets(2, multiaddr(public(ASKED), *WHERE[ASKED]))),
    ("identify", octets(3, b"/phantom/kad/1")),
    ("identify", octets(3, b"/phantom/gossip/1")),
    ("identify", octets(3, b"/phantom/commands/1")),
    ("identify", octets(3, b"/phantom/records/1")),
    ("identify", octets(3, b"/phantom/reach/1")),
    ("identify", octets(3, b"/ipfs/id/1.0.0")),
    ("identify", octets(3, b"/ipfs/id/push/1.0.0")),
    ("identify", octets(4, bytes.fromhex("040a030001") + bytes.fromhex("0601bb"))),
    ("identify", octets(5, b"/phantom/id/1")),
    ("identify", octets(6, b"phantom")),
):
    print(name, value.hex())
