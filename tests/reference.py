#!/usr/bin/env python3
"""What masq must make of a message, said a second time by a program that shares no code with it.

Written from the rules in tests/data/README.md, for the built-in pipeline of login events. Python 3.9, nothing else.

    reference.py corpus DIR      judge every case of the labelled corpus; exit 1 where a label differs
    reference.py rows --kid 1 --root HEX --version-as text|integer < messages.jsonl
                                 {"body": "...", "sent_at": MS} to the row as the table holds it, or {"dead": REASON}
    reference.py verdicts < bodies
                                 an envelope and a body in base64, as in "sns e30=", to "row" and the plain values, or
                                 to the reason; --envelope of rows and these words are those of the configuration
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import ipaddress
import json
import pathlib
import re
import sys
import uuid

MAX_BYTES = 1_048_576
MAX_DEPTH = 128

# Of several reasons that fit, the first of this list wins.
REASONS = """empty_body not_json truncated_json trailing_data too_deep too_large not_object duplicate_key
    invalid_unicode nul_character number_out_of_range unknown_message_type missing_field empty_field wrong_type
    field_too_long bad_ip bad_version bad_date double_encoded envelope_unsupported envelope_invalid""".split()

POINTERS = ["software.amazon.payloadoffloading.PayloadS3Pointer", "com.amazon.sqs.javamessaging.MessageS3Pointer"]

# The message's fields in the order of the columns, with the most characters each may have.
FIELDS = dict(user_id=128, device_type=32, ip=256, device_id=256, locale=32, app_version=32, create_date=None)
MASKED = {"ip": "masked_ip", "device_id": "masked_device_id"}


class Reject(Exception):
    """Carries the reason code."""


class Number(str):
    """A JSON number as it was written."""


class Scanner:
    """JSON as strictly as RFC 8259 has it. What is no JSON ends the scan; other faults are collected in `faults`."""

    PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
    DIGITS = re.compile(r"[0-9]*")
    HEX = set("0123456789abcdefABCDEF")
    ESCAPES = list(zip('"\\/bfnrt', '"\\/\b\f\n\r\t'))
    WORDS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}

    def __init__(self, text):
        self.text, self.at, self.faults = text, 0, set()

    def document(self):
        value = self.value(0)
        self.white_space()
        if self.at < len(self.text):
            raise Reject("trailing_data")
        return value

    def fail(self):
        """What stands here cannot stand here; or the text ends although more must come."""
        raise Reject("not_json" if self.at < len(self.text) else "truncated_json")

    def peek(self):
        return self.text[self.at : self.at + 1]

    def take(self, character):
        taken = self.peek() == character
        self.at += taken
        return taken

    def expect(self, character):
        if not self.take(character):
            self.fail()

    def white_space(self):
        while self.peek() in (" ", "\t", "\n", "\r"):
            self.at += 1

    def value(self, depth):
        self.white_space()
        first = self.peek()
        if first in ("{", "["):
            if depth == MAX_DEPTH:
                raise Reject("too_deep")
            self.at += 1
            return self.members(depth + 1) if first == "{" else self.items(depth + 1)
        if first == '"':
            return self.string()
        if first not in self.WORDS:
            return self.number()
        word, value = self.WORDS[first]
        for character in word:
            self.expect(character)
        return value

    def members(self, depth):
        members = {}
        while self.more("}", not members):
            key = self.string()
            if key in members:
                self.faults.add("duplicate_key")
            self.white_space()
            self.expect(":")
            members[key] = self.value(depth)
        return members

    def items(self, depth):
        items = []
        while self.more("]", not items):
            items.append(self.value(depth))
        return items

    def more(self, close, first):
        """Whether another member follows; passes the comma before it, or the closing bracket."""
        self.white_space()
        if self.take(close):
            return False
        if not first:
            self.expect(",")
            self.white_space()
        return True

    def string(self):
        self.expect('"')
        parts = []
        while not self.take('"'):
            plain = self.PLAIN.match(self.text, self.at).group()
            self.at += len(plain)
            parts.append(plain)
            if self.peek() != '"':
                self.expect("\\")
                parts.append(self.escape())
        return "".join(parts)

    def escape(self):
        for letter, character in self.ESCAPES:
            if self.take(letter):
                return character
        unit = self.code_unit()
        low = self.text[self.at : self.at + 6]
        if 0xD800 <= unit < 0xDC00 and re.fullmatch(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}", low):
            self.at += 6
            return chr(0x10000 + ((unit - 0xD800) << 10) + int(low[2:], 16) - 0xDC00)
        if unit == 0 or 0xD800 <= unit < 0xE000:
            self.faults.add("invalid_unicode" if unit else "nul_character")
        return chr(unit)

    def code_unit(self):
        self.expect("u")
        for _ in range(4):
            if self.peek() not in self.HEX:
                self.fail()
            self.at += 1
        return int(self.text[self.at - 4 : self.at], 16)

    def number(self):
        start = self.at
        self.take("-")
        if not self.take("0"):
            self.digits()
        elif self.DIGITS.match(self.text, self.at).group():
            self.fail()
        if self.take("."):
            self.digits()
        if self.take("e") or self.take("E"):
            self.take("+") or self.take("-")
            self.digits()
        number = Number(self.text[start : self.at])
        if abs(float(number)) == float("inf"):
            self.faults.add("number_out_of_range")
        return number

    def digits(self):
        start, self.at = self.at, self.DIGITS.match(self.text, self.at).end()
        if self.at == start:
            self.fail()


def verdict(body, version_as="text", envelope="none"):
    """(None, {field: plain value}) for a row, (reason, None) for a dead letter. `ip` is an address object or None."""
    try:
        return None, read_fields(read_message(body, envelope), version_as)
    except UnicodeDecodeError:
        return "invalid_unicode", None
    except Reject as reject:
        return str(reject), None


def read_message(body, envelope):
    """The login in a body, out of its envelope if it is to be in one."""
    value, faults = read_json(body.decode("utf-8"), len(body))
    inside = [found for kind in KINDS[envelope] for found in OPENERS[kind](value)]
    if envelope == "none" or envelope == "auto" and not inside and not is_notice(value):
        return judge_object(value, faults, None)
    if not inside:
        bare = "envelope_invalid" if isinstance(value, dict) else "not_object"
        faults.add("envelope_unsupported" if is_notice(value) else bare)
    reject_worst(faults)
    value = inside[0]  # of EventBridge, judged with what is around it
    if isinstance(value, Text):
        value, faults = read_json(value, len(value.encode("utf-8")))
    again = None
    if any(opener(value) for opener in OPENERS.values()):
        again = "envelope_invalid"
    elif is_notice(value):
        again = "envelope_unsupported"
    elif type(value) is str and is_json(value):
        again = "double_encoded"
    return judge_object(value, faults, again)


def read_json(text, size):
    """The value and what is wrong with it; raises what ends the reading."""
    if not text.strip(" \t\n\r"):
        raise Reject("empty_body")
    scanner = Scanner(text)
    value = scanner.document()
    if size > MAX_BYTES:
        raise Reject("too_large")
    return value, scanner.faults


def is_json(text):
    try:
        return bool(text.strip(" \t\n\r")) and (Scanner(text).document(), True)[1]
    except Reject:
        return False


class Text(str):
    """A message that comes as a text and is JSON of its own."""


def open_sns(value):
    """A list of the message in it, if there is one."""
    if not isinstance(value, dict) or value.get("Type") != "Notification" or type(value.get("Message")) is not str:
        return []
    return [Text(value["Message"])]


def open_eventbridge(value):
    if not isinstance(value, dict) or "detail" not in value:
        return []
    return [value["detail"]] if type(value.get("detail-type")) is type(value.get("source")) is str else []


OPENERS = {"sns": open_sns, "eventbridge": open_eventbridge}
KINDS = {"none": [], "sns": ["sns"], "eventbridge": ["eventbridge"], "auto": ["sns", "eventbridge"]}


def is_notice(value):
    """Whether a service speaks of itself or of an object in S3."""
    if isinstance(value, list):
        return bool(value) and value[0] in POINTERS
    if not isinstance(value, dict):
        return False
    records = value.get("Records")
    record = records[0] if isinstance(records, list) and records else None
    of_s3 = isinstance(record, dict) and isinstance(record.get("s3"), dict)
    confirms = value.get("Type") in ("SubscriptionConfirmation", "UnsubscribeConfirmation")
    return of_s3 or confirms or value.get("Event") == "s3:TestEvent"


def judge_object(value, faults, again):
    """`again`: what to say where this is no login, since it came out of an envelope and is wrapped once more."""
    is_known = isinstance(value, dict) and FIELDS.keys() & value.keys()
    if not is_known:
        faults.add(again or ("unknown_message_type" if isinstance(value, dict) else "not_object"))
    reject_worst(faults)
    return value


def reject_worst(reasons):
    if reasons:
        raise Reject(min(reasons, key=REASONS.index))


def read_fields(message, version_as):
    values, rejects = {}, []
    for field, longest in FIELDS.items():
        try:
            values[field] = read_field(field, message.get(field), longest, version_as)
        except Reject as reject:
            rejects.append((REASONS.index(str(reject)), len(rejects), f"{reject}:{field}"))
    if rejects:
        raise Reject(min(rejects)[2])
    return values


def read_field(field, value, longest, version_as):
    if value is None or value == "":
        if field == "user_id":
            raise Reject("missing_field" if value is None else "empty_field")
        return None
    major_alone = field == "app_version" and is_integer(value)
    if type(value) is not str and not major_alone:
        raise Reject("wrong_type")
    if type(value) is str and longest is not None and len(value) > longest:
        raise Reject("field_too_long")
    reader, reason = READERS.get(field, (None, None))
    try:
        return reader(value, version_as) if reader else value
    except ValueError:
        raise Reject(reason) from None


def read_ip(text, _):
    text = text.strip(" \t\n\r\f")
    # Before 3.9.5 Python let zeros stand before an octet.
    if "%" in text or re.search(r"(^|[:.])0[0-9]+\.|\.0[0-9]+$", text):
        raise ValueError
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def read_version(text, version_as):
    """The version as it goes into a text column or an integer one; a JSON integer is a major version."""
    pattern = r"[0-9]{1,10}" if type(text) is Number else r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}"
    if not re.fullmatch(pattern, text):
        raise ValueError
    major, minor, patch = ([int(part) for part in text.split(".")] + [0, 0])[:3]
    number = major * 10000 + minor * 100 + patch
    if major >= 2**32 or version_as == "integer" and (minor > 99 or patch > 99 or number >= 2**31):
        raise ValueError
    return number if version_as == "integer" else str(text)


def read_date(text, _):
    date = datetime.date.fromisoformat(text).isoformat()
    if date != text:  # later Pythons also take 20240131
        raise ValueError
    return date


READERS = {
    "ip": (read_ip, "bad_ip"),
    "app_version": (read_version, "bad_version"),
    "create_date": (read_date, "bad_date"),
}


def token(root, kid, domain, value):
    """64 hex characters for a text or an address object: equal for equal values of one domain under one key."""
    kind, data = (0x73, value.encode()) if isinstance(value, str) else (value.version, value.packed)
    domain = domain.encode()
    frame = bytes([0x01, kid, len(domain)]) + domain + bytes([kind]) + len(data).to_bytes(2, "big") + data
    extracted = hmac.digest(bytes(32), root, "sha256")  # RFC 5869: no salt is a hash's length of zeros
    key = hmac.digest(extracted, domain + b"\x01", "sha256")  # 32 bytes are one block of the expansion
    return (bytes([kid]) + hmac.digest(key, frame, "sha256")[:31]).hex()


def event_id(body, envelope):
    """What its producer knows a row by: a field `event_id` that is a text or an integer, or None."""
    found = read_message(body, envelope).get("event_id")
    return str(found) if type(found) is str and found or is_integer(found) else None


def is_integer(value):
    return type(value) is Number and not set(".eE") & set(value)


def claim(queue, event_id):
    """The id under which a queue, by its ARN, remembers an event's id."""
    digest = hashlib.sha256(queue.encode() + b"\0" + event_id.encode()).digest()
    return str(uuid.UUID(bytes=digest[:16]))


def table_row(message, given):
    body = message["body"].encode("utf-8", "surrogatepass")
    reason, values = verdict(body, given.version_as, given.envelope)
    if reason:
        return {"dead": reason}
    row = {}
    for field, value in values.items():
        masked = field in MASKED and value is not None
        row[MASKED.get(field, field)] = token(given.root, given.kid, field, value) if masked else value
    sent = datetime.datetime.fromtimestamp(message["sent_at"] // 1000, datetime.timezone.utc)
    row["create_date"] = row["create_date"] or sent.date().isoformat()
    return row


def case_body(stem):
    """The bytes of a case: NAME.json as it stands, or NAME.gen written out."""
    if stem.with_suffix(".json").exists():
        return stem.with_suffix(".json").read_bytes()
    body = ""
    for part in json.loads(stem.with_suffix(".gen").read_text("utf-8")):
        count, *texts = (1, part) if isinstance(part, str) else part
        body += "".join(str(i).join(texts) for i in range(count)) if len(texts) == 2 else texts[0] * count
    return body.encode()


def said(body, envelope):
    """What an .expected file should say of this body: the verdict and, of a row, the plain values."""
    reason, values = verdict(body, "text", envelope)
    if reason:
        return reason, None
    values["ip"] = values["ip"] and str(values["ip"])
    if values["create_date"] is None:
        del values["create_date"]  # the day of sending stands in, which no file can know
    refused, integers = verdict(body, "integer", envelope)
    values["app_version_integer"] = refused or integers["app_version"]
    if event_id(body, envelope) is not None:
        values["event_id"] = event_id(body, envelope)
    return "row", values


def check_corpus(directory):
    stems = {path.with_suffix("") for path in directory.iterdir() if path.suffix in (".json", ".gen")}
    cases = labels = wrong = 0
    for stem in sorted(stems):
        cases += 1
        body = case_body(stem)
        for envelope in KINDS:
            label = stem.with_suffix(".expected" if envelope == "none" else f".{envelope}.expected")
            if envelope != "none" and not label.exists():
                continue
            labels += 1
            first, _, rest = label.read_text("utf-8").partition("\n")
            expected = first, json.loads(rest) if rest.strip() else None
            found = said(body, envelope)
            if found != expected:
                wrong += 1
                print(f"{label.name}: expected {expected}, found {found}", file=sys.stderr)
    forgotten = len(list(directory.glob("*.expected"))) - labels
    print(f"{cases} cases, {labels} labels, {forgotten} without a case, {wrong} differ")
    return 1 if wrong or forgotten or not cases else 0


def print_verdicts():
    for line in sys.stdin:
        envelope, body = line.split(" ")
        first, values = said(base64.b64decode(body), envelope)
        print(first if values is None else f"row {json.dumps(values)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("corpus").add_argument("directory", type=pathlib.Path)
    rows = commands.add_parser("rows")
    rows.add_argument("--kid", type=int, required=True)
    rows.add_argument("--root", type=bytes.fromhex, required=True)
    rows.add_argument("--version-as", choices=["text", "integer"], required=True)
    rows.add_argument("--envelope", choices=KINDS, default="none")
    commands.add_parser("verdicts")
    given = parser.parse_args()
    if given.command == "corpus":
        return check_corpus(given.directory)
    if given.command == "verdicts":
        return print_verdicts()
    for line in sys.stdin:
        print(json.dumps(table_row(json.loads(line), given)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
