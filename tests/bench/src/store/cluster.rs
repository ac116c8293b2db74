//! A cluster of one program on loopback ports of its own, with data of its own, gone when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coracle_proto::etcdserverpb as pb;
use tempfile::TempDir;

use super::requests::Methods;
use crate::grpc::Connection;
use crate::load::UnderLoad;
use crate::processes::{Process, disk_bytes};

/// A cluster that does not serve within this time has failed.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A store program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Column name in reports.
    pub name: String,
    /// The binary.
    pub path: PathBuf,
}

/// One member; `process` is `None` while it is down.
pub struct Member {
    name: String,
    /// Port for clients, on loopback.
    pub client_port: u16,
    peer_port: u16,
    /// `--data-dir`.
    pub data: PathBuf,
    process: Option<Process>,
}

/// Members that know each other.
pub struct Cluster {
    program: Program,
    /// In the order of their names.
    pub members: Vec<Member>,
    dir: TempDir,
}

impl Cluster {
    /// Lays out `size` members below `dir`; none runs yet.
    ///
    /// # Errors
    /// When there is no directory or no free port.
    pub fn new(program: &Program, size: usize, dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("directory {}", dir.display()))?;
        let dir = tempfile::Builder::new().prefix("store-").tempdir_in(dir)?;
        let ports = free_ports(2 * size)?;
        let members = (0..size)
            .map(|i| Member {
                name: format!("m{i}"),
                client_port: ports[2 * i],
                peer_port: ports[2 * i + 1],
                data: dir.path().join(format!("m{i}")),
                process: None,
            })
            .collect();
        Ok(Self { program: program.clone(), members, dir })
    }

    /// Lays out members, starts them and waits until each serves.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(program: &Program, size: usize, dir: &Path) -> anyhow::Result<Self> {
        let mut cluster = Self::new(program, size, dir)?;
        cluster.start_all()?;
        cluster.serving().await?;
        Ok(cluster)
    }

    /// Starts every member that is down.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.members.len()).try_for_each(|member| self.start_member(member))
    }

    /// Starts a member unless it runs.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn start_member(&mut self, member: usize) -> anyhow::Result<()> {
        let initial: Vec<String> =
            self.members.iter().map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer_port)).collect();
        let m = &mut self.members[member];
        if m.process.is_some() {
            return Ok(());
        }
        let (client, peer) =
            (format!("http://127.0.0.1:{}", m.client_port), format!("http://127.0.0.1:{}", m.peer_port));
        let args = [
            format!("--name={}", m.name),
            format!("--data-dir={}", m.data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", initial.join(",")),
            "--initial-cluster-state=new".to_owned(),
        ];
        let log = self.dir.path().join(format!("{}.log", m.name));
        m.process = Some(Process::start(&self.program.path, &args, &log)?);
        Ok(())
    }

    /// Waits until every running member answers a linearizable read.
    ///
    /// # Errors
    /// With the end of the log of the member that does not.
    pub async fn serving(&mut self) -> anyhow::Result<()> {
        let methods = Methods::new()?;
        let deadline = Instant::now() + START_DEADLINE;
        for member in &mut self.members {
            while let Some(process) = &mut member.process {
                if process.ended().is_some() {
                    bail!("{}", process.told());
                }
                let port = member.client_port;
                let read = pb::RangeRequest { key: "x".into(), ..Default::default() };
                let attempt = async {
                    let connection = Connection::open(port).await?;
                    anyhow::Ok(connection.call::<pb::RangeResponse>(&methods.range, &read).await?)
                };
                match tokio::time::timeout(Duration::from_secs(1), attempt).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(2)).await,
                    Err(_) => {}
                }
                if Instant::now() > deadline {
                    bail!("does not serve: {}", process.told());
                }
            }
        }
        Ok(())
    }

    /// The member that leads.
    ///
    /// # Errors
    /// When none does for a minute.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let methods = Methods::new()?;
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            for (index, member) in self.members.iter().enumerate() {
                if member.process.is_none() {
                    continue;
                }
                let Ok(connection) = Connection::open(member.client_port).await else { continue };
                let status: Result<pb::StatusResponse, _> =
                    connection.call(&methods.status, &pb::StatusRequest::default()).await;
                if let Ok(status) = status
                    && status.header.is_some_and(|header| header.member_id == status.leader)
                {
                    return Ok(index);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("no leader within {START_DEADLINE:?}")
    }

    /// Kills a member as `kill -9` does.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// `count` connections, spread over the members.
    ///
    /// # Errors
    /// When a member does not listen.
    pub async fn connections(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for i in 0..count {
            connections.push(Connection::open(self.members[i % self.members.len()].client_port).await?);
        }
        Ok(connections)
    }

    /// A connection to the leader.
    ///
    /// # Errors
    /// When there is none.
    pub async fn leader_connection(&self) -> anyhow::Result<Connection> {
        Connection::open(self.members[self.leader().await?].client_port).await
    }

    /// Bytes on disk of a member, the mean of all.
    pub fn disk_bytes(&self) -> u64 {
        self.members.iter().map(|m| disk_bytes(&m.data)).sum::<u64>() / self.members.len() as u64
    }
}

impl UnderLoad for Cluster {
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.members.iter().filter_map(|m| m.process.as_ref()).map(Process::cpu_seconds).sum()
    }

    fn resident_bytes(&self) -> anyhow::Result<u64> {
        let total: u64 = self
            .members
            .iter()
            .filter_map(|m| m.process.as_ref())
            .map(Process::resident_bytes)
            .sum::<anyhow::Result<u64>>()?;
        Ok(total / self.members.len() as u64)
    }
}

/// Ports of loopback that nobody listens on now.
///
/// # Errors
/// When there are not as many.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<Result<_, _>>()?)
}
