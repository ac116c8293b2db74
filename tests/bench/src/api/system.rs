//! An API server on a store of one member, on loopback ports and in a directory of its own; gone when dropped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tempfile::TempDir;

use super::client::{Client, Target};
use super::{objects, pki};
use crate::load::UnderLoad;
use crate::processes::Process;
use crate::store::cluster::{Cluster, Program, free_ports};

/// A server that is not ready within this time has failed.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Which server on which store.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// The API server.
    pub server: PathBuf,
    /// Its store.
    pub store: Program,
}

/// Both, running.
pub struct System {
    pairing: Pairing,
    /// Where the server listens.
    pub target: Target,
    port: u16,
    process: Option<Process>,
    store: Cluster,
    dir: TempDir,
}

impl System {
    /// Starts the store, and the server when the store serves. The time from the server's start until it is ready comes with it.
    ///
    /// # Errors
    /// With the end of the log of the one that does not start.
    pub async fn start(pairing: &Pairing, dir: &Path) -> anyhow::Result<(Self, Duration)> {
        let store = Cluster::start(&pairing.store, 1, dir).await?;
        let dir = tempfile::Builder::new().prefix("api-").tempdir_in(dir)?;
        pki::write(dir.path())?;
        let port = *free_ports(1)?.first().context("a port")?;
        let target = Target::new(port, dir.path())?;
        let mut system = Self { pairing: pairing.clone(), target, port, process: None, store, dir };
        let took = system.restart().await?;
        Ok((system, took))
    }

    /// Starts the server, again if it runs, and waits until it is ready.
    ///
    /// # Errors
    /// As [`System::start`].
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        self.process = None;
        let at = |file: &str| self.file(file).display().to_string();
        let args = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.store.members[0].client_port),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--tls-cert-file={}", at("server.crt")),
            format!("--tls-private-key-file={}", at("server.key")),
            format!("--client-ca-file={}", at("ca.crt")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", at("sa.key")),
            format!("--service-account-signing-key-file={}", at("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        ];
        let log = self.file("server.log");
        let began = Instant::now();
        let mut process = Process::start(&self.pairing.server, &args, &log)?;
        loop {
            if let Ok(client) = self.target.connect().await
                && client.get("/readyz").await.is_ok()
            {
                break;
            }
            if process.ended().is_some() || began.elapsed() > START_DEADLINE {
                bail!("is not ready: {}", process.told());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.process = Some(process);
        Ok(began.elapsed())
    }

    /// So many connections.
    ///
    /// # Errors
    /// When the server does not listen.
    pub async fn connections(&self, count: usize) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.target.connect().await?);
        }
        Ok(clients)
    }

    /// Makes the namespace and what pods in it need, but for what others have made already.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn furnish(&self) -> anyhow::Result<()> {
        let client = self.target.connect().await?;
        for (path, body) in objects::furniture() {
            match client.post(path, body).await {
                Err(failure) if failure.status.is_none_or(|status| status.as_u16() != 409) => {
                    return Err(failure.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the namespace and so many pods in it, `pod-0` first.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn fill(&self, pods: usize) -> anyhow::Result<()> {
        self.furnish().await?;
        let pods = (0..pods).map(|number| objects::pod(&format!("pod-{number}")));
        self.create(objects::PODS, pods).await.context("create pods")
    }

    /// Creates objects, sixteen at a time.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn create(&self, path: &str, objects: impl Iterator<Item = Bytes>) -> anyhow::Result<()> {
        let clients = self.connections(4).await?;
        stream::iter(objects.enumerate().map(|(number, object)| {
            let client = &clients[number % clients.len()];
            async move { client.post(path, object).await.map(drop) }
        }))
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
        Ok(())
    }

    /// A kubeconfig file for a component.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, component: &str) -> anyhow::Result<PathBuf> {
        pki::write_kubeconfig(self.dir.path(), component, self.port)
    }

    /// A file beside the server's certificates and keys.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server's process.
    fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the server is down")
    }

    /// Forgets the peak of the server's memory so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn reset_peak(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.process()?.id());
        std::fs::write(&path, "5").context(path)
    }

    /// The peak of the server's resident bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        self.process()?.peak_bytes()
    }
}

impl UnderLoad for System {
    /// Of the server alone: its store's is the store's bench's matter.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.process()?.cpu_seconds()
    }

    fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.process()?.resident_bytes()
    }
}
