//! `coracle enter`: becomes a program inside one of the cluster's hosts: its network namespace and its host name.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, bail};
use clap::Args;
use nix::sched::{CloneFlags, setns, unshare};

use crate::network::namespace_path;

#[derive(Args, Debug)]
pub struct Options {
    /// Network namespace under /run/netns.
    #[arg(long)]
    namespace: String,

    /// Host name that the program sees.
    #[arg(long)]
    hostname: String,

    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Does not return on success.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let path = namespace_path(&options.namespace);
    let namespace = std::fs::File::open(&path).with_context(|| format!("no host {}", options.namespace))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the host's network")?;
    unshare(CloneFlags::CLONE_NEWUTS).context("cannot take a host name of its own")?;
    nix::unistd::sethostname(&options.hostname).context("cannot set the host name")?;
    let text = |argument: &String| CString::new(std::ffi::OsStr::new(argument).as_bytes());
    let arguments = options
        .command
        .iter()
        .map(text)
        .collect::<Result<Vec<_>, _>>()
        .context("an argument holds a NUL byte")?;
    let Some(program) = arguments.first() else { bail!("no program named") };
    nix::unistd::execvp(program, &arguments).with_context(|| format!("cannot run {}", options.command[0]))?;
    Ok(())
}
