//! The rules of ARCHITECTURE.md that a machine can check by reading the sources.
//!
//! What the compiler refuses is in `compile_fail`, what concerns other files in `repository`; how the program behaves
//! is in the other modules. Every check is a function that answers complaints, and every test also plants a violation
//! and sees it found.

use crate::source::{Source, block, files};

/// Where names may not stand, and why.
struct Rule {
    /// A trailing `*` stands for the rest of a word.
    names: &'static [&'static str],
    place: Place,
    reason: &'static str,
}

/// Modules below src/, each with everything under it.
enum Place {
    Only(&'static [&'static str]),
    Never(&'static [&'static str]),
}
use Place::{Never, Only};

/// What is computed from what is passed in, and from nothing else.
const PURE: &[&str] = &[
    "event",
    "pii",
    "json",
    "backoff",
    "pipeline/decode",
    "pipeline/envelope",
    "pipeline/value",
    "pipeline/mask",
    "sink/copy",
    "vault/token",
    "vault/seal",
    "vault/mac",
    "vault/sealer",
    "vault/recovery",
    "vault/audit/checkpoint",
    "vault/audit/epochs",
    "vault/audit/export",
    "vault/audit/findings",
    "vault/audit/leaf",
    "vault/audit/merkle",
    "vault/audit/verify",
];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { names: &["Loaded {"], place: Only(&["pipeline/load"]),
        reason: "only load.rs can say that a message is settled" },
    Rule { names: &[".delete("], place: Only(&["pipeline/acknowledge", "queue", "local", "cli/check", "cli/demo/forgetful", "cli/bench"]),
        reason: "only what is Loaded is deleted (check tries whether it may, with a receipt that is none; bench has a queue of its own)" },

    Rule { names: &["async", "await", "tokio*", "futures_util"], place: Never(PURE),
        reason: "pure code does not wait" },
    Rule { names: &["Instant", "SystemTime", "UtcDateTime", "now_utc", "now_ms"], place: Never(PURE),
        reason: "pure code has no clock; pass the time in" },
    Rule { names: &["std::env", "std::fs", "std::io", "std::process", "TcpStream", "TcpListener", "UdpSocket"],
        place: Never(PURE), reason: "pure code does no I/O; pass the value in" },
    Rule { names: &["rand", "fastrand", "getrandom", "SystemRandom", "aws_lc_rs::rand", "new_v4", "new_v7"],
        place: Never(PURE), reason: "pure code draws no random numbers; pass the bytes in" },
    Rule { names: &["tracing", "log", "println!", "eprintln!", "dbg!"], place: Never(PURE),
        reason: "pure code logs nothing: it holds plain values" },

    Rule { names: &["aws_config", "aws_sigv4", "aws_credential_types", "aws_smithy*"], place: Only(&["aws"]),
        reason: "the AWS client's crates are named in aws/ alone" },
    Rule { names: &["crate::aws"], place: Only(&["aws", "queue/sqs", "vault/kms", "cli"]),
        reason: "AWS is an edge: the pipeline knows a Queue, and keys that make epochs" },
    Rule { names: &["tokio_postgres*"], place: Only(&["db", "sink", "vault", "check"]),
        reason: "the PostgreSQL driver is an edge: the pipeline knows a Sink" },
    Rule { names: &["axum"], place: Only(&["http", "local"]), reason: "servers are in http/ and local/" },
    Rule { names: &["clap"], place: Only(&["cli"]), reason: "the command line is in cli/" },

    Rule { names: &[".expose("], place: Only(&["pii", "pipeline/decode", "pipeline/mask", "vault"]),
        reason: "plain values are looked at where they are decoded, masked or sealed, and nowhere else" },

    Rule { names: &["println!", "eprintln!", "print!", "eprint!", "std::io::stdout", "std::io::stderr", "std::io::stdin"],
        place: Only(&["cli", "logging"]), reason: "the library never prints; cli/ does" },
    Rule { names: &["std::env", "std::process::exit", "std::process::abort"], place: Only(&["cli", "main"]),
        reason: "the library never reads the environment and never exits; cli/ does" },
    Rule { names: &["static mut", "thread_local!", "OnceLock", "LazyLock", "OnceCell", "LazyCell"], place: Only(&["mutant"]),
        reason: "no global mutable state; pass it in" },
    Rule { names: &["todo!", "unimplemented!", "dbg!"], place: Only(&[]), reason: "nothing is half built" },
];

impl Rule {
    fn allows(&self, path: &str) -> bool {
        match self.place {
            Only(modules) => modules.iter().any(|module| is_in(path, module)),
            Never(modules) => !modules.iter().any(|module| is_in(path, module)),
        }
    }

    fn check(&self, source: &Source) -> Vec<String> {
        if self.allows(&source.path) {
            return Vec::new();
        }
        let found = self.names.iter().flat_map(|name| find(&source.code, name).map(move |line| (line, name)));
        found.map(|(line, name)| format!("{}:{line}: `{name}`: {}", source.path, self.reason)).collect()
    }
}

/// Whether a file is a module or under it: src/a.rs, src/a/mod.rs and src/a/b.rs are in `a`.
fn is_in(path: &str, module: &str) -> bool {
    let rest = path.strip_prefix("src/").and_then(|path| path.strip_prefix(module));
    rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The lines in which a name stands as a word of its own.
fn find<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_prefix = name.ends_with('*');
    let name = name.trim_end_matches('*');
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).filter_map(move |(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let cuts_before = name.starts_with(in_word) && before.ends_with(in_word);
        let cuts_after = name.ends_with(in_word) && after.starts_with(in_word) && !is_prefix;
        (!cuts_before && !cuts_after).then(|| before.matches('\n').count() + 1)
    })
}

/// Fails with all complaints at once.
pub fn assert_none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<_> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn names_stand_only_where_they_may() {
    let sources = Source::all("src");
    assert_none(RULES.iter().flat_map(|rule| sources.iter().flat_map(|source| rule.check(source))));
}

#[test]
fn every_rule_finds_what_it_forbids_and_names_places_that_exist() {
    let paths = files("src");
    for rule in RULES {
        let (Only(places) | Never(places)) = rule.place;
        for place in places {
            assert!(paths.iter().any(|path| is_in(path, place)), "no file in `{place}`: {}", rule.reason);
        }
        let forbidden =
            if let Never(places) = rule.place { format!("src/{}/x.rs", places[0]) } else { "src/x.rs".into() };
        for name in rule.names {
            let name = name.trim_end_matches('*');
            let planted = Source::new(&forbidden, &format!("fn f() {{\n    {name}\n}}\n"));
            let complaints = rule.check(&planted);
            assert!(complaints.iter().any(|complaint| complaint.starts_with(&format!("{forbidden}:2: "))), "{name}");
            let harmless = Source::new(&forbidden, &format!("// {name}\nconst A: &str = \"{name}\";\n"));
            assert!(rule.check(&harmless).is_empty(), "{name}");
        }
    }
}

/// Types outside a `Pii` that hold plain values all the same: what `Pii` is wrapped around, and what it is made from.
const PLAIN: [&str; 5] = ["Pii", "Field", "Value", "Json", "Document"];
const FORBIDDEN_FOR_PLAIN: [&str; 3] = ["Debug", "Display", "Serialize"];

/// Ways in which plain values could be printed: a derive or an implementation for a type that holds them.
fn printable(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut complaints = Vec::new();
    for (at, keyword) in code.match_indices("struct ").chain(code.match_indices("enum ")) {
        let name = code[at + keyword.len()..].split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let end = code[at..].find(['{', ';']).map_or(code.len(), |open| at + open);
        let body = &code[at..end + if code[end..].starts_with('{') { block(&code[end..]) } else { 0 }];
        if !PLAIN.contains(&name) && !body.contains("Pii<") {
            continue;
        }
        let attributes = code[..at].rsplit([';', '{', '}']).next().unwrap_or_default();
        let line = code[..at].matches('\n').count() + 1;
        for printing in FORBIDDEN_FOR_PLAIN {
            let implemented = find(code, &format!("{printing} for {name}")).next();
            if implemented.is_some() || find(attributes, printing).next().is_some() {
                complaints.push(format!("{}:{line}: {name} holds plain values and is {printing}", source.path));
            }
        }
    }
    complaints
}

#[test]
fn nothing_that_holds_plain_values_can_be_printed() {
    assert_none(Source::all("src").iter().flat_map(printable));

    let planted = [
        "#[derive(Clone, Debug)]\nstruct Field { raw: String }",
        "struct Seen(Pii<String>);\nimpl fmt::Display for Seen {}",
        "#[derive(serde::Serialize)]\npub enum Value { Text }",
    ];
    for bad in planted {
        assert_eq!(printable(&Source::new("src/x.rs", bad)).len(), 1, "{bad}");
    }
    assert!(printable(&Source::new("src/x.rs", "#[derive(Debug)] struct A; struct Seen(Pii<String>);")).is_empty());
}

/// The longest a source may be, in lines that are not blank and no test. What is longer is two things.
const LONGEST: usize = 400;

/// Shapes that rustfmt and clippy do not know. Tests may be long, and may share a server in a static.
fn form(source: &Source) -> Vec<String> {
    let Source { path, raw, length, .. } = source;
    let stem = path.trim_end_matches("/mod.rs").trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
    let mut complaints = Vec::new();
    if !raw.starts_with("//!") {
        complaints.push(format!("{path}:1: a file opens by saying what it is, with `//!`"));
    }
    if ["util", "utils", "helper", "helpers", "common", "misc", "types"].contains(&stem) {
        complaints.push(format!("{path}:1: a file is named after what is in it"));
    }
    if path.starts_with("src/") {
        if *length > LONGEST {
            complaints.push(format!("{path}:1: {length} lines, more than {LONGEST}: it is two things"));
        }
        complaints.extend(by_line(path, &source.code, code_line));
    }
    complaints.extend(by_line(path, raw, raw_line));
    complaints
}

fn by_line(path: &str, text: &str, judge: fn(&str) -> Option<&'static str>) -> Vec<String> {
    let judged = text.lines().enumerate().filter_map(|(at, line)| judge(line).map(|complaint| (at + 1, complaint)));
    judged.map(|(line, complaint)| format!("{path}:{line}: {complaint}")).collect()
}

fn code_line(line: &str) -> Option<&'static str> {
    let has = |name: &&str| find(line, name).next().is_some();
    if ["Manager", "Helper", "Util"].iter().any(|vague| line.contains(vague)) {
        return Some("Manager, Helper and Util say nothing: what does it do?");
    }
    let is_global = line.trim_start().trim_start_matches("pub ").starts_with("static ");
    let changes = ["Atomic*", "Mutex", "RwLock", "Cell", "RefCell"].iter().any(has);
    (is_global && changes).then_some("no global mutable state; pass it in")
}

fn raw_line(line: &str) -> Option<&'static str> {
    let has = |name: &&str| find(line, name).next().is_some();
    if [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")].iter().any(has) {
        return Some("what is left to do belongs into an issue");
    }
    let line = line.trim_start();
    let is_exception = ["#[allow(", "#![allow(", "#[expect("].iter().any(|start| line.starts_with(start));
    let has_reason = line.contains("// ") || line.contains("reason = ");
    // One that rustfmt broke into lines has its reason on a line of its own.
    (is_exception && line.contains(']') && !has_reason).then_some("an exception from a lint gives its reason")
}

#[test]
fn sources_keep_their_form() {
    let sources = ["src", "tests/it", "tests/chaos"].into_iter().flat_map(Source::all);
    assert_none(sources.flat_map(|source| form(&source)));

    let long = "//! A.\n".to_owned() + &"fn f() {}\n".repeat(LONGEST);
    let with_tests = "//! A.\n#[cfg(test)]\nmod tests {\n".to_owned() + &"fn f() {}\n".repeat(LONGEST) + "}\n";
    assert!(form(&Source::new("src/x.rs", &with_tests)).is_empty());
    for bad in [
        "fn f() {}\n",
        &long,
        "//! A.\nstruct FileManager;\n",
        "//! A.\n#[allow(dead_code)]\nfn f() {}\n",
        "//! A.\npub static COUNT: AtomicU64 = AtomicU64::new(0);\n",
    ] {
        assert!(!form(&Source::new("src/x.rs", bad)).is_empty(), "{bad}");
    }
    assert_eq!(form(&Source::new("src/util.rs", concat!("//! A.\n// TO", "DO: all\n"))).len(), 2);
}
