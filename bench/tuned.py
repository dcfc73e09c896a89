"""A tuned rival in Python, for `masq bench --with-python`: masq's work in one process, with what makes Python fast.

Gathers a thousand messages, makes the same keyed tokens, copies the ledger's keys and the rows in one transaction, then
deletes in tens. boto3 checks no parameters. Threads do not help: boto3's time is the interpreter's own. Needs boto3 and
psycopg 3.

    tuned.py QUEUE_URL DATABASE_URL MESSAGES TOKEN_KEY_FILE

Says `ready`, begins at a line on stdin, and says in one line of JSON how many messages it took.
"""

import base64
import hmac
import json
import socket
import sys
from datetime import datetime, timezone

import boto3
import psycopg
from botocore.config import Config

BATCH = 1000
KEYS = "COPY masq.ledger (sent_at, message_id, outcome) FROM STDIN"
ROWS = """COPY user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
          FROM STDIN"""


class Tokens:
    """The tokens of one domain: see "Tokens and seals" in ARCHITECTURE.md."""

    def __init__(self, root, domain):
        domain = domain.encode()
        extracted = hmac.digest(bytes(32), root, "sha256")
        self.key = hmac.digest(extracted, domain + b"\x01", "sha256")
        self.head = bytes([1, 1, len(domain)]) + domain

    def of(self, kind, value):
        frame = self.head + kind + len(value).to_bytes(2, "big") + value
        return "01" + hmac.digest(self.key, frame, "sha256")[:31].hex()


def gather(sqs, queue):
    batch = []
    while len(batch) < BATCH:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["SentTimestamp"])
        received = answer.get("Messages")
        if not received:
            break
        batch += received
    return batch


def load(database, batch, ips, devices):
    with database.cursor() as cursor:
        keyed = []
        for message in batch:
            sent = datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, timezone.utc)
            keyed.append((sent, message["MessageId"], message["Body"]))
        keyed.sort()
        with cursor.copy(KEYS) as copy:
            for sent, message_id, _ in keyed:
                copy.write_row((sent, message_id, 1))
        with cursor.copy(ROWS) as copy:
            for sent, _, body in keyed:
                login = json.loads(body)
                copy.write_row(
                    (
                        login["user_id"],
                        login["device_type"],
                        ips.of(b"\x04", socket.inet_aton(login["ip"])),
                        devices.of(b"\x73", login["device_id"].encode()),
                        login["locale"],
                        login["app_version"],
                        sent.date(),
                    )
                )
    database.commit()


def delete(sqs, queue, batch):
    for start in range(0, len(batch), 10):
        ten = enumerate(batch[start : start + 10])
        entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in ten]
        sqs.delete_message_batch(QueueUrl=queue, Entries=entries)


def work(sqs, queue, database, messages, tokens):
    done = empty = 0
    while done < messages and empty < 3:
        batch = gather(sqs, queue)
        empty = 0 if batch else empty + 1
        if batch:
            load(database, batch, *tokens)
            delete(sqs, queue, batch)
        done += len(batch)
    return done


def token_root(path):
    with open(path) as file:
        lines = [line.strip() for line in file]
    return base64.b64decode([line for line in lines if line and not line.startswith("#")][-1])


def main():
    queue, url, messages = sys.argv[1], sys.argv[2], int(sys.argv[3])
    root = token_root(sys.argv[4])
    tokens = Tokens(root, "ip"), Tokens(root, "device_id")
    config = Config(parameter_validation=False)
    sqs = boto3.client("sqs", endpoint_url=queue.rsplit("/", 2)[0], config=config)
    with psycopg.connect(url) as database:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps({"messages": work(sqs, queue, database, messages, tokens)}), flush=True)
        sys.stdin.read()


main()
