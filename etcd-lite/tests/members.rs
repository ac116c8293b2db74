//! Members as real processes on loopback: what happens when one loses its leader, its disk, or the tail of its log, and what bad starts say.

#[path = "../../tests/src/ports.rs"]
mod ports;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::{Channel, Endpoint};

const SOON: Duration = Duration::from_secs(20);

struct Process {
    name: String,
    client: String,
    peer: String,
    data: PathBuf,
    child: Option<Child>,
}

struct Cluster {
    members: Vec<Process>,
    initial: String,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

impl Cluster {
    fn new(size: usize) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let ports = ports::free_ports(2 * size);
        let members: Vec<Process> = (0..size)
            .map(|i| Process {
                name: format!("m{i}"),
                client: format!("http://127.0.0.1:{}", ports[2 * i]),
                peer: format!("http://127.0.0.1:{}", ports[2 * i + 1]),
                data: dir.path().join(format!("m{i}")),
                child: None,
            })
            .collect();
        let initial: Vec<String> = members.iter().map(|m| format!("{}={}", m.name, m.peer)).collect();
        Self { members, initial: initial.join(","), _dir: dir }
    }

    fn command(&self, member: usize, state: &str) -> Command {
        let m = &self.members[member];
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-lite"));
        command
            .arg(format!("--name={}", m.name))
            .arg(format!("--data-dir={}", m.data.display()))
            .args([
                format!("--listen-client-urls={}", m.client),
                format!("--advertise-client-urls={}", m.client),
            ])
            .args([
                format!("--listen-peer-urls={}", m.peer),
                format!("--initial-advertise-peer-urls={}", m.peer),
            ])
            .arg(format!("--initial-cluster={}", self.initial))
            .arg(format!("--initial-cluster-state={state}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn start(&mut self, member: usize, state: &str) {
        let child = self.command(member, state).stderr(Stdio::null()).spawn().expect("etcd-lite");
        self.members[member].child = Some(child);
    }

    fn started(size: usize) -> Self {
        let mut cluster = Self::new(size);
        (0..size).for_each(|member| cluster.start(member, "new"));
        cluster
    }

    fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            // Fails only if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn channel(&self, member: usize) -> Channel {
        Endpoint::from_shared(self.members[member].client.clone()).expect("a URL").connect_lazy()
    }

    async fn try_put(&self, member: usize, key: &str, value: &str) -> Result<(), String> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let mut client = KvClient::new(self.channel(member));
        match tokio::time::timeout(Duration::from_millis(500), client.put(request)).await {
            Ok(result) => result.map(|_| ()).map_err(|status| status.message().to_owned()),
            Err(_) => Err("no answer in half a second".into()),
        }
    }

    async fn put(&self, member: usize, key: &str, value: &str) {
        until(&format!("put at m{member}"), async || self.try_put(member, key, value).await).await;
    }

    /// What a member's own copy has under a prefix.
    async fn local(&self, member: usize, prefix: &str) -> Result<Vec<String>, String> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let request = pb::RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            serializable: true,
            ..Default::default()
        };
        let response = KvClient::new(self.channel(member)).range(request).await.map_err(|s| s.to_string())?;
        let values =
            response.into_inner().kvs.into_iter().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        Ok(values.collect())
    }

    async fn leader(&self) -> usize {
        until("a leader is known", async || {
            for member in 0..self.members.len() {
                let status = MaintenanceClient::new(self.channel(member)).status(pb::StatusRequest {}).await;
                if let Ok(status) = status {
                    let status = status.into_inner();
                    if status.header.is_some_and(|header| header.member_id == status.leader) {
                        return Ok(member);
                    }
                }
            }
            Err("nobody says that it leads".to_owned())
        })
        .await
    }

    /// The newest file of a member's log that has entries in it.
    fn log_file(&self, member: usize) -> PathBuf {
        let directory = self.members[member].data.join("member/wal");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(directory).expect("a log").map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        files.pop().expect("a segment")
    }

    /// Starts a member that has to refuse, and gives what it says.
    fn refusal(&self, mut command: Command) -> String {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("etcd-lite");
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("it started although it should not");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut said = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut said).expect("text");
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }
}

/// Tries until it works, and gives what came out.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < deadline, "{what}: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn writes_go_on_soon_after_the_leader_was_killed() {
    let mut cluster = Cluster::started(3);
    cluster.put(0, "k/0", "0").await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    cluster.put(other, "k/1", "1").await;
    cluster.kill(leader);
    let killed = Instant::now();
    cluster.put(other, "k/2", "2").await;
    let gap = killed.elapsed();
    // Without noticing that the process is gone it would be 1 to 2 s.
    assert!(gap < Duration::from_millis(900), "no write for {gap:?}");
    assert_eq!(cluster.local(other, "k/").await.expect("range"), ["0", "1", "2"]);
}

#[tokio::test]
async fn a_member_whose_data_is_gone_gets_everything_from_the_leader() {
    let mut cluster = Cluster::started(3);
    for i in 0..20 {
        cluster.put(0, &format!("k/{i:02}"), &i.to_string()).await;
    }
    let expected: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    for state in ["existing", "new"] {
        let victim = (cluster.leader().await + 1) % 3;
        cluster.kill(victim);
        std::fs::remove_dir_all(&cluster.members[victim].data).expect("remove");
        cluster.start(victim, state);
        until(&format!("m{victim} has everything again ({state})"), async || {
            let found = cluster.local(victim, "k/").await?;
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        cluster.put(victim, "k/19", "19").await;
    }
}

#[tokio::test]
async fn an_unfinished_write_at_the_logs_end_is_cut_off() {
    let mut cluster = Cluster::started(1);
    cluster.put(0, "k/1", "1").await;
    cluster.kill(0);
    let mut file = OpenOptions::new().append(true).open(cluster.log_file(0)).expect("open");
    // The beginning of an entry that claims 100 bytes.
    file.write_all(&[100, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6]).expect("write");
    cluster.start(0, "new");
    cluster.put(0, "k/2", "2").await;
    assert_eq!(cluster.local(0, "k/").await.expect("range"), ["1", "2"]);
}

#[tokio::test]
async fn a_damaged_log_is_refused_with_the_next_step() {
    let mut cluster = Cluster::started(1);
    cluster.put(0, "k/1", "a value that is easily found").await;
    cluster.kill(0);
    let path = cluster.log_file(0);
    let mut bytes = std::fs::read(&path).expect("read");
    let at = bytes.windows(6).position(|window| window == b"easily").expect("the value");
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("write");
    let said = cluster.refusal(cluster.command(0, "new"));
    assert!(said.contains(&format!("{} is damaged at byte", path.display())), "{said}");
    assert!(said.contains("--initial-cluster-state=existing"), "{said}");
}

#[tokio::test]
async fn a_port_in_use_is_refused_with_the_next_step_and_data_counts_more_than_flags() {
    let mut cluster = Cluster::started(1);
    cluster.put(0, "k/1", "1").await;
    let said = cluster.refusal(cluster.command(0, "new"));
    assert!(said.contains("cannot listen on 127.0.0.1:") && said.contains("choose another"), "{said}");
    cluster.kill(0);
    // As etcd: who a member is lies in its data, whatever the flags say.
    cluster.initial = "other=http://127.0.0.1:1".into();
    cluster.start(0, "new");
    cluster.put(0, "k/2", "2").await;
    assert_eq!(cluster.local(0, "k/").await.expect("range"), ["1", "2"]);
}

/// Not a promise yet: the leader collects the records of a snapshot while it holds the store and the log's thread, so writes wait for that long.
#[tokio::test]
#[ignore = "a measurement: prints how long writes stopped"]
async fn how_long_writes_stop_while_a_snapshot_of_100000_keys_is_collected() {
    let mut cluster = Cluster::started(3);
    cluster.put(0, "k/0", "0").await;
    let leader = cluster.leader().await;
    let mut kv = KvClient::new(cluster.channel(leader));
    for batch in 0..1000 {
        let put = |i: i32| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                key: format!("many/{:06}", batch * 100 + i).into(),
                value: vec![b'v'; 100].into(),
                ..Default::default()
            })),
        };
        let txn = pb::TxnRequest { success: (0..100).map(put).collect(), ..Default::default() };
        kv.txn(txn).await.expect("txn");
    }
    let victim = (leader + 1) % 3;
    cluster.kill(victim);
    std::fs::remove_dir_all(&cluster.members[victim].data).expect("remove");
    cluster.start(victim, "existing");
    let (mut longest, mut waits) = (Duration::ZERO, Vec::new());
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let began = Instant::now();
        let put = pb::PutRequest { key: "probe".into(), value: "v".into(), ..Default::default() };
        kv.put(put).await.expect("put");
        longest = longest.max(began.elapsed());
        waits.push(began.elapsed());
    }
    waits.sort();
    let count = pb::RangeRequest {
        key: "many/".into(),
        range_end: "many0".into(),
        serializable: true,
        count_only: true,
        ..Default::default()
    };
    let found = KvClient::new(cluster.channel(victim)).range(count).await.expect("range").into_inner().count;
    println!(
        "longest {longest:?}, median {:?} of {}; the member has {found} keys",
        waits[waits.len() / 2],
        waits.len()
    );
    assert_eq!(found, 100_000);
}
