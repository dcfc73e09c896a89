"""Judges a chaos campaign by what it left behind, and exits 1 with every violation, by kind and id, never a content.

    checker DIRECTORY           the evidence of a campaign of tests/chaos, whose database still runs
    checker --spoil DIRECTORY   breaks sound evidence in many places, and sees each found; it stays broken
    checker --self-test         breaks each invariant once in doctored evidence, and sees it found

A program of its own: it shares no code with masq, and reads the database through psql. Python 3.9, and `cryptography`.
What it says is a part of the campaign's report, in Markdown.
"""

import collections
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import doctored  # noqa: E402
import evidence  # noqa: E402
import spoiled  # noqa: E402
from judge import INVARIANTS, POISON  # noqa: E402

# Violations of one kind that are shown; all are counted.
SHOWN = 20


def main():
    if sys.argv[1:] == ["--self-test"]:
        return doctored.self_test()
    if sys.argv[1] == "--spoil":
        return spoiled.self_test(sys.argv[2])
    (directory,) = sys.argv[1:]
    seen = evidence.collect(directory)
    show("what was found", "how many", counted(seen))
    show("what a worker took at most", "memory · open files · connections", taken(seen))
    found = [(text, list(check(seen))) for check, text in INVARIANTS]
    show("invariant", "violations", [(text, len(violations)) for text, violations in found])
    kinds = collections.defaultdict(list)
    for _, violations in found:
        for violation in violations:
            kinds[violation.kind].append(violation.where)
    for kind, where in sorted(kinds.items()):
        print(f"VIOLATION {kind}: {len(where)}")
        for place in where[:SHOWN]:
            print(f"  {place}")
    print(f"{sum(map(len, kinds.values()))} violations")
    return 1 if kinds else 0


def show(*table):
    """A table of two columns."""
    *head, lines = table
    print("| " + " | ".join(head) + " |\n|---|---|")
    for line in lines:
        print("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in line) + " |")
    print()


def counted(seen):
    outcomes = collections.Counter(outcome for _, _, outcome, _ in seen.ledger)
    of_two_minds = collections.Counter(outcome for id, _, outcome, _ in seen.ledger
                                       if id in seen.sent and seen.sent[id].label == "either")
    hows = collections.Counter(end["how"] for end in seen.ends)
    return [
        ("messages sent", len(seen.sent)),
        ("outcomes: row", outcomes[1]),
        ("outcomes: dead letter", outcomes[2]),
        ("outcomes: event that another message had brought", outcomes[4]),
        ("rows in the table, each compared with the reference", seen.rows.total()),
        ("dead letters, each opened and compared with what was sent", len(seen.letters)),
        ("of them sealed unread, since workers died of them", sum(letter.reason == POISON for letter in seen.letters)),
        ("messages that the two builds judge otherwise: rows", of_two_minds[1]),
        ("messages that the two builds judge otherwise: dead letters", of_two_minds[2]),
        ("deliveries", seen.history.deliveries),
        ("messages delivered more than once", sum(count > 1 for count in seen.history.receives.values())),
        ("deliveries of one message, at most", max(seen.history.receives.values(), default=0)),
        ("processes that were killed", hows["killed"]),
        ("processes that were stopped, whose counters were compared", hows["stopped"]),
        ("processes that ended by themselves, no database in sight", hows["exited"]),
        ("MiB searched for plain text", seen.searched >> 20),
        ("settled after the last fault", f"{seen.settled_after:.1f} s"),
    ]


def taken(seen):
    for number, connections in enumerate(seen.connections, 1):
        own = [sample for sample in seen.samples if sample["worker"] == f"worker-{number}"]
        memory, files = (max((sample[what] or 0 for sample in own), default=0) for what in ("peak_kib", "files"))
        yield f"worker-{number}", f"{memory >> 10} MiB · {files} · {connections}"


if __name__ == "__main__":
    sys.exit(main())
