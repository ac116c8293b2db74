//! Where the binaries under test and the real clients are.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of the binaries under test: `CORACLE_BINARIES`, or that of this build.
///
/// # Panics
/// The test program lies outside a cargo target directory.
pub fn binaries() -> PathBuf {
    if let Some(dir) = std::env::var_os("CORACLE_BINARIES") {
        return dir.into();
    }
    let own = std::env::current_exe().expect("the test's own path");
    own.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned()
}

/// A client fetched by `make tools`.
///
/// # Panics
/// It is not there.
pub fn client(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools").join(name);
    assert!(path.exists(), "{} is missing; run `make tools`", path.display());
    path
}

/// What a command printed, with its status.
#[derive(Debug)]
pub struct Ran {
    /// The command line.
    pub command: String,
    /// Whether it exited with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// The standard output of a command that succeeded.
    ///
    /// # Panics
    /// It failed; the message has everything it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "`{}` failed\nstdout: {}\nstderr: {}", self.command, self.stdout, self.stderr);
        self.stdout
    }

    /// The standard error of a command that failed.
    ///
    /// # Panics
    /// It succeeded.
    #[track_caller]
    pub fn err(self) -> String {
        assert!(!self.success, "`{}` succeeded but should not have\nstdout: {}", self.command, self.stdout);
        self.stderr
    }

    /// For [`wait_for`](crate::wait::wait_for): the output on success, everything printed otherwise.
    ///
    /// # Errors
    /// The command failed.
    pub fn result(self) -> Result<String, String> {
        if self.success {
            Ok(self.stdout)
        } else {
            Err(format!("`{}`: {}{}", self.command, self.stdout, self.stderr))
        }
    }
}

/// Runs a command to its end.
///
/// # Panics
/// The program cannot be started.
pub fn run(command: &mut Command) -> Ran {
    let line = format!("{command:?}");
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
    Ran {
        command: line,
        success: status.success(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
