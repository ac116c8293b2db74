//! What members apply, and how that is compared: the first to apply a revision decides, all others must have the same.

use std::sync::Arc;

use etcd_lite::member::Feed;
use etcd_lite_core::Event;
use store_checker::{Rule, Violation};

use super::clients::outcome_of;
use super::happening::Happening;
use super::{Checked, World};
use crate::member::Work;
use crate::plan::CrashPoint;

impl World {
    pub(super) fn plan_apply(&mut self, member: u64) {
        let Some(running) = self.running(member) else { return };
        if !running.has_apply && !running.work.lock().is_empty() {
            running.has_apply = true;
            let life = running.life;
            // Now and then it takes long, and reads and watchers of this member fall behind.
            let within = if self.schedule.one_in(10) { 200 } else { 5 };
            self.soon(within, Happening::Apply { member, life });
        }
    }

    /// One turn of the applier.
    pub(super) fn apply(&mut self, member: u64) -> Checked {
        let most = self.schedule.between(1, 8) as usize;
        let Some(running) = self.running(member) else { return Ok(()) };
        let fuse = Arc::clone(&running.fuse);
        if fuse.lock().burns(|point| point == CrashPoint::BeforeApply) {
            return self.lose_power(member);
        }
        let work = running.work.lock().pop_front();
        match work {
            None => {}
            Some(Work::Snapshot(index)) => {
                let disk = Arc::clone(&self.slot(member).disk);
                let snapshot = disk.lock().snapshots.get(&index).cloned();
                let loaded = snapshot.ok_or_else(|| "it is not there".to_owned()).and_then(|s| s.load());
                let loaded = loaded.map_err(|error| {
                    Violation::new(
                        Rule::Recovers,
                        format!("member {member} cannot load snapshot {index}: {error}"),
                    )
                })?;
                told!(self, "member {member} loads snapshot {index}, revision {}", loaded.revision());
                self.stats.snapshots_installed += 1;
                if let Some(running) = self.running(member) {
                    running.applier.replace(index, loaded);
                }
            }
            Some(Work::Committed(mut entries)) => {
                if entries.len() > most {
                    let rest = entries.split_off(most);
                    running.work.lock().push_front(Work::Committed(rest));
                }
                let point = fuse.lock().armed;
                if let Some(CrashPoint::AfterEntries(count)) = point
                    && entries.len() as u64 > count
                {
                    entries.truncate(count as usize);
                    running.applier.apply_all(entries);
                    fuse.lock().burns(|point| matches!(point, CrashPoint::AfterEntries(_)));
                    self.after_apply(member)?;
                    return self.lose_power(member);
                }
                running.applier.apply_all(entries);
            }
        }
        if fuse.lock().burns(|point| point == CrashPoint::BeforeAnswer) {
            self.see_changes(member)?;
            return self.lose_power(member);
        }
        self.after_apply(member)?;
        self.plan_apply(member);
        Ok(())
    }

    /// Compares what a member has applied with what others had, then answers whoever waited for it.
    pub(super) fn after_apply(&mut self, member: u64) -> Checked {
        self.see_changes(member)?;
        let disk = Arc::clone(&self.slot(member).disk);
        let Some(running) = self.running(member) else { return Ok(()) };
        if running.fuse.lock().is_blown {
            return Ok(());
        }
        running.take_jobs(&disk);
        let mut answers = Vec::new();
        running.proposals.retain_mut(|(_, receiver, whose)| match receiver.try_recv() {
            Ok(answer) => {
                answers.push((*whose, outcome_of(answer)));
                false
            }
            Err(tokio::sync::oneshot::error::TryRecvError::Empty) => true,
            Err(tokio::sync::oneshot::error::TryRecvError::Closed) => false,
        });
        let applied = *running.applied.borrow();
        let mut readers = Vec::new();
        running.reads.retain_mut(|(receiver, index, whose)| {
            if index.is_none() {
                *index = receiver.try_recv().ok();
            }
            let is_ready = index.is_some_and(|index| applied >= index);
            if is_ready {
                readers.push(*whose);
            }
            !is_ready
        });
        for whose in readers {
            let outcome = self.read(member, whose as usize);
            answers.push((whose, outcome));
        }
        for (whose, outcome) in answers.into_iter().filter(|(whose, _)| *whose != u64::MAX) {
            self.answer(whose as usize, outcome);
        }
        Ok(())
    }

    pub(super) fn see_changes(&mut self, member: u64) -> Checked {
        let mut seen = Vec::new();
        let Some(running) = self.running(member) else { return Ok(()) };
        let mut has_news = false;
        loop {
            match running.feed.try_recv() {
                Ok(Feed::Applied { events, .. }) => {
                    has_news = true;
                    seen.push(events);
                }
                Ok(Feed::Replaced) => has_news = true,
                Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        let revision = running.store.read().revision();
        running.seen_revision = revision;
        if has_news && !std::mem::replace(&mut running.has_tell, true) {
            let life = running.life;
            let within = if self.schedule.one_in(10) { 150 } else { 4 };
            self.soon(within, Happening::Tell { member, life });
        }
        for events in seen {
            self.compare(member, &events)?;
        }
        Ok(())
    }

    /// The first member to apply a revision decides; all others must have the same.
    pub(super) fn compare(&mut self, member: u64, events: &[Event]) -> Checked {
        let Some(first) = events.first() else { return Ok(()) };
        let revision = first.version.revision.main;
        let last = self.history.events.last().map_or(1, |event| event.kv.mod_revision);
        let seen = Some(self.now);
        let events: Vec<store_checker::Event> = events
            .iter()
            .map(|event| store_checker::Event {
                kv: event.version.to_key_value(),
                is_deletion: event.version.tombstone,
                seen,
            })
            .collect();
        if revision > last {
            if revision != last + 1 {
                let what = format!(
                    "member {member} applies revision {revision}, but {} was applied nowhere",
                    last + 1
                );
                return Err(Violation::new(Rule::RevisionsFollow, what).at(revision));
            }
            told!(self, "revision {revision} at member {member}: {}", describe(&events));
            self.history.events.extend(events);
            return Ok(());
        }
        let start = self.history.events.partition_point(|event| event.kv.mod_revision < revision);
        let known = self.history.events[start..].iter().take_while(|event| event.kv.mod_revision == revision);
        let known: Vec<_> = known.map(|event| (&event.kv, event.is_deletion)).collect();
        let found: Vec<_> = events.iter().map(|event| (&event.kv, event.is_deletion)).collect();
        if known != found {
            let what = format!("member {member} has {found:?} at revision {revision}, another had {known:?}");
            return Err(Violation::new(Rule::MembersAgree, what).at(revision));
        }
        Ok(())
    }
}

fn describe(events: &[store_checker::Event]) -> String {
    let told = |e: &store_checker::Event| {
        let what = if e.is_deletion { "deleted".to_owned() } else { format!("{:?}", e.kv.value) };
        format!("{:?} {what}", e.kv.key)
    };
    events.iter().map(told).collect::<Vec<_>>().join(", ")
}
