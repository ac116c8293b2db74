//! Keeps one process running: waits for its stage, starts or adopts it, starts it again when it ends.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::Shared;
use super::backoff::Backoff;
use crate::topology::{Component, Process};
use crate::{image, probe, processes};

const ADOPTED_POLL: Duration = Duration::from_millis(100);
/// Time between SIGTERM and SIGKILL when the cluster is stopped.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// A log beyond this is moved aside once when its process starts.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// A running process: one that this supervisor started, or one that it found.
enum Running {
    Child(Child),
    Adopted(u32),
}

/// Runs until the supervisor ends, or until the process has ended after a stop request.
pub async fn keep(shared: Shared, process: Process, found: Option<u32>) {
    let mut running = found.map(Running::Adopted);
    let mut backoff = Backoff::default();
    loop {
        let current = match running.take() {
            Some(adopted) => adopted,
            None => {
                if !wait_for_turn(&shared, &process).await {
                    return;
                }
                match start(&shared, &process) {
                    Ok(child) => Running::Child(child),
                    Err(error) => {
                        tracing::error!(process = process.name, "{error:#}");
                        shared.update(&process.name, |status| status.last_exit = Some(format!("{error:#}")));
                        if !pause(&shared, backoff.after_run(Duration::ZERO)).await {
                            return;
                        }
                        continue;
                    }
                }
            }
        };
        let started = Instant::now();
        let pid = match &current {
            Running::Child(child) => child.id(),
            Running::Adopted(pid) => Some(*pid),
        };
        shared.update(&process.name, |status| {
            status.pid = pid;
            status.waiting = None;
        });
        if process.component == Component::Containerd {
            tokio::spawn(prepare_node(std::sync::Arc::clone(&shared), process.clone()));
        }
        let end = tokio::select! {
            end = ended(current) => end,
            () = shared.stopping.cancelled() => {
                later_stages_ended(&shared, &process).await;
                stop(pid).await;
                shared.update(&process.name, |status| status.pid = None);
                return;
            }
        };
        tracing::warn!(process = process.name, end, "ended; starting it again");
        shared.update(&process.name, |status| {
            status.pid = None;
            status.restarts += 1;
            status.last_exit = Some(end);
        });
        if !pause(&shared, backoff.after_run(started.elapsed())).await {
            return;
        }
    }
}

/// Waits for the process's stage and, for a kubelet, for its node's images. `false` if the cluster is being stopped.
async fn wait_for_turn(shared: &Shared, process: &Process) -> bool {
    let stage = process.component.stage();
    let mut stages = shared.stage.subscribe();
    let mut prepared = shared.prepared.subscribe();
    let needs_images = process.component == Component::Kubelet && shared.cluster.has_namespaces();
    let waiting = if stage == 0 { None } else { Some("earlier processes".to_owned()) };
    shared.update(&process.name, |status| status.waiting = waiting);
    let turn = async {
        // The senders live as long as `shared`, so waiting cannot fail.
        let _ = stages.wait_for(|open| *open >= stage).await;
        if needs_images {
            shared.update(&process.name, |status| {
                status.waiting = Some("its node's containerd and images".into())
            });
            let _ = prepared.wait_for(|nodes| nodes.contains(&process.host)).await;
        }
    };
    tokio::select! {
        () = turn => true,
        () = shared.stopping.cancelled() => false,
    }
}

async fn pause(shared: &Shared, wait: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        () = shared.stopping.cancelled() => false,
    }
}

fn start(shared: &Shared, process: &Process) -> anyhow::Result<Child> {
    let log = open_log(shared, process)?;
    let program = shared.program(process.component);
    let mut command = match &process.namespace {
        None => Command::new(&program),
        Some(namespace) => {
            // The launcher enters the host and becomes the program, so the child's pid is the component's own.
            let mut command = Command::new(std::env::current_exe().context("cannot find the own binary")?);
            command
                .args(["enter", "--namespace", namespace, "--hostname", &process.host, "--"])
                .arg(&program);
            command
        }
    };
    command
        .args(&process.args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}; build everything with `make build`", program.display()))
}

fn open_log(shared: &Shared, process: &Process) -> anyhow::Result<File> {
    let path = shared.layout.log(&process.name);
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, path.with_extension("log.1"))?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Waits for the end and describes it.
async fn ended(running: Running) -> String {
    match running {
        Running::Child(mut child) => match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("waiting failed: {error}"),
        },
        Running::Adopted(pid) => {
            // Only a parent may wait for a process; one that was found is looked at.
            while processes::is_alive(pid) {
                tokio::time::sleep(ADOPTED_POLL).await;
            }
            "ended (adopted, status unknown)".to_owned()
        }
    }
}

/// Ends go the other way round than starts: what would only wait for an API server or a store that is gone ends before it.
async fn later_stages_ended(shared: &Shared, process: &Process) {
    let deadline = Instant::now() + STOP_DEADLINE;
    let later: Vec<&str> = shared
        .topology
        .processes
        .iter()
        .filter(|other| other.component.stage() > process.component.stage())
        .map(|other| other.name.as_str())
        .collect();
    let running = || {
        let board = shared.board.lock();
        later.iter().any(|name| board.get(*name).is_some_and(|status| status.pid.is_some()))
    };
    while running() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn stop(pid: Option<u32>) {
    let Some(pid) = pid else { return };
    processes::send(pid, Signal::SIGTERM);
    for left in processes::wait_gone(&[pid], STOP_DEADLINE).await {
        processes::send(left, Signal::SIGKILL);
    }
}

/// Loads the built-in images into a node once its containerd answers, then lets the node's kubelet start.
async fn prepare_node(shared: Shared, containerd: Process) {
    const POLL: Duration = Duration::from_millis(20);
    const RETRY: Duration = Duration::from_secs(1);
    while !probe::is_serving(&containerd, &shared.layout).await {
        if shared.stopping.is_cancelled() {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
    let socket = shared.layout.containerd_socket(&containerd.host);
    for archive in image::built_in_archives(&shared.layout) {
        while let Err(error) = image::import(&socket, &archive).await {
            tracing::warn!(node = containerd.host, "{error:#}");
            if !pause(&shared, RETRY).await {
                return;
            }
        }
    }
    shared.prepared.send_modify(|nodes| {
        if !nodes.contains(&containerd.host) {
            nodes.push(containerd.host.clone());
        }
    });
}
