//! The files of CAs that vouch for clients are replaced while the server runs, over HTTPS.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::common::{Cluster, Pki, Server, wait_for};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Another CA, with a client of its own whose files are beside those of the cluster's clients.
fn other_ca(cluster: &Cluster, client: &str, groups: &[&str]) -> (tempfile::TempDir, Pki) {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::new(folder.path());
    let (cert, key) = pki.issue(client, client, groups);
    for file in [cert, key] {
        let name = file.file_name().expect("a name");
        std::fs::copy(&file, cluster.dir.path().join(name)).expect("copy");
    }
    (folder, pki)
}

/// As tools do it: the new file takes the old one's place at once.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("write");
    std::fs::rename(&new, path).expect("rename");
}

async fn who(cluster: &Cluster, server: &Server, identity: &str) -> Option<String> {
    let answer = cluster.client(server, Some(identity)).json("POST", WHO, &json!({})).await;
    match answer.status {
        StatusCode::CREATED => answer.body["status"]["userInfo"]["username"].as_str().map(str::to_owned),
        StatusCode::UNAUTHORIZED => None,
        other => panic!("{other}"),
    }
}

/// Notes what the server says in the handshake about the CAs that it knows.
#[derive(Debug, Default)]
struct Hints(Mutex<Vec<Vec<u8>>>);

impl ResolvesClientCert for Hints {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().expect("not poisoned") = hints.iter().map(|hint| hint.to_vec()).collect();
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

async fn hints(cluster: &Cluster, server: &Server) -> Vec<Vec<u8>> {
    let noted = Arc::new(Hints::default());
    let roots = component_base::tls::load_roots(&cluster.dir.path().join("ca.crt")).expect("roots");
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::clone(&noted) as Arc<dyn ResolvesClientCert>);
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let hints = noted.0.lock().expect("not poisoned");
    hints.clone()
}

/// A connection of the administrator's that stays.
async fn lasting(cluster: &Cluster, server: &Server) -> SendRequest<Empty<Bytes>> {
    let at = |file: &str| cluster.dir.path().join(file);
    let config = component_base::tls::client_config(
        Some(&at("ca.crt")),
        Some((&at("admin.crt"), &at("admin.key"))),
        &["http/1.1"],
    );
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(config.expect("TLS"));
    let stream = connector.connect(name, stream).await.expect("TLS");
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

async fn status(sender: &mut SendRequest<Empty<Bytes>>) -> StatusCode {
    let request =
        Request::get("/api/v1/nodes").header("host", "localhost").body(Empty::new()).expect("a request");
    sender.ready().await.expect("the connection stays");
    let answer = sender.send_request(request).await.expect("an answer");
    let status = answer.status();
    answer.into_body().collect().await.expect("a body");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_ca_of_clients_counts_without_a_restart_and_the_old_one_no_longer() {
    let cluster = Cluster::new();
    let (folder, _other) = other_ca(&cluster, "eve", &["system:masters"]);
    let file = cluster.dir.path().join("clients.crt");
    let read = |path: &Path| std::fs::read(path).expect("read");
    let (old, new) = (read(&cluster.dir.path().join("ca.crt")), read(&folder.path().join("ca.crt")));
    replace(&file, &old);
    let flag = format!("--client-ca-file={}", file.display());
    let server = cluster.server_with(&["--client-ca-file"], &[&flag]).await;
    assert_eq!(who(&cluster, &server, "admin").await.as_deref(), Some("admin"));
    assert_eq!(who(&cluster, &server, "eve").await, None);
    let mut connection = lasting(&cluster, &server).await;
    assert_eq!(status(&mut connection).await, StatusCode::OK);
    let before = hints(&cluster, &server).await;
    assert_eq!(before.len(), 1);

    // For a time both count.
    replace(&file, &[old.as_slice(), new.as_slice()].concat());
    wait_for("the new CA to count", || async { who(&cluster, &server, "eve").await.is_some() }).await;
    assert_eq!(who(&cluster, &server, "admin").await.as_deref(), Some("admin"));
    assert_eq!(hints(&cluster, &server).await.len(), 2);

    // What is no bundle changes nothing; then the old CA goes.
    replace(&file, b"-----BEGIN CERTIFICATE-----\nhalf a fi");
    replace(&file, &new);
    wait_for("the old CA to go", || async { who(&cluster, &server, "admin").await.is_none() }).await;
    assert_eq!(who(&cluster, &server, "eve").await.as_deref(), Some("eve"));
    // Also on connections that were there before.
    assert_eq!(status(&mut connection).await, StatusCode::UNAUTHORIZED);
    // Both CAs have the same name.
    assert_eq!(hints(&cluster, &server).await, before);

    let published = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let eve = cluster.client(&server, Some("eve"));
    wait_for("the new CA to be published", || async {
        let data = eve.get(published).await.expect("an answer").body["data"].clone();
        data["client-ca-file"].as_str().is_some_and(|text| text.as_bytes() == new)
    })
    .await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_ca_of_front_proxies_counts_without_a_restart() {
    let cluster = Cluster::new();
    let (folder, _other) = other_ca(&cluster, "proxy", &[]);
    let file = cluster.dir.path().join("proxies.crt");
    replace(&file, &std::fs::read(cluster.dir.path().join("ca.crt")).expect("read"));
    let server = cluster
        .server(&[
            &format!("--requestheader-client-ca-file={}", file.display()),
            "--requestheader-allowed-names=proxy",
            "--requestheader-username-headers=X-Remote-User",
        ])
        .await;
    let asked = async || -> (StatusCode, Value) {
        let proxy = cluster.client(&server, Some("proxy")).with_header("x-remote-user", "carol");
        let answer = proxy.json("POST", WHO, &json!({})).await;
        (answer.status, answer.body["status"]["userInfo"]["username"].clone())
    };
    assert_eq!(asked().await.0, StatusCode::UNAUTHORIZED);
    replace(&file, &std::fs::read(folder.path().join("ca.crt")).expect("read"));
    wait_for("the proxy to be believed", || async { asked().await == (StatusCode::CREATED, json!("carol")) })
        .await;
    server.finish().await;
}
