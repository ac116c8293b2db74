//! A cluster of a test's own, brought up by `coracle up` and removed when the test ends, however it ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::history::History;
use crate::tools::{Ran, binaries, client, run};

/// A running cluster.
pub struct Cluster {
    data: tempfile::TempDir,
    kubectl: PathBuf,
    /// Judged when the cluster ends.
    history: Option<History>,
}

impl Cluster {
    /// `coracle up` with more options; returns when all nodes are Ready. The history of its store is judged when the cluster ends: a broken promise
    /// fails the test.
    ///
    /// # Panics
    /// It does not come up.
    pub fn up(options: &[&str]) -> Self {
        let data = tempfile::Builder::new().prefix("coracle-").tempdir_in("/tmp").expect("data directory");
        let mut cluster = Self { data, kubectl: client("kubectl-1.35"), history: None };
        cluster.coracle_with("up", options).ok();
        cluster.history = Some(History::watch(cluster.data(), &cluster.stores()));
        cluster
    }

    /// The URLs of the stores, as the API servers are told them.
    fn stores(&self) -> Vec<String> {
        let commands = self.coracle("status --commands").ok();
        let flag = commands.split_whitespace().find_map(|word| word.strip_prefix("--etcd-servers="));
        flag.unwrap_or_default().split(',').filter(|store| !store.is_empty()).map(str::to_owned).collect()
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Takes another kubectl, by its minor version.
    pub fn use_kubectl(&mut self, minor: u32) {
        self.kubectl = client(&format!("kubectl-1.{minor}"));
    }

    /// Runs a subcommand of the launcher on this cluster.
    pub fn coracle(&self, arguments: &str) -> Ran {
        let mut words = arguments.split_whitespace();
        let subcommand = words.next().unwrap_or_default();
        self.coracle_with(subcommand, &words.collect::<Vec<_>>())
    }

    fn coracle_with(&self, subcommand: &str, options: &[&str]) -> Ran {
        run(Command::new(binaries().join("coracle"))
            .arg(subcommand)
            .args(options)
            .arg("--data")
            .arg(self.data()))
    }

    /// A kubectl command on this cluster, to be completed.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", self.data().join("kubeconfig"))
            .env("HOME", self.data())
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl with arguments given as one line, split at spaces; single quotes keep spaces.
    pub fn kubectl(&self, arguments: &str) -> Ran {
        run(self.kubectl_command().args(words(arguments)))
    }

    /// Runs kubectl with a document on its standard input.
    ///
    /// # Panics
    /// kubectl cannot be started.
    pub fn kubectl_stdin(&self, arguments: &str, input: &str) -> Ran {
        let mut command = self.kubectl_command();
        command.args(words(arguments)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = command.spawn().expect("kubectl");
        // A client that exits early closes its end; its own message says why.
        let _ = child.stdin.take().expect("stdin").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("kubectl's output");
        Ran {
            command: line,
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.coracle("status").result().unwrap_or_else(|error| error));
            for log in [
                "supervisor",
                "apiserver-cp-a",
                "controller-manager-cp-a",
                "scheduler-cp-a",
                "kubelet-node-a",
            ] {
                let text =
                    std::fs::read_to_string(self.data().join(format!("log/{log}.log"))).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- {log}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
            }
        }
        // A cluster that did not come up has none.
        let judged = self.history.take().map(History::finish);
        let down = self.coracle("down --purge");
        if !down.success {
            eprintln!("{}{}", down.stdout, down.stderr);
        }
        if let Some(Err(text)) = judged {
            // A second panic would hide the first.
            assert!(std::thread::panicking(), "the history of the store: {text}");
            eprintln!("the history of the store: {text}");
        }
    }
}

/// Splits a line into words as a shell would, with single quotes only.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_spaces() {
        assert_eq!(words("exec pod -- sh -c 'echo a b'"), ["exec", "pod", "--", "sh", "-c", "echo a b"]);
        assert_eq!(words("  a  ''  "), ["a", ""]);
    }
}
