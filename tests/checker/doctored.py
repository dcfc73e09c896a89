"""Who checks the checker: sound evidence in which nothing is found, and for each invariant evidence in which it is
broken once, which must be found under its own name."""

import collections

from evidence import hits
from judge import Evidence, Letter, Sent, judge

# SentTimestamp, and when the outcomes were committed, in milliseconds.
SENT_AT, COMMITTED_AT = 1_700_000_000_000, 1_700_000_001_000


def sound():
    """Four rows, two of them alike, two dead letters, and an event that was told twice."""
    evidence = Evidence()
    twin, other, event, repeated = (("u1", "ios"), ("u2", "ios"), ("u4", "ios"), ("u5", "ios"))
    evidence.sent = {
        "a": Sent("row", b"twin", None, twin, "u1"),
        "b": Sent("row", b"twin", None, twin, "u1"),
        "c": Sent("either", b"other", None, other, "u2"),
        "d": Sent("bad_ip:ip", b"bad", "bad_ip:ip", None, None),
        "e": Sent("refused", b"refused", None, ("u3", "refused"), "u3"),
        "f": Sent("event", b"event", None, event, "u4", "event"),
        "g": Sent("event", b"event again", None, repeated, "u5", "event"),
    }
    evidence.messages = len(evidence.sent)
    outcomes = {"a": 1, "b": 1, "c": 1, "d": 2, "e": 2, "f": 1, "g": 4}
    evidence.ledger = [(id, SENT_AT, outcome, COMMITTED_AT * 1000) for id, outcome in outcomes.items()]
    evidence.rows = collections.Counter([twin, twin, other, event])
    evidence.letters = [
        Letter("d", SENT_AT, "bad_ip:ip", 1, b"bad"),
        Letter("e", SENT_AT, "db_rejected:23514", 2, b"refused"),
    ]
    history = evidence.history
    history.complete = True
    history.sent_at = {id: SENT_AT for id in outcomes}
    history.receives = collections.Counter({**{id: 1 for id in outcomes}, "e": 2})
    history.deliveries = 8
    history.delivered, history.settled = collections.Counter({"w.1": 5, "w.2": 3}), collections.Counter({"w.1": 4})
    history.first_delete = {id: COMMITTED_AT * 1000 + 5 for id in outcomes}
    history.deleted = set(outcomes)
    evidence.visibility, evidence.settled_after = 5.0, 3.0
    evidence.ends = [{"worker": "w.1", "how": "stopped", "code": 0}, {"worker": "w.2", "how": "killed", "code": None}]
    evidence.totals = [{"worker": "w.1", "received": 5, "rows": 3, "dead_letters": 1, "duplicates": 0, "returned": 1}]
    evidence.samples = [{"worker": "w", "peak_kib": 1000, "files": 20}]
    evidence.connections = [4]
    evidence.places, evidence.planted, evidence.searched = {"log": 0, "planted": 1}, {"planted"}, 100
    return evidence


def put(evidence, at, **values):
    """The same letter with other values."""
    evidence.letters[at] = evidence.letters[at]._replace(**values)


def outcome(evidence, id, outcome=None, sent_at=SENT_AT, at=COMMITTED_AT * 1000):
    """The ledger with this as its only entry of a message, or with none."""
    evidence.ledger = [entry for entry in evidence.ledger if entry[0] != id]
    if outcome is not None:
        evidence.ledger.append((id, sent_at, outcome, at))


# What is done to sound evidence, and the kinds of violation that must be found: all of them, and no others.
CASES = [
    ("a message is lost", {"lost", "deleted_without_outcome", "row_without_outcome"}, lambda e: outcome(e, "a")),
    ("a message and its row are lost", {"lost", "deleted_without_outcome"},
     lambda e: (outcome(e, "c"), e.rows.pop(("u2", "ios")))),
    ("a dead letter and its outcome are lost", {"lost", "deleted_without_outcome"},
     lambda e: (outcome(e, "d"), e.letters.pop(0))),
    ("a message was never taken", {"lost", "never_deleted"},
     lambda e: (outcome(e, "c"), e.rows.pop(("u2", "ios")), e.history.deleted.remove("c"),
                e.history.first_delete.pop("c"))),
    ("the log forgot a message", {"log_incomplete", "outcome_never_sent", "row_never_sent"}, lambda e: e.sent.pop("c")),
    ("log and history forgot a message", {"log_incomplete", "outcome_never_sent", "row_never_sent"},
     lambda e: (e.sent.pop("c"), e.history.sent_at.pop("c"))),
    ("nothing was sent", {"log_incomplete", "outcome_never_sent", "row_never_sent", "letter_never_sent",
                          "letter_of_other_time"},
     lambda e: (e.sent.clear(), e.history.sent_at.clear(), setattr(e, "messages", 0))),
    ("the history has no end", {"history_incomplete"}, lambda e: setattr(e.history, "complete", False)),
    ("the history forgot a delivery", {"history_incomplete"}, lambda e: e.history.gaps.add("a")),
    ("the history forgot the only delivery", {"history_incomplete"}, lambda e: e.history.receives.pop("a")),
    ("the history forgot a message", {"history_incomplete", "outcome_of_other_time"},
     lambda e: e.history.sent_at.pop("a")),
    ("a message has two outcomes", {"two_outcomes", "outcome_of_other_time", "row_missing"},
     lambda e: e.ledger.append(("a", SENT_AT + 1, 1, COMMITTED_AT * 1000))),
    ("an outcome that does not exist", {"outcome_unknown", "letter_without_outcome"}, lambda e: outcome(e, "d", 9)),
    ("a dead letter that was replayed, and is a row too",
     {"outcome_unknown", "letter_without_outcome", "row_without_outcome"},
     lambda e: (outcome(e, "e", 3), e.rows.update([("u3", "refused")]))),
    ("an outcome without its row", {"row_missing"}, lambda e: e.rows.subtract([("u2", "ios")])),
    ("one of two rows alike is missing", {"row_missing"}, lambda e: e.rows.subtract([("u1", "ios")])),
    ("a row is there twice", {"row_twice"}, lambda e: e.rows.update([("u2", "ios")])),
    ("one row is there twice and another not", {"row_twice", "row_missing"},
     lambda e: (e.rows.update([("u1", "ios")]), e.rows.subtract([("u2", "ios")]))),
    ("a row that nobody sent", {"row_never_sent"}, lambda e: e.rows.update([("u9", "ios")])),
    ("a row with another content", {"row_wrong"},
     lambda e: (e.rows.subtract([("u2", "ios")]), e.rows.update([("u2", "android")]))),
    ("a row of a bad message", {"verdict_wrong", "row_never_sent"},
     lambda e: (outcome(e, "d", 1), e.letters.pop(0), e.rows.update([("bad", None)]))),
    ("a dead letter of a good message", {"letter_for_good"},
     lambda e: (outcome(e, "a", 2), e.letters.append(Letter("a", SENT_AT, "not_json", 1, b"twin")),
                e.rows.subtract([("u1", "ios")]))),
    ("a good message taken for a repeated one", {"letter_for_good"},
     lambda e: (outcome(e, "a", 4), e.rows.subtract([("u1", "ios")]))),
    ("row and dead letter", {"row_and_letter"},
     lambda e: e.letters.append(Letter("c", SENT_AT, "unknown_field", 1, b"other"))),
    ("a dead letter without an outcome", {"letter_without_outcome", "lost", "deleted_without_outcome"},
     lambda e: outcome(e, "d")),
    ("a dead letter is missing", {"letter_missing", "verdict_wrong"}, lambda e: e.letters.pop(0)),
    ("a dead letter is there twice", {"letter_twice"}, lambda e: e.letters.append(e.letters[0])),
    ("a dead letter for another reason", {"verdict_wrong"}, lambda e: put(e, 0, reason="not_json")),
    ("a label that the reference does not share", {"label_wrong"},
     lambda e: e.sent.update(d=e.sent["d"]._replace(label="not_json"))),
    ("a dead letter that does not open", {"letter_unreadable"}, lambda e: put(e, 0, body=None)),
    ("a dead letter with another body", {"letter_of_other_body"}, lambda e: put(e, 0, body=b"other")),
    ("poison that was received once", {"poison_early"}, lambda e: put(e, 0, reason="poison_receive_count")),
    ("poison of which nobody died", {"poison_early"},
     lambda e: (put(e, 0, reason="poison_receive_count", receive_count=5), e.history.receives.update(d=4))),
    ("poison", set(),
     lambda e: (put(e, 0, reason="poison_receive_count", receive_count=5), e.history.receives.update(d=4),
                e.history.orphaned.update(["d"]))),
    ("a dead letter of a delivery that there was not", {"letter_of_other_count"}, lambda e: put(e, 0, receive_count=2)),
    ("a delete before its commit", {"deleted_before_commit"},
     lambda e: e.history.first_delete.update(a=COMMITTED_AT * 1000 - 1)),
    ("a message left on the queue", {"left_on_queue", "never_deleted"},
     lambda e: (setattr(e, "left", 1), e.history.deleted.remove("a"))),
    ("an event is a row twice", {"event_twice"}, lambda e: (outcome(e, "g", 1), e.rows.update([("u5", "ios")]))),
    ("an event is no row at all", {"event_lost"}, lambda e: (outcome(e, "f", 4), e.rows.pop(("u4", "ios")))),
    ("an event is another row than the ledger says", {"row_without_outcome", "row_missing"},
     lambda e: (e.rows.update([("u5", "ios")]), e.rows.pop(("u4", "ios")))),
    ("settled too late", {"settled_late"}, lambda e: setattr(e, "settled_after", 15.1)),
    ("counters that do not add up", {"counters_off"}, lambda e: e.totals[0].update(received=6)),
    ("counters of more than was delivered", {"counters_off"},
     lambda e: e.totals[0].update(received=6, duplicates=1)),
    ("counters of less than was deleted", {"counters_off"}, lambda e: e.totals[0].update(rows=2, returned=2)),
    ("counters of more rows than there are", {"counters_off"}, lambda e: e.totals[0].update(rows=5, returned=-1)),
    ("no counters", {"counters_missing"}, lambda e: e.totals.clear()),
    ("a worker's counters are missing", {"counters_missing"},
     lambda e: (e.totals.append({"worker": "w.3", "received": 0}), e.history.settled.update(["w.3"]))),
    ("a worker that crashed", {"ended_by_itself"}, lambda e: e.ends.append({"worker": "w", "how": "exited", "code": 70})),
    ("a worker that crashed just before it was killed", {"ended_by_itself"}, lambda e: e.ends[1].update(code=70)),
    ("a stop that was cut short", {"stopped_badly"}, lambda e: e.ends[0].update(code=75)),
    ("a worker that does not stop", {"stopped_badly"}, lambda e: e.ends[0].update(how="stuck")),
    ("too much memory", {"memory"}, lambda e: e.samples[0].update(peak_kib=200_000)),
    ("too many files", {"files"}, lambda e: e.samples[0].update(files=1000)),
    ("too many connections", {"connections"}, lambda e: e.connections.append(50)),
    ("no samples", {"samples_missing"}, lambda e: e.samples.clear()),
    ("plain text", {"plain_text"}, lambda e: e.places.update(log=1)),
    ("a search that finds nothing", {"search_blind"}, lambda e: e.places.update(planted=0)),
    ("no search", {"search_blind"}, lambda e: setattr(e, "searched", 0)),
]

# A mark in each of its forms, and none.
TEXTS = [
    (b"x canary-1 y", True),
    (b"63616e617279", True),
    (b"AAA " + b"Y2FuYXJ5" + b" B", True),
    (b"ip 203.0.113.7", True),
    (b"nothing here", False),
]


def self_test():
    wrong = 0
    if found := judge(sound()):
        wrong += 1
        print(f"sound evidence: found {sorted({violation.kind for violation in found})}")
    for what, expected, doctor in CASES:
        evidence = sound()
        doctor(evidence)
        evidence.rows = +evidence.rows
        found = {violation.kind for violation in judge(evidence)}
        if found != expected:
            wrong += 1
            print(f"{what}: expected {sorted(expected)}, found {sorted(found)}")
    for text, marked in TEXTS:
        if bool(hits(text)) != marked:
            wrong += 1
            print("a mark is found where there is none, or not where there is one")
    print(f"{len(CASES) + len(TEXTS) + 1} cases, {wrong} wrong")
    return 1 if wrong else 0
