"""What must be true of a campaign's evidence, invariant by invariant.

Pure: no file, no database, no clock. Each check answers violations, a kind and the id or place where it was broken,
and never a content. What is expected of a body is the reference's word, not masq's.
"""

import collections
import typing

# Ledger outcomes. Nobody replays dead letters in a campaign, so 3, a dead letter that became a row, is a violation there.
ROW, DEAD, REPEATED = 1, 2, 4

# A reason that says of the queue's history, not of the body, why there is no row: the least receives it needs.
POISON, POISON_RECEIVES = "poison_receive_count", 5

# What a worker may take of the machine: KiB resident at its peak, open files, and connections to the database beyond
# those that it was told to make (one watches whether the database is there, one replaces another that is dying).
MOST_MEMORY, MOST_FILES, MOST_CONNECTIONS = 128 * 1024, 256, 8

# What becomes of what a worker receives, as it counts.
PARTS = ("rows", "dead_letters", "duplicates", "returned")


class Violation(typing.NamedTuple):
    kind: str
    where: str


class Sent(typing.NamedTuple):
    """A message that the producer sent. `label`: what its maker expects. `verdict`: what the reference says, the
    reason or None; `row`: the row that it would be, as the table's columns in order; `tag`: the row's user;
    `event`: the producer's own id of what it tells, if it has one."""

    label: str
    body: bytes
    verdict: typing.Optional[str]
    row: typing.Optional[tuple]
    tag: typing.Optional[str]
    event: typing.Optional[str] = None


class Letter(typing.NamedTuple):
    id: str
    sent_at: int
    reason: str
    receive_count: int
    # The opened body, or None where it cannot be opened.
    body: typing.Optional[bytes]


class History:
    """The queue's side of it. Times are in microseconds since 1970-01-01 UTC."""

    def __init__(self):
        self.sent_at = {}  # id -> SentTimestamp in milliseconds
        self.receives = collections.Counter()
        self.first_delete = {}  # id -> when its first delete was asked for
        self.deleted = set()  # ids whose delete took effect
        self.gaps = set()  # ids of which a delivery is not written down
        self.orphaned = collections.Counter()  # id -> how often a process that was killed had it when it came again
        self.deliveries = 0
        # process -> deliveries to it, and deletes of what it was delivered that took effect
        self.delivered, self.settled = collections.Counter(), collections.Counter()
        self.complete = False  # whether its last line is there


class Evidence:
    """All that is known of a campaign."""

    def __init__(self):
        self.messages = 0  # how many were to be sent
        self.sent = {}  # id -> Sent
        self.history = History()
        self.ledger = []  # (id, sent_at in ms, outcome, commit time in µs)
        self.rows = collections.Counter()  # the table's rows, each as a tuple
        self.letters = []
        self.left = 0  # messages on the queue at the end
        self.visibility = 0.0
        self.settled_after = 0.0  # seconds after the faults stopped
        self.ends = []  # how each worker process ended: {"worker", "how", "code"}
        self.totals = []  # what those that ended in good order counted: {"worker", "received", …}
        self.samples = []  # {"worker", "peak_kib", "files"}
        self.connections = []  # the most that each worker had open
        self.places = {}  # place -> how often plain text was found there
        self.planted = set()  # places where it was planted
        self.searched = 0  # bytes looked through


def was_sent(evidence):
    """The producer's log and the queue's history tell of the same messages, and of as many as there were to be: a
    message that both forgot would be missed by everything below."""
    if not evidence.messages or len(evidence.sent) != evidence.messages:
        yield Violation("log_incomplete", f"{len(evidence.sent)} of {evidence.messages} messages")
    if not evidence.history.complete:
        yield Violation("history_incomplete", "no last line")
    received = {id for id, count in evidence.history.receives.items() if count}
    for id in evidence.history.gaps | evidence.history.deleted - received:
        yield Violation("history_incomplete", id)
    for id in evidence.history.sent_at.keys() ^ evidence.sent.keys():
        yield Violation("history_incomplete" if id in evidence.sent else "log_incomplete", id)


def outcomes(evidence):
    found = collections.defaultdict(list)
    for id, _, outcome, _ in evidence.ledger:
        found[id].append(outcome)
    return found


def has_one_outcome(evidence):
    found = outcomes(evidence)
    for id in evidence.sent:
        count = len(found.get(id, ()))
        if count != 1:
            yield Violation("lost" if count == 0 else "two_outcomes", id)
    for id, sent_at, outcome, _ in evidence.ledger:
        if id not in evidence.sent:
            yield Violation("outcome_never_sent", id)
        elif sent_at != evidence.history.sent_at.get(id):
            yield Violation("outcome_of_other_time", id)
        if outcome not in (ROW, DEAD, REPEATED):
            yield Violation("outcome_unknown", id)


def has_its_verdict(evidence):
    """Row or dead letter, and why, as the reference says; its maker's label says the same."""
    letters = {letter.id: letter for letter in evidence.letters}
    for id, _, outcome, _ in evidence.ledger:
        sent = evidence.sent.get(id)
        if sent is None:
            continue
        expected = expected_of(sent)
        if not labelled(sent, expected):
            yield Violation("label_wrong", id)
        got = None if outcome == ROW else letters[id].reason if id in letters else "no letter"
        if outcome == REPEATED and sent.event is not None:
            continue
        if got == POISON and is_poison(evidence.history, letters[id]):
            continue
        if got not in expected:
            kind = "poison_early" if got == POISON else "letter_for_good" if None in expected else "verdict_wrong"
            yield Violation(kind, id)


def is_poison(history, letter):
    """Whether a message was delivered as often as it takes, and to some that died of it, as far as one can see."""
    return letter.receive_count >= POISON_RECEIVES and history.orphaned[letter.id] > 0


def expected_of(sent):
    """The verdicts that are right for a message: None for a row, or a reason."""
    if sent.verdict is not None:
        return {sent.verdict}
    if sent.label == "refused":
        return {"db_rejected:23514"}
    # The other build takes no fields that it does not know.
    return {None, "unknown_field"} if sent.label == "either" else {None}


def labelled(sent, expected):
    """Whether the label says what the reference found."""
    if sent.label == "refused" or sent.label == "either":
        return sent.verdict is None
    return expected == {None if sent.label in ("row", "event") else sent.label}


def events_become_one_row(evidence):
    """Of the messages that tell of one event, and become no dead letters, one is a row and the others are repeated."""
    found = collections.defaultdict(list)
    for id, _, outcome, _ in evidence.ledger:
        sent = evidence.sent.get(id)
        if sent is not None and sent.event is not None and outcome != DEAD:
            found[sent.event].append(outcome)
    for event, all_of_it in found.items():
        rows = len(all_of_it) - all_of_it.count(REPEATED)
        if rows != 1:
            yield Violation("event_twice" if rows else "event_lost", event)


def rows_are_those_of_the_ledger(evidence):
    """As many rows as outcomes say, each with the content that the reference gives: as multisets, since the table has
    no key. Rows of one tag are told apart by nothing but their content."""
    expected = collections.Counter()
    tags = collections.Counter()
    most = collections.Counter(sent.tag for sent in evidence.sent.values())
    for id, _, outcome, _ in evidence.ledger:
        sent = evidence.sent.get(id)
        if outcome == ROW and sent is not None and sent.row is not None:
            expected[sent.row] += 1
            tags[sent.tag] += 1
    found = collections.Counter()
    for row, count in evidence.rows.items():
        found[row[0]] += count
    for tag in found.keys() | tags.keys():
        if tag not in most:
            yield Violation("row_never_sent", "a row of the table")
        elif found[tag] > most[tag]:
            yield Violation("row_twice", tag)
        elif found[tag] != tags[tag]:
            yield Violation("row_without_outcome" if found[tag] > tags[tag] else "row_missing", tag)
    for row, count in (evidence.rows - expected).items():
        if found[row[0]] == tags[row[0]]:
            yield Violation("row_wrong", row[0])


def letters_are_those_of_the_ledger(evidence):
    found = collections.Counter(letter.id for letter in evidence.letters)
    written = outcomes(evidence)
    for id, count in found.items():
        if id not in evidence.sent:
            yield Violation("letter_never_sent", id)
        elif DEAD not in written.get(id, ()):
            yield Violation("row_and_letter" if ROW in written.get(id, ()) else "letter_without_outcome", id)
        if count > 1:
            yield Violation("letter_twice", id)
    for id, all_of_it in written.items():
        if DEAD in all_of_it and id not in found:
            yield Violation("letter_missing", id)


def letters_open(evidence):
    """What was sealed opens with the recovery key, and is what was sent."""
    for letter in evidence.letters:
        sent = evidence.sent.get(letter.id)
        if letter.body is None:
            yield Violation("letter_unreadable", letter.id)
        elif sent is not None and letter.body != sent.body:
            yield Violation("letter_of_other_body", letter.id)
        if letter.sent_at != evidence.history.sent_at.get(letter.id):
            yield Violation("letter_of_other_time", letter.id)
        if not 1 <= letter.receive_count <= evidence.history.receives[letter.id]:
            yield Violation("letter_of_other_count", letter.id)


def deletes_follow_commits(evidence):
    """No delete was asked for before the outcome was committed, nor without one."""
    committed = {}
    for id, _, _, at in evidence.ledger:
        committed[id] = min(at, committed.get(id, at))
    for id, asked in evidence.history.first_delete.items():
        if id not in committed:
            yield Violation("deleted_without_outcome", id)
        elif asked < committed[id]:
            yield Violation("deleted_before_commit", id)
    for id in evidence.sent:
        if id not in evidence.history.deleted:
            yield Violation("never_deleted", id)


def queue_is_empty(evidence):
    if evidence.left:
        yield Violation("left_on_queue", f"{evidence.left} messages")


def settled_in_time(evidence):
    if evidence.settled_after > evidence.visibility + 10:
        yield Violation("settled_late", f"{evidence.settled_after:.1f} s")


def counters_add_up(evidence):
    """What a worker that ended in good order says that it counted adds up, is no more than the queue delivered to it,
    and no less than what it deleted; and all of them say no more than what came of it."""
    if not any(total["received"] for total in evidence.totals):
        yield Violation("counters_missing", "no worker said what it counted")
    for total in evidence.totals:
        rows, letters, duplicates, returned = (total.get(part, 0) for part in PARTS)
        worker, settled = total["worker"], rows + letters + duplicates
        adds_up = total["received"] == settled + returned
        if not adds_up or total["received"] > evidence.history.delivered[worker]:
            yield Violation("counters_off", worker)
        if settled < evidence.history.settled[worker]:
            yield Violation("counters_off" if total["received"] else "counters_missing", worker)
    for part, found in (("rows", evidence.rows.total()), ("dead_letters", len(evidence.letters))):
        if sum(total.get(part, 0) for total in evidence.totals) > found:
            yield Violation("counters_off", f"all workers, {part}")


def workers_ended_well(evidence):
    """Workers end when they are told to, with exit code 0, and never by themselves; what a database that is away
    longer than a start may take ends with 69, which a cluster would start again. Who is killed has no exit code, or had
    ended by itself before."""
    for end in evidence.ends:
        if end["how"] == "stuck" or (end["how"] == "stopped" and end["code"] != 0):
            yield Violation("stopped_badly", f"{end['worker']}, exit code {end['code']}")
        elif end["how"] == "exited" and end["code"] != 69 or end["how"] == "killed" and end["code"] not in (None, 69):
            yield Violation("ended_by_itself", f"{end['worker']}, exit code {end['code']}")


def workers_took_little(evidence):
    if not any(sample["peak_kib"] for sample in evidence.samples):
        yield Violation("samples_missing", "memory")
    for sample in evidence.samples:
        if (sample["peak_kib"] or 0) > MOST_MEMORY:
            yield Violation("memory", f"{sample['worker']}, {sample['peak_kib']} KiB")
        if (sample["files"] or 0) > MOST_FILES:
            yield Violation("files", f"{sample['worker']}, {sample['files']}")
    for number, most in enumerate(evidence.connections, 1):
        if most > MOST_CONNECTIONS:
            yield Violation("connections", f"worker-{number}, {most}")


def nothing_in_clear(evidence):
    """No plain text is found but where it was planted; and there it is found, or the search is blind."""
    if not evidence.searched:
        yield Violation("search_blind", "nothing was searched")
    for place in evidence.planted:
        if not evidence.places.get(place):
            yield Violation("search_blind", place)
    for place, count in evidence.places.items():
        if count and place not in evidence.planted:
            yield Violation("plain_text", f"{place}, {count} times")


# Every check, and the invariant that it is to find broken.
INVARIANTS = [
    (was_sent, "the producer's log, the queue's history and what was to be sent tell of the same messages"),
    (has_one_outcome, "each message has exactly one outcome, and no other has one"),
    (has_its_verdict, "each is a row, or a dead letter for its reason, as the reference says"),
    (events_become_one_row, "an event that was told twice is one row"),
    (rows_are_those_of_the_ledger, "the rows are those of the ledger, none twice, each with the reference's content"),
    (letters_are_those_of_the_ledger, "the dead letters are those of the ledger, none twice, none of a row"),
    (letters_open, "each dead letter opens, and is what was sent"),
    (deletes_follow_commits, "no delete before its commit, and each message is deleted"),
    (queue_is_empty, "the queue ends empty"),
    (settled_in_time, "settled within the visibility and 10 s after the last fault"),
    (counters_add_up, "the workers' counters add up, and fit what was delivered, deleted and written"),
    (workers_ended_well, "no worker ends by itself or badly"),
    (workers_took_little, f"no worker takes more than {MOST_MEMORY >> 10} MiB, {MOST_FILES} files, {MOST_CONNECTIONS} connections"),
    (nothing_in_clear, "no plain text of masked fields anywhere, and the planted one is found"),
]


def judge(evidence):
    """All violations of all invariants."""
    return [violation for check, _ in INVARIANTS for violation in check(evidence)]
