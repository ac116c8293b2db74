//! `/metrics` beside that of etcd 3.5: every name there exists here with its type, or docs/etcd-compatibility.md says why not; and the values are those
//! of what etcdctl did.

use std::collections::BTreeMap;

use coracle_tests::member::{Member, SOON, http};
use coracle_tests::ports::free_ports;
use coracle_tests::store::Program;
use coracle_tests::wait::wait_for;

/// Names of the series and their types.
fn types(text: &str) -> BTreeMap<String, String> {
    let of_line = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    };
    text.lines().filter_map(of_line).collect()
}

/// The names in the document's section on metrics.
fn names_that_are_left_out() -> Vec<String> {
    let text = include_str!("../../../docs/etcd-compatibility.md");
    let section = text.split("## Metrics").nth(1).expect("a section on metrics");
    let section = section.split("\n## ").next().unwrap_or_default();
    section.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Three members of one program that serve.
fn cluster(program: Program) -> Vec<Member> {
    let mut members: Vec<Member> = (0..3).map(|_| Member::prepare(program)).collect();
    let initial: Vec<String> = (0..3).map(|i| format!("m{i}={}", members[i].peer_url())).collect();
    let initial = format!("--initial-cluster={}", initial.join(","));
    for (i, member) in members.iter_mut().enumerate() {
        member.launch(&[&format!("--name=m{i}"), &initial]);
    }
    members.iter().for_each(Member::wait_healthy);
    members
}

/// The names of all members together, once each has sent something to the others.
fn types_of_cluster(members: &[Member]) -> BTreeMap<String, String> {
    members[0].etcdctl(&["put", "a", "b"]).ok();
    members[1].etcdctl(&["get", "a"]).ok();
    wait_for("members measure their peers", SOON, || {
        let all: String = members.iter().map(|member| member.get("/metrics").body).collect();
        let types = types(&all);
        if types.contains_key("etcd_network_peer_round_trip_time_seconds") { Ok(types) } else { Err(all) }
    })
}

#[test]
fn every_metric_of_etcd_is_there_or_said_why_not() {
    let theirs = types_of_cluster(&cluster(Program::Etcd35));
    let members = cluster(Program::EtcdLite);
    let ours = types_of_cluster(&members);
    let left_out = names_that_are_left_out();
    let is_meant = |name: &str| !name.starts_with("go_");
    assert!(theirs.len() > 90, "{theirs:?}");
    for (name, kind) in theirs.iter().filter(|(name, _)| is_meant(name)) {
        match ours.get(name) {
            Some(own) => assert_eq!(own, kind, "the type of {name}"),
            None => assert!(left_out.contains(name), "{name} ({kind}) of etcd is missing"),
        }
    }
    for name in &left_out {
        assert!(!ours.contains_key(name), "{name} is there, but the document leaves it out");
    }
    let leader = wait_for("a leader has measured its peers", SOON, || {
        let counted = |member: &&Member| {
            let text = member.get("/metrics").body;
            text.lines().any(|line| {
                let count = line.strip_prefix("etcd_network_peer_round_trip_time_seconds_count{");
                count.is_some_and(|count| !count.ends_with(" 0"))
            })
        };
        members.iter().find(counted).ok_or("nobody has".to_owned())
    });
    let text = leader.get("/metrics").body;
    for series in ["etcd_network_active_peers{Local=", "etcd_network_peer_sent_bytes_total{To="] {
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(series))
            .map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number"))
            .collect();
        assert!(values.len() == 2 && values.iter().all(|value| *value >= 1.0), "{series}: {values:?}");
    }
}

#[test]
fn metrics_count_what_happened() {
    let member = Member::start(Program::EtcdLite, &["--snapshot-count=5"]);
    let before = |series: &str| member.metric(series);
    let (fsyncs, bytes) =
        (before("etcd_disk_wal_fsync_duration_seconds_count"), before("etcd_disk_wal_write_bytes_total"));
    for value in ["1", "22", "333"] {
        member.etcdctl(&["put", "key", value]).ok();
    }
    assert!(member.metric("etcd_disk_wal_fsync_duration_seconds_count") >= fsyncs + 3.0);
    assert!(member.metric("etcd_disk_wal_write_bytes_total") > bytes + 30.0);
    assert_eq!(member.metric("etcd_debugging_mvcc_total_put_size_in_bytes"), 15.0);
    let puts = "etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"true\"}";
    assert_eq!(member.metric(puts), 3.0);

    let revision = member.json(&["get", "key"])["header"]["revision"].to_string();
    member.etcdctl(&["compact", "--physical", &revision]).ok();
    assert_eq!(member.metric("etcd_debugging_mvcc_db_compaction_keys_total"), 2.0);
    assert!(member.metric("etcd_debugging_mvcc_db_compaction_last") > 1e9);
    assert_eq!(member.metric("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count"), 1.0);

    member.etcdctl(&["lease", "grant", "1"]).ok();
    assert_eq!(member.metric("etcd_debugging_lease_ttl_total_count"), 1.0);
    wait_for("the lease runs out", SOON, || {
        let expired = member.metric("etcd_debugging_server_lease_expired_total");
        if expired == 1.0 { Ok(()) } else { Err(expired.to_string()) }
    });

    for (arguments, series) in [
        (&["defrag"][..], "etcd_disk_backend_defrag_duration_seconds_count"),
        (&["snapshot", "save", "copy.db"], "etcd_disk_backend_snapshot_duration_seconds_count"),
        (&["endpoint", "hashkv"], "etcd_mvcc_hash_rev_duration_seconds_count"),
    ] {
        assert_eq!(member.metric(series), 0.0, "{series}");
        member.etcdctl(arguments).ok();
        assert_eq!(member.metric(series), 1.0, "{series}");
    }
    assert!(member.metric("etcd_snap_fsync_duration_seconds_count") >= 1.0, "--snapshot-count=5");
    assert!(member.metric("etcd_debugging_snap_save_total_duration_seconds_count") >= 1.0);
    assert_eq!(member.metric("etcd_server_slow_apply_total"), 0.0);

    let mut watch = member.etcdctl_command().args(["watch", "key"]).spawn().expect("etcdctl");
    wait_for("the watcher is counted", SOON, || {
        let count = member.metric("etcd_debugging_mvcc_watcher_total");
        let behind = member.metric("etcd_debugging_mvcc_slow_watcher_total");
        if (count, behind) == (1.0, 0.0) { Ok(()) } else { Err(format!("{count} {behind}")) }
    });
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    wait_for("the watcher is gone", SOON, || {
        let count = member.metric("etcd_debugging_mvcc_watcher_total");
        if count == 0.0 { Ok(()) } else { Err(count.to_string()) }
    });
    let scrapes = member.metric("promhttp_metric_handler_requests_total{code=\"200\"}");
    assert!(scrapes > 5.0);
}

#[test]
fn calls_are_counted_by_method_and_code_and_timed_when_asked_for() {
    for (level, is_timed) in [("basic", false), ("extensive", true)] {
        let port = free_ports(1)[0];
        let metrics = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
        let member = Member::start(Program::EtcdLite, &[&format!("--metrics={level}"), &metrics]);
        member.etcdctl(&["put", "a", "b"]).ok();
        member.etcdctl(&["lease", "revoke", "1234"]).err();
        let text = http(port, "GET", "/metrics", &[], "").body;
        let labels = |code: &str, service: &str, method: &str| {
            format!(
                "grpc_server_handled_total{{grpc_type=\"unary\",grpc_service=\"{service}\",grpc_method=\"{method}\",grpc_code=\"{code}\"}} 1"
            )
        };
        for line in
            [labels("OK", "etcdserverpb.KV", "Put"), labels("NotFound", "etcdserverpb.Lease", "LeaseRevoke")]
        {
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert_eq!(text.contains("grpc_server_handling_seconds_count"), is_timed, "{level}");
        assert!(http(port, "GET", "/health", &[], "").body.contains("\"health\":\"true\""));
        assert_eq!(http(port, "GET", "/v3/kv/range", &[], "").status, 404, "metrics and health alone");
    }
}
