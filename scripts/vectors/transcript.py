#!/usr/bin/env python3
"""Reads a recorded session (transcript.txt) by docs/protocol.md, section 6, and RFC 8446: every message, every TLS record, signatures,
Finished, what is sealed, the programs' bytes, another tunnel, the ends. Prints the file when all of it is as the text says.

Needs the PyPI packages `blake3` and `cryptography`. The file is recorded, since TLS draws what it sends: see
daemon/proto/src/session/tests/transcript.rs.
"""
import hashlib
import hmac
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from path import derive, mac

FILE = Path(__file__).parent / "../../daemon/proto/vectors/transcript.txt"
SPKI = bytes.fromhex("302a300506032b6570032100")
CLIENT, SERVER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32).public_key().public_bytes_raw() for n in (1, 2))


class Reader:
    def __init__(self, data):
        self.data = data

    def take(self, count):
        assert len(self.data) >= count
        head, self.data = self.data[:count], self.data[count:]
        return head

    def number(self, count):
        return int.from_bytes(self.take(count), "big")

    def vector(self, count):
        return self.take(self.number(count))

    def __bool__(self):
        return bool(self.data)


def expand(secret, label, context, length):
    info = length.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + bytes([len(context)]) + context
    out, last = b"", b""
    while len(out) < length:
        last = hmac.digest(secret, last + info + bytes([len(out) // 48 + 1]), "sha384")
        out += last
    return out[:length]


def u32(value):
    return value.to_bytes(4, "big")


def sha384(data):
    return hashlib.sha384(data).digest()


class Side:
    """One side's messages, and what is inside them."""

    def __init__(self, name):
        self.name, self.stream, self.hello, self.first = name, b"", None, b""
        self.records, self.handshake, self.sealed = [], b"", []
        self.plain, self.fin, self.acked = b"", None, (0, 0)

    def hear(self, data):
        data = Reader(data)
        while data:
            kind, body = data.number(1), Reader(data.vector(2))
            if kind == 1:
                assert self.name == "client" and self.hello is None and body.number(1) == 1
                self.hello = body.take(16), body.take(2), body.take(16)
            elif kind == 2:
                assert not self.sealed and 1 <= len(body.data) <= 16_384
                assert self.name == "server" or self.hello
                self.stream += body.take(len(body.data))
                self.first = self.first or self.stream
            elif kind == 3:
                self.sealed.append(body.take(len(body.data)))
            else:
                assert kind == 4 and self.name == "client"
                self.sealed.append((body.take(16), body.take(16)))
            assert not body

    def unseal(self, secret, attempt):
        """What is sealed, up to the begin of another attempt; the kinds of it."""
        key, number, kinds = derive("phantom v1 session seal", secret, u32(attempt), self.name.encode(), bytes(8)), 0, []
        while self.sealed and isinstance(self.sealed[0], bytes):
            try:
                plain = AESGCM(key).decrypt(bytes(4) + number.to_bytes(8, "big"), self.sealed[0], b"")
            except InvalidTag:
                return kinds
            body, number = Reader(plain), number + 1
            self.sealed.pop(0)
            kind = body.number(1)
            kinds.append(kind)
            if kind == 1:
                assert (body.number(2), body.number(2)) == (40_000, 80)
            elif kind == 2:
                assert body.number(8) == len(self.plain) and self.fin is None
                self.plain += body.take(len(body.data))
            elif kind == 3:
                self.acked = body.number(8), body.number(8)
            else:
                assert kind == 4
                self.fin = body.number(8)
                assert self.fin == len(self.plain)
            assert not body
        return kinds

    def cut(self):
        """The TLS stream as records."""
        stream = Reader(self.stream)
        while stream:
            kind, _, body = stream.number(1), stream.take(2), stream.vector(2)
            if kind != 20:  # change_cipher_spec, which means nothing
                self.records.append((kind, body))

    def open(self, record, secret, number):
        key, iv = expand(secret, b"key", b"", 32), expand(secret, b"iv", b"", 12)
        nonce = bytes(a ^ b for a, b in zip(iv, number.to_bytes(12, "big")))
        plain = AESGCM(key).decrypt(nonce, record, b"\x17\x03\x03" + len(record).to_bytes(2, "big")).rstrip(b"\0")
        return plain[-1], plain[:-1]

    def decrypt(self, handshake):
        """Handshake messages up to Finished, and nothing behind it."""
        kind, body = self.records.pop(0)
        assert kind == 22
        self.handshake = body
        for number, (kind, body) in enumerate(self.records):
            assert kind == 23
            kind, plain = self.open(body, handshake, number)
            assert kind == 22
            self.handshake += plain
        assert self.handshake[-52:-48] == b"\x14\x00\x00\x30"

    def messages(self):
        data, found = Reader(self.handshake), []
        while data:
            start = data.data
            kind, body = data.number(1), data.vector(3)
            found.append((kind, body, start[:len(start) - len(data.data)]))
        return found


def extensions(reader):
    found, data = {}, Reader(reader.vector(2))
    while data:
        kind = data.number(2)
        found[kind] = data.vector(2)
    return found


def client_hello(body):
    body = Reader(body)
    body.take(2 + 32)
    body.vector(1)
    suites = Reader(body.vector(2)).data
    assert {suites[i:i + 2].hex() for i in range(0, len(suites), 2)} - {"00ff"} == {"1302", "1303"}
    body.vector(1)
    found = extensions(body)
    assert found[10] == bytes.fromhex("000211ec"), "X25519MLKEM768 only"
    share = Reader(Reader(found[51]).vector(2))
    assert share.number(2) == 0x11EC and len(share.vector(2)) == 1184 + 32 and not share
    assert found[43] == bytes.fromhex("020304"), "TLS 1.3 only"
    assert found[16] == (10 + 18).to_bytes(2, "big") + b"\x09phantom/1" + b"\x11phantom/1 refused"
    assert found[19] == found[20] == b"\x01\x02", "raw public keys both ways"
    assert 0 not in found and 41 not in found and 42 not in found, "no name, no ticket, no early data"


def certificate(body, key):
    body = Reader(body)
    assert body.vector(1) == b""
    entry = Reader(body.vector(3))
    assert entry.vector(3) == SPKI + key


def verify(body, key, side, transcript):
    body = Reader(body)
    assert body.number(2) == 0x0807
    signed = b" " * 64 + f"TLS 1.3, {side} CertificateVerify".encode() + b"\0" + sha384(transcript)
    Ed25519PublicKey.from_public_bytes(key).verify(body.vector(2), signed)


def finished(body, secret, transcript):
    assert body == hmac.digest(expand(secret, b"finished", b"", 48), sha384(transcript), "sha384")


def main():
    text = FILE.read_text()
    secrets, client, server = {}, Side("client"), Side("server")
    for line in text.splitlines():
        what, *fields = line.split(" ")
        if what == "secret":
            secrets[fields[0]] = bytes.fromhex(fields[1])
        elif what != "#":
            {"client": client, "server": server, "resumes": client}[what].hear(bytes.fromhex(fields[0]))
    for side in (client, server):
        side.cut()
        side.decrypt(secrets[f"{side.name.upper()}_HANDSHAKE_TRAFFIC_SECRET"])
    # In the order of RFC 8446: ClientHello; ServerHello … Finished; Certificate, CertificateVerify, Finished.
    hello, *answer = client.messages()
    assert hello[0] == 1
    client_hello(hello[1])
    transcript = hello[2]
    for side, key, messages in (("server", SERVER, server.messages()), ("client", CLIENT, answer)):
        kinds = [kind for kind, _, _ in messages]
        assert kinds == ([2, 8, 13, 11, 15, 20] if side == "server" else [11, 15, 20]), kinds
        for kind, body, whole in messages:
            if kind == 8:
                chosen = extensions(Reader(body))
                assert chosen[16] == b"\x00\x0a\x09phantom/1", "the verdict: accepted"
                assert chosen[19] == chosen[20] == b"\x02"
            elif kind == 11:
                certificate(body, key)
            elif kind == 15:
                verify(body, key, side, transcript)
            elif kind == 20:
                finished(body, secrets[f"{side.upper()}_HANDSHAKE_TRAFFIC_SECRET"], transcript)
            transcript += whole
    session, covered, knock = client.hello
    door = derive("phantom v1 knock", SERVER)
    assert bytes(a ^ b for a, b in zip(covered, mac(door, b"port", session))) == (80).to_bytes(2, "big")
    assert mac(door, b"hello", session, covered, client.first)[:16] == knock
    derived = expand(secrets["EXPORTER_SECRET"], b"EXPORTER-phantom-v1-session", sha384(b""), 48)
    exporter = expand(derived, b"exporter", sha384(b""), 32)
    # Ports, question, FIN; the answer and what it says of FIN. Then the other tunnel.
    assert client.unseal(exporter, 0) == [1, 2, 4] and server.unseal(exporter, 0) == [3, 2]
    assert client.plain == b"question" and server.plain == b"answer" and server.acked == (9, 8)
    ident, knock = client.sealed.pop(0)
    assert ident == derive("phantom v1 session attempt", exporter, u32(1))[:16] and knock == mac(door, b"resume", ident)[:16]
    client_kinds, server_kinds = client.unseal(exporter, 1), server.unseal(exporter, 1)
    assert client_kinds[0] == server_kinds[0] == 3, "ACK first"
    assert client.fin == 8 and server.fin == 6 and client.acked[0] == 7 and server.acked[0] == 9, "FIN counts"
    assert not client.sealed and not server.sealed
    print(text, end="")


if __name__ == "__main__":
    main()
