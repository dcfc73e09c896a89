//! A log of entries, and what somebody does to it who may change everything in the database.

use super::{
    checkpoint::Checkpoint,
    findings::{Code, Findings},
    leaf::{Entry, tests::entry},
    merkle::Tree,
    verify::{Audit, Head, Seen},
};

/// A log of so many entries.
fn log(size: i64) -> Vec<Entry> {
    let mut log: Vec<Entry> = Vec::new();
    for seq in 1..=size {
        let prev = log.last().map_or([0; 32], |entry| entry.hash);
        log.push(entry(seq, prev, "find", "{}"));
    }
    log
}

/// All hashes made anew, as the owner of the database can do it.
fn rehashed(mut log: Vec<Entry>) -> Vec<Entry> {
    let mut prev = [0; 32];
    for (at, entry) in log.iter_mut().enumerate() {
        entry.seq = at as i64 + 1;
        entry.prev = prev;
        entry.hash = entry.leaf_hash();
        prev = entry.hash;
    }
    log
}

fn tree(log: &[Entry]) -> Tree {
    let mut tree = Tree::default();
    log.iter().for_each(|entry| tree.push(entry.hash));
    tree
}

fn checkpoint(log: &[Entry]) -> Checkpoint {
    Checkpoint { size: log.len() as u64, root: tree(log).root() }
}

/// What `masq.append` would have left as the head.
fn head(log: &[Entry]) -> Head {
    let mut peaks = Vec::new();
    let (mut from, mut width) = (0, 1 << 62);
    while width > 0 {
        if log.len() & width != 0 {
            peaks.push(tree(&log[from..from + width]).root().to_vec());
            from += width;
        }
        width >>= 1;
    }
    let hash = log.last().map_or([0; 32], |entry| entry.hash).to_vec();
    Head { size: log.len() as i64, hash, peaks }
}

fn look(log: &[Entry], head: Option<&Head>, checkpoints: &[Checkpoint]) -> Audit {
    let mut audit = Audit::new(checkpoints.to_vec(), Findings::default());
    for entry in log {
        audit.see(&Seen::Entry(Box::new(entry.clone())));
    }
    audit.head(head);
    audit.end();
    audit
}

/// Codes and entries.
fn found(log: &[Entry], head: &Head, checkpoints: &[Checkpoint]) -> Vec<(Code, i64)> {
    let audit = look(log, Some(head), checkpoints);
    audit.findings.list.iter().map(|finding| (finding.code, finding.entry.unwrap_or(0))).collect()
}

#[test]
fn a_log_is_whole_at_every_size_and_agrees_with_every_checkpoint() {
    let whole = log(40);
    let checkpoints: Vec<Checkpoint> = (0..=40).map(|size| checkpoint(&whole[..size])).collect();
    for size in 0..=40 {
        let log = &whole[..size];
        let audit = look(log, Some(&head(log)), &checkpoints[..=size]);
        assert!(audit.findings.list.is_empty(), "{:?}", audit.findings.list);
        assert_eq!((audit.agreed(), audit.tree().size()), (Some(size as u64), size as u64));
    }
}

#[test]
fn an_edited_entry_is_named_and_no_other() {
    for at in 0..9 {
        let mut log = log(9);
        let (end, signed) = (head(&log), checkpoint(&log));
        log[at].reason = Some("nothing of interest".into());
        assert_eq!(found(&log, &end, &[signed]), [(Code::Changed, at as i64 + 1)]);
    }
}

#[test]
fn an_edited_entry_with_a_new_hash_is_found_where_the_next_one_begins() {
    let mut log = log(9);
    let end = head(&log);
    log[4].reason = None;
    log[4].login = "somebody else".into();
    log[4].hash = log[4].leaf_hash();
    // Its own hash fits; what follows, and the head, hash another one.
    assert_eq!(found(&log, &end, &[]), [(Code::Unchained, 6), (Code::Head, 9)]);
}

#[test]
fn deleted_entries_are_named() {
    let whole = log(9);
    let (end, signed) = (head(&whole), checkpoint(&whole));
    for (from, to) in [(0, 1), (3, 4), (3, 6), (0, 8)] {
        let mut log = whole.clone();
        log.drain(from..to);
        assert_eq!(found(&log, &end, &[signed]), [(Code::Missing, from as i64 + 1)]);
    }
    let text = &look(&whole[3..], Some(&end), &[]).findings.list[0].text;
    assert_eq!(text, "entries 1 to 3 are missing");
}

#[test]
fn entries_that_change_places_are_named() {
    let mut log = log(9);
    let end = head(&log);
    let (a, b) = (log[3].seq, log[4].seq);
    log.swap(3, 4);
    (log[3].seq, log[4].seq) = (a, b);
    let found = found(&log, &end, &[]);
    assert_eq!(found[..2], [(Code::Changed, 4), (Code::Unchained, 4)]);
    assert!(found.contains(&(Code::Changed, 5)), "{found:?}");
}

#[test]
fn entries_out_of_order_and_twice_are_named() {
    let whole = log(5);
    let mut log = whole.clone();
    log.swap(2, 3);
    let end = head(&whole);
    assert_eq!(found(&log, &end, &[]), [(Code::Missing, 3), (Code::Disorder, 3)]);
    let mut log = whole;
    log.insert(2, log[1].clone());
    assert_eq!(found(&log, &end, &[]), [(Code::Disorder, 2)]);
}

#[test]
fn a_log_that_was_cut_off_is_found_by_its_head_and_without_that_by_a_checkpoint() {
    let whole = log(9);
    let cut = &whole[..6];
    assert_eq!(found(cut, &head(&whole), &[]), [(Code::Truncated, 7)]);
    assert_eq!(found(cut, &head(cut), &[]), []);
    assert_eq!(found(cut, &head(cut), &[checkpoint(&whole[..4]), checkpoint(&whole[..8])]), [(Code::Truncated, 7)]);
    assert_eq!(found(&[], &head(&[]), &[checkpoint(&whole)]), [(Code::Truncated, 1)]);
}

#[test]
fn a_log_that_was_made_anew_is_found_by_a_checkpoint_alone() {
    let whole = log(9);
    let signed: Vec<Checkpoint> = [3, 5, 7, 9].map(|size| checkpoint(&whole[..size])).into();
    let mut log = whole.clone();
    log[5].reason = Some("nothing of interest".into());
    let log = rehashed(log);
    assert_eq!(found(&log, &head(&log), &[]), []);
    let audit = look(&log, Some(&head(&log)), &signed);
    assert_eq!(audit.agreed(), Some(5));
    let finding = &audit.findings.list[0];
    assert_eq!((audit.findings.list.len(), finding.code, finding.entry), (1, Code::Rewritten, Some(6)));
    assert!(finding.text.starts_with("entries 6 to 7 are not those"), "{}", finding.text);

    let mut shorter = whole.clone();
    shorter.remove(0);
    let shorter = rehashed(shorter);
    assert_eq!(found(&shorter, &head(&shorter), &signed), [(Code::Rewritten, 1), (Code::Truncated, 9)]);
    let other = rehashed(vec![entry(1, [0; 32], "find", "{}"), entry(2, [0; 32], "epoch", "{}")]);
    assert_eq!(found(&other, &head(&other), &signed)[0], (Code::BadDetail, 2));
}

#[test]
fn a_head_that_was_changed_is_found() {
    let log = log(6);
    let right = head(&log);
    let shorter = head(&log[..5]);
    let mut other = right.clone();
    other.peaks[1][7] ^= 1;
    let mut odd = right.clone();
    odd.peaks[0].pop();
    for wrong in [shorter, other, odd, Head { hash: vec![0; 32], ..right.clone() }, Head { size: -1, ..right }] {
        assert_eq!(found(&log, &wrong, &[]), [(Code::Head, 6)], "{wrong:?}");
    }
    assert_eq!(look(&log, None, &[]).findings.list[0].code, Code::Head);
}

#[test]
fn an_entry_that_cannot_be_read_is_named() {
    let log = log(3);
    let mut audit = Audit::new(vec![checkpoint(&log)], Findings::default());
    audit.see(&Seen::Entry(Box::new(log[0].clone())));
    audit.see(&Seen::Unreadable(2));
    audit.see(&Seen::Entry(Box::new(log[2].clone())));
    audit.head(Some(&head(&log)));
    audit.end();
    let found: Vec<_> = audit.findings.list.iter().map(|finding| (finding.code, finding.entry)).collect();
    assert_eq!(found, [(Code::Changed, Some(2))]);
}

#[test]
fn requests_without_an_outcome_are_noted() {
    let mut log = log(5);
    for (at, action, request) in [(0, "reveal", None), (1, "revealed", Some(1)), (3, "reveal", None)] {
        (log[at].action, log[at].request) = (action.into(), request);
    }
    let log = rehashed(log);
    let audit = look(&log, Some(&head(&log)), &[]);
    let [finding] = audit.findings.list.as_slice() else { panic!("{:?}", audit.findings.list) };
    assert_eq!((finding.code, finding.entry, finding.is_note), (Code::Unanswered, Some(4), true));
    assert!(audit.findings.are_harmless());
}
