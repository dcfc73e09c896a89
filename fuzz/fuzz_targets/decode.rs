//! A body becomes a row that PostgreSQL takes, or a dead letter with a reason; never a panic, in no envelope.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use masq::{
    json::{Document, Fault},
    sink::Verdict,
};
use masq_fuzz::{Steps, keys};

thread_local! {
    static STEPS: RefCell<[Steps; 4]> = RefCell::new(steps());
}

fn steps() -> [Steps; 4] {
    let keys = keys();
    ["none", "sns", "eventbridge", "auto"]
        .map(|envelope| Steps::new(&format!("[queue]\nenvelope = \"{envelope}\"\ndedupe = \"body:event_id\"\n"), &keys))
}

fuzz_target!(|body: &[u8]| {
    agrees_with_serde(body);
    STEPS.with_borrow_mut(|all| {
        let rows: Vec<_> = all.iter_mut().map(|steps| steps.row(body)).collect();
        for row in rows.iter().flatten() {
            for token in [&row[2], &row[3]].into_iter().flatten() {
                assert!(token.len() == 64 && token.iter().all(u8::is_ascii_hexdigit), "a masked field holds a token");
            }
            assert!(row[0].as_ref().is_some_and(|user_id| !user_id.is_empty()), "user_id is required");
        }
        // A message in an envelope is unwrapped by just the one and by "auto", and what is in none is so by "auto".
        assert!(rows[1].is_none() || rows[2].is_none());
        for row in rows[1].iter().chain(&rows[2]) {
            assert!(rows[3].as_ref() == Some(row));
        }
        if let Verdict::Dead(dead) = &all[3].run(body).entries[0].verdict {
            let reason = dead.reason.to_string();
            assert!(reason.len() < 64 && reason.is_ascii(), "a reason names a field of the configuration at most");
        }
    });
});

/// What we read serde_json reads, but for what it has its own limits for.
fn agrees_with_serde(body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    let read = Document::parse(text).map(|document| document.fault());
    let theirs = serde_json::from_str::<serde_json::Value>(text).is_ok();
    match read {
        // The least fault is told: behind these there is no lone surrogate, which serde_json refuses.
        Ok(None | Some(Fault::Nul | Fault::NumberOutOfRange)) => {
            assert!(theirs || nests_deeply(text), "serde_json refuses it");
        }
        Ok(_) | Err(Fault::TooDeep) => {}
        Err(_) => assert!(!theirs, "serde_json takes it"),
    }
}

/// serde_json stops at the 128th level, we at the 129th.
fn nests_deeply(text: &str) -> bool {
    text.bytes().filter(|byte| b"[{".contains(byte)).count() >= 127
}
