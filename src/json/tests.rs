//! Cases for every fault, and serde_json as the second opinion.

use proptest::prelude::*;

use super::*;

fn fault(text: &str) -> Option<Fault> {
    Document::parse(text).map_or_else(Some, |document| document.fault())
}

#[test]
fn faults_of_form() {
    for (text, expected) in [
        ("", Fault::Empty),
        (" \r\n\t", Fault::Empty),
        ("\u{feff}{}", Fault::Syntax),
        ("{'a':1}", Fault::Syntax),
        ("[1,]", Fault::Syntax),
        ("[,1]", Fault::Syntax),
        ("{\"a\" 1}", Fault::Syntax),
        ("{\"a\":1,}", Fault::Syntax),
        ("[1 2]", Fault::Syntax),
        ("01", Fault::Trailing),
        ("[01]", Fault::Syntax),
        ("+1", Fault::Syntax),
        (".5", Fault::Syntax),
        ("1.", Fault::Truncated),
        ("[1.]", Fault::Syntax),
        ("-", Fault::Truncated),
        ("NaN", Fault::Syntax),
        ("nul", Fault::Truncated),
        ("nulx", Fault::Syntax),
        ("\"a", Fault::Truncated),
        ("\"\\", Fault::Truncated),
        ("\"\\u00", Fault::Truncated),
        ("\"\\x\"", Fault::Syntax),
        ("\"a\nb\"", Fault::Syntax),
        ("{\"a\":[1", Fault::Truncated),
        ("]", Fault::Syntax),
        ("[}", Fault::Syntax),
        ("{} {}", Fault::Trailing),
        ("{}]", Fault::Trailing),
    ] {
        assert_eq!(fault(text), Some(expected), "{text:?}");
    }
}

#[test]
fn faults_of_content_by_their_order() {
    for (text, expected) in [
        (r#"{"a":1,"a":1}"#, Some(Fault::DuplicateKey)),
        (r#"{"a":1,"\u0061":1}"#, Some(Fault::DuplicateKey)),
        (r#"[{"x":{"a":1,"a":2}}]"#, Some(Fault::DuplicateKey)),
        (r#"{"a":{"b":1},"b":2}"#, None),
        (r#""\ud800""#, Some(Fault::LoneSurrogate)),
        (r#""\udc00\ud800""#, Some(Fault::LoneSurrogate)),
        (r#""\ud800\ud800\udc00""#, Some(Fault::LoneSurrogate)),
        (r#""\ud83d\ude00""#, None),
        (r#""\u0000""#, Some(Fault::Nul)),
        ("1e400", Some(Fault::NumberOutOfRange)),
        ("-1e400", Some(Fault::NumberOutOfRange)),
        ("1e-400", None),
        (r#"["\u0000", 1e999, {"a":1,"a":2}]"#, Some(Fault::DuplicateKey)),
        (r#"["\u0000", {"a":1,"a":2}"#, Some(Fault::Truncated)),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
    assert_eq!(fault(&"9".repeat(400)), Some(Fault::NumberOutOfRange));
    assert_eq!(fault(&"9".repeat(300)), None);
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(fault(&nested(MAX_DEPTH)), None);
    assert_eq!(fault(&nested(MAX_DEPTH + 1)), Some(Fault::TooDeep));
    assert_eq!(fault(&"[".repeat(1 << 20)), Some(Fault::TooDeep));
    assert_eq!(fault(&"{\"a\":".repeat(1 << 18)), Some(Fault::TooDeep));
}

#[test]
fn many_keys_are_compared_quickly() {
    let keys: Vec<String> = (0..100_000).map(|i| format!("\"k{i}\":1")).collect();
    assert_eq!(fault(&format!("{{{}}}", keys.join(","))), None);
    assert_eq!(fault(&format!("{{{},\"k7\":1}}", keys.join(","))), Some(Fault::DuplicateKey));
}

#[test]
fn members_and_elements_are_found() {
    let document = Document::parse(r#"{"a":{"x":[1,[2,3],"\n\u00e9\ud83d\ude00"]},"b\/c":null}"#).unwrap();
    let a = document.member(Document::ROOT, "a").unwrap();
    let x = document.member(a, "x").unwrap();
    assert_eq!(document.text(document.element(x, 1).unwrap()), "[2,3]");
    assert!(document.value(document.element(x, 2).unwrap()) == Json::String("\né😀".into()));
    assert_eq!(document.element(x, 3), None);
    assert_eq!(document.member(x, "a"), None);
    assert!(document.value(document.member(Document::ROOT, "b/c").unwrap()) == Json::Null);
    assert_eq!(document.members(Document::ROOT).count(), 2);
}

/// What serde_json makes of the text, as far as the two should agree.
fn agrees_with_serde(text: &str) {
    let serde = serde_json::from_str::<serde_json::Value>(text);
    match Document::parse(text) {
        Ok(document) if document.fault().is_none() => {
            assert_eq!(serde.expect("serde_json refuses it"), rebuild(&document, Document::ROOT), "{text:?}");
        }
        Ok(document) => {
            let lax = matches!(document.fault(), Some(Fault::DuplicateKey | Fault::Nul));
            assert!(lax || serde.is_err(), "{text:?}");
        }
        Err(_) => assert!(serde.is_err(), "serde_json takes {text:?}"),
    }
}

fn rebuild(document: &Document, at: At) -> serde_json::Value {
    match document.value(at) {
        Json::Object => document
            .members(at)
            .map(|(key, value)| (document.string(key).into_owned(), rebuild(document, value)))
            .collect(),
        Json::Array => (0..).map_while(|i| document.element(at, i)).map(|at| rebuild(document, at)).collect(),
        Json::String(text) => text.into(),
        Json::Number(text) => serde_json::from_str(text).unwrap(),
        Json::Boolean(value) => value.into(),
        Json::Null => serde_json::Value::Null,
    }
}

proptest! {
    #[test]
    fn agrees_with_serde_json_on_anything(text in "[\\[\\]{}:,\"\\\\ untrefalsd0-9.eE+-]{0,24}") {
        agrees_with_serde(&text);
    }

    #[test]
    fn agrees_with_serde_json_on_a_damaged_event(at in 0usize..120, byte in 0u8..128) {
        let mut text = br#"{"user_id": "424c", "app_version": "2.3.0", "n": [1.5e3, -0, true, null, {"k": "\u00e9\n"}], "locale": null}"#.to_vec();
        let at = at.min(text.len() - 1);
        text[at] = byte;
        agrees_with_serde(std::str::from_utf8(&text).unwrap());
    }
}
