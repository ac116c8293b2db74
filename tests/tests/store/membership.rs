//! A store that grows from one member to three and shrinks back while it is written to, under the real etcdctl: learners, promotion, a new
//! address, a leader that is removed, a member that is replaced. Nothing that was acknowledged may be missing at the end.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coracle_tests::store::{Program, Server, etcd_35, free_ports};
use coracle_tests::tools::{Ran, binaries, run};
use coracle_tests::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

fn peer() -> String {
    let [port] = free_ports();
    format!("http://127.0.0.1:{port}")
}

fn initial(members: &[(&str, &str)]) -> String {
    members.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

fn join(name: &str, data: PathBuf, members: &[(&str, &str)]) -> Server {
    let own = members.iter().find(|(member, _)| *member == name).expect("among the members").1;
    let existing = ["--initial-cluster-state=existing".to_owned()];
    Server::start_with(Program::EtcdLite, name, &data, own, &initial(members), &existing)
}

/// A member's id as etcdctl writes it, once it has started.
fn started(server: &Server, name: &str) -> String {
    wait_for(&format!("{name} has started"), SOON, || {
        let list = server.etcdctl(&["member", "list"]).result()?;
        let line = list.lines().find(|line| line.contains(&format!(", {name},")));
        let id = line.filter(|line| line.contains("started")).and_then(|line| line.split(',').next());
        id.map(str::to_owned).ok_or(list.clone())
    })
}

/// Changes the members; right after a start the others have not been connected for the five seconds that etcd asks for.
fn change(server: &Server, arguments: &[&str]) -> String {
    wait_for(&format!("{arguments:?}"), SOON, || server.etcdctl(arguments).result())
}

/// Runs etcdctl against several members.
fn everywhere(servers: &[&Server], arguments: &[&str]) -> Ran {
    let endpoints: Vec<&str> = servers.iter().map(|server| server.client.as_str()).collect();
    run(Command::new(etcd_35("etcdctl")).arg("--endpoints").arg(endpoints.join(",")).args(arguments))
}

fn leader(servers: &[&Server]) -> String {
    wait_for("one of the members leads", SOON, || {
        let status = everywhere(servers, &["endpoint", "status"]).result()?;
        let leads = status.lines().find(|line| line.split(", ").nth(4) == Some("true"));
        leads.and_then(|line| line.split(", ").nth(1)).map(str::to_owned).ok_or(status.clone())
    })
}

/// Waits until a member that was removed has ended by itself.
fn wait_ended(name: &str, server: &Server) {
    let address = server.client.trim_start_matches("http://").to_owned();
    wait_for(&format!("{name} ends, being removed"), SOON, || match TcpStream::connect(&address) {
        Ok(_) => Err("it listens".to_owned()),
        Err(_) => Ok(()),
    });
}

#[test]
fn members_come_and_go_while_the_store_is_written_to() {
    let data = tempfile::tempdir().expect("data");
    let directory = |name: &str| data.path().join(name);
    let (a_url, b_url, c_url) = (peer(), peer(), peer());
    let a = Server::start(Program::EtcdLite, "a", &directory("a"), &a_url, &initial(&[("a", &a_url)]));
    a.wait_healthy();
    started(&a, "a");

    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writer = std::thread::spawn({
        let (stop, acknowledged, client) = (Arc::clone(&stop), Arc::clone(&acknowledged), a.client.clone());
        move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut put = Command::new(etcd_35("etcdctl"));
                put.args(["--endpoints", &client, "put", &format!("load/{number}"), "x"]);
                number += 1;
                if run(&mut put).success {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            number
        }
    });

    // A learner comes first, and only one.
    change(&a, &["member", "add", "b", "--learner", &format!("--peer-urls={b_url}")]);
    let refused = a.etcdctl(&["member", "add", "c", "--learner", &format!("--peer-urls={c_url}")]).err();
    assert!(refused.contains("etcdserver: too many learner members in cluster"), "{refused}");
    let b = join("b", directory("b"), &[("a", &a_url), ("b", &b_url)]);
    let b_id = started(&a, "b");
    wait_for("the learner serves what it has", SOON, || {
        let value = b.etcdctl(&["get", "load/0", "--consistency=s", "--print-value-only"]).result()?;
        if value.trim() == "x" { Ok(()) } else { Err(value) }
    });
    let refused = b.etcdctl(&["--command-timeout=1s", "get", "load/0"]).err();
    assert!(refused.contains("etcdserver: rpc not supported for learner"), "{refused}");
    change(&a, &["member", "promote", &b_id]);
    let refused = a.etcdctl(&["member", "promote", &b_id]).err();
    assert!(refused.contains("etcdserver: can only promote a learner member"), "{refused}");

    // A voter at once.
    change(&b, &["member", "add", "c", &format!("--peer-urls={c_url}")]);
    let c = join("c", directory("c"), &[("a", &a_url), ("b", &b_url), ("c", &c_url)]);
    let c_id = started(&b, "c");

    // A member moves to another address.
    drop(b);
    let b_url = peer();
    change(&a, &["member", "update", &b_id, &format!("--peer-urls={b_url}")]);
    let b = Server::start(Program::EtcdLite, "b", &directory("b"), &b_url, "ignored=http://127.0.0.1:1");
    b.wait_healthy();
    let taken = a.etcdctl(&["member", "update", &c_id, &format!("--peer-urls={b_url}")]).err();
    assert!(taken.contains("etcdserver: Peer URLs already exists"), "{taken}");

    // The leader is moved and removed. Its data is of no use any more.
    let led_by = leader(&[&a, &b, &c]);
    if led_by != c_id {
        everywhere(&[&a, &b, &c], &["move-leader", &c_id]).ok();
        assert_eq!(leader(&[&a, &b, &c]), c_id);
    }
    change(&a, &["member", "remove", &c_id]);
    wait_ended("c", &c);
    let mut again = Command::new("timeout");
    again.arg("20").arg(binaries().join("etcd-lite")).args([
        "--name=c".to_owned(),
        format!("--data-dir={}", directory("c").display()),
        format!("--listen-peer-urls={c_url}"),
        format!("--initial-advertise-peer-urls={c_url}"),
        format!("--listen-client-urls={}", c.client),
        format!("--advertise-client-urls={}", c.client),
    ]);
    // It ends at once, and not as a failure that would be tried again.
    let ended = run(&mut again);
    assert!(ended.stderr.contains("the member has been permanently removed from the cluster"), "{ended:?}");
    assert!(ended.success, "{ended:?}");

    // Another one takes its place.
    change(&a, &["member", "add", "d", &format!("--peer-urls={c_url}")]);
    let d = join("d", directory("d"), &[("a", &a_url), ("b", &b_url), ("d", &c_url)]);
    let d_id = started(&a, "d");
    let mut debian = Command::new("etcdctl");
    let list = run(debian.env("ETCDCTL_API", "3").args(["--endpoints", &a.client, "member", "list"])).ok();
    assert_eq!(list.lines().filter(|line| line.contains("started")).count(), 3, "{list}");

    // And back to one, which serves what was written to three.
    change(&a, &["member", "remove", &d_id]);
    wait_ended("d", &d);
    change(&a, &["member", "remove", &b_id]);
    wait_ended("b", &b);
    let missing = a.etcdctl(&["member", "remove", &b_id]).err();
    assert!(missing.contains("etcdserver: member not found"), "{missing}");
    stop.store(true, Ordering::Relaxed);
    let attempted = writer.join().expect("the writer");
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    let found = a.etcdctl(&["get", "load/", "--prefix", "--keys-only"]).ok().split_whitespace().count();
    assert!(acknowledged > 50, "only {acknowledged} of {attempted} writes were acknowledged");
    assert!(
        (acknowledged..=attempted).contains(&found),
        "{found} of {acknowledged} acknowledged writes are there"
    );
}
