"""Judges a chaos campaign by what it left behind, and exits 1 with every violation, by kind and id, never a content.

    checker DIRECTORY      the evidence of a campaign of tests/chaos, whose database still runs
    checker --self-test    breaks each invariant once in doctored evidence, and sees it found

A program of its own: it shares no code with masq, and reads the database through psql. Python 3.9, and `cryptography`.
"""

import collections
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import doctored  # noqa: E402
import evidence  # noqa: E402
from judge import judge  # noqa: E402

# Violations of one kind that are shown; all are counted.
SHOWN = 20


def main():
    if sys.argv[1:] == ["--self-test"]:
        return doctored.self_test()
    (directory,) = sys.argv[1:]
    seen = evidence.collect(directory)
    outcomes = collections.Counter(outcome for _, _, outcome, _ in seen.ledger)
    receives = seen.history.receives
    print(f"sent {len(seen.sent)}: {outcomes[1]} rows, {outcomes[2]} dead letters, {outcomes[4]} repeated; "
          f"{seen.rows.total()} rows in the table, {len(seen.letters)} dead letters opened")
    print(f"received again {sum(count > 1 for count in receives.values())} messages, at most {max(receives.values(), default=0)} times; "
          f"looked for plain text in {seen.searched >> 20} MiB; settled {seen.settled_after:.1f} s after the last fault")
    kinds = collections.defaultdict(list)
    for violation in judge(seen):
        kinds[violation.kind].append(violation.where)
    for kind, where in sorted(kinds.items()):
        print(f"VIOLATION {kind}: {len(where)}")
        for place in where[:SHOWN]:
            print(f"  {place}")
    print(f"{sum(map(len, kinds.values()))} violations")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
