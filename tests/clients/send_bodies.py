"""Makes a queue and puts messages on it with boto3: send_bodies.py ENDPOINT REGION QUEUE VISIBILITY < bodies

Each line of stdin is a JSON string: one body. Prints the queue's URL.
"""

import json
import sys

import boto3

endpoint, region, name, visibility = sys.argv[1:]
sqs = boto3.client(
    "sqs", endpoint_url=endpoint, region_name=region, aws_access_key_id="test", aws_secret_access_key="test"
)
url = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": visibility})["QueueUrl"]
bodies = [json.loads(line) for line in sys.stdin]
for start in range(0, len(bodies), 10):
    entries = [{"Id": str(at), "MessageBody": body} for at, body in enumerate(bodies[start : start + 10])]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert len(answer["Successful"]) == len(entries), answer
print(url)
