#!/usr/bin/env python3
"""Computes vectors of Noise NK with pre-shared keys from the text of Noise revision 34, sections 5, 7 and 9.

Needs the PyPI package `cryptography`. Checks itself against published vectors (see PUBLISHED), then prints one line per vector in hex:
pattern prologue psks responder-static initiator-ephemeral responder-ephemeral payload1 message1 payload2 message2 hash key1 key2.
Published lines have no keys ("-"): their source does not give the raw keys.
"""
import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

# cacophony.txt, the vectors of the Haskell library cacophony (public domain), as other Noise libraries carry it too.
PUBLISHED = {
    "NKpsk0": (
        "1609ef057bdd62c752b5960546a255a78aebff08c5f07ef2adaa1db8350e7077",
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
        "190fec41487219f2069c3ba7b7f9521437045935231f0ed399dfd4baf6bd825b",
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843"
        "85010e0c56e886e6da0c69aee7388bcf4000cc357af5ebd11a46a169a3712c",
    ),
    "NKpsk2": (
        "5a0c1a79a0b863fe5d000e829b7e4ffc76200e5c08082d4494968e3f47d0ff61",
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
        "acda3057fb216b0fb4c6d571e776b426612636e99cf4ac1de41442fb2128ca29",
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843"
        "30fcb4ab2b68a6f612414145258aa079533be57174ec7ae7c76845312a3f07",
    ),
}
PROLOGUE = b"John Galt"
PSK = b"This is my Austrian perspective!"
STATIC = bytes.fromhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893")
EPHEMERALS = (
    bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
    bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
)
PAYLOADS = (b"Ludwig von Mises", b"Murray Rothbard")


def hkdf(chain, material, count):
    secret, out, last = hmac.digest(chain, material, "sha256"), [], b""
    for index in range(1, count + 1):
        last = hmac.digest(secret, last + bytes([index]), "sha256")
        out.append(last)
    return out


def public(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def dh(secret, other):
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(other))


class Symmetric:
    def __init__(self, name):
        self.hash = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self.chain, self.key, self.count = self.hash, None, 0

    def mix_hash(self, data):
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, material):
        self.chain, self.key = hkdf(self.chain, material, 2)
        self.count = 0

    def mix_key_and_hash(self, psk):
        self.chain, data, self.key = hkdf(self.chain, psk, 3)
        self.mix_hash(data)
        self.count = 0

    def seal(self, plain):
        nonce = bytes(4) + self.count.to_bytes(8, "little")
        sealed = ChaCha20Poly1305(self.key).encrypt(nonce, plain, self.hash)
        self.count += 1
        self.mix_hash(sealed)
        return sealed


def handshake(modifiers, prologue, psks, static, ephemerals, payloads):
    psks, state = dict(zip(modifiers, psks)), Symmetric(f"Noise_NK{'+'.join(modifiers)}_25519_ChaChaPoly_SHA256".encode())
    messages = []
    state.mix_hash(prologue)
    state.mix_hash(public(static))
    tokens = (("psk0", "e", "es"), ("e", "ee", "psk2"))
    for index, line in enumerate(tokens):
        message = b""
        for token in line:
            if token == "e":
                message += public(ephemerals[index])
                state.mix_hash(message)
                state.mix_key(message)
            elif token == "es":
                state.mix_key(dh(ephemerals[0], public(static)))
            elif token == "ee":
                state.mix_key(dh(ephemerals[0], public(ephemerals[1])))
            elif token in psks:
                state.mix_key_and_hash(psks[token])
        messages.append(message + state.seal(payloads[index]))
    return messages, state.hash, hkdf(state.chain, b"", 2)


def line(modifiers, psks, messages, digest, keys):
    fields = [PROLOGUE.hex(), ",".join(psk.hex() for psk in psks), STATIC.hex(), *(key.hex() for key in EPHEMERALS)]
    for payload, message in zip(PAYLOADS, messages):
        fields += [payload.hex(), message.hex()]
    print("NK" + "+".join(modifiers), *fields, digest.hex(), *keys)


def main():
    print("# pattern prologue psks static e1 e2 payload1 message1 payload2 message2 hash keys; made by scripts/vectors/noise.py")
    print("# NKpsk0 and NKpsk2: published, from cacophony.txt. NKpsk0+psk2: computed by the script, which reproduces the published.")
    for name, (digest, *messages) in PUBLISHED.items():
        got, got_digest, _ = handshake([name[2:]], PROLOGUE, [PSK], STATIC, EPHEMERALS, PAYLOADS)
        assert ([message.hex() for message in got], got_digest.hex()) == (messages, digest), name
        line([name[2:]], [PSK], got, got_digest, ["-", "-"])
    psks = [PSK, hashlib.sha256(b"psk2").digest()]
    messages, digest, keys = handshake(["psk0", "psk2"], PROLOGUE, psks, STATIC, EPHEMERALS, PAYLOADS)
    line(["psk0", "psk2"], psks, messages, digest, [key.hex() for key in keys])


if __name__ == "__main__":
    main()
