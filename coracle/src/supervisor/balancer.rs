//! The cluster's one API endpoint: a TCP load balancer over the API servers that are ready. TLS passes through.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use parking_lot::RwLock;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::probe;

const CONNECTIONS_MAX: usize = 4096;
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A bound but not yet serving balancer.
pub struct Balancer {
    listeners: Vec<TcpListener>,
    backends: Vec<SocketAddr>,
}

/// Listens on this machine's loopback and, if hosts are namespaces, on the machine's address in the cluster's network.
///
/// # Errors
/// A port is in use.
pub async fn bind(cluster: &Cluster, backends: Vec<(Ipv4Addr, u16)>) -> anyhow::Result<Balancer> {
    let mut addresses = vec![Ipv4Addr::LOCALHOST];
    if cluster.has_namespaces() {
        addresses.push(cluster.machine_address());
    }
    let mut listeners = Vec::new();
    for address in addresses {
        let port = cluster.endpoint_port;
        let listener = TcpListener::bind((address, port)).await.with_context(|| {
            format!("cannot listen on {address}:{port} for the API endpoint; end what uses the port (`ss -tlnp`) and run `coracle up` again")
        })?;
        listeners.push(listener);
    }
    Ok(Balancer { listeners, backends: backends.into_iter().map(SocketAddr::from).collect() })
}

struct Backends {
    all: Vec<SocketAddr>,
    ready: RwLock<Vec<SocketAddr>>,
    next: AtomicUsize,
}

impl Backends {
    /// All backends, ready ones first, starting at the next in turn.
    fn in_order(&self) -> Vec<SocketAddr> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let mut order = self.ready.read().clone();
        if !order.is_empty() {
            let turn = turn % order.len();
            order.rotate_left(turn);
        }
        let others = self.all.iter().filter(|backend| !order.contains(backend)).copied().collect::<Vec<_>>();
        order.extend(others);
        order
    }

    async fn check(&self, ca: PathBuf) {
        loop {
            let mut ready = Vec::new();
            for backend in &self.all {
                if probe::https_ready(*backend, &ca).await {
                    ready.push(*backend);
                }
            }
            *self.ready.write() = ready;
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}

impl Balancer {
    /// Serves until `shutdown` fires.
    pub async fn serve(self, ca: PathBuf, shutdown: CancellationToken) {
        let backends =
            Arc::new(Backends { all: self.backends, ready: RwLock::default(), next: AtomicUsize::new(0) });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let checker = Arc::clone(&backends);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { checker.check(ca).await });
        for listener in self.listeners {
            tasks.spawn(accept(listener, Arc::clone(&backends), Arc::clone(&places)));
        }
        shutdown.cancelled().await;
    }
}

async fn accept(listener: TcpListener, backends: Arc<Backends>, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "accepting on the API endpoint");
                tokio::time::sleep(CHECK_INTERVAL).await;
                continue;
            }
        };
        let backends = Arc::clone(&backends);
        tokio::spawn(async move {
            forward(client, &backends).await;
            drop(place);
        });
    }
}

async fn forward(mut client: TcpStream, backends: &Backends) {
    for backend in backends.in_order() {
        let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(backend)).await
        else {
            continue;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // Either side closing is the normal end.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    }
    tracing::debug!("no API server accepts connections");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_backends_come_first_and_take_turns() {
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let backends = Backends {
            all: vec![address(1), address(2), address(3)],
            ready: RwLock::new(vec![address(2), address(3)]),
            next: AtomicUsize::new(0),
        };
        assert_eq!(backends.in_order(), [address(2), address(3), address(1)]);
        assert_eq!(backends.in_order(), [address(3), address(2), address(1)]);
    }
}
