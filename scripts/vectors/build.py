#!/usr/bin/env python3
"""Computes a whole build, both rounds, from docs/protocol.md, section 4, with other libraries than the code's.

Needs the PyPI packages `blake3`, `cryptography` and `kyber-py`. A circle of five nodes (x = 2, not turned); every random value is named.
Prints lines: name, place in the circle (or -), value. Packages and replies are given in full, arrays by their BLAKE3 hash, as they come
to the node at that place (5: home to the owner): in full they would be half a megabyte, and they can be computed from the rest.
"""
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from kyber_py.ml_kem import ML_KEM_768

from names import node_id
from noise import handshake, public
from path import REPLY, SLOT, SLOTS, array_mac, cut, derive, mac, order, pass_replies, pass_setup, stream
from wide import Wide

NOW = 1_800_000_000
PLACES, OWNER = 5, 5  # The owner stands behind the last node, and before the first.
ROLES = "YXYTY"


def u64(value):
    return value.to_bytes(8, "big")


def show(name, place, value):
    print(name, place, value.hex())


class Node:
    """A node, or the owner: its keys, and what is drawn by it and for it in one build."""

    def __init__(self, place):
        def random(name, length=32):
            value = stream(f"{name} {place}", length)
            show(name, place, value)
            return value

        self.place = place
        self.key = random("identity-key")
        self.dh = random("path-dh-secret")
        kem_seed = random("path-kem-seed", 64)
        self.kem_public, secret = ML_KEM_768.key_derive(kem_seed)
        show("path-kem-key", place, self.kem_public + secret)
        self.contact = self.key + bytes(10) + b"\xff\xff" + bytes([10, place + 1, 0, 1]) + (443).to_bytes(2, "big") + random("link-secret")
        show("contact", place, self.contact)
        self.id = node_id(self.key)
        self.build_in = random("build-id", 16)  # with which the array comes to it
        self.encapsulation = random("package-kem-message")
        self.owner_ephemeral = random("package-dh-ephemeral")
        if place != OWNER:
            self.reply_kem_seed = random("reply-kem-seed", 64)
            self.reply_kem_public, secret = ML_KEM_768.key_derive(self.reply_kem_seed)
            show("reply-kem-key", place, self.reply_kem_public + secret)
            self.reply_encapsulation = random("reply-kem-message")
            self.own_ephemeral = random("reply-dh-ephemeral")
            self.array_key = random("array-key")

    def seal(self, payload):
        """A package of round 1, the reply to it, and the keys that both have then."""
        shared, ct = ML_KEM_768._encaps_internal(self.kem_public, self.encapsulation)
        psks = [derive("phantom v1 kem", shared, ct)]
        ct2 = b""
        if self.place != OWNER:
            shared2, ct2 = ML_KEM_768._encaps_internal(self.reply_kem_public, self.reply_encapsulation)
            psks.append(derive("phantom v1 kem", shared2, ct2))
        else:
            psks.append(bytes(32))  # Nobody answers it.
        ephemerals = self.owner_ephemeral, getattr(self, "own_ephemeral", self.owner_ephemeral)
        (first, second), _, keys = handshake(
            ["psk0", "psk2"], b"phantom v1 round 1" + self.id, psks, self.dh, ephemerals, (payload.ljust(1408, b"\0"), bytes(32))
        )
        tag = mac(derive("phantom v1 slot key", self.key, public(self.dh)), ct)[:16]
        return tag + ct + first, ct2 + second, keys


class Weave:
    """Both arrays of a round, as they come to each place: made from the last package to the first, since each holds a MAC over the rest."""

    def __init__(self, keys, noise):
        self.keys, self.orders = keys, [order(key) for key in keys]
        self.wides = [Wide(derive("phantom v1 array slots", key)) for key in keys]
        self.stages = [[b""] * SLOTS for _ in range(PLACES + 1)]
        # Where the slot of a track is at each place.
        self.at = [FIRST]
        for stage_order in self.orders:
            self.at.append([stage_order.index(slot) for slot in self.at[-1]])
        for track in range(PLACES):
            fill = derive("phantom v1 array fill", keys[track], length=SLOT)
            self.put(track, track + 1, fill)
            self.onward(track, track + 1)
        for track in range(PLACES + 1, SLOTS):
            self.put(track, 0, noise[track])
            self.onward(track, 0)

    def put(self, track, place, slot):
        self.stages[place][self.at[place][track]] = slot

    def tweak(self, place, track):
        return bytes(15) + bytes([self.at[place][track]])

    def onward(self, track, place):
        for here in range(place, PLACES):
            slot = self.stages[here][self.at[here][track]]
            self.put(track, here + 1, self.wides[here].encipher(self.tweak(here, track), slot))

    def package(self, place, slot):
        """Puts what a place shall find in its slot, and, before it, what becomes that."""
        self.put(place, place, slot)
        for here in reversed(range(place)):
            slot = self.wides[here].decipher(self.tweak(here, place), slot)
            self.put(place, here, slot)

    def setup(self, place):
        return b"".join(self.stages[place])


def travel(name, weave, slots, replies, answers):
    """Sends the arrays round as nodes do, checks that all comes as foreseen, and shows them."""
    setup = weave.setup(0)
    for place in range(PLACES + 1):
        assert setup == weave.setup(place), place
        show(f"{name}-setup", place, blake3(setup).digest())
        show(f"{name}-replies", place, blake3(replies).digest())
        if place < PLACES:
            own = cut(setup, SLOT).index(slots[place])
            setup = pass_setup(weave.keys[place], own, setup)
            replies = pass_replies(weave.keys[place], REPLY_INDEX[place], answers[place], replies)


def side(contact, path_id, dial):
    return contact + path_id + bytes([dial])


# Drawn by the owner: where the tracks of five packages, of its own slot and of six of noise begin, and who replies where.
FIRST = [7, 2, 11, 0, 5, 9, 1, 3, 4, 6, 8, 10]
REPLY_INDEX = [4, 9, 0, 7, 2, 11, 1, 3, 5, 6, 8, 10]


def first_round(nodes):
    noise = {track: stream(f"noise 1 {track}", SLOT) for track in range(PLACES + 1, SLOTS)}
    weave = Weave([node.array_key for node in nodes[:PLACES]], noise)
    closing, _, _ = nodes[OWNER].seal(b"")
    weave.package(OWNER, closing)
    show("closing-package", "-", closing)
    slots, answers, keys = {}, {}, {}
    for place in reversed(range(PLACES)):
        node, before, behind = nodes[place], nodes[place - 1], nodes[place + 1]
        own = weave.at[place][place]
        payload = b"".join([
            b"\x01", u64(NOW + 40 + 10 * place), node.reply_kem_public, node.array_key, array_mac(node.array_key, own, pad(weave, place, own)),
            bytes([REPLY_INDEX[place]]), before.id, node.build_in, behind.build_in, behind.contact,
        ])
        slots[place], answers[place], keys[place] = node.seal(payload)
        weave.package(place, slots[place])
        show("first-payload", place, payload)
        show("first-package", place, slots[place])
        show("first-reply", place, answers[place])
    _, ct = ML_KEM_768._encaps_internal(ML_KEM_768.key_derive(stream("made-up kem seed", 64))[0], stream("made-up kem message"))
    made_up = ct + public(stream("made-up dh secret")) + stream("made-up rest", 48)
    show("made-up-reply", "-", made_up)
    replies = [stream(f"reply noise 1 {slot}", REPLY) for slot in range(SLOTS)]
    replies[REPLY_INDEX[PLACES]] = made_up
    travel("first", weave, slots, b"".join(replies), answers)
    return keys


def pad(weave, place, own):
    """The array as it comes to a place, before its own package is there."""
    weave.stages[place][own] = bytes(SLOT)
    return weave.setup(place)


def second_round(nodes, keys):
    for place in range(PLACES):
        show("to-responder", place, keys[place][0])
        show("to-initiator", place, keys[place][1])
    array_keys = [derive("phantom v1 array key 2", *keys[place]) for place in range(PLACES)]
    noise = {track: stream(f"noise 2 {track}", SLOT) for track in range(PLACES + 1, SLOTS)}
    weave = Weave(array_keys, noise)
    weave.package(OWNER, stream("noise 2 5", SLOT))
    path_ids = [stream(f"path id {segment}", 16) for segment in range(2)]
    nearest, terminating = nodes[1].contact, nodes[3].contact
    orders = {
        "Y": b"\x01",
        "X": b"\x02" + u64(NOW + 3600) + side(terminating, path_ids[1], 1) + side(nodes[OWNER].contact, path_ids[0], 0),
        "T": b"\x03" + u64(NOW + 3700) + side(nearest, path_ids[1], 0),
    }
    slots, answers = {}, {}
    for place in reversed(range(PLACES)):
        own = weave.at[place][place]
        role = orders[ROLES[place]]
        payload = role[:1] + array_mac(array_keys[place], own, pad(weave, place, own)) + role[1:]
        tag = derive("phantom v1 slot tag 2", *keys[place])[:16]
        sealed = ChaCha20Poly1305(keys[place][0]).encrypt(bytes(12), payload.ljust(2528, b"\0"), b"")
        slots[place] = tag + sealed
        answers[place] = ChaCha20Poly1305(keys[place][1]).encrypt(bytes(12), b"\x01".ljust(1152, b"\0"), b"")
        weave.package(place, slots[place])
        show("second-payload", place, payload)
        show("second-package", place, slots[place])
        show("second-reply", place, answers[place])
        show("path-secret", place, derive("phantom v1 path secret", *keys[place]))
    replies = b"".join(stream(f"reply noise 2 {slot}", REPLY) for slot in range(SLOTS))
    travel("second", weave, slots, replies, answers)
    show("handle", 3, derive("phantom v1 handle", derive("phantom v1 path secret", *keys[3]))[:16])


def main():
    print("# name place value; made by scripts/vectors/build.py")
    print("# Places 0 to 4: Y, nearest X, Y, terminating X, Y; 5: the owner. Time: 1 800 000 000. Payloads are without their padding.")
    print("# kem-seed: d and z of FIPS 203; kem-key: encapsulation, then decapsulation key; kem-message: m. first-slots: where the tracks of places 0 to 4, of the owner's own slot and of six slots")
    print("# of noise begin; reply-slots: where places 0 to 4 reply, then where the made-up reply is. Noise: slot of track t in round n is the")
    print("# BLAKE3 output of any length of the text `noise n t`, reply slot s of `reply noise n s`; the owner's slot of round 2 is track 5.")
    show("first-slots", "-", bytes(FIRST))
    show("reply-slots", "-", bytes(REPLY_INDEX))
    nodes = [Node(place) for place in range(PLACES + 1)]
    keys = first_round(nodes)
    second_round(nodes, keys)


if __name__ == "__main__":
    main()
