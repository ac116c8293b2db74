//! What flags make large or small: sizes, times, counts. With etcdctl, against etcd-lite and, where it has the flag, etcd 3.5.1, of which the same is
//! expected.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use coracle_tests::member::{Member, SOON};
use coracle_tests::store::Program;
use coracle_tests::wait::wait_for;

const BOTH: [Program; 2] = [Program::EtcdLite, Program::Etcd35];

/// What went wrong, in the server's words.
fn reason(text: &str) -> String {
    text.lines()
        .filter_map(|line| line.split("etcdserver: ").nth(1))
        .next_back()
        .unwrap_or(text)
        .trim()
        .to_owned()
}

#[test]
fn transactions_and_requests_have_a_largest_size() {
    let refusals = BOTH.map(|program| {
        let member = Member::start(program, &["--max-txn-ops=2", "--max-request-bytes=2000"]);
        let txn = |puts: usize| {
            let puts: String = (0..puts).map(|n| format!("put k{n} v\n")).collect();
            let mut command = member.etcdctl_command();
            command.arg("txn").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("etcdctl");
            use std::io::Write;
            let input = format!("\n{puts}\n\n");
            child.stdin.take().expect("an input").write_all(input.as_bytes()).expect("writes");
            let output = child.wait_with_output().expect("ends");
            (output.status.success(), reason(&String::from_utf8_lossy(&output.stderr)))
        };
        let put = |bytes: usize| {
            let ran = member.etcdctl(&["put", "large", &"x".repeat(bytes)]);
            (ran.success, reason(&ran.stderr))
        };
        assert!(txn(2).0 && put(1900).0, "{program:?}");
        [txn(3), put(2100)]
    });
    assert_eq!(refusals[0], refusals[1]);
    assert!(refusals[0][0].1.contains("too many operations in txn request"), "{refusals:?}");
    assert!(refusals[0][1].1.contains("request is too large"), "{refusals:?}");
}

/// The shortest lease is half as long again as an election takes.
#[test]
fn leases_are_as_long_as_the_election_timeout_asks_for() {
    let granted = BOTH.map(|program| {
        let member = Member::start(program, &["--heartbeat-interval=500", "--election-timeout=5000"]);
        let text = member.etcdctl(&["lease", "grant", "1"]).ok();
        let ttl = text.split("TTL(").nth(1).and_then(|rest| rest.split("s)").next()?.parse::<u64>().ok());
        ttl.unwrap_or_else(|| panic!("{text}"))
    });
    assert_eq!(granted[0], granted[1]);
    assert!(granted[0] > 5, "{granted:?}");
}

#[test]
fn watchers_hear_how_far_the_store_is_as_often_as_told() {
    for program in BOTH {
        let member = Member::start(program, &["--experimental-watch-progress-notify-interval=300ms"]);
        let mut command = member.etcdctl_command();
        command.args(["watch", "quiet", "--progress-notify"]).stdout(Stdio::piped());
        let mut watch = command.spawn().expect("etcdctl");
        let lines = BufReader::new(watch.stdout.take().expect("an output")).lines();
        let notified =
            lines.map_while(Result::ok).filter(|line| line.starts_with("progress notify: 1")).take(3);
        assert_eq!(notified.count(), 3, "{program:?}");
        watch.kill().expect("it runs");
        watch.wait().expect("it ends");
    }
}

#[test]
fn data_log_and_snapshots_are_where_and_as_often_as_told() {
    for program in BOTH {
        let mut member = Member::prepare(program);
        let flags = ["--data-dir={dir}/here", "--wal-dir={dir}/there", "--snapshot-count=5"];
        member.launch(&flags);
        member.wait_healthy();
        for number in 0..12 {
            member.etcdctl(&["put", "k", &number.to_string()]).ok();
        }
        let files = |path: &str, suffix: &str| {
            let entries = std::fs::read_dir(member.dir().join(path)).into_iter().flatten();
            entries
                .filter(|entry| entry.as_ref().is_ok_and(|e| e.path().to_string_lossy().ends_with(suffix)))
                .count()
        };
        wait_for("a snapshot file", SOON, || match files("here/member/snap", ".snap") {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        });
        assert!(files("there", ".wal") > 0, "{program:?}");
        assert_eq!(files("here/member/wal", ".wal"), 0, "{program:?}");
        member.terminate();
        member.launch(&flags);
        member.wait_healthy();
        assert_eq!(member.etcdctl(&["get", "k", "--print-value-only"]).ok(), "11\n");
    }
}

#[test]
fn writes_wait_for_the_disk_unless_told_otherwise() {
    let syncs = ["--unsafe-no-fsync=false", "--unsafe-no-fsync"].map(|flag| {
        let member = Member::start(Program::EtcdLite, &[flag]);
        let before = member.metric("etcd_disk_wal_fsync_duration_seconds_count");
        member.etcdctl(&["put", "a", "b"]).ok();
        assert_eq!(member.etcdctl(&["get", "a", "--print-value-only"]).ok(), "b\n");
        member.metric("etcd_disk_wal_fsync_duration_seconds_count") - before
    });
    assert!(syncs[0] >= 1.0 && syncs[1] == 0.0, "{syncs:?}");
}

#[test]
fn tokens_end_and_passwords_cost_as_told() {
    for program in BOTH {
        let member =
            Member::start(program, &["--auth-token=simple", "--auth-token-ttl=1", "--bcrypt-cost=5"]);
        member.etcdctl(&["user", "add", "root:secret"]).ok();
        member.etcdctl(&["user", "grant-role", "root", "root"]).ok();
        member.etcdctl(&["snapshot", "save", "copy.db"]).ok();
        let copy = std::fs::read(member.dir().join("copy.db")).expect("a snapshot");
        assert!(copy.windows(7).any(|bytes| bytes == b"$2a$05$"), "{program:?}: a hash of cost 5");
        member.etcdctl(&["auth", "enable"]).ok();
        let status = member.etcdctl(&["--user=root:secret", "auth", "status"]).ok();
        assert!(status.contains("Authentication Status: true"), "{program:?}: {status}");
        let answer = member.post("/v3/auth/authenticate", r#"{"name":"root","password":"secret"}"#);
        let answer: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let token = answer["token"].as_str().expect("a token").to_owned();
        let list = || {
            let header = format!("Authorization: {token}");
            coracle_tests::member::http(member.port(), "POST", "/v3/auth/user/list", &[&header], "{}")
        };
        assert_eq!(list().status, 200, "{program:?}");
        // Each use prolongs it, so it is not used while it ends.
        let ended = std::time::Instant::now() + std::time::Duration::from_secs(3);
        wait_for("more than its time has passed", SOON, || {
            if std::time::Instant::now() > ended { Ok(()) } else { Err("not yet".to_owned()) }
        });
        let refused = list();
        assert_eq!(refused.status, 401, "{program:?}: {refused:?}");
        assert!(refused.body.contains("invalid auth token"), "{refused:?}");
    }
}
