"""The original's loop, for `masq bench --with-python`: ten messages at a time, one row at a time.

Receive ten, hash two fields with SHA-256, insert each row by itself, commit, delete the ten. The original never deleted;
without that nothing is comparable. Needs boto3 and psycopg 3.

    original.py QUEUE_URL DATABASE_URL MESSAGES

Says `ready`, begins at a line on stdin, and says in one line of JSON how many messages it took.
"""

import hashlib
import json
import sys
from datetime import date

import boto3
import psycopg

INSERT = """INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
            VALUES (%s, %s, %s, %s, %s, %s, %s)"""


def mask(value):
    return hashlib.sha256(value.encode()).hexdigest()


def work(sqs, queue, database, messages):
    done = empty = 0
    while done < messages and empty < 3:
        received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        empty = 0 if received else empty + 1
        with database.cursor() as cursor:
            for message in received:
                login = json.loads(message["Body"])
                cursor.execute(
                    INSERT,
                    (
                        login["user_id"],
                        login["device_type"],
                        mask(login["ip"]),
                        mask(login["device_id"]),
                        login["locale"],
                        login["app_version"],
                        date.today(),
                    ),
                )
        database.commit()
        if received:
            entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(received)]
            sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
        done += len(received)
    return done


def main():
    queue, url, messages = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sqs = boto3.client("sqs", endpoint_url=queue.rsplit("/", 2)[0])
    with psycopg.connect(url) as database:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps({"messages": work(sqs, queue, database, messages)}), flush=True)
        sys.stdin.read()


main()
