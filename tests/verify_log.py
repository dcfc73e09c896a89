#!/usr/bin/env python3
"""Verifies an audit log of masq's without masq: that nothing in it was changed, moved or left out, and that it goes on from
signed checkpoints.

    verify_log.py EXPORTED [AUDIT_PUB CHECKPOINTS]

EXPORTED     what `masq audit list --json` wrote: all entries, a line of JSON each
AUDIT_PUB    audit.pub, or a verifier key alone
CHECKPOINTS  a file of signed checkpoints, one at least

docs/formats.md says what is done here. Ends with 1 and the first thing that is wrong. Needs the package `cryptography`.
"""

import base64
import hashlib
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SINCE = datetime(2000, 1, 1, tzinfo=timezone.utc)
DASH = "\u2014 "


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def number(value, size, signed=False):
    return value.to_bytes(size, "big", signed=signed)


def field(value):
    if value is None:
        return b"\xff" * 4
    value = value.encode() if isinstance(value, str) else value
    return number(len(value), 4) + value


def micros(at):
    return (datetime.fromisoformat(at) - SINCE) // timedelta(microseconds=1) if "T" in at else int(at)


def leaf(entry):
    items = [None if item is None else bytes.fromhex(item) for item in entry["items"]]
    texts = b"".join(field(entry[name]) for name in ("action", "login", "claimed", "purpose", "ticket", "reason"))
    return b"".join((
        b"masq/audit/v1", number(entry["seq"], 8), number(micros(entry["at"]), 8, signed=True), bytes.fromhex(entry["prev"]),
        texts, number(entry["request"] or 0, 8), field(entry["detail"]), number(len(items), 4), *map(field, items),
    ))


class Tree:
    """The roots of the perfect subtrees, the largest first, each with how many leaves it has."""

    def __init__(self):
        self.peaks = []

    def push(self, leaf):
        self.peaks.append((1, leaf))
        while len(self.peaks) > 1 and self.peaks[-1][0] == self.peaks[-2][0]:
            (size, right), (_, left) = self.peaks.pop(), self.peaks.pop()
            self.peaks.append((2 * size, sha256(b"\x01", left, right)))

    def root(self):
        if not self.peaks:
            return sha256()
        *lefts, (_, root) = self.peaks
        for _, left in reversed(lefts):
            root = sha256(b"\x01", left, root)
        return root


def entries(path):
    """The root of the log after each entry, from none on."""
    tree, prev = Tree(), bytes(32)
    yield tree.root()
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    for seq, line in enumerate(filter(None, lines), 1):
        entry = json.loads(line)
        hash = bytes.fromhex(entry["hash"])
        if entry["seq"] != seq:
            sys.exit(f"where entry {seq} should be there is entry {entry['seq']}")
        if bytes.fromhex(entry["prev"]) != prev or sha256(b"\x00", leaf(entry)) != hash:
            sys.exit(f"entry {seq} was changed, or does not follow the one before it")
        prev = hash
        tree.push(hash)
        yield tree.root()


def checkpoints(path, verifier):
    """Size and root of each that this key has signed."""
    name, key_id, key = verifier.split("+", 2)
    key = base64.b64decode(key)
    assert key_id == sha256(name.encode(), b"\n", key)[:4].hex() and key[0] == 1, "that is no verifier key for Ed25519"
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    for at, line in enumerate(lines):
        signer, _, signature = line.removeprefix(DASH).partition(" ")
        if not line.startswith(DASH) or signer != name or lines[at - 1] or at < 4:
            continue
        origin, size, root = body = lines[at - 4:at - 1]
        signature = base64.b64decode(signature)
        try:
            assert signature[:4].hex() == key_id and origin == name
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], "".join(f"{line}\n" for line in body).encode())
        except (AssertionError, InvalidSignature):
            sys.exit(f"the checkpoint that ends in line {at + 1} is not what this key has signed")
        yield int(size), base64.b64decode(root)


def main(exported, public=None, signed=None):
    roots = list(entries(exported))
    told = f"{len(roots) - 1} entries"
    if public:
        lines = [line.strip() for line in Path(public).read_text().splitlines()]
        (verifier,) = [line for line in lines if line.count("+") > 1 and not line.startswith("#")]
        notes = list(checkpoints(signed, verifier))
        for size, root in notes:
            if size >= len(roots) or roots[size] != root:
                sys.exit(f"the log is not the one of which a checkpoint of {size} entries was signed")
        if not notes:
            sys.exit("there is no checkpoint that this key has signed")
        told += f", {len(notes)} checkpoints"
    print(f"whole: {told}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in (2, 4) else __doc__)
