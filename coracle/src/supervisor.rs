//! The long-running part of a cluster: keeps every process running, balances connections over the API servers, follows
//! nodes with the route table. It holds no state worth keeping: after a restart it finds its processes by their command
//! lines and goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::layout::Layout;
use crate::processes::ProcessTable;
use crate::topology::{Component, Topology};
use crate::{metrics_api, network};

mod backoff;
mod balancer;
pub mod control;
mod keeper;
mod stages;

/// What the supervisor knows of one process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// Pid, while it runs.
    pub pid: Option<u32>,
    /// How often it was started again since this supervisor began.
    pub restarts: u32,
    /// How the previous run ended.
    pub last_exit: Option<String>,
    /// What it is waiting for, before its first start.
    pub waiting: Option<String>,
}

/// The states of all processes, by name.
type Board = Arc<Mutex<BTreeMap<String, ProcessStatus>>>;

/// What all parts of the supervisor share.
struct Supervisor {
    cluster: Cluster,
    layout: Layout,
    topology: Topology,
    board: Board,
    /// Folder of the Coracle binaries.
    binaries: PathBuf,
    /// The stage whose processes may start.
    stage: watch::Sender<u8>,
    /// Nodes whose images are in place.
    prepared: watch::Sender<Vec<String>>,
    /// Fires when processes are to end as well.
    stopping: CancellationToken,
}

type Shared = Arc<Supervisor>;

/// Runs until SIGTERM (processes go on) or a `stop` request (processes end first).
///
/// # Errors
/// There is no cluster here, or another supervisor runs it.
pub async fn run(layout: Layout) -> anyhow::Result<()> {
    // Out of the terminal's reach; fails only if already leading a session, which is as good.
    let _ = nix::unistd::setsid();
    std::fs::create_dir_all(layout.run())?;
    let _lock = lock(&layout)?;
    let cluster =
        Cluster::load(&layout)?.with_context(|| format!("no cluster in {}", layout.root().display()))?;
    let topology = Topology::of(&cluster, &layout)?;
    let own = std::env::current_exe().context("cannot find the own binary")?;
    let shutdown = component_base::shutdown::install();
    let board = topology.processes.iter().map(|p| (p.name.clone(), ProcessStatus::default())).collect();
    let shared: Shared = Arc::new(Supervisor {
        binaries: own.parent().map(PathBuf::from).unwrap_or_default(),
        board: Arc::new(Mutex::new(board)),
        stage: watch::Sender::new(0),
        prepared: watch::Sender::new(Vec::new()),
        stopping: CancellationToken::new(),
        cluster,
        layout,
        topology,
    });

    let balancer = balancer::bind(&shared.cluster, shared.topology.api_servers()).await?;
    let control = control::bind(&shared.layout)?;
    let table = ProcessTable::read();
    let mut keepers = tokio::task::JoinSet::new();
    for process in &shared.topology.processes {
        keepers.spawn(keeper::keep(Arc::clone(&shared), process.clone(), table.find(process)));
    }
    tokio::spawn(stages::advance(Arc::clone(&shared)));
    tokio::spawn(balancer.serve(shared.layout.pki("ca.crt"), shutdown.clone()));
    tokio::spawn(control::serve(control, Arc::clone(&shared)));
    if shared.cluster.has_namespaces() {
        tokio::spawn(follow_routes(Arc::clone(&shared)));
    }
    let metrics = Arc::clone(&shared);
    tokio::spawn(async move { metrics_api::register(&metrics.layout, &metrics.topology).await });
    tracing::info!(processes = shared.topology.processes.len(), "supervising");

    tokio::select! {
        () = shutdown.cancelled() => tracing::info!("supervisor ends; the cluster's processes go on"),
        () = async { while keepers.join_next().await.is_some() {} } => tracing::info!("all processes have ended"),
    }
    let _ = std::fs::remove_file(shared.layout.control_socket());
    Ok(())
}

async fn follow_routes(shared: Shared) {
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        match crate::client::connect(&shared.layout).await {
            Ok(client) => network::routes::follow(&shared.cluster, &shared.topology, client).await,
            Err(error) => tracing::warn!("cannot follow nodes: {error:#}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Holds the data directory for one supervisor; the kernel releases it when the process ends, however it ends.
fn lock(layout: &Layout) -> anyhow::Result<nix::fcntl::Flock<std::fs::File>> {
    let path = layout.lock_file();
    let file = std::fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another supervisor runs the cluster in {}; see `coracle status`", layout.root().display())
        }
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

impl Supervisor {
    fn update(&self, process: &str, change: impl FnOnce(&mut ProcessStatus)) {
        if let Some(status) = self.board.lock().get_mut(process) {
            change(status);
        }
    }

    fn program(&self, component: Component) -> PathBuf {
        match component {
            Component::Containerd => component.binary().into(),
            _ => self.binaries.join(component.binary()),
        }
    }
}
