"""Every operation and error of an SQS-compatible server, seen by boto3.

    boto3_queue.py ENDPOINT [--moto]

Exits 1 with a readable line at the first deviation. With --moto the same checks run against moto's server, so that
what is expected here is not merely what masq's own server does; where moto differs from Amazon SQS the difference is
in MOTO_DIFFERS, and a check listed there must fail.
"""

import argparse
import hashlib
import json
import struct
import sys
import time
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1024 * 1024

# Checks that moto 5.2.5 does not pass, and what it does instead.
MOTO_DIFFERS = {
    # Where masq's server does less than Amazon SQS and says so, or has a choice.
    "what_is_not_there_is_refused_not_ignored": "has encryption keys, tags and groups",
    "the_account_is_all_zeros": "has the account 123456789012",
    # Where moto is more lenient than Amazon SQS.
    "a_name_alone_makes_no_fifo_queue": "it does",
    "a_standard_queue_knows_no_fifo_attributes": "they are taken in SetQueueAttributes",
    "ids_of_groups_are_checked": "any text is taken",
    "a_dead_letter_queue_is_of_the_same_kind": "it may be of any kind",
    "a_list_refuses_nonsense": "MaxResults has no range",
    "ranges_of_attributes_are_checked": "negative values of attributes are taken",
    "unknown_attributes_are_refused": "unknown names are taken in SetQueueAttributes",
    "unknown_system_attributes_are_refused": "unknown names are taken in ReceiveMessage",
    "bad_message_attributes_are_refused": "names with spaces are taken",
    "names_of_message_attributes_have_rules": "dots and reserved prefixes are taken",
    "a_number_must_be_one": "a Number is any text",
    "at_most_ten_message_attributes": "there may be any number",
    "attributes_count_towards_the_size": "the body alone is counted",
    "an_empty_body_is_refused": "taken",
    "characters_that_xml_does_not_know_are_refused": "taken",
    "bad_characters_fail_one_entry": "taken",
    "a_visibility_timeout_has_a_range_too": "negative ones are taken",
    "a_change_of_visibility_is_checked": "negative ones are taken",
    "delays_are_checked": "there is no range",
    "a_redrive_count_has_a_range": "there is no range",
    "an_empty_batch_of_changes_is_refused": "taken",
    "bad_batches_of_handles_are_refused": "ids may repeat in ChangeMessageVisibilityBatch",
    "ids_in_a_batch_of_handles_are_plain": "any id is taken",
    # Where it answers otherwise.
    "a_queue_says_when_it_was_made_in_whole_seconds": "with a fraction",
    "a_handle_is_as_long_as_the_real_ones": "they have 185 characters",
    "a_deleted_message_cannot_be_hidden": "ReceiptHandleIsInvalid",
    "an_old_handle_succeeds_and_deletes_nothing": "it deletes, which Amazon SQS may also do",
    "a_batch_says_its_sequence_numbers": "they do not grow",
    "a_repeated_send_answers_the_first_message": "with a new MessageId and SequenceNumber",
    "a_message_says_where_it_came_from": "it does not",
    "a_redrive_policy_is_checked": "HTTP 500 for what is no JSON",
    "a_redrive_policy_names_a_queue_that_exists": "NonExistentQueue",
    "an_entry_may_fail_alone_in_a_send": "a message that is too long fails the whole batch",
}

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Deviation(Exception):
    pass


def same(what, actual, wanted):
    if actual != wanted:
        raise Deviation(f"{what}: {actual!r} instead of {wanted!r}")


def refused(code, call, **arguments):
    """The call must fail with HTTP 400 and this error code."""
    try:
        call(**arguments)
    except ClientError as error:
        same("error code", error.response["Error"]["Code"], code)
        same("HTTP status", error.response["ResponseMetadata"]["HTTPStatusCode"], 400)
        return error
    raise Deviation(f"{call.__name__} succeeded where {code} was due")


class Queue:
    """A fresh queue and short names for what is done to it."""

    suffix = ""

    def __init__(self, sqs, **attributes):
        self.sqs = sqs
        self.name = f"q-{uuid.uuid4().hex}{self.suffix}"
        self.url = sqs.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]

    def send(self, body, **more):
        return self.sqs.send_message(QueueUrl=self.url, MessageBody=body, **more)

    def receive(self, most=10, wait=0, **more):
        answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=most, WaitTimeSeconds=wait, **more)
        same("an empty list of messages", answer.get("Messages", [None]) == [], False)
        return answer.get("Messages", [])

    def one(self, wait=5, **more):
        messages = self.receive(most=1, wait=wait, **more)
        same("messages received", len(messages), 1)
        return messages[0]

    def attributes(self, *names):
        return self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names)).get("Attributes", {})

    def depth(self):
        prefix = "ApproximateNumberOfMessages"
        found = self.attributes(prefix, prefix + "NotVisible", prefix + "Delayed")
        return tuple(int(found[prefix + suffix]) for suffix in ("", "NotVisible", "Delayed"))


class Fifo(Queue):
    """The same for a FIFO queue."""

    suffix = ".fifo"

    def __init__(self, sqs, **attributes):
        super().__init__(sqs, FifoQueue="true", **attributes)

    def say(self, body, group="g", **more):
        return self.send(body, **{"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex} | more)

    def bodies(self, most=10, **more):
        return [message["Body"] for message in self.receive(most=most, **more)]

    def delete(self, message):
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def md5_of_attributes(attributes):
    """AWS, "Calculating the MD5 message digest for message attributes"."""
    digest = hashlib.md5()
    for name in sorted(attributes):
        kind = attributes[name]["DataType"]
        binary = kind.startswith("Binary")
        value = attributes[name]["BinaryValue"] if binary else attributes[name]["StringValue"].encode()
        for part in (name.encode(), kind.encode()):
            digest.update(struct.pack(">I", len(part)) + part)
        digest.update((b"\x02" if binary else b"\x01") + struct.pack(">I", len(value)) + value)
    return digest.hexdigest()


def entries(count, **more):
    return [{"Id": f"id-{number}", "MessageBody": f"body {number}"} | more for number in range(count)]


def grouped_entries(count):
    return [entry | {"MessageGroupId": "g", "MessageDeduplicationId": entry["Id"]} for entry in entries(count)]


# Queues


@check
def create_is_idempotent(sqs):
    queue = Queue(sqs, VisibilityTimeout="45")
    same("no attributes", sqs.create_queue(QueueName=queue.name)["QueueUrl"], queue.url)
    again = sqs.create_queue(QueueName=queue.name, Attributes={"VisibilityTimeout": "45"})
    same("the same attributes", again["QueueUrl"], queue.url)
    error = refused("QueueAlreadyExists", sqs.create_queue, QueueName=queue.name, Attributes={"VisibilityTimeout": "46"})
    same("boto3's class", type(error), sqs.exceptions.QueueNameExists)


@check
def names_are_checked(sqs):
    for name in ("with space", "n" * 81, "dot.ted"):
        refused("InvalidParameterValue", sqs.create_queue, QueueName=name)


@check
def a_fifo_queue_is_one_by_name_and_by_attribute(sqs):
    fifo = Fifo(sqs)
    found = fifo.attributes("FifoQueue", "ContentBasedDeduplication")
    same("attributes", found, {"FifoQueue": "true", "ContentBasedDeduplication": "false"})
    same("ARN", fifo.attributes("QueueArn")["QueueArn"].rsplit(":", 1)[1], fifo.name)
    refused("InvalidParameterValue", sqs.create_queue, QueueName=uuid.uuid4().hex, Attributes={"FifoQueue": "true"})


@check
def a_name_alone_makes_no_fifo_queue(sqs):
    refused("InvalidParameterValue", sqs.create_queue, QueueName=f"{uuid.uuid4().hex}.fifo")


@check
def a_standard_queue_knows_no_fifo_attributes(sqs):
    url = Queue(sqs).url
    for name in ("FifoQueue", "ContentBasedDeduplication"):
        refused("InvalidAttributeName", sqs.set_queue_attributes, QueueUrl=url, Attributes={name: "true"})


@check
def a_queue_is_found_by_name(sqs):
    queue = Queue(sqs)
    same("URL", sqs.get_queue_url(QueueName=queue.name)["QueueUrl"], queue.url)
    error = refused("AWS.SimpleQueueService.NonExistentQueue", sqs.get_queue_url, QueueName="nobody")
    same("boto3's class", type(error), sqs.exceptions.QueueDoesNotExist)


@check
def a_url_says_where_the_server_is(sqs):
    queue = Queue(sqs)
    host = sqs.meta.endpoint_url.rstrip("/")
    same("QueueUrl without account", queue.url.rsplit("/", 2)[0::2], [host, queue.name])


@check
def the_account_is_all_zeros(sqs):
    same("account", Queue(sqs).url.rsplit("/", 2)[1], "000000000000")


@check
def queues_are_listed_by_prefix(sqs):
    prefix = f"list-{uuid.uuid4().hex}-"
    urls = [sqs.create_queue(QueueName=f"{prefix}{number}")["QueueUrl"] for number in range(5)]
    same("all", sorted(sqs.list_queues(QueueNamePrefix=prefix)["QueueUrls"]), urls)
    same("none", sqs.list_queues(QueueNamePrefix=f"{prefix}x").get("QueueUrls"), None)


@check
def a_list_comes_in_pages(sqs):
    prefix = f"pages-{uuid.uuid4().hex}-"
    urls = [sqs.create_queue(QueueName=f"{prefix}{number}")["QueueUrl"] for number in range(5)]
    pages = list(sqs.get_paginator("list_queues").paginate(QueueNamePrefix=prefix, PaginationConfig={"PageSize": 2}))
    same("pages", [len(page["QueueUrls"]) for page in pages], [2, 2, 1])
    same("all of them", sum((page["QueueUrls"] for page in pages), []), urls)


@check
def a_list_refuses_nonsense(sqs):
    refused("InvalidParameterValue", sqs.list_queues, MaxResults=0)
    refused("InvalidParameterValue", sqs.list_queues, MaxResults=1001)
    refused("InvalidParameterValue", sqs.list_queues, MaxResults=1, NextToken="?")


@check
def attributes_have_the_services_defaults(sqs):
    queue = Queue(sqs)
    found = queue.attributes("All")
    wanted = {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0",
        "DelaySeconds": "0",
        "MessageRetentionPeriod": "345600",
        "ReceiveMessageWaitTimeSeconds": "0",
        "VisibilityTimeout": "30",
    }
    same("defaults", {name: found.get(name) for name in wanted}, wanted)
    same("QueueArn", found["QueueArn"].split(":")[:4] + [found["QueueArn"].split(":")[5]],
         ["arn", "aws", "sqs", "us-east-1", queue.name])


@check
def a_queue_says_when_it_was_made_in_whole_seconds(sqs):
    names = ("CreatedTimestamp", "LastModifiedTimestamp")
    for name, found in Queue(sqs).attributes(*names).items():
        same(f"{name} is about now", abs(int(found) - time.time()) <= 5, True)


@check
def a_message_may_have_one_mebibyte_by_default(sqs):
    same("MaximumMessageSize", Queue(sqs).attributes("MaximumMessageSize"), {"MaximumMessageSize": str(MIB)})


@check
def only_wanted_attributes_come(sqs):
    queue = Queue(sqs, DelaySeconds="3")
    same("one", queue.attributes("DelaySeconds"), {"DelaySeconds": "3"})
    same("none asked", queue.attributes(), {})
    same("one never set", queue.attributes("RedrivePolicy", "DelaySeconds"), {"DelaySeconds": "3"})
    refused("InvalidAttributeName", sqs.get_queue_attributes, QueueUrl=queue.url,
            AttributeNames=["Nonsense"])


@check
def attributes_can_be_set(sqs):
    queue = Queue(sqs)
    wanted = {
        "DelaySeconds": "900", "MaximumMessageSize": "1024", "MessageRetentionPeriod": "60",
        "ReceiveMessageWaitTimeSeconds": "20", "VisibilityTimeout": "43200",
    }
    sqs.set_queue_attributes(QueueUrl=queue.url, Attributes=wanted)
    same("as set", queue.attributes(*wanted), wanted)


@check
def ranges_of_attributes_are_checked(sqs):
    queue = Queue(sqs)
    for name, values in {
        "DelaySeconds": ("-1", "901", "x", ""),
        "MaximumMessageSize": ("1023", "1048577"),
        "MessageRetentionPeriod": ("59", "1209601"),
        "ReceiveMessageWaitTimeSeconds": ("21", "1.5"),
        "VisibilityTimeout": ("-1", "43201"),
    }.items():
        for value in values:
            refused("InvalidAttributeValue", sqs.set_queue_attributes, QueueUrl=queue.url, Attributes={name: value})
    same("nothing changed", queue.attributes("DelaySeconds", "VisibilityTimeout"),
         {"DelaySeconds": "0", "VisibilityTimeout": "30"})


@check
def unknown_attributes_are_refused(sqs):
    url = Queue(sqs).url
    refused("InvalidAttributeName", sqs.set_queue_attributes, QueueUrl=url, Attributes={"Nonsense": "1"})


@check
def what_is_not_there_is_refused_not_ignored(sqs):
    url = Queue(sqs).url
    unsupported = "AWS.SimpleQueueService.UnsupportedOperation"
    refused(unsupported, sqs.set_queue_attributes, QueueUrl=url, Attributes={"KmsMasterKeyId": "alias/aws/sqs"})
    refused(unsupported, sqs.create_queue, QueueName="tagged", tags={"a": "b"})
    refused(unsupported, sqs.list_queue_tags, QueueUrl=url)
    refused(unsupported, sqs.send_message, QueueUrl=url, MessageBody="a", MessageGroupId="g")


@check
def a_deleted_queue_is_gone(sqs):
    queue = Queue(sqs)
    sqs.delete_queue(QueueUrl=queue.url)
    missing = "AWS.SimpleQueueService.NonExistentQueue"
    refused(missing, queue.send, body="a")
    refused(missing, queue.receive)
    refused(missing, sqs.get_queue_attributes, QueueUrl=queue.url, AttributeNames=["All"])
    refused(missing, sqs.set_queue_attributes, QueueUrl=queue.url, Attributes={"DelaySeconds": "0"})
    refused(missing, sqs.purge_queue, QueueUrl=queue.url)
    refused(missing, sqs.delete_message, QueueUrl=queue.url, ReceiptHandle="a")
    refused(missing, sqs.send_message_batch, QueueUrl=queue.url, Entries=entries(1))
    refused(missing, sqs.change_message_visibility, QueueUrl=queue.url, ReceiptHandle="a", VisibilityTimeout=1)


@check
def deleting_a_queue_twice_is_refused(sqs):
    queue = Queue(sqs)
    sqs.delete_queue(QueueUrl=queue.url)
    refused("AWS.SimpleQueueService.NonExistentQueue", sqs.delete_queue, QueueUrl=queue.url)


@check
def a_purge_takes_everything(sqs):
    queue = Queue(sqs)
    for body in "abc":
        queue.send(body)
    queue.one()
    queue.send("delayed", DelaySeconds=900)
    sqs.purge_queue(QueueUrl=queue.url)
    same("depth", queue.depth(), (0, 0, 0))


# Messages


@check
def a_message_makes_the_round(sqs):
    queue = Queue(sqs)
    body = 'text "quoted" \\ / \t\r\n é 漢 \U0001f600 \ue000 \ufffd \x7f <&>'
    before = int(time.time() * 1000) - 1000
    sent = queue.send(body)
    same("MD5OfMessageBody", sent["MD5OfMessageBody"], md5(body))
    same("request id", len(sent["ResponseMetadata"]["RequestId"]) >= 32, True)
    message = queue.one(MessageSystemAttributeNames=["All"])
    same("Body", message["Body"], body)
    same("MD5OfBody", message["MD5OfBody"], md5(body))
    same("MessageId", message["MessageId"], sent["MessageId"])
    same("MessageId is a UUID of version 4", uuid.UUID(message["MessageId"]).version, 4)
    attributes = message["Attributes"]
    same("ApproximateReceiveCount", attributes["ApproximateReceiveCount"], "1")
    same("has SenderId", bool(attributes["SenderId"]), True)
    sent_at, first = int(attributes["SentTimestamp"]), int(attributes["ApproximateFirstReceiveTimestamp"])
    same("times in order", before <= sent_at <= first <= before + 60_000, True)
    sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    same("depth", queue.depth(), (0, 0, 0))


@check
def a_handle_is_as_long_as_the_real_ones(sqs):
    queue = Queue(sqs)
    queue.send("a")
    same("length", 300 <= len(queue.one()["ReceiptHandle"]) <= 400, True)


@check
def system_attributes_come_only_when_asked_for(sqs):
    queue = Queue(sqs)
    queue.send("a")
    same("none", queue.one(VisibilityTimeout=0).get("Attributes"), None)
    old = queue.one(VisibilityTimeout=0, AttributeNames=["SentTimestamp"])
    same("by the old name", list(old["Attributes"]), ["SentTimestamp"])
    new = queue.one(VisibilityTimeout=0, MessageSystemAttributeNames=["ApproximateReceiveCount"])
    same("by the new name", new["Attributes"], {"ApproximateReceiveCount": "3"})


@check
def unknown_system_attributes_are_refused(sqs):
    refused("InvalidAttributeName", Queue(sqs).receive, AttributeNames=["Nonsense"])


ATTRIBUTES = {
    "trace": {"DataType": "String", "StringValue": "é1"},
    "size": {"DataType": "Number.int", "StringValue": "-12.5"},
    "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}


@check
def message_attributes_make_the_round(sqs):
    queue = Queue(sqs)
    sent = queue.send("a", MessageAttributes=ATTRIBUTES)
    same("MD5OfMessageAttributes", sent["MD5OfMessageAttributes"], md5_of_attributes(ATTRIBUTES))
    message = queue.one(MessageAttributeNames=["All"])
    same("MessageAttributes", message["MessageAttributes"], ATTRIBUTES)
    same("MD5OfMessageAttributes", message["MD5OfMessageAttributes"], md5_of_attributes(ATTRIBUTES))


@check
def message_attributes_come_only_when_asked_for(sqs):
    queue = Queue(sqs)
    queue.send("a", MessageAttributes=ATTRIBUTES)
    bare = queue.one(VisibilityTimeout=0)
    same("none", (bare.get("MessageAttributes"), bare.get("MD5OfMessageAttributes")), (None, None))
    for names in (["size"], ["si.*"]):
        chosen = {"size": ATTRIBUTES["size"]}
        message = queue.one(VisibilityTimeout=0, MessageAttributeNames=names)
        same(f"{names}", message["MessageAttributes"], chosen)
        same(f"digest of {names}", message["MD5OfMessageAttributes"], md5_of_attributes(chosen))


@check
def bad_message_attributes_are_refused(sqs):
    queue = Queue(sqs)
    for name, attribute in (
        ("empty", {"DataType": "String", "StringValue": ""}),
        ("type", {"DataType": "Boolean", "StringValue": "true"}),
        ("with space", {"DataType": "String", "StringValue": "a"}),
    ):
        refused("InvalidParameterValue", queue.send, body="a", MessageAttributes={name: attribute})


@check
def names_of_message_attributes_have_rules(sqs):
    queue = Queue(sqs)
    for name in ("a..b", ".a", "a.", "AWS.a", "Amazon.a", "n" * 257):
        attribute = {name: {"DataType": "String", "StringValue": "a"}}
        refused("InvalidParameterValue", queue.send, body="a", MessageAttributes=attribute)


@check
def a_number_must_be_one(sqs):
    number = {"n": {"DataType": "Number", "StringValue": "x"}}
    refused("InvalidParameterValue", Queue(sqs).send, body="a", MessageAttributes=number)


@check
def at_most_ten_message_attributes(sqs):
    many = {f"a{number}": {"DataType": "String", "StringValue": "x"} for number in range(11)}
    refused("InvalidParameterValue", Queue(sqs).send, body="a", MessageAttributes=many)


@check
def a_message_has_at_most_one_mebibyte(sqs):
    queue = Queue(sqs)
    queue.send("a" * MIB)
    queue.send("é" * (MIB // 2))
    refused("InvalidParameterValue", queue.send, body="a" * (MIB + 1))
    same("depth", queue.depth(), (2, 0, 0))


@check
def attributes_count_towards_the_size(sqs):
    attribute = {"n": {"DataType": "String", "StringValue": "x" * 10}}
    Queue(sqs).send("a" * (MIB - 17), MessageAttributes=attribute)
    refused("InvalidParameterValue", Queue(sqs).send, body="a" * (MIB - 16), MessageAttributes=attribute)


@check
def a_queue_may_have_a_lower_limit(sqs):
    queue = Queue(sqs, MaximumMessageSize="1024")
    queue.send("a" * 1024)
    refused("InvalidParameterValue", queue.send, body="a" * 1025)


@check
def an_empty_body_is_refused(sqs):
    refused("MissingParameter", Queue(sqs).send, body="")


@check
def characters_that_xml_does_not_know_are_refused(sqs):
    queue = Queue(sqs)
    for character in "\x00\x08\x0b\x0c\x0e\x1f\ufffe\uffff":
        refused("InvalidMessageContents", queue.send, body=f"a{character}b")


@check
def ranges_of_a_receive_are_checked(sqs):
    queue = Queue(sqs)
    for most in (0, 11):
        refused("InvalidParameterValue", queue.receive, most=most)
    for wait in (-1, 21):
        refused("InvalidParameterValue", queue.receive, wait=wait)


@check
def a_visibility_timeout_has_a_range_too(sqs):
    queue = Queue(sqs)
    for seconds in (-1, 43201):
        refused("InvalidParameterValue", queue.receive, VisibilityTimeout=seconds)


@check
def delays_are_checked(sqs):
    for seconds in (-1, 901):
        refused("InvalidParameterValue", Queue(sqs).send, body="a", DelaySeconds=seconds)


@check
def a_receive_without_a_number_brings_one(sqs):
    queue = Queue(sqs)
    queue.send("a")
    queue.send("b")
    same("messages", len(sqs.receive_message(QueueUrl=queue.url)["Messages"]), 1)


@check
def a_message_is_hidden_and_comes_again(sqs):
    queue = Queue(sqs, VisibilityTimeout="1")
    queue.send("a")
    first = queue.one(AttributeNames=["All"])
    same("while hidden", (queue.receive(), queue.depth()), ([], (0, 1, 0)))
    second = queue.one(AttributeNames=["All"])
    same("MessageId", second["MessageId"], first["MessageId"])
    same("another handle", second["ReceiptHandle"] != first["ReceiptHandle"], True)
    same("count", second["Attributes"]["ApproximateReceiveCount"], "2")
    for name in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
        same(name, second["Attributes"][name], first["Attributes"][name])


@check
def a_long_poll_waits_and_no_longer(sqs):
    started = time.monotonic()
    same("messages", Queue(sqs).receive(wait=1), [])
    same("about a second", 0.9 <= time.monotonic() - started < 3, True)


@check
def a_long_poll_wakes_when_a_delay_ends(sqs):
    queue = Queue(sqs)
    queue.send("a", DelaySeconds=1)
    same("delayed", queue.depth(), (0, 0, 1))
    started = time.monotonic()
    queue.one(wait=20)
    same("about a second", time.monotonic() - started < 4, True)


@check
def visibility_can_be_changed(sqs):
    queue = Queue(sqs)
    queue.send("a")
    handle = queue.one()["ReceiptHandle"]
    sqs.change_message_visibility(QueueUrl=queue.url, ReceiptHandle=handle, VisibilityTimeout=3600)
    same("still hidden", queue.depth(), (0, 1, 0))
    sqs.change_message_visibility(QueueUrl=queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
    same("given back", queue.depth(), (1, 0, 0))


@check
def a_change_of_visibility_is_checked(sqs):
    queue = Queue(sqs)
    queue.send("a")
    handle = queue.one()["ReceiptHandle"]
    change = sqs.change_message_visibility
    for seconds in (-1, 43201):
        refused("InvalidParameterValue", change, QueueUrl=queue.url, ReceiptHandle=handle, VisibilityTimeout=seconds)


@check
def a_change_of_visibility_needs_a_handle_of_the_queue(sqs):
    queue = Queue(sqs)
    refused("ReceiptHandleIsInvalid", sqs.change_message_visibility, QueueUrl=queue.url, ReceiptHandle="garbage", VisibilityTimeout=1)


@check
def a_deleted_message_cannot_be_hidden(sqs):
    queue = Queue(sqs)
    queue.send("a")
    handle = queue.one()["ReceiptHandle"]
    sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=handle)
    refused("InvalidParameterValue", sqs.change_message_visibility, QueueUrl=queue.url, ReceiptHandle=handle,
            VisibilityTimeout=1)


@check
def deleting_is_harmless_twice_and_late(sqs):
    queue = Queue(sqs, VisibilityTimeout="1")
    queue.send("a")
    handle = queue.one()["ReceiptHandle"]
    deadline = time.monotonic() + 5
    while queue.depth() != (1, 0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(2):
        sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=handle)
    same("depth", queue.depth(), (0, 0, 0))


@check
def an_old_handle_succeeds_and_deletes_nothing(sqs):
    queue = Queue(sqs)
    queue.send("a")
    old = queue.one(VisibilityTimeout=0)["ReceiptHandle"]
    queue.one()
    sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=old)
    same("depth", queue.depth(), (0, 1, 0))


@check
def a_handle_must_be_one(sqs):
    error = refused("ReceiptHandleIsInvalid", sqs.delete_message, QueueUrl=Queue(sqs).url, ReceiptHandle="garbage")
    same("boto3's class", type(error), sqs.exceptions.ReceiptHandleIsInvalid)


@check
def a_message_received_too_often_moves(sqs):
    dead = Queue(sqs)
    policy = {"deadLetterTargetArn": dead.attributes("QueueArn")["QueueArn"], "maxReceiveCount": 2}
    queue = Queue(sqs, RedrivePolicy=json.dumps(policy))
    same("RedrivePolicy", json.loads(queue.attributes("RedrivePolicy")["RedrivePolicy"]), policy)
    sent = queue.send("poison", MessageAttributes=ATTRIBUTES)
    source = [queue.one(VisibilityTimeout=0, AttributeNames=["All"]) for _ in range(2)]
    same("third receive", queue.receive(), [])
    moved = dead.one(AttributeNames=["All"], MessageAttributeNames=["All"])
    same("MessageId", moved["MessageId"], sent["MessageId"])
    same("MessageAttributes", moved["MessageAttributes"], ATTRIBUTES)
    same("count goes on", moved["Attributes"]["ApproximateReceiveCount"], "3")
    same("SentTimestamp", moved["Attributes"]["SentTimestamp"], source[0]["Attributes"]["SentTimestamp"])
    same("depth", queue.depth(), (0, 0, 0))


@check
def a_redrive_policy_can_be_taken_away(sqs):
    arn = Queue(sqs).attributes("QueueArn")["QueueArn"]
    queue = Queue(sqs, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "5"}))
    sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"RedrivePolicy": ""})
    same("RedrivePolicy", queue.attributes("RedrivePolicy"), {})


@check
def a_redrive_policy_is_checked(sqs):
    queue = Queue(sqs)
    arn = queue.attributes("QueueArn")["QueueArn"]
    for policy in (
        "x",
        json.dumps({"maxReceiveCount": 1}),
        json.dumps({"deadLetterTargetArn": arn}),
    ):
        refused("InvalidParameterValue", sqs.set_queue_attributes, QueueUrl=queue.url,
                Attributes={"RedrivePolicy": policy})


@check
def a_redrive_policy_names_a_queue_that_exists(sqs):
    queue = Queue(sqs)
    policy = {"deadLetterTargetArn": queue.attributes("QueueArn")["QueueArn"] + "-nobody", "maxReceiveCount": 1}
    refused("InvalidParameterValue", sqs.set_queue_attributes, QueueUrl=queue.url,
            Attributes={"RedrivePolicy": json.dumps(policy)})


@check
def a_redrive_count_has_a_range(sqs):
    arn = Queue(sqs).attributes("QueueArn")["QueueArn"]
    queue = Queue(sqs)
    for count in (0, 1001, "x"):
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": count})
        refused("InvalidParameterValue", sqs.set_queue_attributes, QueueUrl=queue.url,
                Attributes={"RedrivePolicy": policy})


# FIFO queues


@check
def a_message_of_a_group_makes_the_round(sqs):
    fifo = Fifo(sqs)
    first = fifo.say("a", "group-1", MessageDeduplicationId="once")
    fifo.say("b", "group-2")
    same("twenty digits", len(first["SequenceNumber"]), 20)
    message = fifo.one(AttributeNames=["All"])
    attributes = message["Attributes"]
    found = [attributes[name] for name in ("MessageGroupId", "MessageDeduplicationId", "SequenceNumber")]
    same("attributes", found, ["group-1", "once", first["SequenceNumber"]])
    other = fifo.one(AttributeNames=["MessageGroupId"])
    same("only what was asked for", other["Attributes"], {"MessageGroupId": "group-2"})


@check
def a_batch_is_sent_in_its_order(sqs):
    fifo = Fifo(sqs)
    sqs.send_message_batch(QueueUrl=fifo.url, Entries=grouped_entries(10))
    same("bodies in order", fifo.bodies(), [f"body {number}" for number in range(10)])


@check
def a_batch_says_its_sequence_numbers(sqs):
    sent = sqs.send_message_batch(QueueUrl=Fifo(sqs).url, Entries=grouped_entries(10))
    numbers = [entry["SequenceNumber"] for entry in sent["Successful"]]
    same("in order", numbers, sorted(numbers))


@check
def a_group_in_flight_is_waited_for(sqs):
    fifo = Fifo(sqs)
    for body, group in (("1", "a"), ("2", "a"), ("3", "b")):
        fifo.say(body, group)
    first = fifo.one()
    same("first", first["Body"], "1")
    same("the other group", fifo.bodies(), ["3"])
    fifo.delete(first)
    same("the next of the group", fifo.bodies(wait=5), ["2"])


@check
def what_is_given_back_comes_first(sqs):
    fifo = Fifo(sqs)
    for body in "123":
        fifo.say(body)
    for message in fifo.receive(most=2):
        sqs.change_message_visibility(QueueUrl=fifo.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    same("in order", fifo.bodies(wait=5), ["1", "2", "3"])


@check
def the_same_deduplication_id_is_sent_once(sqs):
    fifo = Fifo(sqs)
    for body in "ab":
        fifo.say(body, MessageDeduplicationId="x")
    same("one message", fifo.bodies(), ["a"])


@check
def a_repeated_send_answers_the_first_message(sqs):
    fifo = Fifo(sqs)
    sent = [fifo.say(body, MessageDeduplicationId="x") for body in "ab"]
    for name in ("MessageId", "SequenceNumber"):
        same(name, sent[1][name], sent[0][name])


@check
def a_queue_may_go_by_content(sqs):
    fifo = Fifo(sqs, ContentBasedDeduplication="true")
    for body in "aab":
        fifo.send(body, MessageGroupId="g")
    messages = fifo.receive(AttributeNames=["MessageDeduplicationId"])
    same("equal bodies are one message", [message["Body"] for message in messages], ["a", "b"])
    found = [message["Attributes"]["MessageDeduplicationId"] for message in messages]
    same("SHA-256", found, [hashlib.sha256(body).hexdigest() for body in (b"a", b"b")])


@check
def content_can_be_switched_on_later(sqs):
    fifo = Fifo(sqs)
    sqs.set_queue_attributes(QueueUrl=fifo.url, Attributes={"ContentBasedDeduplication": "true"})
    same("as set", fifo.attributes("ContentBasedDeduplication"), {"ContentBasedDeduplication": "true"})
    fifo.send("a", MessageGroupId="g")


@check
def a_group_and_a_deduplication_id_are_needed(sqs):
    fifo = Fifo(sqs)
    refused("MissingParameter", fifo.send, body="a", MessageDeduplicationId="x")
    refused("InvalidParameterValue", fifo.send, body="a", MessageGroupId="g")


@check
def ids_of_groups_are_checked(sqs):
    for wrong in ("with space", "n" * 129, "é"):
        refused("InvalidParameterValue", Fifo(sqs).say, body="a", group=wrong)
        refused("InvalidParameterValue", Fifo(sqs).say, body="a", MessageDeduplicationId=wrong)


@check
def a_fifo_queue_delays_as_a_whole(sqs):
    refused("InvalidParameterValue", Fifo(sqs).say, body="a", DelaySeconds=1)
    fifo = Fifo(sqs, DelaySeconds="1")
    fifo.say("a")
    same("delayed", fifo.depth(), (0, 0, 1))


@check
def a_message_of_a_group_received_too_often_moves(sqs):
    dead = Fifo(sqs)
    arn = dead.attributes("QueueArn")["QueueArn"]
    fifo = Fifo(sqs, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1}))
    sent = fifo.say("poison")
    fifo.one(VisibilityTimeout=0)
    same("second receive", fifo.receive(wait=1), [])
    moved = dead.one(AttributeNames=["All"])
    same("MessageId", moved["MessageId"], sent["MessageId"])
    same("MessageGroupId", moved["Attributes"]["MessageGroupId"], "g")


@check
def a_message_says_where_it_came_from(sqs):
    dead = Queue(sqs)
    arn = dead.attributes("QueueArn")["QueueArn"]
    queue = Queue(sqs, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1}))
    queue.send("poison")
    queue.one(VisibilityTimeout=0)
    same("second receive", queue.receive(wait=1), [])
    found = dead.one(AttributeNames=["DeadLetterQueueSourceArn"])["Attributes"]
    same("where it was", found, {"DeadLetterQueueSourceArn": queue.attributes("QueueArn")["QueueArn"]})


@check
def a_dead_letter_queue_is_of_the_same_kind(sqs):
    for one, other in ((Queue(sqs), Fifo(sqs)), (Fifo(sqs), Queue(sqs))):
        policy = {"deadLetterTargetArn": other.attributes("QueueArn")["QueueArn"], "maxReceiveCount": 1}
        refused("InvalidParameterValue", sqs.set_queue_attributes, QueueUrl=one.url,
                Attributes={"RedrivePolicy": json.dumps(policy)})


# Batches


@check
def a_batch_makes_the_round(sqs):
    queue = Queue(sqs)
    sent = sqs.send_message_batch(QueueUrl=queue.url, Entries=entries(10, MessageAttributes=ATTRIBUTES))
    same("Failed", sent.get("Failed", []), [])
    same("ids", [entry["Id"] for entry in sent["Successful"]], [f"id-{number}" for number in range(10)])
    same("MD5", [entry["MD5OfMessageBody"] for entry in sent["Successful"]], [md5(f"body {n}") for n in range(10)])
    same("MD5s of attributes", {entry["MD5OfMessageAttributes"] for entry in sent["Successful"]},
         {md5_of_attributes(ATTRIBUTES)})
    messages = queue.receive()
    same("MessageIds", {it["MessageId"] for it in messages}, {it["MessageId"] for it in sent["Successful"]})
    handles = [{"Id": str(number), "ReceiptHandle": it["ReceiptHandle"]} for number, it in enumerate(messages)]
    changed = sqs.change_message_visibility_batch(
        QueueUrl=queue.url, Entries=[handle | {"VisibilityTimeout": 60} for handle in handles])
    same("changed", [it["Id"] for it in changed["Successful"]], [str(number) for number in range(10)])
    deleted = sqs.delete_message_batch(QueueUrl=queue.url, Entries=handles)
    same("deleted", [it["Id"] for it in deleted["Successful"]], [str(number) for number in range(10)])
    same("depth", queue.depth(), (0, 0, 0))


@check
def an_entry_may_fail_alone_in_a_delete(sqs):
    queue = Queue(sqs)
    queue.send("a")
    good = {"Id": "good", "ReceiptHandle": queue.one()["ReceiptHandle"]}
    bad = {"Id": "bad", "ReceiptHandle": "garbage"}
    answer = sqs.delete_message_batch(QueueUrl=queue.url, Entries=[bad, good])
    same("Successful", answer["Successful"], [{"Id": "good"}])
    failed = [{name: it[name] for name in ("Id", "Code", "SenderFault")} for it in answer["Failed"]]
    same("Failed", failed, [{"Id": "bad", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}])


@check
def an_entry_may_fail_alone_in_a_change_of_visibility(sqs):
    queue = Queue(sqs)
    queue.send("a")
    good = {"Id": "good", "ReceiptHandle": queue.one()["ReceiptHandle"], "VisibilityTimeout": 0}
    bad = {"Id": "bad", "ReceiptHandle": "garbage", "VisibilityTimeout": 0}
    far = good | {"Id": "far", "VisibilityTimeout": 43201}
    answer = sqs.change_message_visibility_batch(QueueUrl=queue.url, Entries=[bad, far, good])
    same("Successful", answer["Successful"], [{"Id": "good"}])
    same("Failed", {it["Id"]: it["Code"] for it in answer["Failed"]},
         {"bad": "ReceiptHandleIsInvalid", "far": "InvalidParameterValue"})


@check
def an_entry_may_fail_alone_in_a_send(sqs):
    queue = Queue(sqs, MaximumMessageSize="1024")
    answer = sqs.send_message_batch(QueueUrl=queue.url, Entries=[
        {"Id": "good", "MessageBody": "a"}, {"Id": "long", "MessageBody": "a" * 1025}])
    same("Successful", [it["Id"] for it in answer["Successful"]], ["good"])
    same("Failed", {it["Id"]: it["Code"] for it in answer["Failed"]}, {"long": "InvalidParameterValue"})


@check
def bad_characters_fail_one_entry(sqs):
    answer = sqs.send_message_batch(QueueUrl=Queue(sqs).url, Entries=[
        {"Id": "good", "MessageBody": "a"}, {"Id": "bad", "MessageBody": "\x01"}])
    same("Successful", [it["Id"] for it in answer["Successful"]], ["good"])
    same("Failed", {it["Id"]: it["Code"] for it in answer["Failed"]}, {"bad": "InvalidMessageContents"})


def sends(sqs, *ids):
    yield sqs.send_message_batch, {"QueueUrl": Queue(sqs).url, "Entries": [{"Id": it, "MessageBody": "a"} for it in ids]}


def deletes_and_changes(sqs, *ids):
    for call, rest in ((sqs.delete_message_batch, {}), (sqs.change_message_visibility_batch, {"VisibilityTimeout": 0})):
        handles = [{"Id": it, "ReceiptHandle": f"handle {number}"} | rest for number, it in enumerate(ids)]
        yield call, {"QueueUrl": Queue(sqs).url, "Entries": handles}


def bad_batches(sqs, batches, *kinds):
    """Each of `batches` must refuse these kinds of badness."""
    for code, ids in kinds:
        for call, arguments in batches(sqs, *ids):
            refused(f"AWS.SimpleQueueService.{code}", call, **arguments)


TOO_MANY = ("TooManyEntriesInBatchRequest", [str(number) for number in range(11)])
NOT_DISTINCT = ("BatchEntryIdsNotDistinct", ["a", "b", "a"])


@check
def an_empty_batch_is_refused(sqs):
    url = Queue(sqs).url
    refused("AWS.SimpleQueueService.EmptyBatchRequest", sqs.send_message_batch, QueueUrl=url, Entries=[])
    refused("AWS.SimpleQueueService.EmptyBatchRequest", sqs.delete_message_batch, QueueUrl=url, Entries=[])


@check
def an_empty_batch_of_changes_is_refused(sqs):
    refused("AWS.SimpleQueueService.EmptyBatchRequest", sqs.change_message_visibility_batch, QueueUrl=Queue(sqs).url,
            Entries=[])


@check
def bad_batches_of_messages_are_refused(sqs):
    bad_batches(sqs, sends, TOO_MANY, NOT_DISTINCT)


@check
def bad_batches_of_handles_are_refused(sqs):
    bad_batches(sqs, deletes_and_changes, TOO_MANY, NOT_DISTINCT)


@check
def ids_in_a_batch_of_messages_are_plain(sqs):
    bad_batches(sqs, sends, *(("InvalidBatchEntryId", [wrong]) for wrong in ("a:b", "", "n" * 81)))


@check
def ids_in_a_batch_of_handles_are_plain(sqs):
    bad_batches(sqs, deletes_and_changes, *(("InvalidBatchEntryId", [wrong]) for wrong in ("a:b", "", "n" * 81)))


@check
def a_batch_has_at_most_one_mebibyte(sqs):
    queue = Queue(sqs)
    half = {"Id": "a", "MessageBody": "a" * (MIB // 2)}
    sqs.send_message_batch(QueueUrl=queue.url, Entries=[half, half | {"Id": "b"}])
    more = {"Id": "b", "MessageBody": "a" * (MIB // 2 + 1)}
    refused("AWS.SimpleQueueService.BatchRequestTooLong", sqs.send_message_batch, QueueUrl=queue.url,
            Entries=[half, more])


def run(sqs, differs):
    for function in CHECKS:
        name = function.__name__
        try:
            function(sqs)
            outcome = None
        except (Deviation, ClientError, KeyError, ValueError, TypeError) as deviation:
            outcome = f"{type(deviation).__name__}: {deviation}"
        if name in differs and outcome is None:
            return f"{name}: passed, although moto is said to differ: {differs[name]}"
        if name not in differs and outcome is not None:
            return f"{name}: {outcome}"
    return None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("endpoint")
    arguments.add_argument("--moto", action="store_true")
    arguments = arguments.parse_args()
    unhurried = Config(parameter_validation=False, retries={"total_max_attempts": 1}, read_timeout=60)
    sqs = boto3.client("sqs", endpoint_url=arguments.endpoint, region_name="us-east-1", aws_access_key_id="any",
                       aws_secret_access_key="any", config=unhurried)
    differs = MOTO_DIFFERS if arguments.moto else {}
    deviation = run(sqs, differs)
    if deviation:
        sys.exit(f"deviation from Amazon SQS in {deviation}")
    print(f"{len(CHECKS)} checks, {len(differs)} known differences")


if __name__ == "__main__":
    main()
