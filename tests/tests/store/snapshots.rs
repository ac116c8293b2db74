//! Snapshots go from etcd to etcd-lite and back, with the same keys at the same revisions and the same hash; damaged ones are refused and leave
//! nothing behind.

use std::path::Path;
use std::process::Command;

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::lease_client::LeaseClient;
use coracle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use coracle_tests::store::{Program, Server, etcd_35, free_ports};
use coracle_tests::tools::{Ran, binaries, run};
use tonic::transport::Channel;

fn etcd_lite(arguments: &[&str]) -> Ran {
    run(Command::new(binaries().join("etcd-lite")).args(arguments))
}

fn etcdutl(arguments: &[&str]) -> Ran {
    run(Command::new(etcd_35("etcdutl")).args(arguments))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Several versions of keys, deletions, a lease, a compaction that ends at a deletion, a large value, a user and a role.
fn fill(server: &Server) {
    for i in 0..60 {
        server.etcdctl(&["put", &format!("key{}", i % 25), &format!("value {i}")]).ok();
    }
    let large = "x".repeat(50_000);
    server.etcdctl(&["put", "large", &large]).ok();
    let lease = server.json(&["lease", "grant", "3600"])["ID"].as_i64().expect("a lease");
    server.etcdctl(&["put", "leased", "1", "--lease", &format!("{lease:x}")]).ok();
    server.etcdctl(&["del", "key1", "key13"]).ok();
    server.etcdctl(&["put", "key10", "again"]).ok();
    let deleted = server.json(&["del", "key20"])["header"]["revision"].as_i64().expect("revision");
    server.etcdctl(&["compact", "--physical", &deleted.to_string()]).ok();
    for i in 0..10 {
        server.etcdctl(&["put", &format!("key{i}"), "after the compaction"]).ok();
    }
    server.etcdctl(&["del", "key3"]).ok();
}

/// Everything a client can see of the keys, at all revisions that can be read.
fn visible(server: &Server) -> Vec<serde_json::Value> {
    let now = server.json(&["get", "", "--prefix"]);
    let revision = now["header"]["revision"].as_i64().expect("revision");
    let (_, compacted) = server.hash_kv(0);
    let mut seen = vec![now["kvs"].clone(), revision.into(), compacted.into()];
    for past in compacted.max(1)..=revision {
        let answer = server.json(&["get", "", "--prefix", "--rev", &past.to_string()]);
        seen.push(answer["kvs"].clone());
        if past > compacted {
            seen.push(server.hash_kv(past).0.into());
        }
    }
    seen.push(server.json(&["lease", "list"])["leases"].clone());
    seen
}

fn save(server: &Server, path: &Path) {
    server.etcdctl(&["snapshot", "save", text(path)]).ok();
}

#[test]
fn a_snapshot_of_etcd_restores_here_and_ours_in_etcd() {
    let dir = tempfile::tempdir().expect("dir");
    let (from_etcd, from_us) = (dir.path().join("etcd.db"), dir.path().join("ours.db"));
    let expected = {
        let etcd = Server::alone(Program::Etcd35, &dir.path().join("etcd"));
        fill(&etcd);
        etcd.etcdctl(&["role", "add", "reader"]).ok();
        etcd.etcdctl(&["role", "grant-permission", "reader", "read", "key0", "key9"]).ok();
        etcd.etcdctl(&["user", "add", "alice:secret"]).ok();
        etcd.etcdctl(&["user", "grant-role", "alice", "reader"]).ok();
        save(&etcd, &from_etcd);
        visible(&etcd)
    };

    let [port] = free_ports();
    let peer = format!("http://127.0.0.1:{port}");
    let cluster = format!("ours={peer}");
    let ours_dir = dir.path().join("ours");
    etcd_lite(&[
        "snapshot",
        "restore",
        text(&from_etcd),
        "--name=ours",
        &format!("--data-dir={}", text(&ours_dir)),
        &format!("--initial-cluster={cluster}"),
        &format!("--initial-advertise-peer-urls={peer}"),
    ])
    .ok();
    {
        let ours = Server::start(Program::EtcdLite, "ours", &ours_dir, &peer, &cluster);
        ours.wait_healthy();
        assert_eq!(visible(&ours), expected, "what etcd-lite serves of etcd's snapshot");
        save(&ours, &from_us);
    }
    let hash = etcd_lite(&["hashkv", text(&from_us)]).ok();
    assert_eq!(etcd_lite(&["hashkv", "--data-dir", text(&ours_dir)]).ok(), hash);
    assert_eq!(etcd_lite(&["hashkv", text(&from_etcd)]).ok(), hash);
    assert!(etcd_lite(&["verify", "--data-dir", text(&ours_dir)]).ok().ends_with("OK\n"));

    let back_dir = dir.path().join("back");
    let [port] = free_ports();
    let peer = format!("http://127.0.0.1:{port}");
    let cluster = format!("back={peer}");
    etcdutl(&[
        "snapshot",
        "restore",
        text(&from_us),
        "--name=back",
        &format!("--data-dir={}", text(&back_dir)),
        &format!("--initial-cluster={cluster}"),
        &format!("--initial-advertise-peer-urls={peer}"),
    ])
    .ok();
    let back = Server::start(Program::Etcd35, "back", &back_dir, &peer, &cluster);
    back.wait_healthy();
    assert_eq!(visible(&back), expected, "what etcd serves of etcd-lite's snapshot");
    assert!(back.etcdctl(&["user", "get", "alice"]).ok().contains("reader"));
    assert!(back.etcdctl(&["role", "get", "reader"]).ok().contains("[key0, key9)"));
}

#[test]
fn users_of_etcd_log_in_here_after_a_restore() {
    let dir = tempfile::tempdir().expect("dir");
    let (file, restored, log) =
        (dir.path().join("snapshot.db"), dir.path().join("restored"), dir.path().join("log"));
    {
        let etcd = Server::alone(Program::Etcd35, &dir.path().join("etcd"));
        etcd.etcdctl(&["put", "key5", "for readers"]).ok();
        etcd.etcdctl(&["put", "other", "for root"]).ok();
        etcd.etcdctl(&["role", "add", "reader"]).ok();
        etcd.etcdctl(&["role", "grant-permission", "reader", "read", "key0", "key9"]).ok();
        etcd.etcdctl(&["user", "add", "alice:secret"]).ok();
        etcd.etcdctl(&["user", "grant-role", "alice", "reader"]).ok();
        etcd.etcdctl(&["user", "add", "root:more"]).ok();
        etcd.etcdctl(&["user", "grant-role", "root", "root"]).ok();
        etcd.etcdctl(&["auth", "enable"]).ok();
        etcd.etcdctl(&["--user=root:more", "snapshot", "save", text(&file)]).ok();
    }
    let [port] = free_ports();
    let peer = format!("http://127.0.0.1:{port}");
    etcd_lite(&[
        "snapshot",
        "restore",
        text(&file),
        "--name=m",
        &format!("--data-dir={}", text(&restored)),
        &format!("--wal-dir={}", text(&log)),
        &format!("--initial-cluster=m={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
    ])
    .ok();
    assert!(log.is_dir() && !restored.join("member/wal").exists());
    let checked = etcd_lite(&["verify", "--data-dir", text(&restored), "--wal-dir", text(&log)]).ok();
    assert!(checked.ends_with("OK\n"), "{checked}");
    let extra = [format!("--wal-dir={}", text(&log))];
    let ours = Server::start_with(Program::EtcdLite, "m", &restored, &peer, &format!("m={peer}"), &extra);
    ours.wait_reachable();
    let nobody = ours.etcdctl(&["get", "key5"]).err();
    assert!(nobody.contains("user name is empty"), "{nobody}");
    assert_eq!(ours.etcdctl(&["--user=alice:secret", "get", "key5"]).ok(), "key5\nfor readers\n");
    let refused = ours.etcdctl(&["--user=alice:secret", "get", "other"]).err();
    assert!(refused.contains("permission denied"), "{refused}");
    let wrong = ours.etcdctl(&["--user=alice:wrong", "get", "key5"]).err();
    assert!(wrong.contains("invalid user ID or password"), "{wrong}");
    let saving = ours.etcdctl(&["--user=alice:secret", "snapshot", "save", text(&dir.path().join("no.db"))]);
    assert!(saving.err().contains("permission denied"));
    ours.etcdctl(&["--user=root:more", "snapshot", "save", text(&dir.path().join("yes.db"))]).ok();
    ours.etcdctl(&["--user=root:more", "auth", "disable"]).ok();
    ours.etcdctl(&["get", "other"]).ok();
}

#[test]
fn status_prints_what_etcdutl_prints_for_files_of_both() {
    let dir = tempfile::tempdir().expect("dir");
    for program in [Program::Etcd35, Program::EtcdLite] {
        let file = dir.path().join(format!("{program:?}.db"));
        {
            let server = Server::alone(program, &dir.path().join(format!("{program:?}")));
            fill(&server);
            save(&server, &file);
        }
        for format in ["simple", "table", "json", "fields"] {
            let arguments = ["snapshot", "status", text(&file), "-w", format];
            assert_eq!(etcd_lite(&arguments).ok(), etcdutl(&arguments).ok(), "{program:?} {format}");
        }
        // Debian's, of 3.4, reads it as well.
        let debians = run(Command::new("etcdctl").args(["snapshot", "status", text(&file)])).ok();
        assert_eq!(debians, etcd_lite(&["snapshot", "status", text(&file)]).ok());
    }
}

#[test]
fn three_members_restored_from_one_file_are_a_new_cluster_with_its_content() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("snapshot.db");
    let expected = {
        let etcd = Server::alone(Program::Etcd35, &dir.path().join("etcd"));
        fill(&etcd);
        save(&etcd, &file);
        visible(&etcd)
    };
    let ports = free_ports::<3>();
    let peer = |i: usize| format!("http://127.0.0.1:{}", ports[i]);
    let cluster = (0..3).map(|i| format!("m{i}={}", peer(i))).collect::<Vec<_>>().join(",");
    let members: Vec<Server> = (0..3)
        .map(|i| {
            let (name, data_dir) = (format!("m{i}"), dir.path().join(format!("m{i}")));
            etcd_lite(&[
                "snapshot",
                "restore",
                text(&file),
                &format!("--name={name}"),
                &format!("--data-dir={}", text(&data_dir)),
                &format!("--initial-cluster={cluster}"),
                &format!("--initial-advertise-peer-urls={}", peer(i)),
            ])
            .ok();
            Server::start(Program::EtcdLite, &name, &data_dir, &peer(i), &cluster)
        })
        .collect();
    members.iter().for_each(Server::wait_healthy);
    for member in &members {
        assert_eq!(visible(member), expected);
        assert_eq!(member.json(&["member", "list"])["members"].as_array().map(Vec::len), Some(3));
    }
    members[0].etcdctl(&["put", "new", "1"]).ok();
    let hashes: Vec<_> = members
        .iter()
        .map(|member| {
            member.etcdctl(&["get", "new"]).ok();
            member.hash_kv(0)
        })
        .collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

#[test]
fn a_raised_revision_lies_above_all_old_ones_and_they_are_compacted() {
    let dir = tempfile::tempdir().expect("dir");
    let (file, restored) = (dir.path().join("snapshot.db"), dir.path().join("restored"));
    let (revision, keys) = {
        let ours = Server::alone(Program::EtcdLite, &dir.path().join("ours"));
        fill(&ours);
        save(&ours, &file);
        let now = ours.json(&["get", "", "--prefix"]);
        (now["header"]["revision"].as_i64().expect("revision"), now["kvs"].clone())
    };
    let [port] = free_ports();
    let peer = format!("http://127.0.0.1:{port}");
    let arguments = |extra: &'static [&'static str]| {
        let mut command = Command::new(binaries().join("etcd-lite"));
        command
            .args(["snapshot", "restore", text(&file), "--name=m", "--data-dir", text(&restored)])
            .arg(format!("--initial-cluster=m={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .args(extra);
        run(&mut command)
    };
    assert!(arguments(&["--bump-revision=1000"]).err().contains("--mark-compacted required"));
    arguments(&["--bump-revision=1000", "--mark-compacted"]).ok();
    let server = Server::start(Program::EtcdLite, "m", &restored, &peer, &format!("m={peer}"));
    server.wait_healthy();
    let now = server.json(&["get", "", "--prefix"]);
    assert_eq!((now["header"]["revision"].as_i64(), &now["kvs"]), (Some(revision + 1000), &keys));
    let old = server.etcdctl(&["get", "key0", "--rev", &revision.to_string()]).err();
    assert!(old.contains("required revision has been compacted"), "{old}");
}

#[test]
fn damaged_snapshots_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("good.db");
    {
        let ours = Server::alone(Program::EtcdLite, &dir.path().join("ours"));
        fill(&ours);
        save(&ours, &file);
    }
    let good = std::fs::read(&file).expect("snapshot");
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let whole = good.len();
    let damaged: Vec<(&str, Vec<u8>, &[&str], &str)> = vec![
        ("cut short", good[..whole / 2].to_vec(), &[], "the end of the file is missing"),
        ("cut short", good[..whole / 2].to_vec(), &["--skip-hash-check"], "the end of the file is missing"),
        ("empty", Vec::new(), &[], "invalid database"),
        ("a bit in a value", flipped(whole - 9000), &[], "expected sha256 ["),
        (
            "no checksum",
            good[..whole - 32].to_vec(),
            &[],
            "snapshot missing hash but --skip-hash-check=false",
        ),
        ("a page's kind", flipped(3 * 4096 + 8), &["--skip-hash-check"], "page 3: "),
        ("something else", b"#!/bin/sh\n".repeat(2000), &["--skip-hash-check"], "invalid database"),
    ];
    for (what, bytes, flags, expected) in damaged {
        let bad = dir.path().join("bad.db");
        std::fs::write(&bad, bytes).expect("write");
        let target = dir.path().join("restored");
        let arguments = [&["snapshot", "restore", text(&bad), "--data-dir", text(&target)], flags].concat();
        let error = etcd_lite(&arguments).err();
        assert!(error.starts_with("Error: ") && error.contains(expected), "{what}: {error}");
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .expect("dir")
            .map(|entry| entry.expect("entry").file_name())
            .filter(|name| name.to_string_lossy().starts_with("restored"))
            .collect();
        assert!(left.is_empty(), "{what} left {left:?}");
    }
    // A directory with something in it is not touched.
    let occupied = dir.path().join("ours");
    let error = etcd_lite(&["snapshot", "restore", text(&file), "--data-dir", text(&occupied)]).err();
    assert!(error.contains("not empty or could not be read"), "{error}");
}

#[test]
fn verify_names_the_first_bad_record() {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("ours");
    let verify = || etcd_lite(&["verify", "--data-dir", text(&data)]);
    {
        let ours = Server::alone(Program::EtcdLite, &data);
        fill(&ours);
        let error = verify().err();
        assert!(error.contains("another process uses"), "{error}");
    }
    assert!(verify().ok().contains("records are whole"));
    etcd_lite(&["defrag", "--data-dir", text(&data)]).ok();
    let log = data.join("member/wal/0000000000000000.wal");
    let mut bytes = std::fs::read(&log).expect("log");
    // Behind what was written the file has room for more.
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("a log");
    let middle = written / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).expect("write");
    let error = verify().err();
    assert!(error.contains("0000000000000000.wal is damaged at byte "), "{error}");
    let missing = etcd_lite(&["verify", "--data-dir", text(dir.path())]).err();
    assert!(missing.contains("is not a data directory of etcd-lite"), "{missing}");
}

/// A store under random operations.
struct Driven {
    program: Program,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    server: Server,
}

impl Driven {
    async fn start(program: Program, dir: &Path) -> Self {
        let server = Server::alone(program, &dir.join(format!("{program:?}")));
        let channel =
            Channel::from_shared(server.client.clone()).expect("URL").connect().await.expect("connect");
        Self {
            program,
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
            server,
        }
    }

    /// Hash and compacted revision, or the error's text.
    async fn hash(&mut self, revision: i64) -> Result<(u32, i64), String> {
        let answer = self.maintenance.hash_kv(pb::HashKvRequest { revision }).await;
        answer
            .map(|hash| (hash.get_ref().hash, hash.get_ref().compact_revision))
            .map_err(|error| error.message().to_owned())
    }

    async fn apply(&mut self, operation: &Operation) {
        let result = match operation.clone() {
            Operation::Put(request) => self.kv.put(request).await.map(drop),
            Operation::Delete(request) => self.kv.delete_range(request).await.map(drop),
            Operation::Txn(request) => self.kv.txn(request).await.map(drop),
            Operation::Compact(request) => self.kv.compact(request).await.map(drop),
            Operation::Grant(request) => self.lease.lease_grant(request).await.map(drop),
            Operation::Revoke(request) => self.lease.lease_revoke(request).await.map(drop),
        };
        result.unwrap_or_else(|error| panic!("{:?}: {operation:?}: {error}", self.program));
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
}

/// A small generator of numbers, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn put(&mut self, leases: &[i64]) -> pb::PutRequest {
        let lease = match self.below(4) {
            0 if !leases.is_empty() => leases[self.below(leases.len() as u64) as usize],
            _ => 0,
        };
        let value = "v".repeat(self.below(40) as usize);
        let key = format!("k{}", self.below(12));
        pb::PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (first, width) = (self.below(12), self.below(6));
        let key = format!("k{first}").into();
        let range_end = if width == 0 { Default::default() } else { format!("k{}", first + width).into() };
        pb::DeleteRangeRequest { key, range_end, ..Default::default() }
    }

    /// The next operation at a revision.
    fn operation(&mut self, revision: i64, compacted: &mut i64, leases: &mut Vec<i64>) -> Operation {
        match self.below(20) {
            0..=9 => Operation::Put(self.put(leases)),
            10..=13 => Operation::Delete(self.delete()),
            // Everything, so that there are revisions without any key.
            14 if self.below(3) == 0 => Operation::Delete(pb::DeleteRangeRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                ..Default::default()
            }),
            14 | 15 => {
                let first = self.below(6);
                let put = |i: u64| pb::RequestOp {
                    request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                        key: format!("k{}", first + i).into(),
                        value: "txn".into(),
                        ..Default::default()
                    })),
                };
                Operation::Txn(pb::TxnRequest { success: (0..5).map(put).collect(), ..Default::default() })
            }
            16 | 17 if revision > *compacted + 2 => {
                *compacted += 1 + self.below((revision - *compacted) as u64) as i64;
                Operation::Compact(pb::CompactionRequest { revision: *compacted, physical: true })
            }
            18 if leases.len() > 3 => {
                Operation::Revoke(pb::LeaseRevokeRequest { id: leases.swap_remove(self.below(3) as usize) })
            }
            _ => {
                let id = 1 + self.below(1 << 40) as i64;
                leases.push(id);
                Operation::Grant(pb::LeaseGrantRequest { id, ttl: 3600 })
            }
        }
    }
}

#[tokio::test]
async fn the_same_operations_give_the_hash_etcd_gives() {
    const OPERATIONS: usize = 600;
    let dir = tempfile::tempdir().expect("dir");
    let seed = std::env::var("CORACLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
    let mut random = Random(seed.max(1));
    let mut stores = Vec::new();
    for program in [Program::Etcd35, Program::Etcd34, Program::EtcdLite] {
        stores.push(Driven::start(program, dir.path()).await);
    }
    let (mut compacted, mut leases) = (1, Vec::new());
    let mut compared = 0;
    for number in 0..OPERATIONS {
        let revision = {
            let answer = stores[0].kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await;
            answer.expect("range").get_ref().header.as_ref().expect("header").revision
        };
        let operation = random.operation(revision, &mut compacted, &mut leases);
        for store in &mut stores {
            store.apply(&operation).await;
        }
        // 3.5.1 refuses the compacted revision itself, which newer ones answer.
        let past = compacted + 1 + random.below((revision - compacted).max(1) as u64) as i64;
        for revision in [0, past, compacted - 1, revision + 50] {
            let expected = stores[0].hash(revision).await;
            compared += usize::from(expected.is_ok());
            for store in &mut stores[1..] {
                let found = store.hash(revision).await;
                assert_eq!(
                    found, expected,
                    "seed {seed}, {:?} after operation {number} {operation:?}, hash at {revision}, compacted at {compacted}",
                    store.program
                );
            }
        }
    }
    assert!(compared > OPERATIONS, "only {compared} hashes were compared");
}

/// Enough for a tree of three levels, with pages that go on over others in between.
#[tokio::test]
async fn a_large_snapshot_of_ours_is_whole_for_etcd() {
    const KEYS: usize = 30_000;
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("large.db");
    let (hash, revision) = {
        let mut ours = Driven::start(Program::EtcdLite, dir.path()).await;
        let keys: Vec<usize> = (0..KEYS).collect();
        for keys in keys.chunks(100) {
            let put = |i: &usize| pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                    key: format!("/registry/things/{i:08}").into(),
                    value: vec![b'v'; if i % 1000 == 7 { 20_000 } else { 100 }].into(),
                    ..Default::default()
                })),
            };
            let request = pb::TxnRequest { success: keys.iter().map(put).collect(), ..Default::default() };
            ours.apply(&Operation::Txn(request)).await;
        }
        save(&ours.server, &file);
        let (hash, _) = ours.hash(0).await.expect("hash");
        (hash, 1 + KEYS / 100)
    };
    let status: serde_json::Value =
        serde_json::from_str(&etcdutl(&["snapshot", "status", text(&file), "-w", "json"]).ok())
            .expect("JSON");
    assert_eq!(status["revision"].as_u64(), Some(revision as u64));
    assert!(status["totalKey"].as_u64().is_some_and(|keys| keys > KEYS as u64), "{status}");
    let restored = dir.path().join("restored");
    let [port] = free_ports();
    let peer = format!("http://127.0.0.1:{port}");
    etcdutl(&[
        "snapshot",
        "restore",
        text(&file),
        "--name=m",
        &format!("--data-dir={}", text(&restored)),
        &format!("--initial-cluster=m={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
    ])
    .ok();
    let etcd = Server::start(Program::Etcd35, "m", &restored, &peer, &format!("m={peer}"));
    etcd.wait_healthy();
    assert_eq!(etcd.hash_kv(0).0, u64::from(hash));
    // It can be written to as well: the tree is one that etcd can change.
    etcd.etcdctl(&["del", "/registry/things/0000", "--prefix"]).ok();
    etcd.etcdctl(&["put", "/registry/things/00000001a", "between"]).ok();
    save(&etcd, &dir.path().join("changed.db"));
    let changed = etcd.hash_kv(0).0.to_string();
    let found = etcd_lite(&["hashkv", text(&dir.path().join("changed.db"))]).ok();
    assert!(found.starts_with(&changed), "{found} is not {changed}");
}
