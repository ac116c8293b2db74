//! The stream of `Maintenance.Snapshot`: the store as a backend file in pieces, and its SHA-256 behind it.
//!
//! The file never exists: it is made while it is sent, from handles of the versions as they were at one log index. In memory are these handles
//! and a few pieces. A client that takes nothing for a while is given up.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

use super::{Context, state_reads};
use crate::backend_file::Content;
use crate::member::Member;

/// Bytes of one piece; etcd's.
const PIECE_BYTES: usize = 32 * 1024;
/// Pieces that may wait to be sent.
const PIECES: usize = 4;
/// How long a client may take nothing.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Streams of this process that may be under way at a time: each keeps the versions of its state alive.
static RUNNING: Semaphore = Semaphore::const_new(2);

type Piece = Result<pb::SnapshotResponse, Status>;

/// Begins the stream of the state as it is now.
///
/// # Errors
/// The process is ending.
pub(super) async fn start<M: Member>(context: Arc<Context<M>>) -> Result<mpsc::Receiver<Piece>, Status> {
    let (begun, seconds) = (Instant::now(), context.config.disk.client_snapshot.clone());
    let permit = RUNNING.acquire().await.map_err(|_| Status::unavailable("etcdserver: server stopped"))?;
    let content = state_reads::run(context, |context| {
        let members = context.member.members();
        Ok(Content::new(state_reads::copy(context.member.store()), &members))
    })
    .await?;
    let (pieces, receiver) = mpsc::channel(PIECES);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut out = PieceWriter { pieces, runtime, remaining: 0, waiting: Vec::new() };
        let result = content.layout().and_then(|layout| {
            out.remaining = layout.size_bytes();
            content.write(layout, &mut out)
        });
        let last = match result {
            Ok(checksum) => out
                .flush()
                .map(|()| pb::SnapshotResponse { blob: checksum.to_vec().into(), ..Default::default() })
                .map_err(|error| Status::unavailable(error.to_string())),
            Err(error) => Err(Status::internal(format!("etcdserver: making the snapshot failed: {error}"))),
        };
        if let Err(error) = &last {
            tracing::warn!(%error, "a snapshot for a client was not completed");
        }
        seconds.observe(begun.elapsed().as_secs_f64());
        // Fails when the client is gone, which was noted.
        let _ = out.send(last);
        drop(permit);
    });
    Ok(receiver)
}

struct PieceWriter {
    pieces: mpsc::Sender<Piece>,
    runtime: Handle,
    /// Bytes of the file not sent yet.
    remaining: u64,
    waiting: Vec<u8>,
}

impl PieceWriter {
    fn send(&self, piece: Piece) -> io::Result<()> {
        let sent = self.runtime.block_on(async { self.pieces.send_timeout(piece, STALL_MAX).await });
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone or takes nothing"))
    }

    fn send_waiting(&mut self, length: usize) -> io::Result<()> {
        let blob: Bytes = self.waiting.drain(..length).collect::<Vec<u8>>().into();
        self.remaining = self.remaining.saturating_sub(length as u64);
        self.send(Ok(pb::SnapshotResponse { remaining_bytes: self.remaining, blob, ..Default::default() }))
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        while self.waiting.len() >= PIECE_BYTES {
            self.send_waiting(PIECE_BYTES)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.waiting.len() {
            0 => Ok(()),
            length => self.send_waiting(length),
        }
    }
}
