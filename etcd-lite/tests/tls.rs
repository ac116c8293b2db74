//! TLS from outside: members as processes, certificates that are renewed, expire, are revoked or belong to nobody, and clients with the
//! wrong protocol.

#[path = "../../tests/src/ports.rs"]
mod ports;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

const SOON: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// A directory of certificates.
struct Pki {
    dir: tempfile::TempDir,
    serial: u64,
}

type Authority = Issuer<'static, KeyPair>;

impl Pki {
    fn new() -> Self {
        component_base::tls::install_provider();
        Self { dir: tempfile::tempdir().expect("dir"), serial: 1 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An authority, written to NAME.crt.
    fn authority(&self, name: &str) -> Authority {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).expect("an authority");
        std::fs::write(self.path(&format!("{name}.crt")), cert.pem()).expect("write");
        Issuer::new(params, key)
    }

    /// A certificate good until `end`, written to NAME.crt and NAME.key in place of what was there. Returns its serial number.
    fn leaf(
        &mut self,
        by: &Authority,
        name: &str,
        common_name: &str,
        hosts: &[&str],
        end: SystemTime,
    ) -> u64 {
        self.serial += 1;
        let key = KeyPair::generate().expect("key");
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(self.serial.into());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - 48 * HOUR).into();
        params.not_after = end.into();
        let cert = params.signed_by(&key, by).expect("a certificate");
        std::fs::write(self.path(&format!("{name}.crt")), cert.pem()).expect("write");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("write");
        self.serial
    }

    fn revoke(&self, by: &Authority, serial: u64) {
        let now = SystemTime::now();
        let list = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + HOUR).into(),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(by).expect("a list");
        std::fs::write(self.path("crl.pem"), list.pem().expect("PEM")).expect("write");
    }

    /// A client that trusts an authority and shows a certificate.
    fn client(&self, authority: &str, identity: Option<&str>) -> Arc<ClientConfig> {
        let identity =
            identity.map(|name| (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key"))));
        let identity = identity.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        component_base::tls::client_config(
            Some(&self.path(&format!("{authority}.crt"))),
            identity,
            &["http/1.1"],
        )
        .expect("a client")
    }
}

fn tomorrow() -> SystemTime {
    SystemTime::now() + 24 * HOUR
}

fn free_port() -> u16 {
    ports::free_ports(1)[0]
}

struct Member {
    process: Child,
    log: PathBuf,
}

impl Member {
    fn start(dir: &Path, name: &str, arguments: &[String]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-lite"));
        command
            .args(arguments)
            .arg(format!("--name={name}"))
            .arg(format!("--data-dir={}", dir.join(name).display()));
        let process = command.stdin(Stdio::null()).stderr(output).spawn().expect("etcd-lite");
        Self { process, log }
    }

    /// One member with these flags about TLS on its client port.
    fn alone(pki: &Pki, urls: &str, flags: &[&str]) -> Self {
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut arguments = vec![
            format!("--listen-client-urls={urls}"),
            format!("--advertise-client-urls={}", urls.split(',').next().expect("one")),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=m={peer}"),
        ];
        let at = |flag: &&str| match flag.split_once('@') {
            Some((name, file)) => format!("{name}={}", pki.path(file).display()),
            None => (*flag).to_owned(),
        };
        arguments.extend(flags.iter().map(at));
        let member = Self::start(pki.dir.path(), "m", &arguments);
        member.wait_logged("ready to serve client requests");
        member
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("log")
    }

    #[track_caller]
    fn wait_logged(&self, text: &str) {
        wait_for(|| {
            if self.log().contains(text) { Ok(()) } else { Err(format!("no {text:?} in {}", self.log())) }
        });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn wait_for<T>(mut check: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + SOON;
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < end, "not in time; last seen: {last}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("timeout");
    stream
}

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// `/health` over TLS, and the certificate the member showed.
fn health(port: u16, config: &Arc<ClientConfig>) -> Result<CertificateDer<'static>, String> {
    let name = ServerName::try_from("127.0.0.1").expect("name");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("connection");
    let mut stream = StreamOwned::new(connection, connect(port));
    let mut answer = String::new();
    stream.write_all(REQUEST).map_err(|error| error.to_string())?;
    let result = stream.read_to_string(&mut answer);
    if !answer.contains("\"health\":\"true\"") {
        return Err(format!("{answer:?} {result:?}"));
    }
    let chain = stream.conn.peer_certificates().expect("a chain");
    Ok(chain[0].clone().into_owned())
}

fn plain(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).expect("writes");
    let mut answer = Vec::new();
    // A reset says the same as the end.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn certificates_are_renewed_and_authorities_replaced_without_a_restart() {
    let mut pki = Pki::new();
    let first = pki.authority("first");
    std::fs::copy(pki.path("first.crt"), pki.path("ca.crt")).expect("copy");
    pki.leaf(&first, "server", "server", &["127.0.0.1"], tomorrow());
    pki.leaf(&first, "client", "root", &[], SystemTime::now() - HOUR);
    let port = free_port();
    let flags =
        ["--cert-file@server.crt", "--key-file@server.key", "--trusted-ca-file@ca.crt", "--client-cert-auth"];
    let member = Member::alone(&pki, &format!("https://127.0.0.1:{port}"), &flags);

    health(port, &pki.client("first", Some("client"))).expect_err("an expired certificate");
    member.wait_logged("certificate has expired or is not yet valid");
    health(port, &pki.client("first", None)).expect_err("no certificate");
    member.wait_logged("client didn't provide a certificate");
    pki.leaf(&first, "client", "root", &[], tomorrow());
    let client = pki.client("first", Some("client"));
    let shown = health(port, &client).expect("a renewed client");

    pki.leaf(&first, "server", "server", &["127.0.0.1"], tomorrow());
    assert_ne!(health(port, &client).expect("served"), shown, "the renewed certificate is shown");
    std::fs::write(pki.path("server.crt"), "half").expect("write");
    health(port, &client).expect("the last good certificate stays");
    member.wait_logged("keeping the previous certificates");

    let second = pki.authority("second");
    pki.leaf(&second, "server", "server", &["127.0.0.1"], tomorrow());
    pki.leaf(&second, "other", "root", &[], tomorrow());
    std::fs::copy(pki.path("second.crt"), pki.path("ca.crt")).expect("copy");
    health(port, &pki.client("second", Some("other"))).expect("a client of the new authority");
    health(port, &pki.client("second", Some("client"))).expect_err("a client of the old authority");
    member.wait_logged("certificate signed by unknown authority");
}

#[test]
fn revoked_certificates_and_other_names_are_refused() {
    let mut pki = Pki::new();
    let authority = pki.authority("ca");
    pki.leaf(&authority, "server", "server", &["127.0.0.1"], tomorrow());
    let good = pki.leaf(&authority, "good", "root", &["client.example", "127.0.0.1"], tomorrow());
    pki.leaf(&authority, "unnamed", "root", &[], tomorrow());
    pki.leaf(&authority, "elsewhere", "root", &["client.example", "10.9.8.7"], tomorrow());
    pki.revoke(&authority, 9999);
    let port = free_port();
    let flags = [
        "--cert-file@server.crt",
        "--key-file@server.key",
        "--trusted-ca-file@ca.crt",
        "--client-crl-file@crl.pem",
        "--client-cert-allowed-hostname=client.example",
    ];
    let member = Member::alone(&pki, &format!("https://127.0.0.1:{port}"), &flags);
    health(port, &pki.client("ca", Some("good"))).expect("the name that is allowed");
    health(port, &pki.client("ca", Some("unnamed"))).expect_err("another name");
    member.wait_logged("client certificate authentication failed");
    health(port, &pki.client("ca", Some("elsewhere"))).expect_err("the address of another machine");
    member.wait_logged("does not match any of DNSNames");
    pki.revoke(&authority, good);
    health(port, &pki.client("ca", Some("good"))).expect_err("revoked");
    member.wait_logged("Revoked");
}

#[test]
fn http_and_https_share_a_port_and_who_waits_holds_up_nobody() {
    let mut pki = Pki::new();
    let authority = pki.authority("ca");
    pki.leaf(&authority, "server", "server", &["127.0.0.1"], tomorrow());
    let (both, secure) = (free_port(), free_port());
    let urls = format!("http://127.0.0.1:{both},https://127.0.0.1:{both},https://127.0.0.1:{secure}");
    let member = Member::alone(&pki, &urls, &["--cert-file@server.crt", "--key-file@server.key"]);
    let client = pki.client("ca", None);
    // Connections that say nothing.
    let mut silent: Vec<TcpStream> = (0..50).map(|_| connect(secure)).collect();
    health(both, &client).expect("https");
    health(secure, &client).expect("https alone");
    assert!(plain(both, REQUEST).contains("\"health\":\"true\""), "http on the same port");
    let answer = plain(secure, REQUEST);
    assert!(
        answer.starts_with("HTTP/1.0 400") && answer.contains("HTTP request to an HTTPS server"),
        "{answer}"
    );
    assert_eq!(plain(secure, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "");
    member.wait_logged("first record does not look like a TLS handshake");
    let mut rest = Vec::new();
    silent[49].read_to_end(&mut rest).expect("closed in time");
    member.wait_logged("the TLS handshake took too long");
}

#[test]
fn versions_and_suites_are_limited_as_told() {
    let mut pki = Pki::new();
    let authority = pki.authority("ca");
    pki.leaf(&authority, "server", "server", &["127.0.0.1"], tomorrow());
    let port = free_port();
    let flags = ["--cert-file@server.crt", "--key-file@server.key", "--tls-min-version=TLS1.3"];
    let _member = Member::alone(&pki, &format!("https://127.0.0.1:{port}"), &flags);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(component_base::tls::load_certs(&pki.path("ca.crt")).expect("CA")[0].clone()).expect("a root");
    let client = |version| {
        let builder = ClientConfig::builder_with_protocol_versions(&[version]);
        Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    health(port, &client(&rustls::version::TLS13)).expect("TLS 1.3");
    health(port, &client(&rustls::version::TLS12)).expect_err("TLS 1.2");
}

#[test]
fn a_certificate_is_made_for_who_has_none() {
    let pki = Pki::new();
    let port = free_port();
    let _member = Member::alone(&pki, &format!("https://127.0.0.1:{port}"), &["--auto-tls"]);
    let made = pki.path("m/fixtures/client/cert.pem");
    std::fs::copy(made, pki.path("made.crt")).expect("the certificate");
    health(port, &pki.client("made", None)).expect("served with it");
}

struct Cluster {
    members: Vec<Option<Member>>,
    arguments: Vec<Vec<String>>,
    clients: Vec<u16>,
    dir: PathBuf,
}

impl Cluster {
    fn start(pki: &Pki, flags: &dyn Fn(usize) -> Vec<String>) -> Self {
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let peer = |i: usize| format!("https://127.0.0.1:{}", ports[i].1);
        let cluster: Vec<String> = (0..3).map(|i| format!("m{i}={}", peer(i))).collect();
        let arguments: Vec<Vec<String>> = (0..3)
            .map(|i| {
                let client = format!("http://127.0.0.1:{}", ports[i].0);
                let mut arguments = vec![
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={}", peer(i)),
                    format!("--initial-advertise-peer-urls={}", peer(i)),
                    format!("--initial-cluster={}", cluster.join(",")),
                ];
                arguments.extend(flags(i));
                arguments
            })
            .collect();
        let mut all = Self {
            members: (0..3).map(|_| None).collect(),
            arguments,
            clients: ports.iter().map(|(client, _)| *client).collect(),
            dir: pki.dir.path().to_owned(),
        };
        (0..3).for_each(|i| all.start_member(i));
        all
    }

    fn start_member(&mut self, i: usize) {
        self.members[i] = Some(Member::start(&self.dir, &format!("m{i}"), &self.arguments[i]));
    }

    fn is_healthy(&self, i: usize) -> Result<(), String> {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.clients[i])) else {
            return Err("not listening".to_owned());
        };
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        stream.write_all(REQUEST).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        if answer.contains("\"health\":\"true\"") { Ok(()) } else { Err(answer) }
    }
}

#[test]
fn peers_go_on_with_renewed_certificates_and_refuse_others() {
    let mut pki = Pki::new();
    let first = pki.authority("first");
    std::fs::copy(pki.path("first.crt"), pki.path("ca.crt")).expect("copy");
    for i in 0..3 {
        pki.leaf(&first, &format!("peer{i}"), "peer", &["127.0.0.1"], tomorrow());
    }
    let path = |name: String| pki.path(&name).display().to_string();
    let mut cluster = Cluster::start(&pki, &|i| {
        vec![
            format!("--peer-cert-file={}", path(format!("peer{i}.crt"))),
            format!("--peer-key-file={}", path(format!("peer{i}.key"))),
            format!("--peer-trusted-ca-file={}", path("ca.crt".to_owned())),
            "--peer-client-cert-auth".to_owned(),
            "--peer-cert-allowed-cn=peer".to_owned(),
        ]
    });
    (0..3).for_each(|i| wait_for(|| cluster.is_healthy(i)));

    // A new authority and new certificates for all; then each in turn starts anew, so that all connections are new.
    let second = pki.authority("second");
    for i in 0..3 {
        pki.leaf(&second, &format!("peer{i}"), "peer", &["127.0.0.1"], tomorrow());
    }
    std::fs::copy(pki.path("second.crt"), pki.path("ca.crt")).expect("copy");
    cluster.members[2] = None;
    cluster.start_member(2);
    wait_for(|| cluster.is_healthy(2));
    cluster.members[0].as_ref().expect("runs").wait_logged("using the renewed certificates");

    // A certificate with another CN keeps a member out.
    cluster.members[2] = None;
    pki.leaf(&second, "peer2", "stranger", &["127.0.0.1"], tomorrow());
    cluster.start_member(2);
    cluster.members[0].as_ref().expect("runs").wait_logged("its CN is \\\"stranger\\\"");
    cluster.is_healthy(2).expect_err("alone");
    (0..2).for_each(|i| wait_for(|| cluster.is_healthy(i)));
    // An expired one too, until it is renewed under the running member.
    cluster.members[2] = None;
    pki.leaf(&second, "peer2", "peer", &["127.0.0.1"], SystemTime::now() - HOUR);
    cluster.start_member(2);
    cluster.members[0].as_ref().expect("runs").wait_logged("certificate has expired or is not yet valid");
    pki.leaf(&second, "peer2", "peer", &["127.0.0.1"], tomorrow());
    wait_for(|| cluster.is_healthy(2));
}

#[test]
fn members_that_make_their_own_certificates_find_each_other() {
    let pki = Pki::new();
    let cluster = Cluster::start(&pki, &|_| vec!["--peer-auto-tls".to_owned()]);
    (0..3).for_each(|i| wait_for(|| cluster.is_healthy(i)));
}

#[test]
fn members_and_clients_meet_on_unix_sockets() {
    let dir = tempfile::tempdir().expect("dir");
    let url = |name: &str| format!("unix://{}", dir.path().join(name).display());
    let members: Vec<Member> = (0..3)
        .map(|i| {
            let cluster: Vec<String> = (0..3).map(|n| format!("m{n}={}", url(&format!("peer{n}")))).collect();
            let arguments = [
                format!("--listen-client-urls={}", url(&format!("client{i}"))),
                format!("--advertise-client-urls={}", url(&format!("client{i}"))),
                format!("--listen-peer-urls={}", url(&format!("peer{i}"))),
                format!("--initial-advertise-peer-urls={}", url(&format!("peer{i}"))),
                format!("--initial-cluster={}", cluster.join(",")),
            ];
            Member::start(dir.path(), &format!("m{i}"), &arguments)
        })
        .collect();
    for (i, member) in members.iter().enumerate() {
        member.wait_logged("ready to serve client requests");
        let path = dir.path().join(format!("client{i}"));
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("connects");
        stream.write_all(REQUEST).expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        assert!(answer.contains("\"health\":\"true\""), "{answer}");
    }
}
