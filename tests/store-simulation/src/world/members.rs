//! How members come and go, and what they do with their time: rounds of consensus, flushes, snapshot files, looks at their leases.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_lite::raft::driver::Input;
use etcd_lite_core::Request as Proposal;
use store_checker::{Outcome, Rule, Violation};

use super::happening::Happening;
use super::{Checked, World};
use crate::disk::Snapshot;
use crate::member::{Birth, TICK_MS, instant, start};
use crate::plan::{CrashPoint, LEASES_UNTIL};

/// Between two looks at the leases, as in the real member.
const LEASE_CHECK_MS: u64 = 500;
/// Between two flushes of the checkpoint.
const FLUSH_MS: u64 = 1_000;

impl World {
    pub(super) fn restart(&mut self, member: u64) -> Checked {
        if self.running(member).is_some() {
            return Ok(());
        }
        let extra_ticks = self.schedule.below(3) as usize;
        let plan = self.plan.clone();
        let slot = self.slot(member);
        slot.lives += 1;
        let birth = Birth { id: member, life: slot.lives, is_rejoining: slot.is_rejoining, extra_ticks };
        let disk = Arc::clone(&slot.disk);
        let is_damaged = disk.lock().is_damaged;
        let started = start(&plan, &disk, &birth);
        told!(
            self,
            "member {member} starts, life {}: {:?}",
            birth.life,
            started.as_ref().map(|r| r.store.read().applied_index())
        );
        match started {
            Ok(_) if is_damaged => {
                let what = format!("member {member} starts on a log with a flipped bit");
                return Err(Violation::new(Rule::DamageIsRefused, what));
            }
            Err(_) if is_damaged => {
                // Its operator moves the data aside and has it start over.
                self.stats.refused_starts += 1;
                let slot = self.slot(member);
                slot.disk = Arc::default();
                slot.is_rejoining = true;
                let again = self.now + 200;
                self.at(again, Happening::Restart { member });
                return Ok(());
            }
            Err(error) => {
                let what = format!("member {member} does not start after an ordinary end: {error}");
                return Err(Violation::new(Rule::Recovers, what));
            }
            Ok(running) => {
                let life = running.life;
                let slot = self.slot(member);
                slot.is_rejoining = false;
                running.fuse.lock().armed = slot.next_cut.take();
                slot.running = Some(running);
                self.soon(TICK_MS, Happening::Tick { member, life });
                self.soon(FLUSH_MS, Happening::Flush { member, life });
                self.soon(LEASE_CHECK_MS, Happening::LeaseCheck { member, life });
                for other in (1..=self.plan.members).filter(|other| *other != member) {
                    let later = self.now + 1 + self.network.below(60);
                    self.at(later, Happening::Connected { at: member, to: other });
                    self.at(later, Happening::Connected { at: other, to: member });
                }
            }
        }
        let wait = self.schedule.below(20);
        let Some(running) = self.running(member) else { return Ok(()) };
        running.has_round = true;
        let life = running.life;
        self.at(self.now + wait, Happening::Round { member, life });
        Ok(())
    }

    /// The process ends now; its system tells the others that nobody listens any more.
    pub(super) fn crash(&mut self, member: u64, back_after: u64) {
        if self.running(member).is_none() {
            return;
        }
        self.vanish(member, back_after);
        for at in (1..=self.plan.members).filter(|at| *at != member) {
            let later = self.now + 1 + self.network.below(60);
            self.at(later, Happening::Gone { at, member });
        }
    }

    /// The whole machine ends now, so that nobody tells the others.
    pub(super) fn vanish(&mut self, member: u64, back_after: u64) {
        let Some(mut running) = self.slot(member).running.take() else { return };
        self.stats.crashes += 1;
        told!(self, "member {member} ends, applied {}", running.store.read().applied_index());
        let disk = Arc::clone(&self.slot(member).disk);
        running.take_jobs(&disk);
        {
            let mut disk = disk.lock();
            // The checkpoint is anywhere between its last flush and now.
            if self.disk_random.one_in(2) && !running.fuse.lock().is_blown {
                disk.flush(std::mem::take(&mut running.unflushed));
            }
            disk.power_cut(&mut self.disk_random);
        }
        let whose = running
            .proposals
            .iter()
            .map(|(.., whose)| *whose)
            .chain(running.reads.iter().map(|(.., whose)| *whose));
        for operation in whose.filter(|whose| *whose != u64::MAX).collect::<Vec<_>>() {
            self.answer(operation as usize, Outcome::Unknown);
        }
        self.slot(member).paused_until = 0;
        let back = self.now + back_after.max(1);
        self.at(back, Happening::Restart { member });
    }

    pub(super) fn lose_power(&mut self, member: u64) -> Checked {
        let back = 50 + self.disk_random.below(1_000);
        self.crash(member, back);
        Ok(())
    }

    pub(super) fn input(&mut self, member: u64, input: Input) {
        let wait = self.schedule.below(3);
        let now = self.now;
        let Some(running) = self.running(member) else { return };
        running.inputs.push_back(input);
        if !std::mem::replace(&mut running.has_round, true) {
            let life = running.life;
            self.at(now + wait, Happening::Round { member, life });
        }
    }

    /// Has the driver work off everything that waits for it.
    pub(super) fn round(&mut self, member: u64) -> Checked {
        let now = self.now;
        let is_prompt = self.schedule.one_in(2);
        let rate = self.slot(member).rate;
        let Some(running) = self.running(member) else { return Ok(()) };
        running.clock.store(now * rate / 1000, Ordering::Relaxed);
        running.is_prompt.store(is_prompt, Ordering::Relaxed);
        let mut result = Ok(false);
        while let Some(input) = running.inputs.pop_front() {
            result = running.driver.take(input, &mut running.waiting);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|_| running.driver.work(&mut running.waiting, instant(now)));
        let messages = running.take_messages();
        let has_just_voted = {
            let mut fuse = running.fuse.lock();
            let has_voted = std::mem::take(&mut fuse.has_voted) && !fuse.is_blown;
            has_voted && fuse.burns(|point| point == CrashPoint::AfterVote)
        };
        let has_power = result.is_ok() && !running.fuse.lock().is_blown;
        let term = running.driver.core.term();
        if term > self.last_term {
            self.last_term = term;
            self.stats.terms += 1;
            told!(self, "term {term} at member {member}");
        }
        for (message, snapshot) in messages {
            self.send(message, snapshot);
        }
        self.after_apply(member)?;
        if !has_power {
            let back = if has_just_voted { 0 } else { 50 + self.disk_random.below(1_000) };
            self.crash(member, back);
            return Ok(());
        }
        self.plan_apply(member);
        Ok(())
    }

    pub(super) fn flush(&mut self, member: u64, life: u64) {
        let disk = Arc::clone(&self.slot(member).disk);
        let Some(running) = self.life(member, life) else { return };
        if running.fuse.lock().burns(|point| point == CrashPoint::BeforeFlush) {
            let back = 50 + self.disk_random.below(1_000);
            return self.crash(member, back);
        }
        disk.lock().flush(std::mem::take(&mut running.unflushed));
        self.soon(2 * FLUSH_MS, Happening::Flush { member, life });
    }

    /// A snapshot file is written; then the log may let go of what it covers.
    pub(super) fn write_snapshot(&mut self, member: u64) {
        let disk = Arc::clone(&self.slot(member).disk);
        let Some(running) = self.running(member) else { return };
        let (snapshot, term) = {
            let store = running.store.read();
            (Snapshot::new(store.applied_index(), store.records()), store.applied_term())
        };
        let index = snapshot.index;
        if index == 0 {
            return;
        }
        {
            let mut disk = disk.lock();
            disk.keep_snapshot(Arc::new(snapshot));
            disk.remove_superseded(index);
        }
        if running.fuse.lock().burns(|point| point == CrashPoint::BeforeRelease) {
            let back = 50 + self.disk_random.below(1_000);
            return self.crash(member, back);
        }
        self.input(member, Input::Covered { index, term });
    }

    /// As the lease keeper's task does it.
    pub(super) fn check_leases(&mut self, member: u64, life: u64) {
        let now = self.now;
        let rate = self.slot(member).rate;
        let Some(running) = self.life(member, life) else { return };
        running.clock.store(now * rate / 1000, Ordering::Relaxed);
        let expired = running.leases.expired();
        for expired in expired {
            told!(self, "member {member} finds lease {} over", expired.id);
            self.propose(member, Proposal::LeaseExpire(expired), u64::MAX);
        }
        if now < LEASES_UNTIL {
            self.soon(2 * LEASE_CHECK_MS, Happening::LeaseCheck { member, life });
        }
    }
}
