//! `coracle status`: every process with what it is doing. Works without a supervisor from what runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clap::Args;
use serde::Serialize;

use super::{Output, existing};
use crate::layout::Layout;
use crate::probe;
use crate::processes::{self, ProcessTable};
use crate::supervisor::control;
use crate::topology::{Component, Probe, Topology};

#[derive(Args, Debug)]
pub struct Options {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,

    /// Print the command line of every process instead.
    #[arg(long)]
    commands: bool,
}

/// What a process says of its place among its like.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// It is the store's leader, or holds the component's Lease.
    pub leads: bool,
    /// The store's revision.
    pub revision: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    host: String,
    state: String,
    role: String,
    revision: Option<u64>,
    pid: Option<u32>,
    restarts: u32,
    resident_bytes: u64,
    proportional_bytes: u64,
    last_exit: Option<String>,
}

pub async fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let cluster = existing(layout)?;
    let topology = Topology::of(&cluster, layout)?;
    if options.commands {
        for process in &topology.processes {
            println!("{} {}", process.component.binary(), process.args.join(" "));
        }
        return Ok(());
    }
    let table = ProcessTable::read();
    let supervised = control::ask(layout, &control::Request::Status).await;
    let roles = roles(layout, &topology).await;
    let mut rows = Vec::new();
    for process in &topology.processes {
        let pid = table.find(process);
        let known = supervised
            .as_ref()
            .ok()
            .and_then(|reply| reply.processes.get(&process.name).cloned())
            .unwrap_or_default();
        let role = roles.get(&process.name);
        let (resident_bytes, proportional_bytes) = pid.and_then(processes::memory_bytes).unwrap_or_default();
        rows.push(Row {
            name: process.name.clone(),
            host: process.host.clone(),
            state: match (pid, known.waiting) {
                (Some(_), _) => "running".into(),
                (None, Some(waiting)) => format!("waiting for {waiting}"),
                (None, None) => "stopped".into(),
            },
            role: role.map_or("", |role| role_name(process.component, role.leads)).into(),
            revision: role.and_then(|role| role.revision),
            pid,
            restarts: known.restarts,
            resident_bytes,
            proportional_bytes,
            last_exit: known.last_exit,
        });
    }
    rows.push(supervisor_row(layout, &table));
    match options.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Table => print_table(&rows),
    }
    Ok(())
}

fn supervisor_row(layout: &Layout, table: &ProcessTable) -> Row {
    let pid = table.supervisor(layout.root());
    let (resident_bytes, proportional_bytes) = pid.and_then(processes::memory_bytes).unwrap_or_default();
    Row {
        name: "supervisor".into(),
        host: "this machine".into(),
        state: if pid.is_some() { "running" } else { "stopped" }.into(),
        role: String::new(),
        revision: None,
        pid,
        restarts: 0,
        resident_bytes,
        proportional_bytes,
        last_exit: None,
    }
}

fn role_name(component: Component, leads: bool) -> &'static str {
    match (component, leads) {
        (Component::EtcdLite, true) => "leader",
        (Component::EtcdLite, false) => "follower",
        (Component::Scheduler | Component::ControllerManager, true) => "active",
        (Component::Scheduler | Component::ControllerManager, false) => "standby",
        _ => "",
    }
}

/// Asks every process that can lead, by its metrics. What does not answer has no role.
pub async fn roles(layout: &Layout, topology: &Topology) -> BTreeMap<String, Role> {
    let ca = layout.pki("ca.crt");
    let mut roles = BTreeMap::new();
    for process in &topology.processes {
        let metrics = match (process.component, &process.probe) {
            (Component::EtcdLite, Some(Probe::Http(address, port))) => {
                probe::get(SocketAddr::from((*address, *port)), "/metrics").await
            }
            (Component::Scheduler | Component::ControllerManager, Some(Probe::Https(address, port))) => {
                probe::https_get(SocketAddr::from((*address, *port)), &ca, "/metrics").await
            }
            _ => continue,
        };
        let Some(metrics) = metrics else { continue };
        let value = |name: &str| metric(&metrics, name);
        let leads =
            [value("etcd_server_is_leader"), value("leader_election_master_status")].contains(&Some(1.0));
        let revision = value("etcd_debugging_mvcc_current_revision").map(|revision| revision as u64);
        roles.insert(process.name.clone(), Role { leads, revision });
    }
    roles
}

fn metric(text: &str, name: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn print_table(rows: &[Row]) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let header =
        ["NAME", "HOST", "STATE", "ROLE", "REVISION", "PID", "RESTARTS", "MEMORY"].map(str::to_owned);
    let mut cells = vec![header];
    let dash = || "-".to_owned();
    cells.extend(rows.iter().map(|row| {
        [
            row.name.clone(),
            row.host.clone(),
            row.state.clone(),
            if row.role.is_empty() { dash() } else { row.role.clone() },
            row.revision.map_or_else(dash, |revision| revision.to_string()),
            row.pid.map_or_else(dash, |pid| pid.to_string()),
            row.restarts.to_string(),
            mib(row.resident_bytes),
        ]
    }));
    let mut widths = [0; 8];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &cells {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
    let total: u64 =
        rows.iter().filter(|row| !row.name.starts_with("containerd")).map(|row| row.resident_bytes).sum();
    let proportional: u64 =
        rows.iter().filter(|row| !row.name.starts_with("containerd")).map(|row| row.proportional_bytes).sum();
    println!(
        "\nCoracle's own processes: {} resident, {} proportional (shared pages counted once)",
        mib(total),
        mib(proportional)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "etcd_server_is_leader_x 3\netcd_server_is_leader 1\nwith_labels{a=\"b\"} 2\n";
        assert_eq!(metric(text, "etcd_server_is_leader"), Some(1.0));
        assert_eq!(metric(text, "with_labels"), Some(2.0));
        assert_eq!(metric(text, "none"), None);
    }
}
