//! Does what the plan says: begins faults, ends them, looks after members that end by themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use store_checker::{Rule, Violation};

use crate::cluster::{Cluster, SIZE};
use crate::member::{Member, name};
use crate::network::Cut;
use crate::plan::{EPOCH, Fault, FaultKind, Victim};
use crate::shared::Shared;

/// How often members are looked at.
const TICK: Duration = Duration::from_millis(20);

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// How often each kind happened.
    pub kinds: BTreeMap<FaultKind, u64>,
    /// Members that ended by themselves because their disk was full.
    pub disk_stops: u64,
}

/// Runs the faults of an epoch; leaves the members as they are then.
///
/// # Errors
/// A [`Violation`] if a member ends or does not come back, or the system's.
pub async fn run(
    cluster: &mut Cluster,
    faults: &[Fault],
    done: &mut Done,
    shared: &Shared,
    is_verbose: bool,
) -> anyhow::Result<()> {
    let mut begun = Instant::now();
    let mut faults = faults.iter().peekable();
    while begun.elapsed() < EPOCH {
        if let Some(fault) = faults.next_if(|fault| fault.at <= begun.elapsed()) {
            let start = Instant::now();
            let victim = begin(cluster, fault).await?;
            if is_verbose {
                eprintln!(
                    "  {:?} of {}, for {:?}; took {:?}",
                    fault.kind,
                    name(victim),
                    fault.lasts,
                    start.elapsed()
                );
            }
            *done.kinds.entry(fault.kind).or_default() += 1;
            // The rest of the plan waits for a replacement.
            begun += start.elapsed();
        }
        look_after(cluster, done)?;
        shared.want_large_writes(cluster.members.iter().any(Member::ignores_full_disk));
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

fn look_after(cluster: &mut Cluster, done: &mut Done) -> anyhow::Result<()> {
    let now = Instant::now();
    for (number, member) in cluster.members.iter_mut().enumerate() {
        member.keep_full()?;
        if let Some(how) = member.ended() {
            if !member.is_disk_full() {
                let what = format!("{} ended by itself: {how}\n{}", name(number), member.last_words());
                bail!(Violation::new(Rule::NoPanic, what));
            }
            done.disk_stops += 1;
        }
        if member.is_due(now) {
            member.heal(SIZE)?;
        }
    }
    Ok(())
}

async fn begin(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<usize> {
    let victim = choose(cluster, fault.victim).await;
    let until = Instant::now() + fault.lasts;
    if let FaultKind::ReplaceRunning | FaultKind::ReplaceDead = fault.kind {
        cluster.replace(victim, fault.kind == FaultKind::ReplaceDead).await?;
        return Ok(victim);
    }
    if fault.kind == FaultKind::DiskFull {
        // Nothing is written without a majority, and then nobody would notice.
        cluster.heal()?;
    }
    let struck = match fault.kind {
        FaultKind::KillMajority => vec![victim, (victim + 1) % SIZE],
        FaultKind::KillAll => (0..SIZE).collect(),
        _ => vec![victim],
    };
    for number in struck {
        let member = &mut cluster.members[number];
        // A member is in one trouble at a time.
        member.heal(SIZE)?;
        match fault.kind {
            FaultKind::Kill | FaultKind::KillMajority | FaultKind::KillAll => member.go_down(until),
            FaultKind::Pause => member.pause(until)?,
            FaultKind::CutFromPeers => member.cut(Cut::Peers, SIZE, until)?,
            FaultKind::CutFromAll => member.cut(Cut::All, SIZE, until)?,
            FaultKind::Mute => member.cut(Cut::Mute, SIZE, until)?,
            FaultKind::Deaf => member.cut(Cut::Deaf, SIZE, until)?,
            FaultKind::CutPair => member.cut(Cut::From((number + 1) % SIZE), SIZE, until)?,
            FaultKind::DiskFull => member.fill_disk(until)?,
            FaultKind::ReplaceRunning | FaultKind::ReplaceDead => {}
        }
    }
    Ok(victim)
}

/// The member to strike: as planned, or if that is in trouble the next that is not.
async fn choose(cluster: &Cluster, victim: Victim) -> usize {
    let first = match victim {
        Victim::Member(number) => number,
        Victim::Leader => cluster.leader().await.unwrap_or(0),
    };
    (0..SIZE)
        .map(|step| (first + step) % SIZE)
        .find(|number| cluster.members[*number].is_well())
        .unwrap_or(first)
}
