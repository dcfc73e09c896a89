"""Reads what a campaign left behind: the producer's log, the queue's history, the database, the workers' words.

Shares no code with masq. Bodies are judged by ../reference.py and opened by ../vectors.py, which were written from the
formats, not from the program.
"""

import argparse
import base64
import bisect
import collections
import functools
import glob
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import subprocess
import uuid

import reference
import vectors
from judge import Evidence, Letter, Sent

COLUMNS = ["user_id", "device_type", "masked_ip", "masked_device_id", "locale", "app_version", "create_date"]

# What stands in masked fields and in messages that become dead letters, and what was planted to be found.
MARKS = [b"canary", b"203.0.113.", b"2001:db8:ca"]
PLANTED = b"canary-planted"

# How much of a file is looked through at a time.
CHUNK = 1 << 22


def collect(directory):
    directory = pathlib.Path(directory)
    facts = json.loads((directory / "campaign.json").read_text("utf-8"))
    keys = Keys(pathlib.Path(facts["keys"]))
    evidence = Evidence()
    for name in ("messages", "visibility", "settled_after", "left", "connections"):
        setattr(evidence, name, facts[name])
    ends = list(lines(directory / "ends.jsonl"))
    evidence.ends = [end for end in ends if end["how"] != "paused"]
    read_history(evidence.history, directory / "history.jsonl", Processes(evidence.ends))
    evidence.sent = read_sent(directory / "sent.jsonl", evidence.history.sent_at, keys)
    read_database(evidence, Database(facts["database"]), keys)
    evidence.samples = list(lines(directory / "samples.jsonl"))
    evidence.totals = read_totals(directory / "logs", evidence.ends)
    search(evidence, directory, facts)
    return evidence


def lines(path):
    """The objects of a file of JSON lines. A last line that a kill has cut short is not there."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


class Keys:
    """The key files, as their headers describe them."""

    def __init__(self, directory):
        header, self.root = self.read(directory / "token.key")
        self.kid = int(re.search(r"kid=([0-9]+)", header).group(1))
        self.recovery = self.read(directory / "recovery.key")[1]

    @staticmethod
    def read(path):
        text = [line.strip() for line in path.read_text("utf-8").splitlines()]
        header, key = (line for line in text if line and not line.startswith("#"))
        return header, base64.b64decode(key)


class Processes:
    """Which process of a worker it was, by the time. One begins when the one before it has ended."""

    def __init__(self, ends):
        self.ends = collections.defaultdict(lambda: ([], []))
        for end in ends:
            times, names = self.ends[end["worker"].rsplit(".", 1)[0]]
            # Its time has whole milliseconds.
            times.append(end["at"] + 1)
            names.append(end["worker"])
        self.killed = {end["worker"] for end in ends if end["how"] != "stopped"}

    def at(self, worker, time):
        times, names = self.ends.get(worker, ([], []))
        found = bisect.bisect_left(times, time)
        return names[found] if found < len(names) else worker


def read_history(history, path, processes):
    # Whose hands each message is in: the delivery's number, and the process.
    hands = {}
    for line in lines(path):
        event, id = line["event"], line.get("id")
        if event == "send":
            history.sent_at[id] = line["sent_at"]
        elif event == "receive":
            process = processes.at(line["by"], line["at"])
            _, before = hands.get(id, (0, None))
            if before in processes.killed:
                history.orphaned[id] += 1
            hands[id] = line["count"], process
            history.delivered[process] += 1
            history.deliveries += 1
            if line["count"] != history.receives[id] + 1:
                history.gaps.add(id)
            history.receives[id] = line["count"]
        elif event == "delete":
            history.first_delete.setdefault(id, round(line["at"] * 1000))
            if line["outcome"] == "deleted":
                history.deleted.add(id)
                process = processes.at(line["by"], line["at"])
                # What a process asked for that has died meanwhile is not the next one's.
                history.settled[process] += hands.get(id) == (line["count"], process)
        history.complete = event == "end"


def read_sent(path, sent_at, keys):
    """What the producer sent, judged. A body that was logged but has no id was never accepted, and so not sent."""
    bodies, ids = {}, {}
    for line in lines(path):
        if "id" in line:
            ids[line["n"]] = line["id"]
        else:
            bodies[line["n"]] = (line["label"], line["body"])
    work = [(id, *bodies[n], sent_at.get(id, 0)) for n, id in ids.items()]
    with multiprocessing.Pool() as pool:
        return dict(pool.imap_unordered(functools.partial(judged, keys.root, keys.kid), work, chunksize=500))


def judged(root, kid, work):
    id, label, text, sent_at = work
    body = text.encode()
    given = argparse.Namespace(root=root, kid=kid, version_as="text", envelope="none")
    row = reference.table_row({"body": text, "sent_at": sent_at}, given)
    if "dead" in row:
        return id, Sent(label, body, row["dead"], None, None)
    values = tuple(row[column] for column in COLUMNS)
    return id, Sent(label, body, None, values, row["user_id"], json.loads(text).get("event_id"))


class Database:
    """The database through psql, which knows the protocol so that this program need not."""

    def __init__(self, conninfo):
        self.conninfo = conninfo
        installed = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql")) + sorted(glob.glob("/usr/pgsql-*/bin/psql"))
        self.psql = shutil.which("psql") or installed[-1]

    def command(self, sql):
        options = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", self.conninfo]
        return [self.psql, *options, "--command", sql]

    def execute(self, sql):
        subprocess.run(self.command(sql), check=True)

    def copy(self, what):
        """The lines of COPY … TO STDOUT, as bytes."""
        with subprocess.Popen(self.command(f"COPY ({what}) TO STDOUT"), stdout=subprocess.PIPE) as process:
            yield from process.stdout
        if process.returncode != 0:
            raise RuntimeError("psql fails; its words stand above")

    def values(self, what):
        """The same, each line as its columns; only for what needs no escapes."""
        for line in self.copy(what):
            yield line.decode("ascii").rstrip("\n").split("\t")

    def rows(self, table, columns):
        """The rows of a table as tuples, with every value as JSON has it."""
        # COPY doubles the backslashes of JSON and has no other escapes to make, since JSON escapes control characters.
        for line in self.copy(f"SELECT json_build_array({', '.join(columns)}) FROM {table}"):
            yield tuple(json.loads(line.replace(b"\\\\", b"\\")))


MILLISECONDS = "(extract(epoch FROM sent_at) * 1000)::bigint"
LEDGER = f"""SELECT message_id, {MILLISECONDS}, outcome,
    (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM masq.ledger"""
LETTERS = f"SELECT message_id, {MILLISECONDS}, reason, receive_count, epoch, encode(sealed, 'hex') FROM masq.dead_letters"
EPOCHS = """SELECT id, (extract(epoch FROM started_at) * 1000)::bigint, encode(wrapped, 'hex')
    FROM masq.epochs JOIN masq.epoch_wraps ON epoch = id"""


def read_database(evidence, database, keys):
    evidence.ledger = [(id, int(sent), int(out), int(at)) for id, sent, out, at in database.values(LEDGER)]
    evidence.rows = collections.Counter(database.rows("user_logins", COLUMNS))
    epochs = {id: (int(started_at), wrapped) for id, started_at, wrapped in database.values(EPOCHS)}
    epoch_key = functools.lru_cache(None)(lambda id: opened_epoch(id, *epochs[id], keys.recovery))
    for id, sent_at, reason, count, epoch, sealed in database.values(LETTERS):
        try:
            body = opened_body(epoch, epoch_key(epoch), id, int(sent_at), bytes.fromhex(sealed))
        except Exception:  # whatever it is, the letter cannot be opened
            body = None
        evidence.letters.append(Letter(id, int(sent_at), reason, int(count), body))
    evidence.planted.add("table public.planted")
    for (table,) in database.values("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                                    "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"):
        count = 0
        for line in database.copy(f"SELECT * FROM {table}"):
            count += hits(line)
            evidence.searched += len(line)
        evidence.places[f"table {table}"] = count


def opened_epoch(id, started_at, wrapped, recovery):
    header = hashlib.sha256(uuid.UUID(id).bytes + started_at.to_bytes(8, "big", signed=True) + b"\x01").digest()
    return vectors.unwrapped(recovery, bytes.fromhex(wrapped), header)


def opened_body(epoch, key, id, sent_at, sealed):
    aad = b"masq/dead-letter/v1" + uuid.UUID(epoch).bytes + sent_at.to_bytes(8, "big", signed=True)
    return vectors.opened(key, aad + uuid.UUID(id).bytes, sealed)


def read_totals(logs, ends):
    """What the workers that ended in good order say that they counted, in their last words."""
    totals = []
    for end in ends:
        if end["how"] != "stopped" or end["code"] != 0:
            continue
        last = [line for line in lines(logs / f"{end['worker']}.log") if line.get("message") == "stopped"]
        # One that was stopped before it had received anything says nothing.
        said = last[-1] if last else {"received": 0}
        totals.append({**said, "worker": end["worker"]})
    return totals


def hits(data):
    """How often a mark stands in these bytes: as it is, in hexadecimal digits, or in base64."""
    found = 0
    for mark in MARKS:
        for form in forms(mark):
            found += data.count(form)
    return found


@functools.lru_cache(None)
def forms(mark):
    # Base64 without its ends, which depend on what stands beside it.
    encoded = [base64.b64encode(mark[skip:])[: (len(mark) - skip) // 3 * 4] for skip in range(3)]
    return [mark, mark.hex().encode()] + [form for form in encoded if len(form) >= 8]


def search(evidence, directory, facts):
    """Looks for marks in everything that was written: logs, metrics, and the database's own files."""
    places = {"queue.log": [directory / "queue.log"], "database log": [pathlib.Path(facts["database_log"])]}
    for name in ("logs", "metrics"):
        for path in sorted((directory / name).iterdir()):
            places[f"{name}/{path.name}"] = [path]
    data = [pathlib.Path(root) / name for root, _, names in os.walk(facts["cluster"]) for name in names]
    places["database files"] = [path for path in data if path.is_file() and path != pathlib.Path(facts["database_log"])]
    evidence.planted.add("logs/planted.log")
    for place, paths in places.items():
        evidence.places[place] = 0
        for path in paths:
            count, size = search_file(path, planted=place == "database files")
            evidence.places[place] += count
            evidence.searched += size


def search_file(path, planted):
    """Hits in a file, those that were planted left out on request; and how many bytes it has."""
    count = size = 0
    rest = b""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            data = rest + chunk
            # What is cut by the end of a chunk is looked at with the next one, and counted once.
            rest = data[-64:] if len(chunk) == CHUNK else b""
            count += hits(data) - hits(rest) - (data.count(PLANTED) - rest.count(PLANTED) if planted else 0)
    return count, size
