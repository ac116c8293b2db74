//! A store, an API server, a scheduler, a controller-manager and nodes, each once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::kubelets::Kubelets;
use crate::api::client::Client;
use crate::api::system::{Pairing, System};
use crate::component;
use crate::processes::Process;
use crate::sched::nodes;

/// What has not come about within this time has failed.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The programs besides the measured one.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The API server and the store.
    pub pairing: Pairing,
    /// The scheduler.
    pub scheduler: PathBuf,
}

/// All of it, running.
pub struct Cluster {
    /// For requests.
    pub client: Client,
    /// The measured one.
    pub controllers: Process,
    _scheduler: Process,
    kubelets: Kubelets,
    /// The API server and its store.
    pub system: System,
}

impl Cluster {
    /// Starts it with nodes for so many pods and some more.
    ///
    /// # Errors
    /// When a program does not start, or the controllers do not begin to work.
    pub async fn start(
        programs: &Programs,
        controllers: &Path,
        dir: &Path,
        pods: usize,
    ) -> anyhow::Result<Self> {
        let (system, _) = System::start(&programs.pairing, dir).await?;
        let client = system.target.connect().await?;
        nodes::create(&system, pods.div_ceil(nodes::ROOM) * 2 + 1, |_| Value::Array(Vec::new())).await?;
        let at = |file: &str| system.file(file).display().to_string();
        let more = [
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", at("sa.key")),
            format!("--root-ca-file={}", at("ca.crt")),
            // Nothing stands behind the nodes, so nobody says that they live.
            "--controllers=*,-node-lifecycle-controller".to_owned(),
        ];
        let scheduler = component::start(&system, "scheduler", &programs.scheduler, &[])?;
        let controllers = component::start(&system, "controller-manager", controllers, &more)?;
        let kubelets = Kubelets::start(system.target.connect().await?).await?;
        let mut cluster = Self { client, controllers, _scheduler: scheduler, kubelets, system };
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        cluster.wait(account, "the controllers' first work", |_| true).await?;
        Ok(cluster)
    }

    /// Waits until an object is there and is as wanted; how long that took.
    ///
    /// # Errors
    /// When it is not so in time; the text says what was there last.
    pub async fn wait(
        &mut self,
        path: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Duration> {
        self.wait_for(path, what, |answer| answer.is_some_and(&wanted)).await
    }

    /// Waits until an object is gone; how long that took.
    ///
    /// # Errors
    /// As [`Cluster::wait`].
    pub async fn wait_gone(&mut self, path: &str, what: &str) -> anyhow::Result<Duration> {
        self.wait_for(path, what, |answer| answer.is_none()).await
    }

    async fn wait_for(
        &mut self,
        path: &str,
        what: &str,
        wanted: impl Fn(Option<&Value>) -> bool,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let answer = self.read(path).await?;
            if wanted(answer.as_ref()) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > PATIENCE || self.kubelets.are_gone() || self.controllers.ended().is_some() {
                let status =
                    answer.map_or_else(|| "nothing".to_owned(), |answer| answer["status"].to_string());
                bail!("{what}: {path} has {status}; {}", self.controllers.told());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An object, if it is there.
    async fn read(&self, path: &str) -> anyhow::Result<Option<Value>> {
        match self.client.get(path).await {
            Ok(pieces) => Ok(Some(serde_json::from_slice(&pieces.concat()).context("an object")?)),
            Err(failure) if failure.status.is_some_and(|status| status.as_u16() == 404) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }
}
