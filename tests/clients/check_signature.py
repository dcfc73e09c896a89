"""Signs a captured request a second time with botocore and compares: check_signature.py < request

stdin: {"url", "headers": {…}, "body", "access_key", "secret_key", "token", "region"}. Exits non-zero on a difference.
"""

import json
import re
import sys

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

given = json.load(sys.stdin)
headers = given["headers"]
pattern = r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})"
credential, signed, signature = re.fullmatch(pattern, headers["authorization"]).groups()

wanted = {name: headers[name] for name in signed.split(";")}
for name in ("host", "x-amz-date", "x-amz-target", "content-type", "x-amz-security-token"):
    assert name in wanted, f"{name} is not signed"
assert headers["x-amz-security-token"] == given["token"]
day = headers["x-amz-date"][:8]
assert credential == f"{given['access_key']}/{day}/{given['region']}/sqs/aws4_request", credential

auth = SigV4Auth(Credentials(given["access_key"], given["secret_key"], given["token"]), "sqs", given["region"])
request = AWSRequest("POST", given["url"], headers=wanted, data=given["body"].encode())
request.context["timestamp"] = headers["x-amz-date"]
canonical = auth.canonical_request(request)
expected = auth.signature(auth.string_to_sign(request, canonical), request)
assert signature == expected, f"{signature} is not {expected} of\n{canonical}"
