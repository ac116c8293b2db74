//! Runs `nft`. Owns the child process and its deadline; the text is someone else's.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A full transaction of many thousand Services takes tens of seconds on a slow machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Checks that `nft` is there and may be used.
pub async fn check() -> anyhow::Result<()> {
    run("list tables\n").await.map_err(|error| {
        error.context("kube-proxy needs the nft program and the right to use it (package nftables, root or CAP_NET_ADMIN)")
    })
}

/// Runs one transaction: all of it is done or nothing.
pub async fn run(text: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start nft")?;
    let mut stdin = child.stdin.take().context("nft has no standard input")?;
    let work = async {
        // nft may end before it has read all; its exit status tells why.
        let _ = stdin.write_all(text.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(DEADLINE, work)
        .await
        .with_context(|| format!("nft did not end within {} s", DEADLINE.as_secs()))?
        .context("cannot wait for nft")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("nft refused: {}", complaint.lines().take(6).collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}
