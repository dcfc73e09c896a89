//! The rules for everything that is no source: dependencies, papers, migrations, and that no test is forgotten.
//!
//! As in `tidy`, every test also plants a violation and sees it found.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use sha2::{Digest, Sha256};

use crate::{
    source::{files, read},
    tidy::assert_none,
};

/// Dependencies that nobody justified: each has a comment above it, which may speak for three in a row.
fn unexplained(manifest: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut in_dependencies, mut spoken_for) = (false, 0_u8);
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if line.starts_with('#') {
            spoken_for = 3;
        } else if line.trim().is_empty() {
            spoken_for = 0;
        } else if in_dependencies && spoken_for == 0 {
            complaints.push(format!("Cargo.toml: no reason is given for `{line}`"));
        } else {
            spoken_for = spoken_for.saturating_sub(1);
        }
    }
    complaints
}

#[test]
fn dependencies_have_reasons_and_lints_their_strength() {
    let manifest = read("Cargo.toml");
    assert_none(unexplained(&manifest));
    for line in ["unsafe_code = \"forbid\"", "print_stdout = \"deny\"", "unwrap_used = \"deny\""] {
        assert!(manifest.contains(line), "Cargo.toml has lost `{line}`");
    }
    assert_eq!(unexplained("[dependencies]\n# - Why.\na = \"1\"\n\nb = \"2\"\n").len(), 1);
}

/// Licences that ask for no more than their text being passed on.
const PERMISSIVE: [&str; 13] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "BSL-1.0",
    "CC0-1.0",
    "Unicode-3.0",
    "Unlicense",
];

/// What may not be depended on: another licence, another source than crates.io, a second TLS provider.
fn unwelcome(name: &str, source: &str, license: &str) -> Option<String> {
    let words = license.split(|c: char| !(c.is_alphanumeric() || "-.".contains(c)));
    let mut words = words.filter(|word| !["", "AND", "OR", "WITH"].contains(word));
    if license.is_empty() || !words.all(|word| PERMISSIVE.contains(&word)) {
        return Some(format!("{name}: is the licence {license:?} permissive?"));
    }
    if !source.is_empty() && source != "(proc-macro)" && name != env!("CARGO_PKG_NAME") {
        return Some(format!("{name} comes from {source}, not from crates.io"));
    }
    let is_tls = ["ring", "openssl-sys", "native-tls", "schannel"].contains(&name);
    is_tls.then(|| format!("{name}: there is one TLS provider, aws-lc-rs"))
}

/// Everything that the program, or its tests too, is built from on this machine: name, version, where it is from, licence.
fn packages(edges: &str) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--offline", "--edges", edges, "--prefix", "none"]);
    let output = command.args(["--format", "{p}|{l}"]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn dependencies_are_few_permissive_and_from_crates_io() {
    let program = packages("normal,build").len();
    assert!(program < 252, "{program} packages: what is the new one worth?");
    let packages = packages("normal,build,dev");
    // The AWS SDK, which the client is held against, is among them.
    assert!(packages.len() < 280, "{} packages with those of the tests", packages.len());
    assert_none(packages.iter().filter_map(|package| {
        let (package, license) = package.split_once('|').unwrap();
        let mut words = package.splitn(3, ' ');
        unwelcome(words.next().unwrap(), words.nth(1).unwrap_or_default(), license)
    }));
    let lock = read("Cargo.lock");
    let mut sources = lock.lines().filter(|line| line.starts_with("source = "));
    assert!(sources.all(|line| line == "source = \"registry+https://github.com/rust-lang/crates.io-index\""));

    let planted =
        [("a", "", "GPL-3.0-only"), ("a", "", ""), ("a", "(https://example.org/a)", "MIT"), ("ring", "", "ISC")];
    for (name, source, license) in planted {
        assert!(unwelcome(name, source, license).is_some(), "{name} {source} {license}");
    }
    assert_eq!(unwelcome("a", "(proc-macro)", "(MIT OR Apache-2.0) AND Unicode-3.0"), None);
}

/// Every text file of the repository, with its contents; what .gitignore names is left out.
fn texts(dir: &Path, ignored: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == ".git" || ignored.contains(&name) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(texts(&entry.path(), ignored));
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            found.push((entry.path().display().to_string(), text));
        }
    }
    found
}

/// Traces of the machine that a file was written on: directories that only one person has.
fn machine_paths(text: &str) -> Vec<usize> {
    let homes = ["root", "work", "Users"].map(|home| format!("/{home}/"));
    let is_home = |line: &str| homes.iter().any(|home| line.contains(home.as_str()));
    text.lines().enumerate().filter(|(_, line)| is_home(line)).map(|(at, _)| at + 1).collect()
}

#[test]
fn no_text_knows_the_machine_it_was_written_on() {
    let ignored: Vec<_> = read(".gitignore").lines().map(|line| line.trim_matches('/').to_owned()).collect();
    let texts = texts(Path::new(env!("CARGO_MANIFEST_DIR")), &ignored);
    assert_none(texts.iter().flat_map(|(path, text)| {
        machine_paths(text).into_iter().map(move |line| format!("{path}:{line}: a path of somebody's machine"))
    }));
    assert_eq!(machine_paths(&format!("a\n/{}/me/masq\n", "Users")), [2]);
}

/// Files of tests that no `mod` line declares, so that they would be forgotten without a sound.
fn forgotten(main: &str, paths: &[String]) -> Vec<String> {
    let modules = paths.iter().filter_map(|path| path.strip_prefix("tests/it/")?.split(['/', '.']).next());
    let forgotten = modules.filter(|name| *name != "main" && !main.contains(&format!("mod {name};")));
    forgotten.map(|name| format!("tests/it/main.rs does not declare `mod {name};`")).collect()
}

#[test]
fn no_test_is_forgotten() {
    assert_none(forgotten(&read("tests/it/main.rs"), &files("tests/it")));
    assert_eq!(forgotten("mod a;", &["tests/it/a.rs".into(), "tests/it/b/c.rs".into()]).len(), 1);
}

/// Migrations whose number is not their place: 0001_name.sql, 0002_name.sql and so on.
fn misnumbered(names: &[String]) -> Vec<String> {
    let places = (1..).map(|number| format!("{number:04}_"));
    let wrong = names.iter().zip(places).filter(|(name, place)| !name.starts_with(place) || !name.ends_with(".sql"));
    wrong.map(|(name, place)| format!("migrations/{name} should be migrations/{place}….sql")).collect()
}

#[test]
fn migrations_are_numbered_without_gaps() {
    for dir in ["migrations", "migrations/slots"] {
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap();
        let mut names: Vec<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // What roles may is no migration: it is applied anew each time.
        names.retain(|name| name.starts_with(|first: char| first.is_ascii_digit()));
        names.sort();
        assert_none(misnumbered(&names));
    }
    assert_eq!(misnumbered(&["0001_a.sql".into(), "0003_b.sql".into()]).len(), 1);
}

#[test]
fn papers_exist_and_the_licence_is_the_one_in_the_manifest() {
    for paper in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "rust-toolchain.toml"]
    {
        assert!(!read(paper).trim().is_empty(), "{paper} is empty");
    }
    assert!(read("Cargo.toml").contains("license = \"Apache-2.0\""));
    let digest = Sha256::digest(read("LICENSE"));
    let standard = [0xcf, 0xc7, 0x74, 0x9b, 0x96, 0xf6, 0x3b, 0xd3]; // of apache.org/licenses/LICENSE-2.0.txt
    assert!(digest.starts_with(&standard), "LICENSE is not the standard text of Apache-2.0");
    let version = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").contains(&version), "CHANGELOG.md says nothing of {version}");
}
