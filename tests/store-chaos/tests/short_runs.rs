//! Short runs of the program itself, as a process: every kind of fault under load is survived, and a planted fault is found. Needs root, as the program does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `CORACLE_BINARIES`, or this build's.
fn etcd_lite() -> PathBuf {
    let own = || PathBuf::from(env!("CARGO_BIN_EXE_store-chaos")).parent().expect("a folder").to_owned();
    let path = std::env::var_os("CORACLE_BINARIES").map_or_else(own, PathBuf::from).join("etcd-lite");
    assert!(path.exists(), "{} is missing; run `make build`", path.display());
    path
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    // The program ends with this thread, and with it all that it made.
    let output = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            env!("CARGO_BIN_EXE_store-chaos"),
            "--output",
            "json",
            "--verbose",
        ])
        .arg("--etcd-lite")
        .arg(etcd_lite())
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .output()
        .expect("setpriv");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn every_fault_is_survived() {
    let dir = tempfile::tempdir().expect("directory");
    let output = run(dir.path(), &["--seconds", "50", "--seed", "2", "--clients", "16"]);
    assert!(output.status.success(), "{}", output.status);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["failure"], serde_json::Value::Null);
    assert_eq!(summary["faults"].as_object().expect("faults").len(), 12, "{summary}");
    assert!(summary["answered"].as_u64() > Some(1_000), "{summary}");
}

#[test]
fn lost_writes_are_found_and_told() {
    let dir = tempfile::tempdir().expect("directory");
    let output = run(dir.path(), &["--seconds", "1", "--plant", "lost-writes", "--clients", "8"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("FAILED: ") && told.contains("store-chaos --seconds 1 --seed 1 --clients 8"),
        "{told}"
    );
    // Which rule it is depends on who comes first; that the load was too little is none.
    assert!(!told.contains("FAILED: Recovers") && !told.contains("never happened"), "{told}");
    let history = std::fs::read_to_string(dir.path().join("failure-1/history.jsonl")).expect("the history");
    assert!(history.contains("\"operation\":0,"), "what was recorded is kept");
}
