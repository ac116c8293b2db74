//! A real etcd and servers in this process for tests, on loopback, gone at the end; and a small HTTPS client.

pub mod extension;
pub mod http2;
#[path = "../../../../tests/src/ports.rs"]
mod ports;
pub mod process;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use apiserver::options::{NOT_IMPLEMENTED, Options};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn free_port() -> u16 {
    ports::free_ports(1)[0]
}

/// One etcd member, killed when dropped.
pub struct Etcd {
    child: Child,
    dir: PathBuf,
    client_port: u16,
    peer_port: u16,
}

impl Etcd {
    pub fn start(dir: &Path) -> Self {
        let (client_port, peer_port) = (free_port(), free_port());
        let dir = dir.join("etcd");
        let child = Self::spawn(&dir, client_port, peer_port);
        Self { child, dir, client_port, peer_port }
    }

    fn spawn(dir: &Path, client_port: u16, peer_port: u16) -> Child {
        let client = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        Command::new("etcd")
            .arg("--data-dir")
            .arg(dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's etcd is installed (package etcd-server)")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn restart(&mut self) {
        self.child = Self::spawn(&self.dir, self.client_port, self.peer_port);
    }

    pub fn etcdctl(&self, args: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.url()))
            .args(args)
            .output()
            .expect("Debian's etcdctl is installed (package etcd-client)");
        assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Certificates of a test's cluster.
pub struct Pki {
    dir: PathBuf,
    ca: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Pki {
    pub fn new(dir: &Path) -> Self {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test-ca");
        let cert = params.self_signed(&key).expect("sign");
        std::fs::write(dir.join("ca.crt"), cert.pem()).expect("write");
        let signing = rcgen::KeyPair::generate().expect("key");
        std::fs::write(dir.join("sa.key"), signing.serialize_pem()).expect("write");
        Self { dir: dir.to_owned(), ca: rcgen::Issuer::new(params, key) }
    }

    pub fn issue(&self, file: &str, name: &str, groups: &[&str]) -> (PathBuf, PathBuf) {
        self.issue_for(file, name, groups, &["localhost", "127.0.0.1"])
    }

    pub fn issue_for(&self, file: &str, name: &str, groups: &[&str], hosts: &[&str]) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().expect("key");
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        let mut params = rcgen::CertificateParams::new(hosts).expect("params");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
        }
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.ca).expect("sign");
        let paths = (self.dir.join(format!("{file}.crt")), self.dir.join(format!("{file}.key")));
        std::fs::write(&paths.0, cert.pem()).expect("write");
        std::fs::write(&paths.1, key.serialize_pem()).expect("write");
        paths
    }
}

/// One server in this process.
pub struct Server {
    pub port: u16,
    pub stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Vec<String>>>,
}

impl Server {
    /// Waits until it says that it is ready.
    pub async fn ready(&self, client: &Client) {
        wait_for("readyz", || async {
            assert!(!self.task.is_finished(), "the server ended");
            client.get("/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
    }

    pub async fn finish(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("ends in time").expect("no panic");
        assert_eq!(ended, Ok(()));
    }
}

/// A store, certificates and a directory; servers are started on top.
pub struct Cluster {
    pub etcd: Etcd,
    pub pki: Pki,
    pub dir: tempfile::TempDir,
}

impl Cluster {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let pki = Pki::new(dir.path());
        pki.issue("server", "kube-apiserver", &[]);
        pki.issue("admin", "admin", &["system:masters"]);
        pki.issue("nobody", "nobody", &[]);
        Self { etcd: Etcd::start(dir.path()), pki, dir }
    }

    pub async fn server(&self, extra: &[&str]) -> Server {
        self.server_with(&[], extra).await
    }

    /// One without some of the flags that servers usually have.
    pub async fn server_with(&self, without: &[&str], extra: &[&str]) -> Server {
        let server = self.launch(without, extra);
        server.ready(&self.client(&server, None)).await;
        server
    }

    /// The same, not waiting until it is ready.
    pub fn launch(&self, without: &[&str], extra: &[&str]) -> Server {
        let port = free_port();
        let at = |file: &str| self.dir.path().join(file).display().to_string();
        let mut args = vec![
            "kube-apiserver".to_owned(),
            format!("--etcd-servers={}", self.etcd.url()),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--tls-cert-file={}", at("server.crt")),
            format!("--tls-private-key-file={}", at("server.key")),
            format!("--client-ca-file={}", at("ca.crt")),
            "--service-account-issuer=https://test".to_owned(),
            format!("--service-account-signing-key-file={}", at("sa.key")),
        ];
        args.retain(|arg| !without.iter().any(|flag| arg.starts_with(flag)));
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let options: Options =
            component_base::flags::try_parse_from(args.into_iter().map(Into::into), NOT_IMPLEMENTED)
                .expect("flags");
        let stop = CancellationToken::new();
        let task = tokio::spawn(apiserver::run::run(options, stop.clone()));
        Server { port, stop, task }
    }

    /// An encrypted connection with the certificate of that file name.
    pub async fn connect(&self, port: u16, identity: &str, protocol: &str) -> TlsStream<TcpStream> {
        let at = |end: &str| self.dir.path().join(format!("{identity}.{end}"));
        let (cert, key) = (at("crt"), at("key"));
        let config = component_base::tls::client_config(
            Some(&self.dir.path().join("ca.crt")),
            Some((&cert, &key)),
            &[protocol],
        );
        let connector = tokio_rustls::TlsConnector::from(config.expect("TLS"));
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        connector.connect(name, stream).await.expect("TLS")
    }

    /// A client with the certificate of that file name.
    pub fn client(&self, server: &Server, identity: Option<&str>) -> Client {
        self.client_of_port(server.port, identity)
    }

    /// The same for whoever listens on a port.
    pub fn client_of_port(&self, port: u16, identity: Option<&str>) -> Client {
        let at = |file: String| self.dir.path().join(file);
        let files = identity.map(|name| (at(format!("{name}.crt")), at(format!("{name}.key"))));
        let config = component_base::tls::client_config(
            Some(&at("ca.crt".into())),
            files.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path())),
            &["http/1.1"],
        )
        .expect("TLS");
        Client { port, config, headers: Vec::new() }
    }
}

/// Waits until `condition` holds.
pub async fn wait_for<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: std::future::Future<Output = bool>,
{
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[derive(Clone)]
pub struct Client {
    port: u16,
    config: Arc<rustls::ClientConfig>,
    headers: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub bytes: Bytes,
    pub body: Value,
}

impl Client {
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.map_err(|e| text(&e))?;
        let name = rustls::pki_types::ServerName::try_from("localhost").map_err(|e| text(&e))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, stream).await.map_err(|e| text(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("user-agent", "test/1.0");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| text(&e))?;
        sender.send_request(request).await.map_err(|e| text(&e))
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let answer = async {
            let response = self.send(method, path, content_type, body.into()).await?;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            let body = serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
            Ok(Answer { status: parts.status, headers: parts.headers, bytes, body })
        };
        tokio::time::timeout(PATIENCE, answer).await.map_err(|_| format!("{method} {path}: no answer"))?
    }

    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        self.request("GET", path, "", Bytes::new()).await
    }

    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.request(method, path, "application/json", body.to_string()).await.expect("an answer")
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        self.request("PATCH", path, kind, body.to_string()).await.expect("an answer")
    }

    /// Makes the ServiceAccount that the pods of a namespace need.
    pub async fn with_account(&self, namespace: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.json("POST", &path, &serde_json::json!({"metadata": {"name": "default"}})).await;
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, "", Bytes::new()).await.expect("an answer")
    }

    /// Upgrades a connection to `protocol`.
    pub async fn upgrade(&self, path: &str, protocol: &str) -> TokioIo<hyper::upgrade::Upgraded> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("connects");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        let stream = TokioIo::new(connector.connect(name, stream).await.expect("TLS"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::get(path)
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", protocol);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS, "{path}");
        TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgraded connection"))
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let response = self.send("GET", path, "", Bytes::new()).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Watch { body: response.into_body(), pending: Vec::new() }
    }
}

pub struct Watch {
    body: Incoming,
    pending: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time");
            match frame {
                Some(Ok(frame)) => self.pending.extend_from_slice(frame.data_ref().expect("data")),
                Some(Err(error)) => panic!("the watch broke: {error}"),
                None => return None,
            }
        }
    }

    /// The next event as `TYPE name`.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await.expect("another event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
        format!("{} {name}", event["type"].as_str().unwrap_or("?"))
    }
}
