//! A process of the server: it can be killed, and its memory measured.

use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::http2::Http2;
use super::{Client, Cluster};

/// Killed when dropped.
pub struct Process {
    pub port: u16,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts one with more flags; it is not ready yet.
    pub fn start(cluster: &Cluster, port: u16, extra: &[&str]) -> Self {
        let at = |file: &str| cluster.dir.path().join(file).display().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_apiserver"))
            .arg(format!("--etcd-servers={}", cluster.etcd.url()))
            .arg(format!("--secure-port={port}"))
            .args(["--bind-address=127.0.0.1", "--authorization-mode=Node,RBAC"])
            .arg(format!("--tls-cert-file={}", at("server.crt")))
            .arg(format!("--tls-private-key-file={}", at("server.key")))
            .arg(format!("--client-ca-file={}", at("ca.crt")))
            .arg("--service-account-issuer=https://test")
            .arg(format!("--service-account-signing-key-file={}", at("sa.key")))
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self { port, child }
    }

    /// Kills it and starts another one in its place.
    pub fn restart(&mut self, cluster: &Cluster) {
        let port = self.port;
        let _ = self.child.kill();
        let _ = self.child.wait();
        *self = Self::start(cluster, port, &[]);
    }

    /// A client for the administrator.
    pub fn client(&self, cluster: &Cluster) -> Client {
        cluster.client_of_port(self.port, Some("admin"))
    }

    /// Resident memory, bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }

    /// An encrypted connection as the administrator.
    pub async fn connect(&self, cluster: &Cluster, protocol: &str) -> TlsStream<TcpStream> {
        cluster.connect(self.port, "admin", protocol).await
    }

    /// An HTTP/2 connection with that much room for each answer.
    pub async fn http2(&self, cluster: &Cluster, room: u32) -> Http2 {
        Http2::new(self.connect(cluster, "h2").await, room)
    }
}
