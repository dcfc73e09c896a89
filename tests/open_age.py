"""Opens an armoured age v1 file with an X25519 identity: open_age.py AGE-SECRET-KEY-1… < FILE

Written from c2sp.org/age with the `cryptography` package and nothing of masq's, to judge what masq seals to a person.
"""

import base64
import sys

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 64 * 1024 + 16


def identity(text):
    """The 32 bytes of an identity. Its checksum is not looked at."""
    values = ["qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(c) for c in text.lower().removeprefix("age-secret-key-1")[:52]]
    bits = "".join(f"{value:05b}" for value in values)
    return X25519PrivateKey.from_private_bytes(int(bits[:256], 2).to_bytes(32, "big"))


def unpadded(text):
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


def hkdf(key, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def open_file(file, key):
    lines = file.split(b"\n", 4)
    version, stanza, body, mac, payload = lines
    assert version == b"age-encryption.org/v1" and stanza.startswith(b"-> X25519 ") and mac.startswith(b"--- ")
    share = unpadded(stanza.split(b" ")[2])
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    secret = key.exchange(X25519PublicKey.from_public_bytes(share))
    wrap_key = hkdf(secret, share + public, b"age-encryption.org/v1/X25519")
    file_key = ChaCha20Poly1305(wrap_key).decrypt(bytes(12), unpadded(body), None)
    check = hmac.HMAC(hkdf(file_key, b"", b"header"), hashes.SHA256())
    check.update(b"\n".join([version, stanza, body, b"---"]))
    check.verify(unpadded(mac[4:]))
    nonce, payload = payload[:16], payload[16:]
    cipher = ChaCha20Poly1305(hkdf(file_key, nonce, b"payload"))
    chunks = [payload[at : at + CHUNK] for at in range(0, len(payload), CHUNK)]
    last = len(chunks) - 1
    return b"".join(
        cipher.decrypt(at.to_bytes(11, "big") + bytes([at == last]), chunk, None) for at, chunk in enumerate(chunks)
    )


lines = sys.stdin.read().split("\n")
assert lines[0] == "-----BEGIN AGE ENCRYPTED FILE-----" and lines[-2:] == ["-----END AGE ENCRYPTED FILE-----", ""]
sys.stdout.buffer.write(open_file(base64.b64decode("".join(lines[1:-2]), validate=True), identity(sys.argv[1])))
