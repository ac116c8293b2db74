//! The flags about who the members are and how they elect, with etcdctl; what etcd 3.5.1 has too is run against both.

use std::time::{Duration, Instant};

use coracle_tests::member::{Member, SOON};
use coracle_tests::store::Program;
use coracle_tests::wait::wait_for;

const BOTH: [Program; 2] = [Program::EtcdLite, Program::Etcd35];

fn prepare(program: Program, count: usize) -> (Vec<Member>, String) {
    let members: Vec<Member> = (0..count).map(|_| Member::prepare(program)).collect();
    let initial = members.iter().enumerate().map(|(i, member)| format!("m{i}={}", member.peer_url()));
    let initial = format!("--initial-cluster={}", initial.collect::<Vec<_>>().join(","));
    (members, initial)
}

fn start(program: Program, count: usize, flags: &[&str]) -> Vec<Member> {
    let (mut members, initial) = prepare(program, count);
    for (i, member) in members.iter_mut().enumerate() {
        let name = format!("--name=m{i}");
        member.launch(&[&[initial.as_str(), &name], flags].concat());
    }
    members.iter().for_each(Member::wait_healthy);
    members
}

/// The server's words about a command that failed, or that it did not.
fn outcome(member: &Member, arguments: &[&str]) -> String {
    let ran = member.etcdctl(arguments);
    let words = ran.stderr.lines().filter_map(|line| line.split("etcdserver: ").nth(1)).next_back();
    if ran.success { "done".to_owned() } else { words.unwrap_or(&ran.stderr).to_owned() }
}

#[test]
fn members_are_who_the_flags_say_and_tokens_keep_clusters_apart() {
    let lists = BOTH.map(|program| {
        let mut member = Member::prepare(program);
        let list = |token: &str, member: &mut Member| {
            let name = format!("--initial-cluster=me={}", member.peer_url());
            let data = format!("--data-dir={{dir}}/{token}");
            let token = format!("--initial-cluster-token={token}");
            member.launch(&["--name=me", "--initial-cluster-state=new", &name, &data, &token]);
            member.wait_healthy();
            let found = wait_for("its URLs are known", SOON, || {
                let found = member.json(&["member", "list"]);
                if found["members"][0]["clientURLs"].is_array() { Ok(found) } else { Err(found.to_string()) }
            });
            assert_eq!(found["members"][0]["name"], "me");
            assert_eq!(found["members"][0]["peerURLs"][0], member.peer_url().as_str());
            assert_eq!(found["members"][0]["clientURLs"][0], member.url().as_str());
            (
                found["header"]["cluster_id"].as_u64().expect("an id"),
                found["members"][0]["ID"].as_u64().expect("an id"),
            )
        };
        let (one, other) = (list("one", &mut member), list("other", &mut member));
        assert!(one.0 != other.0 && one.1 != other.1, "{one:?} {other:?}");
    });
    assert_eq!(lists.len(), 2);
}

#[test]
fn what_would_cost_the_majority_is_refused_unless_told_otherwise() {
    let outcomes = BOTH.map(|program| {
        ["--strict-reconfig-check=true", "--strict-reconfig-check=false"].map(|flag| {
            let members = start(program, 1, &[flag]);
            let add = |n: u16| {
                outcome(
                    &members[0],
                    &["member", "add", &format!("x{n}"), &format!("--peer-urls=http://127.0.0.1:{n}")],
                )
            };
            // One may always be joined by a second; a third then needs the second, which never starts.
            [
                add(1),
                outcome(
                    &members[0],
                    &["--command-timeout=1s", "member", "add", "y", "--peer-urls=http://127.0.0.1:2"],
                ),
            ]
        })
    });
    let [lite, etcd] = &outcomes;
    assert_eq!(lite[0], etcd[0]);
    assert_eq!(lite[0][0], "done");
    assert!(lite[0][1].contains("not enough started members"), "{lite:?}");
    // Proposed, and not committed without the second.
    for outcomes in [lite, etcd] {
        assert!(!outcomes[1][1].contains("not enough started members"), "{outcomes:?}");
    }
}

#[test]
fn so_many_learners_are_taken_and_no_more() {
    for (flag, expected) in
        [("--experimental-max-learners=1", false), ("--experimental-max-learners=2", true)]
    {
        let members = start(Program::EtcdLite, 1, &[flag]);
        let add = |n: u16| {
            outcome(
                &members[0],
                &[
                    "member",
                    "add",
                    &format!("x{n}"),
                    "--learner",
                    &format!("--peer-urls=http://127.0.0.1:{n}"),
                ],
            )
        };
        assert_eq!(add(1), "done");
        let second = add(2);
        assert_eq!(second == "done", expected, "{second}");
        if !expected {
            assert!(second.contains("too many learner members in cluster"), "{second}");
        }
    }
}

#[test]
fn a_member_goes_on_alone_when_told_so() {
    for program in BOTH {
        let mut members = start(program, 2, &[]);
        members[0].etcdctl(&["put", "kept", "value"]).ok();
        // etcd forgets its last entry: it does not know yet whether that is committed.
        members[0].etcdctl(&["put", "last", "value"]).ok();
        members.iter_mut().for_each(Member::stop);
        let survivor = &mut members[0];
        survivor.launch(&["--name=m0", "--force-new-cluster"]);
        survivor.wait_healthy();
        assert_eq!(survivor.etcdctl(&["get", "kept", "--print-value-only"]).ok(), "value\n");
        survivor.etcdctl(&["put", "more", "value"]).ok();
        assert_eq!(survivor.etcdctl(&["member", "list"]).ok().lines().count(), 1, "{program:?}");
    }
}

#[test]
fn the_first_election_waits_for_its_timeout_when_told_so() {
    let flags = ["--heartbeat-interval=200", "--election-timeout=2000"];
    for (advance, is_early) in [("true", true), ("false", false)] {
        let (mut members, initial) = prepare(Program::EtcdLite, 3);
        let advance = format!("--initial-election-tick-advance={advance}");
        let begun = Instant::now();
        for (i, member) in members.iter_mut().enumerate() {
            member.launch(&[&flags[..], &[&initial, &format!("--name=m{i}"), &advance]].concat());
        }
        members[0].wait_logged("has a leader");
        let took = begun.elapsed();
        if !is_early {
            assert!(took >= Duration::from_millis(2000), "{took:?}\n{}", members[0].log());
        }
        members.iter().for_each(Member::wait_healthy);
    }
}

#[test]
fn members_elect_another_leader_without_a_pre_vote() {
    let mut members = start(Program::EtcdLite, 3, &["--pre-vote=false", "--election-timeout=500"]);
    members[0].etcdctl(&["put", "a", "b"]).ok();
    let leads = |member: &Member| {
        let status = member.json(&["endpoint", "status"]);
        status[0]["Status"]["leader"] == status[0]["Status"]["header"]["member_id"]
    };
    let leader = members.iter().position(leads).expect("one leads");
    members.remove(leader).stop();
    wait_for("the others write", SOON, || {
        members[0].etcdctl(&["--command-timeout=2s", "put", "a", "c"]).result()
    });
    assert_eq!(members[1].etcdctl(&["get", "a", "--print-value-only"]).ok(), "c\n");
}
