//! etcd-lite's flags beside those of etcd 3.5: none is unaccounted for, those without effect are taken, what cannot be done is refused by name, and
//! contradictions are refused in the same words.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use coracle_tests::member::Member;
use coracle_tests::store::{Program, etcd_35};
use coracle_tests::tools::binaries;

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
    let theirs = flags(&text(&run(&etcd_35("etcd"), &["--help"], dir.path())));
    assert!(theirs.len() > 90, "{theirs:?}");
    let lite = binaries().join("etcd-lite");
    let ours = flags(&text(&run(&lite, &["--help"], dir.path())));
    let table = include_str!("../../../docs/etcd-compatibility.md");
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
        &["--cors=http://origin.example"],
    ] {
        let theirs = reason(&run(&etcd_35("etcd"), arguments, dir.path()));
        let ours = run(&binaries().join("etcd-lite"), arguments, dir.path());
        let said = text(&ours).replace("\\\"", "\"");
        assert!(said.contains(theirs.as_str()), "{arguments:?}\netcd-lite: {said}\netcd: {theirs}");
        assert!(!ours.status.success());
    }
}

/// A member started with these flags does what etcdctl asks for.
fn serves(flags: &[&str]) -> Member {
    let member = Member::start(Program::EtcdLite, flags);
    member.etcdctl(&["put", "a", "b"]).ok();
    assert_eq!(member.etcdctl(&["get", "a", "--print-value-only"]).ok(), "b\n");
    member
}

/// As etcd's scripts give them: what they tune is built differently here, or never happens.
#[test]
fn flags_that_have_nothing_to_tune_here_are_taken() {
    serves(&[
        "--backend-batch-interval=10ms",
        "--backend-batch-limit=100",
        "--backend-bbolt-freelist-type=array",
        "--discovery-fallback=exit",
        "--discovery-proxy=http://127.0.0.1:1",
        "--discovery-srv-name=x",
        "--discovery=",
        "--discovery-srv=",
        "--enable-log-rotation=false",
        "--log-rotation-config-json={\"maxsize\": 1}",
        "--enable-pprof=false",
        "--enable-v2=false",
        "--experimental-enable-v2v3=",
        "--v2-deprecation=gone",
        "--experimental-bootstrap-defrag-threshold-megabytes=10",
        "--experimental-compaction-batch-limit=10",
        "--experimental-compaction-sleep-interval=1s",
        "--experimental-enable-distributed-tracing=false",
        "--experimental-distributed-tracing-address=127.0.0.1:1",
        "--experimental-distributed-tracing-service-name=x",
        "--experimental-distributed-tracing-instance-id=x",
        "--experimental-distributed-tracing-sampling-rate=1",
        "--experimental-enable-lease-checkpoint=false",
        "--experimental-enable-lease-checkpoint-persist=false",
        "--experimental-memory-mlock=false",
        "--experimental-stop-grpc-service-on-defrag",
        "--experimental-txn-mode-write-with-shared-buffer=false",
        "--experimental-initial-corrupt-check",
        "--feature-gates=InitialCorruptCheck=true",
        "--max-snapshots=2",
        "--max-wals=0",
        "--proxy=off",
        "--proxy-dial-timeout=1",
        "--proxy-failure-wait=1",
        "--proxy-read-timeout=1",
        "--proxy-refresh-interval=1",
        "--proxy-write-timeout=1",
        "--initial-election-tick-advance=false",
        "--logger=zap",
    ]);
}

#[test]
fn what_cannot_be_done_is_refused_by_name_with_the_reason() {
    for (flag, reason) in [
        ("--discovery=http://x", "name them with --initial-cluster"),
        ("--discovery-srv=x", "name them with --initial-cluster"),
        ("--enable-v2", "the v2 API"),
        ("--experimental-enable-v2v3=/v2", "the v2 API"),
        ("--enable-log-rotation", "logrotate"),
        ("--enable-pprof", "perf record"),
        ("--experimental-enable-distributed-tracing", "--log-level=debug"),
        ("--experimental-enable-lease-checkpoint", "its whole time again"),
        ("--experimental-enable-lease-checkpoint-persist", "its whole time again"),
        ("--experimental-memory-mlock", "turn swap off"),
        ("--proxy=on", "the v2 proxy"),
        ("--max-snapshots=1", "two snapshot files are always kept"),
        ("--feature-gates=Other=true", "InitialCorruptCheck is"),
        ("--log-outputs=systemd/journal", "use stderr"),
        ("--max-request-bytes=100000000", "more than the log takes"),
        ("--experimental-snapshot-catchup-entries=1", "is not implemented by Coracle yet"),
        ("--experimental-wait-cluster-ready-timeout=1s", "is not implemented by Coracle yet"),
        ("--nope", "not defined"),
    ] {
        let mut member = Member::prepare(Program::EtcdLite);
        member.launch(&[flag]);
        assert!(!member.wait_ended().success(), "{flag}");
        let (name, log) = (flag.split('=').next().unwrap_or_default().trim_start_matches('-'), member.log());
        assert!(log.contains(name) && log.contains(reason), "{flag}: {log}");
    }
}

#[test]
fn flags_come_from_a_file_or_from_variables_as_in_etcd() {
    for program in [Program::EtcdLite, Program::Etcd35] {
        let mut member = Member::prepare(program);
        let (client, peer) = (member.url(), member.peer_url());
        let file = format!(
            "name: from-file\ndata-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\nlisten-peer-urls: {peer}\n\
             initial-advertise-peer-urls: {peer}\ninitial-cluster: from-file={peer}\nexperimental-warning-apply-duration: 1\n",
            member.data().display()
        );
        std::fs::write(member.dir().join("etcd.yml"), file).expect("write");
        member.launch(&["--config-file={dir}/etcd.yml"]);
        member.wait_healthy();
        assert_eq!(member.json(&["member", "list"])["members"][0]["name"], "from-file");
        member.wait_logged("apply request took too long");
        member.stop();

        let mut command = member.command(&[]);
        command
            .env("ETCD_EXPERIMENTAL_WARNING_APPLY_DURATION", "1ns")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.env("ETCD_NAME", "shadowed");
        let output = command.output().expect("runs");
        assert!(!output.status.success());
        let said = text(&output);
        assert!(said.contains("conflicting environment variable"), "{program:?}: {said}");
    }
}

#[test]
fn the_version_is_said() {
    let dir = tempfile::tempdir().expect("dir");
    let said = [binaries().join("etcd-lite"), etcd_35("etcd")].map(|program| {
        let output = run(&program, &["--version"], dir.path());
        assert!(output.status.success());
        let version = text(&output).lines().next().unwrap_or_default().to_owned();
        version.rsplit_once('.').expect("a patch level").0.to_owned()
    });
    assert_eq!(said, ["etcd Version: 3.5", "etcd Version: 3.5"]);
}
