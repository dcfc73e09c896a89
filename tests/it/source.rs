//! Rust source as the tidy tests read it: without comments, literals and tests, and with every `use` written out.
//!
//! A lexer for this purpose and no parser: it knows just enough Rust that a word in a comment or a string is not taken
//! for code. Lines keep their numbers.

use std::{fs, ops::Range, path::Path};

/// One file.
pub struct Source {
    /// From the package's directory, with `/`.
    pub path: String,
    /// As it stands in the file.
    pub raw: String,
    /// What the compiler makes a program of, except tests.
    pub code: String,
    /// Its lines that are neither blank nor of a test.
    pub length: usize,
    /// Modules that this file declares for tests only.
    test_modules: Vec<String>,
}

impl Source {
    /// Reads a source that may stand nowhere.
    pub fn new(path: &str, raw: &str) -> Self {
        let mut code = without_text(raw);
        let (mut length, mut test_modules) = (lines(raw), Vec::new());
        for test in tests(&code) {
            if let Some((_, name)) = code[test.clone()].strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) {
                test_modules.push(name.to_owned());
            }
            length -= lines(&raw[test.clone()]);
            blank(&mut code, test);
        }
        Self { path: path.to_owned(), raw: raw.to_owned(), code: write_out_uses(&code), length, test_modules }
    }

    /// All sources below a directory of the package, without files that hold only tests.
    pub fn all(dir: &str) -> Vec<Self> {
        let sources: Vec<_> = files(dir).iter().map(|path| Self::new(path, &read(path))).collect();
        let tests: Vec<_> = sources.iter().flat_map(Self::test_files).collect();
        sources.into_iter().filter(|source| !tests.contains(&source.path)).collect()
    }

    fn test_files(&self) -> impl Iterator<Item = String> {
        let stem = self.path.trim_end_matches(".rs");
        let dir = stem.strip_suffix("/mod").or_else(|| stem.strip_suffix("/lib")).unwrap_or(stem);
        self.test_modules.iter().flat_map(move |name| [format!("{dir}/{name}.rs"), format!("{dir}/{name}/mod.rs")])
    }
}

/// A file of the package.
pub fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a directory of the package, sorted.
pub fn files(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{dir}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path));
        } else if path.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Blanks comments, strings and characters.
fn without_text(raw: &str) -> String {
    let mut code = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(next) = rest.chars().next() {
        let text = comment(rest).or_else(|| string(rest)).or_else(|| character(rest));
        let (taken, after) = rest.split_at(text.unwrap_or(next.len_utf8()));
        code.push_str(taken);
        if text.is_some() {
            let end = code.len();
            blank(&mut code, end - taken.len()..end);
        }
        rest = after;
    }
    code
}

/// Puts a space in the place of every byte but line feeds, so that all positions stay as they are.
fn blank(code: &mut String, range: Range<usize>) {
    let spaces: String = code[range.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
    code.replace_range(range, &spaces);
}

fn lines(text: &str) -> usize {
    text.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The length of the comment that begins here.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let mut at = rest.strip_prefix("/*").map(|_| 2)?;
    let mut depth = 1;
    while depth > 0 && at < rest.len() {
        let two = rest.as_bytes().get(at..at + 2);
        depth += i32::from(two == Some(b"/*")) - i32::from(two == Some(b"*/"));
        at += if matches!(two, Some(b"/*" | b"*/")) { 2 } else { 1 };
    }
    Some(at)
}

/// The length of the string that begins here: plain, byte, C or raw.
fn string(rest: &str) -> Option<usize> {
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    let is_raw = rest[..prefix].contains('r');
    let hashes = if is_raw { rest[prefix..].bytes().take_while(|&b| b == b'#').count() } else { 0 };
    let open = prefix + hashes + 1;
    let inside = rest[prefix + hashes..].strip_prefix('"')?;
    if is_raw {
        return inside.find(&format!("\"{}", "#".repeat(hashes))).map(|end| open + end + 1 + hashes);
    }
    let mut escaped = false;
    let end = inside.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map(|end| open + end + 1)
}

/// The length of the character that begins here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    let from = if first == '\\' { 2 } else { first.len_utf8() };
    let end = inside.get(from..)?.find('\'')?;
    (first == '\\' || end == 0).then_some(1 + from + end + 1)
}

/// Where the items under `#[cfg(test)]` stand.
fn tests(code: &str) -> Vec<Range<usize>> {
    let item = |start: usize| {
        let rest = &code[start..];
        let end = rest.find(['{', ';']).map_or(rest.len(), |at| match &rest[at..=at] {
            "{" => at + block(&rest[at..]),
            _ => at + 1,
        });
        start..start + end
    };
    code.match_indices("#[cfg(test)]").map(|(start, _)| item(start)).collect()
}

/// The length of the block that begins here with its opening brace.
pub fn block(code: &str) -> usize {
    let mut depth = 0;
    let end = code.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    end.map_or(code.len(), |end| end + 1)
}

/// `use a::{b, c::d};` becomes `use a::b; use a::c::d;`, so that every path can be searched for.
fn write_out_uses(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("use ") {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let is_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let end = if is_word { 4 } else { after.find(';').map_or(after.len(), |end| end + 1) };
        let (item, after) = after.split_at(end);
        if is_word {
            out.push_str(item);
        } else {
            paths(item.trim_start_matches("use ").trim_end_matches(';'), &mut out);
            out.extend(item.chars().filter(|&c| c == '\n'));
        }
        rest = after;
    }
    out + rest
}

fn paths(tree: &str, out: &mut String) {
    let Some((prefix, inside)) = tree.split_once('{') else {
        if !tree.trim().is_empty() {
            out.push_str(&format!("use {}; ", tree.trim()));
        }
        return;
    };
    let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
    let mut depth = 0;
    let parts = inside.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.filter(|part| !part.trim().is_empty()) {
        paths(&format!("{}{}", prefix.trim(), part.trim()), out);
    }
}

#[test]
fn words_in_comments_strings_and_tests_are_no_code() {
    let raw = r##"
// a tokio
/* b /* tokio */ tokio */ fn f<'a>(x: &'a str) -> char { '"' }
const S: &str = "tokio \" tokio"; const R: &[u8] = br#"tokio " tokio"#; const C: char = '\''; const D: &str = r"\";
#[cfg(test)]
mod tests { fn f() { tokio } }
#[cfg(test)]
mod more;
fn last() {}
"##;
    let source = Source::new("src/a/mod.rs", raw);
    assert!(!source.code.contains("tokio"), "{}", source.code);
    assert!(source.code.contains("fn last() {}"));
    assert!(source.code.contains("fn f<'a>(x: &'a str) -> char"));
    assert_eq!(source.code.lines().count(), raw.lines().count());
    assert_eq!(source.length, 4);
    assert_eq!(source.test_files().collect::<Vec<_>>(), ["src/a/more.rs", "src/a/more/mod.rs"]);
}

#[test]
fn uses_are_written_out() {
    let source =
        Source::new("a.rs", "pub use a::{\n    b::{self, c as d},\n    e,\n};\nfn f() { because x; }\nuse g;\n");
    let lines: Vec<_> = source.code.lines().collect();
    assert_eq!(lines[0].trim(), "pub use a::b::self; use a::b::c as d; use a::e;");
    assert_eq!(lines[4], "fn f() { because x; }");
    assert_eq!(lines[5].trim(), "use g;");
}
