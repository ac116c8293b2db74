//! `coracle image load`: puts an image archive onto every node.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::existing;
use crate::image;
use crate::layout::Layout;

#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand, Debug)]
enum ImageCommand {
    /// Load a docker (`docker save`) or OCI archive into every node's containerd.
    Load {
        /// The archive, plain or gzipped.
        file: PathBuf,
    },
}

pub async fn run(layout: &Layout, options: Options) -> anyhow::Result<()> {
    let ImageCommand::Load { file } = options.command;
    let cluster = existing(layout)?;
    if !cluster.has_namespaces() {
        bail!(
            "the nodes of this cluster are hollow and hold no images; `coracle up --runtime containerd` makes real ones"
        );
    }
    let archive = file.clone();
    tokio::task::spawn_blocking(move || image::check_archive(&archive)).await??;
    for node in &cluster.nodes {
        let names = image::import(&layout.containerd_socket(&node.name), &file).await?;
        println!("{}: {}", node.name, if names.is_empty() { "loaded".to_owned() } else { names.join(", ") });
    }
    Ok(())
}
