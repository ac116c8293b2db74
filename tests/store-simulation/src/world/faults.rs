//! What goes wrong, and its end.

use std::sync::Arc;

use etcd_lite::raft::driver::Input;

use super::World;
use super::happening::Happening;
use crate::plan::{CrashPoint, FAULTS_UNTIL, Fault, FaultKind};

impl World {
    pub(super) fn fault(&mut self, number: usize) {
        let Fault { member, lasts, kind, .. } = self.plan.faults[number];
        let member = if member == 0 { self.leader().unwrap_or(1) } else { member };
        told!(self, "{kind:?} at member {member} for {lasts} ms");
        self.stats.faults += 1;
        let until = (self.now + lasts).min(FAULTS_UNTIL);
        let others: Vec<u64> = (1..=self.plan.members).filter(|other| *other != member).collect();
        match kind {
            FaultKind::Kill => self.crash(member, lasts),
            FaultKind::PowerCut(point) => {
                if let Some(running) = self.running(member) {
                    running.fuse.lock().armed = Some(point);
                }
                if point == CrashPoint::BeforeRelease {
                    self.write_snapshot(member);
                }
            }
            FaultKind::Pause => self.slot(member).paused_until = until,
            FaultKind::Election => {
                self.vanish(member, lasts);
                self.slot(member).next_cut = Some(CrashPoint::AfterVote);
            }
            FaultKind::Part | FaultKind::Mute | FaultKind::Deaf => {
                for other in others {
                    if kind != FaultKind::Deaf {
                        self.cut.push((member, other));
                    }
                    if kind != FaultKind::Mute {
                        self.cut.push((other, member));
                    }
                }
                self.at(until, Happening::FaultEnds { number, member });
            }
            FaultKind::Storm => {
                self.storm = true;
                self.at(until, Happening::FaultEnds { number, member });
            }
            FaultKind::Snapshot => self.write_snapshot(member),
            FaultKind::Transfer => {
                if let Some(to) = self.network.pick(&others) {
                    self.input(member, Input::TransferLeader(to));
                }
            }
            FaultKind::LoseDisk => {
                self.vanish(member, lasts);
                let slot = self.slot(member);
                slot.disk = Arc::default();
                slot.is_rejoining = true;
            }
            FaultKind::FlipBit => {
                self.crash(member, lasts);
                let disk = Arc::clone(&self.slot(member).disk);
                disk.lock().flip_bit(&mut self.disk_random);
            }
        }
    }

    pub(super) fn fault_ends(&mut self, number: usize, member: u64) {
        match self.plan.faults[number].kind {
            FaultKind::Storm => self.storm = false,
            _ => {
                self.cut.retain(|(from, to)| *from != member && *to != member);
                for other in (1..=self.plan.members).filter(|other| *other != member) {
                    let later = self.now + 1 + self.network.below(60);
                    self.at(later, Happening::Connected { at: member, to: other });
                    self.at(later, Happening::Connected { at: other, to: member });
                }
            }
        }
    }

    /// From here on nothing goes wrong any more.
    pub(super) fn calm(&mut self) {
        told!(self, "calm");
        self.is_calm = true;
        self.storm = false;
        self.cut.clear();
        for member in 1..=self.plan.members {
            self.slot(member).next_cut = None;
            if let Some(running) = self.running(member) {
                running.fuse.lock().armed = None;
            } else {
                let later = self.now + 200;
                self.at(later, Happening::Restart { member });
            }
        }
    }
}
