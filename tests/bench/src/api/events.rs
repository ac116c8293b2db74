//! A watch's events.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use h2::RecvStream;
use serde_json::Value;

use super::client::{Client, JSON};

/// A running watch.
pub struct Events {
    stream: RecvStream,
    buffer: Vec<u8>,
}

impl Events {
    /// Begins one.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(client: &Client, path: &str) -> anyhow::Result<Self> {
        let (status, stream) = client.open("GET", path, JSON, Bytes::new()).await?;
        ensure!(status.is_success(), "a watch is answered with {status}");
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// The next ones, at least one. Loses none when it is dropped while it waits.
    ///
    /// # Errors
    /// The watch ended, or what it says is no event.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Value>> {
        loop {
            if let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') {
                let lines = self.buffer[..end].split(|byte| *byte == b'\n');
                let events: Vec<Value> =
                    lines.map(serde_json::from_slice).collect::<Result<_, _>>().context("an event")?;
                self.buffer.drain(..=end);
                if let Some(error) = events.iter().find(|event| event["type"] == "ERROR") {
                    bail!("a watch ends with {error}");
                }
                return Ok(events);
            }
            let piece = self.stream.data().await.context("the watch ended")??;
            // Fails when the stream is over, and then the next piece says why.
            let _ = self.stream.flow_control().release_capacity(piece.len());
            self.buffer.extend_from_slice(&piece);
        }
    }
}
