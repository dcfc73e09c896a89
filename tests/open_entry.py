#!/usr/bin/env python3
"""Opens what masq has sealed, without masq: prints the value behind a token out of a dump of the database.

    open_entry.py IDENTITY DUMP TOKEN [TOKEN_KEY]

IDENTITY   recovery.key; if it is under a passphrase, what `age -d recovery.key` shows
DUMP       what pg_dump wrote, as plain text; both dumps in one file where the slots have a database of their own
TOKEN      64 hexadecimal digits, as they stand in the table
TOKEN_KEY  token.key: then the token is made again from the value and compared

docs/formats.md says what is done here. Needs the package `cryptography`, 48 or newer.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
import sys
import uuid
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, ChaCha20Poly1305


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(prk, info, length):  # RFC 5869
    out, block = b"", b""
    while len(out) < length:
        block = mac(prk, block + info + bytes([len(out) // 32 + 1]))
        out += block
    return out[:length]


def hkdf(key, info):  # RFC 5869 without salt
    return expand(mac(bytes(32), key), info, 32)


def x_wing(seed):
    """draft-connolly-cfrg-xwing-kem: both private keys out of one seed."""
    secret = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(secret[:64]), X25519PrivateKey.from_private_bytes(secret[64:])


def public(seed):
    return b"".join(key.public_key().public_bytes_raw() for key in x_wing(seed))


def unwrapped(seed, wrapped, aad):
    """The epoch key. RFC 9180, base mode: X-Wing (0x647a), HKDF-SHA256 (1), ChaCha20Poly1305 (3)."""
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


def header_digest(epoch, started_at):
    return hashlib.sha256(epoch.bytes + started_at.to_bytes(8, "big", signed=True) + b"\x01").digest()


def opened(epoch_key, salt, aad, sealed):
    """The value as it came, after a byte that says what it is. `aad`: epoch, subject tag, token, field."""
    assert sealed[0] == 1
    epoch, subject, token, field = aad
    key = hkdf(epoch_key, b"masq/entry/v1" + subject + salt)
    aad = b"masq/entry/v1" + epoch.bytes + subject + token + field.encode()
    return AESGCMSIV(key).decrypt(sealed[1:13], sealed[13:], aad).rstrip(b"\0").removesuffix(b"\x80")


def token_of(root, kid, domain, value):
    kind, value = value[:1], value[1:]
    if kind == b"i":
        ip = ipaddress.ip_address(value.decode().strip(" \t\r\n\f"))
        value = (getattr(ip, "ipv4_mapped", None) or ip).packed
        kind = b"\x04" if len(value) == 4 else b"\x06"
    domain = domain.encode()
    frame = bytes([1, kid, len(domain)]) + domain + kind + len(value).to_bytes(2, "big") + value
    return bytes([kid]) + mac(hkdf(root, domain), frame)[:31]


def key_file(path):
    """The key id, if there is one, and the key."""
    lines = [line for line in Path(path).read_text().splitlines() if line.strip() and not line.startswith("#")]
    if lines[0].startswith("-----BEGIN AGE"):
        sys.exit(f"{path} is under a passphrase: give what `age -d {path}` shows")
    kid = re.search(r" kid=(\d+)$", lines[0].strip())
    return int(kid[1]) if kid else None, base64.b64decode(lines[1])


def rows(dump, table):
    """The rows of a table and its partitions: COPY blocks, as pg_dump writes them."""
    copy = re.compile(rf"^COPY {re.escape(table)}(?:_\d+)? \((.*)\) FROM stdin;\n((?:.*\n)*?)\\\.$", re.M)
    for columns, lines in copy.findall(dump):
        for line in lines.split("\n")[:-1]:
            yield dict(zip(columns.split(", "), map(plain, line.split("\t"))))


def plain(text):  # a value as it is, of one as COPY writes it
    special = dict(zip("bfnrtv", "\b\f\n\r\t\v"))
    return re.sub(r"\\(.)", lambda escape: special.get(escape[1], escape[1]), text)


def raw(bytea):
    return bytes.fromhex(bytea.removeprefix(r"\x"))


def main(identity, dump, token, token_key=None):
    (_, seed), dump, token = key_file(identity), Path(dump).read_text(encoding="utf-8"), bytes.fromhex(token)
    fingerprint = hashlib.sha256(public(seed)).digest()
    wraps = {row["epoch"]: raw(row["wrapped"]) for row in rows(dump, "masq.epoch_wraps") if raw(row["recipient"]) == fingerprint}
    begun = {row["id"]: datetime.fromisoformat(row["started_at"]) for row in rows(dump, "masq.epochs")}
    slots = {(row["subject_tag"], row["epoch"]): raw(row["salt"]) for row in rows(dump, "masq_slots.slots")}
    found = [row for row in rows(dump, "masq.entries") if raw(row["token"]) == token]
    problem = None if found else "no entry of the dump has this token"
    for row in found:
        if row["epoch"] not in wraps:
            problem = "what the dump has of this token is sealed to another recovery key than IDENTITY"
            continue
        if (row["subject_tag"], row["epoch"]) not in slots:
            problem = "an entry of this token has no slot in the dump: its person was erased, or the slots are in another dump"
            continue
        epoch, subject = uuid.UUID(row["epoch"]), raw(row["subject_tag"])
        started_at = round(begun[row["epoch"]].timestamp() * 1000)
        epoch_key = unwrapped(seed, wraps[row["epoch"]], header_digest(epoch, started_at))
        salt = slots[row["subject_tag"], row["epoch"]]
        value = opened(epoch_key, salt, (epoch, subject, token, row["field"]), raw(row["sealed"]))
        if token_key:
            kid, root = key_file(token_key)
            assert token_of(root, kid, row["field"], value) == token, "the value is not the one that the token was made of"
        print(row["field"], subject.hex(), value[1:].decode(), sep="\t")
    return problem


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in (4, 5) else __doc__)
