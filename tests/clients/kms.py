"""AWS's own client does what it is told, in order: kms.py URL < [{"call": …, "as": [id, secret], …}, …]

Each item is a call of boto3: {"service", "call", "with", "as"}; bytes are written {"base64": …}, in and out. Prints a list
of answers: what boto3 answers, or {"error": the code}. {"authorize": true} has moto judge signatures and policies from
then on.
"""

import base64
import json
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def taken(value):
    if isinstance(value, dict) and "base64" in value:
        return base64.b64decode(value["base64"])
    return {key: taken(item) for key, item in value.items()} if isinstance(value, dict) else value


def given(value):
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: given(item) for key, item in value.items() if key != "ResponseMetadata"}
    return value if isinstance(value, (str, int, type(None))) else str(value)


def done(url, item):
    if "authorize" in item:
        plain = {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", plain)).read()
        return {}
    access, secret = item.get("as", ["test", "test"])
    client = boto3.client(
        item["service"], endpoint_url=url, region_name="eu-west-1", aws_access_key_id=access,
        aws_secret_access_key=secret, config=Config(retries={"max_attempts": 0}),
    )
    try:
        return given(getattr(client, item["call"])(**taken(item["with"])))
    except ClientError as error:
        return {"error": error.response["Error"]["Code"]}


print(json.dumps([done(sys.argv[1], item) for item in json.load(sys.stdin)]))
