//! The programs of a campaign: two builds of masq, and the Python that runs the checker.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The two builds.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) ordinary: PathBuf,
    /// Built with the feature `mutants`: as `other-verdict` it stands for another version in a rolling deploy.
    pub(crate) mutant: PathBuf,
}

impl Programs {
    /// Builds what is not built yet.
    pub(crate) fn build(release: bool) -> Self {
        let debug = Path::new(env!("CARGO_BIN_EXE_masq"));
        cargo(&["--features", "mutants", "--bin", "masq-mutant"]);
        let mutant = debug.with_file_name("masq-mutant");
        if !release {
            return Self { ordinary: debug.to_owned(), mutant };
        }
        cargo(&["--release", "--bin", "masq"]);
        let target = debug.parent().and_then(Path::parent).expect("programs are in a directory of the profile's");
        Self { ordinary: target.join("release/masq"), mutant }
    }
}

/// `cargo build` where this program was built, from what is there.
fn cargo(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--locked", "--offline"]).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(command.status().is_ok_and(|status| status.success()), "cargo build {} fails", arguments.join(" "));
}

/// The Python of the virtual environment with tests/requirements.txt in it.
#[expect(clippy::disallowed_methods, reason = "as for the other tests")]
pub(crate) fn python() -> PathBuf {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("MASQ_TEST_PYTHON").map_or_else(ours, PathBuf::from);
    assert!(python.exists(), "{} is missing; ./dev test installs it", python.display());
    python
}
