//! What a member logs, where and how: levels, formats, outputs, and what took too long.

use coracle_tests::member::Member;
use coracle_tests::store::Program;

/// The levels of the lines in a log of JSON objects.
fn levels(log: &str) -> Vec<String> {
    let parsed = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    parsed.filter_map(|line| line["level"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_log_goes_where_it_is_told_to_in_the_format_asked_for() {
    let flags =
        ["--logger=zap", "--log-outputs=stderr,{dir}/file.log", "--log-format=console", "--log-level=info"];
    let member = Member::start(Program::EtcdLite, &flags);
    member.wait_logged("ready to serve client requests");
    let file = std::fs::read_to_string(member.dir().join("file.log")).expect("a log");
    let line = file.lines().find(|line| line.contains("ready to serve client requests")).expect("in both");
    assert!(line.contains("\tinfo\t"), "for people: {line}");
    assert!(member.log().contains(line), "both outputs have the same line");
}

#[test]
fn only_what_is_severe_enough_is_logged() {
    for program in [Program::EtcdLite, Program::Etcd35] {
        let quiet =
            Member::start(program, &["--log-level=error", "--experimental-warning-apply-duration=1ns"]);
        quiet.etcdctl(&["put", "a", "b"]).ok();
        let found = levels(&quiet.log());
        assert!(found.iter().all(|level| level == "error"), "{program:?}: {}", quiet.log());
        let chatty = Member::start(program, &["--log-level=debug", "--log-outputs=stdout"]);
        let found = levels(&chatty.log());
        assert!(found.contains(&"info".to_owned()), "{program:?}: {}", chatty.log());
    }
}

#[test]
fn requests_that_take_long_are_logged_as_etcd_logs_them() {
    let logged = [Program::EtcdLite, Program::Etcd35].map(|program| {
        let member = Member::start(program, &["--experimental-warning-apply-duration=1ns"]);
        member.etcdctl(&["put", "slow", "value"]).ok();
        member.etcdctl(&["get", "slow"]).ok();
        assert!(member.metric("etcd_server_slow_apply_total") >= 2.0, "{program:?}");
        ["put:<key:", "read-only range "].map(|what| {
            let log = member.log();
            let is_meant = |line: &&str| line.contains("apply request took too long") && line.contains(what);
            let line = log.lines().find(is_meant).unwrap_or_else(|| panic!("{program:?}: {what} in\n{log}"));
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let request = line["request"].as_str().expect("a request").to_owned();
            assert!(line["took"].is_string());
            let request = request.split_once("> ").map_or(request.clone(), |(_, request)| request.to_owned());
            (line["level"].clone(), line["expected-duration"].clone(), line["prefix"].clone(), request)
        })
    });
    assert_eq!(logged[0], logged[1]);

    let patient = Member::start(Program::EtcdLite, &["--experimental-warning-apply-duration=1h"]);
    patient.etcdctl(&["put", "slow", "value"]).ok();
    assert_eq!(patient.metric("etcd_server_slow_apply_total"), 0.0);
}

#[test]
fn calls_that_take_long_are_logged() {
    let member = Member::start(Program::EtcdLite, &["--experimental-warning-unary-request-duration=1ns"]);
    member.etcdctl(&["put", "a", "b"]).ok();
    let line = member.wait_logged("/etcdserverpb.KV/Put");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&line["msg"], &line["level"]), (&"request stats".into(), &"warn".into()));
    assert!(line["time spent"].is_string(), "{line}");
}
