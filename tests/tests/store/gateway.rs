//! One etcd-lite member under clients that speak JSON and under etcdctl's locks and elections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_tests::tools::{binaries, client, run};
use coracle_tests::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

struct Member {
    port: u16,
    process: Child,
    _data: tempfile::TempDir,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Member {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("data");
        let free =
            || TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("address").port();
        let (port, peer_port) = (free(), free());
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let process = Command::new(binaries().join("etcd-lite"))
            .arg(format!("--data-dir={}", data.path().display()))
            .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=default={peer}"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd-lite");
        let member = Self { port, process, _data: data };
        wait_for("the member is healthy", SOON, || {
            run(member.etcdctl().args(["endpoint", "health"])).result()
        });
        member
    }

    fn etcdctl(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://127.0.0.1:{}", self.port));
        command
    }

    /// Status and body of a request by HTTP/1.1.
    fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }
}

/// What an etcd3gw user does, each step checked.
const ETCD3GW: &str = r#"
import sys
from etcd3gw.client import Etcd3Client
c = Etcd3Client(host="127.0.0.1", port=int(sys.argv[1]), api_path="/v3/")
assert c.status()["version"].startswith("3.5"), c.status()
c.put("foo", "bar")
assert c.get("foo") == [b"bar"]
assert c.create("foo", "x") is False and c.create("only/new", "x") is True
assert c.replace("foo", "bar", "baz") is True and c.get("foo") == [b"baz"]
lease = c.lease(ttl=100)
c.put("leased", "v", lease=lease)
assert lease.keys() == [b"leased"], lease.keys()
assert 0 < lease.ttl() <= 100 and lease.refresh() == 100
assert lease.revoke() and c.get("leased") == []
assert [m["key"] for _, m in c.get_prefix("only/")] == [b"only/new"]
events, cancel = c.watch("foo")
c.put("foo", "seen")
event = next(events)
assert event["kv"]["value"] == b"seen", event
cancel()
with c.lock("l", ttl=30) as held:
    assert held.is_acquired()
assert c.delete("foo") and c.get("foo") == []
print("done")
"#;

#[test]
fn a_python_client_of_the_json_gateway_finds_an_etcd() {
    let member = Member::start();
    let port = member.port.to_string();
    let printed = run(Command::new(client("python/bin/python")).args(["-c", ETCD3GW, &port])).ok();
    assert_eq!(printed.trim(), "done");
}

#[test]
fn probes_versions_and_metrics_are_there_for_scripts() {
    let member = Member::start();
    assert_eq!(member.http("GET", "/health", ""), (200, r#"{"health":"true","reason":""}"#.to_owned()));
    let (status, body) = member.http("GET", "/readyz?verbose", "");
    assert_eq!((status, body.ends_with("[+]linearizable_read ok\nok\n")), (200, true), "{body}");
    assert_eq!(member.http("POST", "/health", "").0, 405);
    let (_, version) = member.http("GET", "/version", "");
    assert!(version.starts_with(r#"{"etcdserver":"3.5."#), "{version}");
    member.http("POST", "/v3/kv/put", r#"{"key":"Zm9v"}"#);
    let (_, metrics) = member.http("GET", "/metrics", "");
    for line in [
        r#"grpc_server_handled_total{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put",grpc_code="OK"} 1"#,
        "etcd_mvcc_put_total 1",
        "etcd_server_health_success 1",
        "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[test]
fn etcdctl_locks_one_after_the_other_and_elects_one() {
    let member = Member::start();
    let mut holder = member.etcdctl();
    let mut holder =
        holder.args(["lock", "l"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("etcdctl");
    let mut key = String::new();
    BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut key).expect("the key of the lock");
    assert!(key.starts_with("l/"), "{key}");
    let keys = || run(member.etcdctl().args(["get", "--prefix", "--keys-only", "l/"])).ok();
    let mut waiter = member.etcdctl();
    let mut waiter = waiter
        .args(["lock", "l", "echo", "held"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl");
    wait_for("the second is in line", SOON, || {
        match keys().lines().filter(|line| !line.is_empty()).count() {
            2 => Ok(()),
            count => Err(format!("{count} keys")),
        }
    });
    assert!(waiter.try_wait().expect("its state").is_none(), "only one holds the lock");
    // The interrupt lets etcdctl give the lock back.
    run(Command::new("kill").args(["-INT", &holder.id().to_string()])).ok();
    holder.wait().expect("ends");
    let mut held = String::new();
    waiter.stdout.take().expect("piped").read_to_string(&mut held).expect("output");
    assert_eq!(held.trim(), "held");
    assert!(waiter.wait().expect("ends").success());

    let mut candidate = member.etcdctl();
    let mut candidate = candidate
        .args(["elect", "e", "me"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl");
    let mut lines = BufReader::new(candidate.stdout.take().expect("piped")).lines();
    let key = lines.next().expect("a line").expect("text");
    assert!(key.starts_with("e/"), "{key}");
    assert_eq!(lines.next().expect("a line").expect("text"), "me");
    let (status, leader) = member.http("POST", "/v3/election/leader", r#"{"name":"ZQ=="}"#);
    assert!(status == 200 && leader.contains(r#""value":"bWU=""#), "{leader}");
    run(Command::new("kill").args(["-INT", &candidate.id().to_string()])).ok();
    candidate.wait().expect("ends");
}

#[test]
fn downgrades_are_judged_as_by_etcd_and_none_begins() {
    use coracle_tests::store::Program;
    let ask = |member: &coracle_tests::member::Member, action: &str, version: &str| {
        let body = format!(r#"{{"action":"{action}","version":"{version}"}}"#);
        let answer = member.post("/v3/maintenance/downgrade", &body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, body["version"].clone(), body["message"].clone())
    };
    let members = [Program::EtcdLite, Program::Etcd35].map(|program| {
        let member = coracle_tests::member::Member::start(program, &[]);
        wait_for("the cluster has a version", SOON, || {
            let body = member.get("/version").body;
            if body.contains("not_decided") { Err(body) } else { Ok(()) }
        });
        member
    });
    for (action, version) in [
        ("VALIDATE", "3.4"),
        ("VALIDATE", "3.4.0"),
        ("VALIDATE", "3.3.0"),
        ("VALIDATE", "x"),
        ("VALIDATE", ""),
        ("ENABLE", "3.3.0"),
        ("ENABLE", "x"),
        ("CANCEL", ""),
    ] {
        let [lite, etcd] = members.each_ref().map(|member| ask(member, action, version));
        assert_eq!(lite, etcd, "{action} {version}");
    }
    let (status, _, message) = ask(&members[0], "ENABLE", "3.4.0");
    assert_eq!(status, 501);
    assert!(message.as_str().is_some_and(|text| text.contains("restore a snapshot")), "{message}");
    assert!(members[0].get("/version").body.contains("\"etcdcluster\":\"3.5.0\""), "nothing has begun");
}
