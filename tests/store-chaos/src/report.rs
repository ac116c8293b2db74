//! What a run tells: a line for each epoch, a summary, and after a failure everything that is needed to understand it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use store_checker::History;

use crate::cluster::Cluster;
use crate::epoch::Seen;
use crate::faults::Done;
use crate::plan::FaultKind;

/// Sums over epochs.
#[derive(Default)]
pub struct Totals {
    epochs: u64,
    answered: usize,
    unknown: usize,
    unknown_written: usize,
    revisions: usize,
    expirations: usize,
    watched: usize,
    longest_gap_ms: u64,
    rates: Vec<f64>,
    done: Done,
}

impl Totals {
    /// Adds an epoch and gives its line.
    pub fn add(&mut self, seen: &Seen, done: &Done) -> String {
        self.epochs += 1;
        self.answered += seen.summary.answered;
        self.unknown += seen.unknown;
        self.unknown_written += seen.summary.unknown_written;
        self.revisions += seen.summary.revisions;
        self.expirations += seen.summary.expirations;
        self.watched += seen.summary.watched;
        self.longest_gap_ms = self.longest_gap_ms.max(seen.longest_gap_ms);
        self.rates.push(seen.rate);
        for (kind, count) in &done.kinds {
            *self.done.kinds.entry(*kind).or_default() += count;
        }
        self.done.disk_stops += done.disk_stops;
        format!(
            "epoch {}: {} answered, {:.0} ops/s, {} unknown ({} happened), longest gap {} ms, {} watched, {} leases ran out, revision {}, \
             hash {:08x} on all, judged in {:.1} s; {}",
            self.epochs,
            seen.summary.answered,
            seen.rate,
            seen.unknown,
            seen.summary.unknown_written,
            seen.longest_gap_ms,
            seen.summary.watched,
            seen.summary.expirations,
            seen.revision,
            seen.hash,
            seen.check_seconds,
            list(&done.kinds),
        )
    }

    /// Why the run shows too little, if it does.
    pub fn too_little(&self) -> Option<String> {
        let missing: Vec<_> =
            FaultKind::ALL.iter().filter(|kind| !self.done.kinds.contains_key(kind)).collect();
        if !missing.is_empty() {
            return Some(format!("these faults never happened: {missing:?}; run it for longer"));
        }
        let counts = [
            (self.done.disk_stops, "no member ended because its disk was full"),
            (self.unknown_written as u64, "no write happened whose answer was lost"),
            (self.expirations as u64, "no lease ran out"),
            (self.watched as u64, "watchers saw nothing"),
        ];
        counts.into_iter().find(|(count, _)| *count == 0).map(|(_, what)| what.to_owned())
    }

    /// The sums in a line.
    pub fn line(&self) -> String {
        format!(
            "{} epochs: {} answered, {} unknown ({} happened), {} revisions, longest gap {} ms, {} watched, {} leases ran out, \
             {} stops for a full disk; {}",
            self.epochs,
            self.answered,
            self.unknown,
            self.unknown_written,
            self.revisions,
            self.longest_gap_ms,
            self.watched,
            self.expirations,
            self.done.disk_stops,
            list(&self.done.kinds),
        )
    }

    /// The sums as JSON.
    pub fn json(&self, seed: u64, failure: Option<&str>) -> serde_json::Value {
        let faults: BTreeMap<String, u64> =
            self.done.kinds.iter().map(|(kind, count)| (format!("{kind:?}"), *count)).collect();
        let mean = self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64;
        json!({
            "seed": seed,
            "failure": failure,
            "epochs": self.epochs,
            "answered": self.answered,
            "operations_per_second": mean.round(),
            "unknown": self.unknown,
            "unknown_written": self.unknown_written,
            "revisions": self.revisions,
            "expirations": self.expirations,
            "watched": self.watched,
            "longest_gap_ms": self.longest_gap_ms,
            "disk_stops": self.done.disk_stops,
            "faults": faults,
        })
    }
}

fn list(kinds: &BTreeMap<FaultKind, u64>) -> String {
    kinds.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect::<Vec<_>>().join(", ")
}

/// Saves what was recorded and what members said to a folder of its own below `dir`.
///
/// # Errors
/// It cannot be written.
pub fn save_failure(dir: &Path, seed: u64, history: &History, cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let dir = dir.join(format!("failure-{seed}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    for member in &cluster.members {
        std::fs::copy(member.log(), dir.join(member.log().file_name().context("a name")?))?;
    }
    let path = dir.join("history.jsonl");
    let mut file = BufWriter::new(File::create(&path).with_context(|| format!("{}", path.display()))?);
    let mut line = |value: serde_json::Value| writeln!(file, "{value}");
    line(json!({"start": history.start.revision, "keys": history.start.kvs.len()}))?;
    for kv in &history.start.kvs {
        line(json!({"kv": format!("{kv:?}")}))?;
    }
    for (number, op) in history.operations.iter().enumerate() {
        line(json!({
            "operation": number, "client": op.client, "member": op.member, "invoked": op.invoked, "completed": op.completed,
            "request": format!("{:?}", op.request), "outcome": format!("{:?}", op.outcome),
        }))?;
    }
    for event in &history.events {
        let revision = event.kv.mod_revision;
        line(
            json!({"revision": revision, "deletion": event.is_deletion, "kv": format!("{:?}", event.kv), "seen": event.seen}),
        )?;
    }
    for watch in &history.watches {
        line(json!({"watch": format!("{:?}", watch.create), "client": watch.client, "member": watch.member,
            "complete_through": watch.complete_through}))?;
        for (at, response) in &watch.responses {
            line(json!({"client": watch.client, "at": at, "response": format!("{response:?}")}))?;
        }
    }
    file.flush()?;
    Ok(path)
}
