#!/usr/bin/env python3
"""Writes the seeds that are lists of operations, as `arbitrary` reads them: honest runs with something wrong at their end."""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))


def seed(target, name, ops, count, head=b""):
    """An operation is its number and its fields' bytes; `count` is how many kinds the target knows."""
    data = head
    for number, *fields in ops:
        # 1: another element follows. The kind is the high part of a 32-bit number times `count`.
        data += b"\1" + struct.pack("<I", -(-(number << 32) // count)) + b"".join(
            field if isinstance(field, bytes) else bytes([field]) for field in fields)
    os.makedirs(f"{HERE}/corpus/{target}", exist_ok=True)
    with open(f"{HERE}/corpus/{target}/{name}", "wb") as out:
        out.write(data)


def text(value):
    """Bytes in the middle of an operation."""
    return b"".join(bytes([1, byte]) for byte in value) + b"\0"


def short(value):
    return struct.pack("<H", value)


# node: 0 deliver, 2 repeat, 4 change, 5 cut, 6 tick, 7 want exit, 8 want entry, 9 forget, 10 gone, 12 rotate, 14 flood, 15 want, 16 declined,
# 17 first cell
run = [(0, 255), (6, 1)] * 6
wanted = [(7, 0, 0)] + run
seed("node", "exit", wanted + [(15, 0, 0, 0, short(500)), (15, 0, 1, 1, 0, short(9)), (10, 0, 0, 1), (16, 0, 0)] + run, 18)
seed("node", "entry", [(8, 1, 1)] + run + [(9, 1, 1)], 18)
seed("node", "both", [(7, 0, 0), (8, 3, 1)] + run + run, 18)
seed("node", "flood", wanted + [(14, link, 0x12, 64, 200) for link in range(8)] + run, 18)
seed("node", "cut", wanted + [(5, 0), (0, 9), (5, 2)] + run, 18)
seed("node", "changed", [(7, 0, 0), (0, 2), (4, short(999), 1), (0, 255), (6, 255), (12, 1)] + run, 18)
seed("node", "repeated", [(7, 0, 0)] + [(0, 0), (2,)] * 20 + run, 18)
first = [(17, node, path, 6, text(b"")) for node in range(3) for path in range(3)] + [(17, 1, 0, 8, text(b"record"))]
seed("node", "first", wanted + first + run, 18)

# session_pair: 0 write, 1 much, 2 end, 3 abort, 4 carry, 5 all, 6 change, 7 drop, 8 inject, 9 took, 10 cut, 11 resume
talk = [(5,), (0, 0, text(b"question")), (5,), (1, 1, 200), (5,), (9, 0), (9, 1)]
seed("session_pair", "whole", talk + [(2, 0), (2, 1), (5,)], 12)
seed("session_pair", "changed", talk + [(1, 0, 50), (4, 0, short(0)), (6, 0, short(700), 1), (5,)], 12)
seed("session_pair", "dropped", talk + [(1, 0, 50), (4, 0, short(0)), (7, 0, short(50), short(90)), (5,)], 12)
seed("session_pair", "cut", talk + [(2, 0), (5,), (10,)], 12)
seed("session_pair", "bits", [(4, 0, short(100)), (4, 0, short(999)), (5,), (3, 1), (5,)], 12)
seed("session_pair", "resumed", talk + [(1, 0, 50), (4, 0, short(999)), (11,), (5,), (2, 0), (11,), (2, 1), (5,)], 12)

# session: 4 real bytes, 9 verdict, 10 knock, 11 program's bytes, 12 its end
seed("session", "server", [(4, short(9000)), (9, 1), (11, text(b"hello")), (12,)], 17, b"\1")
seed("session", "client", [(4, short(9000)), (11, text(b"hello")), (12,)], 17, b"\0")
seed("session", "knock", [(10, short(80), text(b"first")), (9, 1), (1, short(80))], 17, b"\1")

# terminating: 2 a record that holds, 3 contact, 4 dialed, 5 record, 7 sent, 8 join, 9 frame, 11 tunnel, 12 said, 13 record to say, 14 offered,
# 15 given, 16 said, 17 heard, 19 enter, 20 leave, 21 pass, 22 OPEN, 23 LOOKUP
joins = [(8,), (9, 0x43, text(b"first")), (11, 1), (12, 1)]
seed("terminating", "connect", [(22, 1), (3, 1, 1), (4, 1), (7, 1), (22, 1)] + joins, 24, b"\0")
seed("terminating", "ask", [(23,), (5, 1, short(300)), (7, 1), (23,), (5, 0), (22, 1)], 24, b"\0")
seed("terminating", "serve", [(2, 0, 0), (2, 0, 1), (21, short(65535))] + joins + [(2, 1, 0)], 24, b"\0")
control = [(13, text(b"record")), (15, 1), (16, 1), (14,), (16, 1), (17, 6, text(b"")), (17, 8, text(b"r"))]
seed("terminating", "control", control, 24, b"\1")
seed("terminating", "padded", [(21, short(65535)), (15, 1), (16, 1), (17, 1, text(b"x" * 48)), (19, 1), (20, 1)], 24, b"\0")

# tunnel: 0 start, 2 seed at the hop, 4 seed at the end, 5 tunnel at the hop, 6 at the owner, 8 and on: confirm, 12 honest
seed("tunnel", "honest", [(12,)] * 3, 13)
seed("tunnel", "by-hand", [(0,), (2, 0, 0, 0, 0), (4, 1, 0, 0), (5, 1, 0, 0, 0), (6, 1, 0, 0), (8, 0, 2, 0, 0)], 13)

# records: 0 content, 1 much, 2 alert, 3 a record of any kind, 4 raw, 5 change, 6 cut, 7 pieces
said = [(0, text(b"hello")), (1, short(40000)), (0, text(b""))]
seed("records", "said", said + [(7, short(7))], 8, b"\0")
seed("records", "ended", said + [(2, 0), (0, text(b"behind"))], 8, b"\1")
seed("records", "changed", said + [(5, short(3000), 1), (7, short(100))], 8, b"\0")
seed("records", "cut", said + [(6, short(30000))], 8, b"\0")
seed("records", "kinds", said + [(3, 0, text(b"padded\x17\0")), (3, 21, text(b"\1\x5a")), (3, 22, text(b"\x18\0\0\1\0"))], 8, b"\2")
seed("records", "raw", said + [(4, text(b"\x14\3\3\0\1\1"))], 8, b"\2")
