//! The flags about TLS with etcdctl and openssl as clients, and with members as each other's.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use coracle_tests::member::{Member, SOON};
use coracle_tests::store::{Program, etcd_35};
use coracle_tests::tools::{Ran, run};
use coracle_tests::wait::wait_for;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority, and the directory of what it signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority");
        std::fs::write(dir.path().join("ca.crt"), params.self_signed(&key).expect("signed").pem())
            .expect("write");
        let authority = Self { issuer: Issuer::new(params, key), dir };
        authority.revoke(9999);
        authority
    }

    /// NAME.crt and NAME.key with NAME as common name, for these hosts; with a serial number.
    fn sign(&self, name: &str, hosts: &[&str], serial: u64, usages: &[ExtendedKeyUsagePurpose]) {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial.into());
        params.extended_key_usages = usages.to_vec();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path(&format!("{name}.crt")), certificate.pem()).expect("write");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("write");
    }

    /// For servers and clients on this machine.
    fn sign_both(&self, name: &str, serial: u64) {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        self.sign(
            name,
            &["127.0.0.1", "localhost", &format!("{name}.example")],
            serial,
            &[ServerAuth, ClientAuth],
        );
    }

    /// The list of revoked certificates, `crl.pem`.
    fn revoke(&self, serial: u64) {
        let now = SystemTime::now();
        let list = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3600)).into(),
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
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(self.path("crl.pem"), list.pem().expect("PEM")).expect("write");
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Flags with `@NAME` standing for the path of NAME here.
    fn flags(&self, flags: &[&str]) -> Vec<String> {
        let dir = format!("={}/", self.dir.path().display());
        flags.iter().map(|flag| flag.replace("=@", &dir)).collect()
    }

    /// A member whose client port speaks TLS.
    fn member(&self, flags: &[&str]) -> Member {
        let mut member = Member::prepare(Program::EtcdLite);
        let url = format!("https://127.0.0.1:{}", member.port());
        let mut all = self.flags(flags);
        all.extend([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")]);
        member.launch(&all.iter().map(String::as_str).collect::<Vec<_>>());
        member.wait_logged("ready to serve client requests");
        member
    }

    /// etcdctl with the certificate of a name, or none.
    fn etcdctl(&self, member: &Member, name: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(etcd_35("etcdctl"));
        command.args([
            "--endpoints",
            &format!("https://127.0.0.1:{}", member.port()),
            "--command-timeout=2s",
        ]);
        command.arg("--cacert").arg(self.path("ca.crt"));
        if !name.is_empty() {
            command.arg("--cert").arg(self.path(&format!("{name}.crt")));
            command.arg("--key").arg(self.path(&format!("{name}.key")));
        }
        run(command.args(arguments))
    }
}

/// What openssl's client sees of a port; it succeeds if the handshake does.
fn s_client(port: u16, arguments: &[&str]) -> Ran {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).args(arguments).stdin(Stdio::null());
    run(&mut command)
}

/// A certificate as openssl prints it.
fn x509(file: &Path, what: &str) -> Ran {
    run(Command::new("openssl").args(["x509", "-noout", "-in"]).arg(file).args(what.split(' ')))
}

const SERVER: [&str; 2] = ["--cert-file=@server.crt", "--key-file=@server.key"];

#[test]
fn clients_show_a_certificate_that_is_good_or_are_refused() {
    let authority = Authority::new();
    for (name, serial) in [("server", 1), ("client", 2), ("other", 3)] {
        authority.sign_both(name, serial);
    }
    authority.sign("gone", &["127.0.0.1", "client.example"], 4, &[ExtendedKeyUsagePurpose::ClientAuth]);
    authority.revoke(4);
    let open = authority.member(&SERVER);
    authority.etcdctl(&open, "", &["put", "a", "b"]).ok();
    let closed = authority.member(
        &[
            &SERVER[..],
            &[
                "--client-cert-auth",
                "--trusted-ca-file=@ca.crt",
                "--client-crl-file=@crl.pem",
                "--client-cert-allowed-hostname=client.example",
                "--client-cert-file=@client.crt",
                "--client-key-file=@client.key",
            ],
        ]
        .concat(),
    );
    authority.etcdctl(&closed, "client", &["put", "a", "b"]).ok();
    authority.etcdctl(&closed, "", &["get", "a"]).err();
    closed.wait_logged("client didn't provide a certificate");
    authority.etcdctl(&closed, "other", &["get", "a"]).err();
    closed.wait_logged("client certificate authentication failed");
    authority.etcdctl(&closed, "gone", &["get", "a"]).err();
    closed.wait_logged("Revoked");
}

#[test]
fn versions_and_suites_of_tls_are_those_named() {
    let authority = Authority::new();
    authority.sign_both("server", 1);
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let old = authority
        .member(&[&SERVER[..], &["--tls-max-version=TLS1.2", &format!("--cipher-suites={suite}")]].concat());
    let said = s_client(old.port(), &["-tls1_2"]).ok();
    assert!(said.contains("Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"), "{said}");
    s_client(old.port(), &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]).err();
    s_client(old.port(), &["-tls1_3"]).err();
    authority.etcdctl(&old, "", &["put", "a", "b"]).ok();
    let new = authority.member(&[&SERVER[..], &["--tls-min-version=TLS1.3"]].concat());
    s_client(new.port(), &["-tls1_3"]).ok();
    s_client(new.port(), &["-tls1_2"]).err();
    // Which speaks TLS 1.2 alone.
    assert!(authority.etcdctl(&new, "", &["put", "a", "b"]).err().contains("protocol version not supported"));
}

#[test]
fn a_member_makes_its_own_certificate_for_so_long() {
    let authority = Authority::new();
    let member = authority.member(&["--auto-tls", "--self-signed-cert-validity=3"]);
    let made = member.data().join("fixtures/client/cert.pem");
    std::fs::copy(&made, authority.path("ca.crt")).expect("a certificate");
    authority.etcdctl(&member, "", &["put", "a", "b"]).ok();
    const DAY: u64 = 24 * 3600;
    x509(&made, &format!("-checkend {}", (3 * 365 - 2) * DAY)).ok();
    x509(&made, &format!("-checkend {}", (3 * 365 + 3) * DAY)).err();
}

/// Two members with flags of their own and shared ones.
fn peers(authority: &Authority, shared: &[&str], own: [&[&str]; 2]) -> [Member; 2] {
    let mut members = [Member::prepare(Program::EtcdLite), Member::prepare(Program::EtcdLite)];
    let urls = members.each_ref().map(|member| member.peer_url().replace("http:", "https:"));
    let cluster = format!("--initial-cluster=m={},n={}", urls[0], urls[1]);
    for (i, member) in members.iter_mut().enumerate() {
        let mut flags = authority.flags(&[shared, own[i]].concat());
        flags.extend([
            cluster.clone(),
            format!("--name={}", ["m", "n"][i]),
            format!("--listen-peer-urls={}", urls[i]),
            format!("--initial-advertise-peer-urls={}", urls[i]),
        ]);
        member.launch(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }
    members
}

fn agree(members: &[Member; 2]) {
    members.iter().for_each(Member::wait_healthy);
    members[0].etcdctl(&["put", "a", "b"]).ok();
    assert_eq!(members[1].etcdctl(&["get", "a", "--print-value-only"]).ok(), "b\n");
}

/// Neither has a leader, and the first says why.
fn disagree(members: &[Member; 2], why: &str) {
    members[0].wait_logged(why);
    assert_eq!(members[0].get("/readyz/linearizable_read").status, 503);
}

#[test]
fn peers_show_certificates_that_are_good_or_stay_apart() {
    let authority = Authority::new();
    for (name, serial) in [("peer", 1), ("stranger", 2), ("gone", 3)] {
        authority.sign_both(name, serial);
    }
    authority.revoke(3);
    let shared = ["--peer-client-cert-auth", "--peer-trusted-ca-file=@ca.crt", "--peer-crl-file=@crl.pem"];
    let cert = ["--peer-cert-file=@peer.crt", "--peer-key-file=@peer.key"];
    let stranger = ["--peer-cert-file=@stranger.crt", "--peer-key-file=@stranger.key"];
    let gone = ["--peer-cert-file=@gone.crt", "--peer-key-file=@gone.key"];
    for allowed in ["--peer-cert-allowed-cn=peer", "--peer-cert-allowed-hostname=peer.example"] {
        let shared = [&shared[..], &[allowed]].concat();
        agree(&peers(&authority, &shared, [&cert, &cert]));
        disagree(&peers(&authority, &shared, [&cert, &stranger]), "client certificate authentication failed");
    }
    disagree(&peers(&authority, &shared, [&cert, &gone]), "Revoked");
}

#[test]
fn peers_that_make_their_own_certificates_agree() {
    let members = peers(&Authority::new(), &["--peer-auto-tls"], [&[], &[]]);
    agree(&members);
    x509(&members[0].data().join("fixtures/peer/cert.pem"), "-checkend 0").ok();
}

#[test]
fn the_certificate_towards_peers_may_be_another_and_come_from_elsewhere() {
    let authority = Authority::new();
    authority.sign("peer", &["127.0.0.1"], 1, &[ExtendedKeyUsagePurpose::ServerAuth]);
    authority.sign("towards", &["10.9.8.7"], 2, &[ExtendedKeyUsagePurpose::ClientAuth]);
    let shared = [
        "--peer-cert-file=@peer.crt",
        "--peer-key-file=@peer.key",
        "--peer-client-cert-auth",
        "--peer-trusted-ca-file=@ca.crt",
    ];
    let towards = ["--peer-client-cert-file=@towards.crt", "--peer-client-key-file=@towards.key"];
    // A certificate for servers alone is none for a client.
    disagree(&peers(&authority, &shared, [&[], &[]]), "rejected connection");
    disagree(
        &peers(&authority, &shared, [&towards, &towards]),
        "certificate is valid for 10.9.8.7, not 127.0.0.1",
    );
    let skipping = [&towards[..], &["--experimental-peer-skip-client-san-verification"]].concat();
    agree(&peers(&authority, &shared, [&skipping, &skipping]));
}

#[test]
fn a_renewed_certificate_is_served_without_a_restart() {
    let authority = Authority::new();
    authority.sign_both("server", 1);
    let member = authority.member(&SERVER);
    let serial = || {
        let shown = s_client(member.port(), &[]).ok();
        let begin = shown.find("-----BEGIN").expect("a certificate");
        std::fs::write(member.dir().join("shown.crt"), &shown[begin..]).expect("write");
        x509(&member.dir().join("shown.crt"), "-serial").ok()
    };
    assert_eq!(serial(), "serial=01\n");
    authority.sign_both("server", 2);
    wait_for("the renewed certificate is shown", SOON, || match serial() {
        shown if shown == "serial=02\n" => Ok(()),
        other => Err(other),
    });
    authority.etcdctl(&member, "", &["put", "a", "b"]).ok();
}
