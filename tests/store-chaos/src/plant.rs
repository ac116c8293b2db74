//! Planted faults: what no store survives, to show that the harness finds it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::cluster::Cluster;

/// How long there is load before, between and after.
const STEP: Duration = Duration::from_secs(4);

/// What is planted, in place of an epoch's faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// All members' disks go back to an earlier state: acknowledged writes are gone.
    LostWrites,
}

impl Plant {
    /// Does it.
    ///
    /// # Errors
    /// The system's.
    pub async fn run(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let Self::LostWrites = self;
        tokio::time::sleep(STEP).await;
        for member in &mut cluster.members {
            member.kill();
            copy(&member.data(), &member.data().with_extension("old"))?;
        }
        cluster.heal()?;
        tokio::time::sleep(STEP).await;
        for member in &mut cluster.members {
            member.kill();
            std::fs::remove_dir_all(member.data())?;
            copy(&member.data().with_extension("old"), &member.data())?;
        }
        cluster.heal()?;
        tokio::time::sleep(STEP).await;
        Ok(())
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().context("cp")?;
    ensure!(status.success(), "cp {} {}: {status}", from.display(), to.display());
    Ok(())
}
