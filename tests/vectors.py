#!/usr/bin/env python3
"""Computes every known answer in data/vectors a second time, from the formulas, and exits 1 where one differs.

Shares nothing with the Rust code but the files, so it also shows that what masq sealed opens without masq:
`opened` is all it takes. Needs the package `cryptography`, 48 or newer, for ML-KEM, AES-GCM-SIV and X25519.
"""

import hashlib
import hmac
import ipaddress
import json
import sys
import uuid
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, ChaCha20Poly1305

VECTORS = Path(__file__).parent / "data" / "vectors"


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(prk, info, length):
    out, block = b"", b""
    while len(out) < length:
        block = mac(prk, block + info + bytes([len(out) // 32 + 1]))
        out += block
    return out[:length]


def hkdf(key, info):  # RFC 5869 without salt
    return expand(mac(bytes(32), key), info, 32)


def address(text):
    ip = ipaddress.ip_address(text.strip())
    return getattr(ip, "ipv4_mapped", None) or ip


def token(root, kid, domain, kind, value):
    if kind == "ip":
        packed = address(value).packed
        kind = 0x04 if len(packed) == 4 else 0x06
    else:
        packed, kind = value.encode(), 0x73
    domain = domain.encode()
    frame = bytes([1, kid, len(domain)]) + domain + bytes([kind]) + len(packed).to_bytes(2, "big") + packed
    return bytes([kid]) + mac(hkdf(root, domain), frame)[:31]


def prefix(text):
    ip = address(text)
    return str(ipaddress.ip_network(f"{ip}/{24 if ip.version == 4 else 48}", strict=False))


def key_check(key, message):
    return mac(hkdf(key, b"masq/key-check/v1"), message)[:16]


def sealed(epoch_key, nonce, aad, body):
    padded = body + b"\x80"
    padded += bytes(-len(padded) % 32)
    return b"\x01" + nonce + AESGCMSIV(hkdf(epoch_key, b"masq/dead-letter/v1")).encrypt(nonce, padded, aad)


def opened(epoch_key, aad, blob):
    assert blob[0] == 1
    key = hkdf(epoch_key, b"masq/dead-letter/v1")
    return AESGCMSIV(key).decrypt(blob[1:13], blob[13:], aad).rstrip(b"\0").removesuffix(b"\x80")


def x_wing(seed):
    """draft-connolly-cfrg-xwing-kem: both private keys out of one seed."""
    secret = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(secret[:64]), X25519PrivateKey.from_private_bytes(secret[64:])


def public(seed):
    return b"".join(key.public_key().public_bytes_raw() for key in x_wing(seed))


def unwrapped(seed, wrapped, aad):
    """RFC 9180, base mode: X-Wing (0x647a), HKDF-SHA256 (1), ChaCha20Poly1305 (3)."""
    assert wrapped[0] == 1
    ml_kem, x25519 = x_wing(seed)
    first, second, ciphertext = wrapped[1:1089], wrapped[1089:1121], wrapped[1121:]
    both = ml_kem.decapsulate(first) + x25519.exchange(X25519PublicKey.from_public_bytes(second))
    shared = hashlib.sha3_256(both + second + x25519.public_key().public_bytes_raw() + rb"\.//^" + b"\\").digest()

    suite = b"HPKE" + bytes.fromhex("647a00010003")

    def extract(salt, label, key):
        return mac(salt or bytes(32), b"HPKE-v1" + suite + label + key)

    def labelled(label, length):
        return expand(secret, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context, length)

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", b"masq/epoch/v1")
    secret = extract(shared, b"secret", b"")
    return ChaCha20Poly1305(labelled(b"key", 32)).decrypt(labelled(b"base_nonce", 12), ciphertext, aad)


def answers():
    """Pairs of what stands in the files and what the formulas give."""

    def load(name):
        return json.loads((VECTORS / name).read_text(encoding="utf-8"))

    unhex = bytes.fromhex
    for case in load("token.json"):
        got = token(unhex(case["root"]), case["kid"], case["domain"], case["type"], case["value"])
        yield case, case["token"], got.hex()
    for case in load("mask.json")["sha256"]:
        yield case, case["masked"], hashlib.sha256(case["value"].encode()).hexdigest()
    for case in load("mask.json")["prefix"]:
        yield case, case["masked"], prefix(case["value"])
    for case in load("keys.json")["token"]:
        yield case, case["check"], key_check(unhex(case["root"]), b"token" + bytes([case["kid"]])).hex()
    for case in load("keys.json")["subject"]:
        yield case, case["check"], key_check(unhex(case["key"]), b"subject").hex()
        for name, tag in case["tags"].items():
            yield name, tag, mac(unhex(case["key"]), name.encode())[:16].hex()

    epoch = load("sealed.json")
    seed, random = unhex(epoch["recovery_key"]), unhex(epoch["random"])
    epoch_id, epoch_key = uuid.UUID(bytes=random[:16], version=4), random[16:48]
    started_at = epoch["started_at"].to_bytes(8, "big", signed=True)
    yield "epoch id", epoch["id"], str(epoch_id)
    yield "fingerprint", epoch["fingerprint"], hashlib.sha256(public(seed)).hexdigest()
    header = hashlib.sha256(epoch_id.bytes + started_at + b"\x01").digest()
    yield "wrapped key", epoch_key.hex(), unwrapped(seed, unhex(epoch["wrapped"]), header).hex()
    for nth, case in enumerate(epoch["bodies"]):
        aad = b"masq/dead-letter/v1" + epoch_id.bytes + case["sent_at"].to_bytes(8, "big", signed=True)
        aad += uuid.UUID(case["message_id"]).bytes
        yield case, case["sealed"], sealed(epoch_key, nth.to_bytes(12, "big"), aad, unhex(case["body"])).hex()
        yield case, case["body"], opened(epoch_key, aad, unhex(case["sealed"])).hex()


def main():
    checked = wrong = 0
    for case, expected, got in answers():
        checked += 1
        if expected != got:
            wrong += 1
            print(f"{case}: the file has {expected}, the formula gives {got}", file=sys.stderr)
    print(f"{checked} known answers computed again, {wrong} differ")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
