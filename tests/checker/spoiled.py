"""Who checks the checker, with real evidence: the files and the database of a campaign in which nothing is found are
broken in many places, each time another message, and each must be found, of that kind and of that message, and no other.

Unlike doctored.py this goes the whole way, from the bytes on disk and in the database. The database stays broken.
"""

import collections
import json
import pathlib

import evidence
from judge import judge


def self_test(directory):
    directory = pathlib.Path(directory)
    seen = evidence.collect(directory)
    victims = Victims(seen)
    wrong = differs("sound evidence", judge(seen), {})
    for what, name, spoil in (("history", "history.jsonl", spoil_history), ("log", "sent.jsonl", spoil_log)):
        path = directory / name
        sound = path.read_bytes()
        expected, lines = spoil(victims, [json.loads(line) for line in sound.splitlines()])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        wrong += differs(f"a spoilt {what}", judge(evidence.collect(directory)), expected)
        # As a kill leaves a file whose last line was being written.
        path.write_bytes(sound[:-1])
        wrong += differs(f"a {what} without its end", judge(evidence.collect(directory)), CUT[what])
        path.write_bytes(sound)
    facts = json.loads((directory / "campaign.json").read_text("utf-8"))
    expected = spoil_database(victims, evidence.Database(facts["database"]))
    wrong += differs("a spoilt database", judge(evidence.collect(directory)), expected)
    print(f"real evidence spoilt in {victims.taken} places, {wrong} wrong")
    return 1 if wrong else 0


def differs(what, found, expected):
    """Whether other violations were found than {kind: wheres} says. A set with None holds others too."""
    kinds = collections.defaultdict(set)
    for violation in found:
        kinds[violation.kind].add(violation.where)
    bad = {kind for kind in kinds.keys() | expected.keys() if not fits(kinds.get(kind, set()), expected.get(kind, set()))}
    if bad:
        print(f"{what}: found {sorted((kind, sorted(kinds.get(kind, ()))[:3], len(kinds.get(kind, ()))) for kind in bad)}")
    return bool(bad)


def fits(found, expected):
    return found >= expected - {None} if None in expected else found == expected


class Victims:
    """Messages that nothing was done to yet: rows that no other message is like, and letters that could be nothing else."""

    def __init__(self, seen):
        outcome = {id: outcome for id, _, outcome, _ in seen.ledger}
        tags = collections.Counter(sent.tag for sent in seen.sent.values())
        once = [id for id in seen.sent if seen.history.receives[id] == 1]
        self.rows = [id for id in once if outcome[id] == 1 and seen.sent[id].label == "row" and tags[seen.sent[id].tag] == 1]
        self.letters = [id for id in once if outcome[id] == 2 and seen.sent[id].label != "either"]
        self.tags = {id: seen.sent[id].tag for id in self.rows}
        self.messages = len(seen.sent)
        self.taken = 0

    def row(self):
        self.taken += 1
        return self.rows.pop()

    def letter(self):
        self.taken += 1
        return self.letters.pop()


# The last line of the history says that it is whole; that of the log has the id of a message, whatever that was.
CUT = {
    "history": {"history_incomplete": {"no last line"}},
    "log": {"log_incomplete": {None}, "outcome_never_sent": {None}, "row_never_sent": {None}, "letter_never_sent": {None}},
}


def spoil_history(victims, lines):
    unsent, undelivered, undeleted, early = (victims.row() for _ in range(4))
    forgotten = {("send", unsent), ("receive", undelivered), ("delete", undeleted)}
    lines = [line for line in lines if (line["event"], line.get("id")) not in forgotten]
    for line in lines:
        if line["event"] == "delete" and line["id"] == early:
            line["at"] -= 60_000
    return {
        "history_incomplete": {unsent, undelivered},
        "outcome_of_other_time": {unsent},
        # The date of a row is that of its sending.
        "row_wrong": {victims.tags[unsent]},
        # Whoever had it counts one more than was delivered, if it lived to tell.
        "counters_off": {None},
        "never_deleted": {undeleted},
        "deleted_before_commit": {early},
    }, lines


def spoil_log(victims, lines):
    forgotten, changed = victims.row(), victims.letter()
    number = {line["id"]: line["n"] for line in lines if "id" in line}
    lines = [line for line in lines if line.get("id") != forgotten]
    for line in lines:
        if line["n"] == number[changed] and "body" in line:
            line["body"] += " "
    return {
        "log_incomplete": {forgotten, f"{victims.messages - 1} of {victims.messages} messages"},
        "outcome_never_sent": {forgotten},
        "row_never_sent": {"a row of the table"},
        "letter_of_other_body": {changed},
    }, lines


def spoil_database(victims, database):
    lost, gone, twice, other, both = (victims.row() for _ in range(5))
    lost_letter, gone_letter, reason, sealed, count = (victims.letter() for _ in range(5))
    tag = victims.tags

    def of(table, id):
        column = "user_id" if table == "user_logins" else "message_id"
        return f"{table} WHERE {column} = '{tag[id] if table == 'user_logins' else id}'"

    letter = "SELECT sent_at, '{}', reason, queue, recorded_at, receive_count, body_bytes, epoch, sealed, subject_tag FROM {}"
    for statement in (
        f"DELETE FROM {of('user_logins', lost)}",
        f"DELETE FROM {of('masq.ledger', lost)}",
        f"DELETE FROM {of('user_logins', gone)}",
        f"INSERT INTO user_logins SELECT * FROM {of('user_logins', twice)}",
        f"UPDATE user_logins SET masked_ip = masked_device_id WHERE user_id = '{tag[other]}'",
        "INSERT INTO masq.dead_letters " + letter.format(both, of("masq.dead_letters", sealed)),
        f"DELETE FROM {of('masq.dead_letters', lost_letter)}",
        f"DELETE FROM {of('masq.ledger', lost_letter)}",
        f"DELETE FROM {of('masq.dead_letters', gone_letter)}",
        f"UPDATE masq.dead_letters SET reason = 'not_an_envelope' WHERE message_id = '{reason}'",
        f"UPDATE masq.dead_letters SET sealed = set_bit(sealed, 300, 1 - get_bit(sealed, 300)) WHERE message_id = '{sealed}'",
        f"UPDATE masq.dead_letters SET receive_count = 2 WHERE message_id = '{count}'",
    ):
        database.execute(statement)
    return {
        "lost": {lost, lost_letter},
        "deleted_without_outcome": {lost, lost_letter},
        "row_missing": {tag[gone]},
        "row_twice": {tag[twice]},
        "row_wrong": {tag[other]},
        "row_and_letter": {both},
        "letter_of_other_time": {both},
        "letter_unreadable": {both, sealed},
        "letter_missing": {gone_letter},
        "verdict_wrong": {gone_letter, reason},
        "letter_of_other_count": {count},
    }
