#!/usr/bin/env python3
"""Computes every known answer in data/vectors a second time, from the formulas, and exits 1 where one differs.

Shares nothing with the Rust code but the files, so it also shows that what masq sealed opens without masq: what opens
it is open_entry.py's. Needs the package `cryptography`, 48 or newer, for ML-KEM, AES-GCM-SIV and X25519.
"""

import hashlib
import ipaddress
import json
import sys
import uuid
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

import open_entry
from open_entry import header_digest, hkdf, mac, public, unwrapped

VECTORS = Path(__file__).parent / "data" / "vectors"


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


def sealed_value(case, epoch_id, epoch_key, salt, nonce):
    subject, token = bytes.fromhex(case["subject_tag"]), bytes.fromhex(case["token"])
    key = hkdf(epoch_key, b"masq/entry/v1" + subject + salt)
    padded = {"ip": b"i", "text": b"s"}[case["type"]] + case["value"].encode() + b"\x80"
    padded += bytes(-len(padded) % 32)
    aad = b"masq/entry/v1" + epoch_id.bytes + subject + token + case["field"].encode()
    return b"\x01" + nonce + AESGCMSIV(key).encrypt(nonce, padded, aad)


def entries():
    """As in answers, of entry.json: an epoch, its slots and its entries."""
    unhex = bytes.fromhex
    vault = json.loads((VECTORS / "entry.json").read_text(encoding="utf-8"))
    epoch_id, epoch_key, salts = uuid.UUID(vault["id"]), unhex(vault["epoch_key"]), unhex(vault["salts"])
    digest = header_digest(epoch_id, vault["started_at"])
    yield "wrapped key", vault["epoch_key"], unwrapped(unhex(vault["recovery_key"]), unhex(vault["wrapped"]), digest).hex()
    for nth, case in enumerate(vault["entries"]):
        subject, made = unhex(case["subject_tag"]), unhex(case["token"])
        yield case, case["subject_tag"], mac(unhex(vault["subject_key"]), case["subject"].encode())[:16].hex()
        yield case, case["token"], token(unhex(vault["token_root"]), vault["kid"], case["field"], case["type"], case["value"]).hex()
        yield case, case["salt"], mac(salts, subject).hex()
        salt, sealed = unhex(case["salt"]), unhex(case["sealed"])
        yield case, case["sealed"], sealed_value(case, epoch_id, epoch_key, salt, nth.to_bytes(12, "big")).hex()
        value = open_entry.opened(epoch_key, salt, (epoch_id, subject, made, case["field"]), sealed)
        yield case, case["value"], value[1:].decode()
        yield case, case["token"], open_entry.token_of(unhex(vault["token_root"]), vault["kid"], case["field"], value).hex()


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
    yield "epoch id", epoch["id"], str(epoch_id)
    yield "fingerprint", epoch["fingerprint"], hashlib.sha256(public(seed)).hexdigest()
    header = header_digest(epoch_id, epoch["started_at"])
    yield "wrapped key", epoch_key.hex(), unwrapped(seed, unhex(epoch["wrapped"]), header).hex()
    for nth, case in enumerate(epoch["bodies"]):
        aad = b"masq/dead-letter/v1" + epoch_id.bytes + case["sent_at"].to_bytes(8, "big", signed=True)
        aad += uuid.UUID(case["message_id"]).bytes
        yield case, case["sealed"], sealed(epoch_key, nth.to_bytes(12, "big"), aad, unhex(case["body"])).hex()
        yield case, case["body"], opened(epoch_key, aad, unhex(case["sealed"])).hex()
    yield from entries()


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
