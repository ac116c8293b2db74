//! `coracle logs`: what a process wrote, with `-f` also what it goes on writing.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::existing;
use crate::layout::Layout;
use crate::topology::Topology;

#[derive(Args, Debug)]
pub struct Options {
    /// Process name as `coracle status` shows it, or `supervisor`.
    component: String,

    /// Go on printing what is written.
    #[arg(short, long)]
    follow: bool,
}

pub async fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    const POLL: Duration = Duration::from_millis(200);
    let topology = Topology::of(&existing(layout)?, layout)?;
    let names: Vec<&str> = topology.processes.iter().map(|p| p.name.as_str()).chain(["supervisor"]).collect();
    if !names.contains(&options.component.as_str()) {
        bail!("there is no process {:?}; there are: {}", options.component, names.join(", "));
    }
    let path = layout.log(&options.component);
    let mut file = tokio::fs::File::open(&path)
        .await
        .with_context(|| format!("nothing written yet ({})", path.display()))?;
    let mut out = tokio::io::stdout();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer).await?;
        if read > 0 {
            // A closed pipe (`| head`) is the reader's wish, not an error.
            if out.write_all(&buffer[..read]).await.is_err() {
                return Ok(());
            }
            continue;
        }
        if out.flush().await.is_err() || !options.follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
        // A file that became shorter was moved aside: go on with the new one.
        let length = tokio::fs::metadata(&path).await.map_or(0, |meta| meta.len());
        if length < file.stream_position().await? {
            file = tokio::fs::File::open(&path).await?;
        }
    }
}
