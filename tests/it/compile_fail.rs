//! What must not compile: the invariants that the type system holds.
//!
//! Every program of tests/compile_fail is given to rustc with the library of this build. Its first line names the error
//! that it must end with, and no other; `control.rs` does the same things rightly and must compile, so that a harness
//! that lets nothing compile is noticed. Needs `rustc` on PATH.

use std::{
    fmt::{Debug, Display},
    fs,
    marker::PhantomData,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use masq::{
    event::{Event, Field, Reject, Value},
    pii::Pii,
    queue::Message,
    sink::Batch,
};
use serde::Serialize;

use crate::source::{files, read};

const CONTROL: &str = "tests/compile_fail/control.rs";

/// Compiles a program against a build of the library; what rustc said.
fn compile(program: &str, library: &Path) -> Result<(), String> {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new("rustc");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg(program).arg("--out-dir").arg(out.path());
    command.args(["--edition", "2024", "--crate-type", "bin", "--emit", "metadata", "--color", "never"]);
    command.arg("--extern").arg(format!("masq={}", library.display()));
    command.arg("-L").arg(format!("dependency={}", library.parent().unwrap().display()));
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The library that this binary was built with, or one that is as good: the newest beside it with which the control
/// program compiles. Builds with other settings leave theirs in the same directory.
fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let entries = fs::read_dir(beside).unwrap().map(|entry| entry.unwrap());
    let mut libraries: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap_or_default();
            name.starts_with("libmasq-") && name.ends_with(".rlib")
        })
        .map(|entry| (entry.metadata().unwrap().modified().unwrap(), entry.path()))
        .collect();
    libraries.sort();
    let mut complaints = String::from("no build of the library is here");
    for (_, library) in libraries.into_iter().rev() {
        match compile(CONTROL, &library) {
            Ok(()) => return library,
            Err(complaint) => complaints = complaint,
        }
    }
    panic!("{CONTROL} does not compile:\n{complaints}");
}

/// What is wrong with the way in which a program failed to compile, or that it did not.
fn judge(program: &str, text: &str, compiled: Result<(), String>) -> Option<String> {
    let expected = text.strip_prefix("//~ ").and_then(|line| line.split_whitespace().next()).unwrap_or("no code");
    let Err(complaints) = compiled else { return Some(format!("{program} compiles; expected {expected}")) };
    let mut codes = complaints.split("error[").skip(1).filter_map(|rest| rest.split(']').next()).peekable();
    let right = codes.peek().is_some() && codes.all(|code| code == expected);
    (!right).then(|| format!("{program}: expected {expected} and no other error, rustc says:\n{complaints}"))
}

#[test]
fn programs_that_break_an_invariant_do_not_compile() {
    let library = library();
    let programs: Vec<_> = files("tests/compile_fail").into_iter().filter(|program| program != CONTROL).collect();
    assert!(programs.len() >= 8, "only {} programs are left", programs.len());
    let complaints: Vec<String> = thread::scope(|scope| {
        let judged = |program: String| judge(&program, &read(&program), compile(&program, &library));
        let tasks: Vec<_> = programs.into_iter().map(|program| scope.spawn(move || judged(program))).collect();
        tasks.into_iter().filter_map(|task| task.join().unwrap()).collect()
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_program_that_compiles_or_fails_otherwise_is_noticed() {
    let text = "//~ E0451 why\n";
    assert!(judge("a.rs", text, Err("error[E0451]: private\nerror: aborting".into())).is_none());
    assert!(judge("a.rs", text, Ok(())).is_some());
    assert!(judge("a.rs", text, Err("error: expected `;`".into())).is_some());
    assert!(judge("a.rs", text, Err("error[E0451]: private\nerror[E0433]: unresolved".into())).is_some());
}

/// Whether a type has a trait, told without failing to compile: where the bound holds, the constant of the type itself
/// hides the trait's. (A program of tests/compile_fail cannot name serde, which is not part of masq's interface.)
macro_rules! has {
    ($ty:ty: $bound:path) => {{
        #[allow(dead_code)] // where the bound holds
        trait Otherwise {
            const HAS: bool = false;
        }
        struct Type<T>(PhantomData<T>);
        impl<T> Otherwise for Type<T> {}
        #[allow(dead_code)] // where the bound does not hold
        impl<T: $bound> Type<T> {
            const HAS: bool = true;
        }
        Type::<$ty>::HAS
    }};
}

macro_rules! assert_cannot_be_shown {
    ($($ty:ty),*) => { $(
        assert!(!has!($ty: Debug) && !has!($ty: Display) && !has!($ty: Serialize) && !has!($ty: Clone), stringify!($ty));
    )* };
}

#[test]
fn nothing_that_holds_plain_values_can_be_printed_serialised_or_copied() {
    assert!(has!(String: Debug) && has!(String: Display) && has!(String: Serialize) && has!(String: Clone));
    assert_cannot_be_shown!(Pii<String>, Pii<Vec<u8>>, Pii<Field>, Field, Event, Reject, Message, Batch);
    assert!(!has!(Value: Debug) && !has!(Value: Display) && !has!(Value: Serialize));
}
