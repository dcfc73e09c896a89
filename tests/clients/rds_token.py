"""Makes an RDS token a second time with botocore and compares: rds_token.py < token

stdin: {"token", "host", "port", "user", "region", "access_key", "secret_key", "session"}. Exits non-zero on a difference.
"""

import datetime
import json
import sys
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import boto3

given = json.load(sys.stdin)


def parts(token):
    url = urlsplit("https://" + token)
    return url.netloc, url.path, sorted(parse_qsl(url.query, strict_parsing=True))


ours = parts(given["token"])
made_at = datetime.datetime.strptime(dict(ours[2])["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
session = boto3.Session(given["access_key"], given["secret_key"], given["session"], given["region"])
with mock.patch("botocore.auth.get_current_datetime", return_value=made_at):
    token = session.client("rds").generate_db_auth_token(given["host"], given["port"], given["user"])
theirs = parts(token)
assert ours == theirs, f"{ours}\nis not\n{theirs}"
assert token.isascii() and given["token"].isascii()
