//! `coracle kill`: a crash on request.

use anyhow::bail;
use clap::Args;
use nix::sys::signal::Signal;

use super::existing;
use crate::layout::Layout;
use crate::processes::{self, ProcessTable};
use crate::topology::Topology;

#[derive(Args, Debug)]
pub struct Options {
    /// Process name as `coracle status` shows it (`etcd-lite-cp-a`), `supervisor`, or a component (`etcd-lite`), which means
    /// the instance that leads, else all of them.
    component: String,
}

pub async fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let topology = Topology::of(&existing(layout)?, layout)?;
    let table = ProcessTable::read();
    let targets: Vec<(String, Option<u32>)> = if options.component == "supervisor" {
        vec![("supervisor".into(), table.supervisor(layout.root()))]
    } else {
        let exact = topology.processes.iter().filter(|p| p.name == options.component).collect::<Vec<_>>();
        let mut chosen = exact;
        if chosen.is_empty() {
            chosen =
                topology.processes.iter().filter(|p| p.component.binary() == options.component).collect();
            let roles = super::status::roles(layout, &topology).await;
            let leads = |name: &str| roles.get(name).is_some_and(|role| role.leads);
            if chosen.iter().any(|process| leads(&process.name)) {
                chosen.retain(|process| leads(&process.name));
            }
        }
        chosen.into_iter().map(|process| (process.name.clone(), table.find(process))).collect()
    };
    if targets.is_empty() {
        let names: Vec<&str> = topology.processes.iter().map(|p| p.name.as_str()).collect();
        bail!(
            "there is no process or component {:?}; there are: {}, supervisor",
            options.component,
            names.join(", ")
        );
    }
    for (name, pid) in targets {
        match pid {
            Some(pid) => {
                processes::send(pid, Signal::SIGKILL);
                println!("killed {name} (pid {pid})");
            }
            None => println!("{name} is not running"),
        }
    }
    Ok(())
}
