//! Three etcd-lite members under Debian's etcdctl: what it writes through any member it reads from all, also after members
//! were killed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_tests::tools::{Ran, binaries, run};
use coracle_tests::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

struct Member {
    arguments: Vec<String>,
    client: String,
    process: Option<Child>,
}

impl Member {
    fn start(&mut self) {
        let mut command = Command::new(binaries().join("etcd-lite"));
        command.args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("etcd-lite"));
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Fails only if it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

struct Store {
    members: Vec<Member>,
    _data: tempfile::TempDir,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    coracle_tests::ports::free_ports(N).try_into().expect("as many as asked for")
}

impl Store {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("data");
        let ports = free_ports::<6>();
        let peer = |i: usize| format!("http://127.0.0.1:{}", ports[i]);
        let client = |i: usize| format!("http://127.0.0.1:{}", ports[3 + i]);
        let cluster: Vec<String> = (0..3).map(|i| format!("m{i}={}", peer(i))).collect();
        let member = |i: usize| Member {
            arguments: vec![
                format!("--name=m{i}"),
                format!("--data-dir={}", data.path().join(format!("m{i}")).display()),
                format!("--listen-peer-urls={}", peer(i)),
                format!("--initial-advertise-peer-urls={}", peer(i)),
                format!("--listen-client-urls={}", client(i)),
                format!("--advertise-client-urls={}", client(i)),
                format!("--initial-cluster={}", cluster.join(",")),
                "--initial-cluster-state=new".into(),
            ],
            client: client(i),
            process: None,
        };
        let mut store = Self { members: (0..3).map(member).collect(), _data: data };
        store.members.iter_mut().for_each(Member::start);
        store.wait_healthy();
        store
    }

    fn wait_healthy(&self) {
        wait_for("all members are healthy", SOON, || self.etcdctl(&["endpoint", "health"]).result());
    }

    fn command(&self, endpoints: &str) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints);
        command
    }

    fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.client.as_str()).collect::<Vec<_>>().join(",")
    }

    fn etcdctl(&self, arguments: &[&str]) -> Ran {
        run(self.command(&self.endpoints()).args(arguments))
    }

    fn etcdctl_at(&self, member: usize, arguments: &[&str]) -> Ran {
        run(self.command(&self.members[member].client).args(arguments))
    }

    fn etcdctl_stdin(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command(&self.endpoints());
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("etcdctl");
        child.stdin.take().expect("stdin").write_all(input).expect("input");
        let output = child.wait_with_output().expect("output");
        assert!(output.status.success(), "etcdctl {arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn revision(&self) -> i64 {
        let status = self.etcdctl_at(0, &["get", "x", "-w", "json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status["header"]["revision"].as_i64().expect("revision")
    }
}

#[test]
fn etcdctl_finds_an_etcd() {
    let store = Store::start();
    let members = store.etcdctl(&["member", "list"]).ok();
    assert_eq!(members.lines().filter(|line| line.contains("started")).count(), 3, "{members}");
    let status = store.etcdctl(&["endpoint", "status"]).ok();
    assert_eq!(status.lines().filter(|line| line.contains("3.5.")).count(), 3, "{status}");

    for (member, key) in [(0, "fruit/apple"), (1, "fruit/banana"), (2, "vegetable/carrot")] {
        assert_eq!(store.etcdctl_at(member, &["put", key, "1"]).ok().trim(), "OK");
    }
    for member in 0..3 {
        let fruits = store.etcdctl_at(member, &["get", "--prefix", "fruit/", "--keys-only"]).ok();
        assert_eq!(fruits.split_whitespace().collect::<Vec<_>>(), ["fruit/apple", "fruit/banana"]);
    }

    let watched = store.revision() + 1;
    store.etcdctl(&["put", "watched", "first"]).ok();
    store.etcdctl(&["del", "watched"]).ok();
    let mut command = store.command(&store.members[1].client);
    let mut watch = command
        .args(["watch", "watched", "--rev", &watched.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl watch");
    let lines = BufReader::new(watch.stdout.take().expect("stdout")).lines();
    let seen: Vec<String> = lines.map_while(Result::ok).take(5).collect();
    watch.kill().expect("kill");
    watch.wait().expect("wait");
    assert_eq!(seen, ["PUT", "watched", "first", "DELETE", "watched"]);

    let txn = store.etcdctl_stdin(
        &["txn"],
        b"value(\"fruit/apple\") = \"1\"\n\nput fruit/apple 2\nget fruit/apple\n\nput never yes\n\n",
    );
    assert!(txn.starts_with("SUCCESS") && txn.contains("fruit/apple\n2"), "{txn}");
    let txn = store
        .etcdctl_stdin(&["txn"], b"value(\"fruit/apple\") = \"1\"\n\nput never yes\n\nget fruit/apple\n\n");
    assert!(txn.starts_with("FAILURE"), "{txn}");
    assert_eq!(store.etcdctl(&["get", "never"]).ok(), "");

    let granted = store.etcdctl(&["lease", "grant", "3600"]).ok();
    let lease = granted.split_whitespace().nth(1).expect("id").to_owned();
    store.etcdctl(&["put", "leased", "x", "--lease", &lease]).ok();
    assert!(store.etcdctl(&["lease", "timetolive", &lease, "--keys"]).ok().contains("leased"));
    assert!(store.etcdctl(&["lease", "list"]).ok().contains(&lease));
    store.etcdctl(&["lease", "keep-alive", "--once", &lease]).ok();
    store.etcdctl(&["lease", "revoke", &lease]).ok();
    assert_eq!(store.etcdctl(&["get", "leased"]).ok(), "");
    let short = store.etcdctl(&["lease", "grant", "2"]).ok();
    let short = short.split_whitespace().nth(1).expect("id").to_owned();
    store.etcdctl(&["put", "brief", "x", "--lease", &short]).ok();
    wait_for("the lease expires and takes its key along", SOON, || {
        match store.etcdctl(&["get", "brief"]).result()? {
            gone if gone.is_empty() => Ok(()),
            there => Err(there),
        }
    });

    let revision = store.revision();
    store.etcdctl(&["put", "after", "x"]).ok();
    store.etcdctl(&["compact", &revision.to_string()]).ok();
    let compacted = store.etcdctl(&["get", "fruit/apple", "--rev", &(revision - 1).to_string()]).err();
    assert!(compacted.contains("required revision has been compacted"), "{compacted}");
    let future = store.etcdctl(&["get", "fruit/apple", "--rev", &(revision + 1000).to_string()]).err();
    assert!(future.contains("required revision is a future revision"), "{future}");
}

#[test]
fn large_and_binary_values_come_back_as_they_went() {
    let store = Store::start();
    let binary: Vec<u8> = (0..=255u8).cycle().take(10_000).collect();
    let large = vec![b'x'; 1 << 20];
    for (key, value) in [("binary", &binary), ("large", &large)] {
        store.etcdctl_stdin(&["put", key], value);
        for member in 0..3 {
            let mut command = store.command(&store.members[member].client);
            let output = command.args(["get", key, "--print-value-only"]).output().expect("etcdctl");
            assert_eq!(
                output.stdout.strip_suffix(b"\n"),
                Some(value.as_slice()),
                "{key} from member {member}"
            );
        }
    }
    let mut command = store.command(&store.endpoints());
    let mut child =
        command.args(["put", "huge"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("etcdctl");
    child.stdin.take().expect("stdin").write_all(&vec![b'x'; 1_700_000]).expect("input");
    let refused = child.wait_with_output().expect("output");
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("too large"),
        "{refused:?}"
    );
}

#[test]
fn what_was_acknowledged_survives_kills_of_one_two_and_all_members() {
    let mut store = Store::start();
    let mut written = 0;
    let mut write = |store: &Store, member: usize| {
        for _ in 0..20 {
            store.etcdctl_at(member, &["put", &format!("key/{written:03}"), &written.to_string()]).ok();
            written += 1;
        }
    };
    write(&store, 0);
    for victims in [vec![0], vec![1, 2], vec![0, 1, 2]] {
        for victim in &victims {
            store.members[*victim].kill();
        }
        for victim in &victims {
            store.members[*victim].start();
        }
        store.wait_healthy();
        write(&store, victims[0]);
    }
    for member in 0..3 {
        let values = store.etcdctl_at(member, &["get", "--prefix", "key/", "--print-value-only"]).ok();
        let values: Vec<usize> = values.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(values, (0..80).collect::<Vec<_>>(), "member {member}");
    }
}
