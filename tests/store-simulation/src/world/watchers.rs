//! Watchers open streams, read them at their own pace, and go on elsewhere when a stream is over.

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use store_checker::{Rule, Violation, Watch};
use store_clients::random::mix;

use super::happening::Happening;
use super::{Checked, World};
use crate::plan::{CLIENTS_UNTIL, END};

impl World {
    pub(super) fn watch_step(&mut self, number: usize) -> Checked {
        let now = self.now;
        let members = self.plan.members;
        let watcher = &mut self.watchers[number];
        let within = if watcher.random.one_in(8) { 800 } else { 60 };
        let next = 5 + watcher.random.below(within);
        if now < END - 100 {
            self.at(now + next, Happening::WatchStep { watcher: number });
        }
        let watcher = &mut self.watchers[number];
        if let Some((member, life)) = watcher.stream {
            let slot = &self.slots[member as usize - 1];
            let is_there = slot.running.as_ref().is_some_and(|running| running.life == life);
            let leaves = now < CLIENTS_UNTIL && watcher.random.one_in(25);
            if is_there && slot.paused_until > now {
                return Ok(());
            }
            if !is_there || leaves {
                self.end_stream(number);
            } else {
                return self.watch_on(number, member);
            }
        }
        let member = self.watchers[number].random.between(1, members);
        self.open_stream(number, member);
        Ok(())
    }

    pub(super) fn open_stream(&mut self, number: usize, member: u64) {
        if self.slots[member as usize - 1].paused_until > self.now {
            return;
        }
        let frames_max = self.plan.frames_max;
        let Some(running) = self.slots[member as usize - 1].running.as_mut() else { return };
        self.next_stream += 1;
        let watcher = &mut self.watchers[number];
        watcher.stream = Some((member, running.life));
        let stream = watcher.number;
        running.watch.close(stream);
        running.watch.open(stream, frames_max);
        for (watch_id, mut create) in (1..).zip(std::mem::take(&mut watcher.wanted)) {
            create.watch_id = watch_id;
            let request =
                pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
            running.watch.request(stream, request);
            watcher.watches.insert(watch_id, self.history.watches.len());
            self.history.watches.push(Watch {
                client: watcher.number,
                member,
                create,
                responses: Vec::new(),
                complete_through: None,
            });
        }
        running.watch.advance(stream);
        told!(self, "watcher {stream} opens a stream at member {member}");
    }

    /// The stream is gone; each of its watches goes on elsewhere with the first revision it has not seen, or there is something new to watch.
    pub(super) fn end_stream(&mut self, number: usize) {
        let watcher = &mut self.watchers[number];
        let Some((member, life)) = watcher.stream.take() else { return };
        let mut watches: Vec<(i64, usize)> = watcher.watches.drain().collect();
        watches.sort_unstable();
        for (_, place) in watches {
            let revision = self.history.events.last().map_or(1, |event| event.kv.mod_revision);
            let next = self.history.watches[place].next_revision();
            let create = match next {
                Some(next) if watcher.random.below(4) > 0 => pb::WatchCreateRequest {
                    start_revision: next,
                    watch_id: 0,
                    ..self.history.watches[place].create.clone()
                },
                _ => watcher.create(revision),
            };
            watcher.wanted.push(create);
        }
        let stream = watcher.number;
        if let Some(running) = self.running(member).filter(|running| running.life == life) {
            running.watch.close(stream);
        }
    }

    /// The stream goes on, and its client reads.
    pub(super) fn watch_on(&mut self, number: usize, member: u64) -> Checked {
        let now = self.now;
        let watcher = &mut self.watchers[number];
        let stream = watcher.number;
        let Some(running) = self.slots[member as usize - 1].running.as_mut() else { return Ok(()) };
        match watcher.random.below(6) {
            0 => {
                let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                running.watch.request(stream, pb::WatchRequest { request_union: Some(progress) });
            }
            1 => running.watch.notify_progress(stream),
            _ => {}
        }
        running.watch.advance(stream);
        let most = if watcher.random.one_in(5) { 1 } else { 20 };
        let responses = running.watch.read(stream, most).map_err(|status| {
            Violation::new(Rule::WatchReliable, format!("a watch stream ended by itself: {status}"))
        })?;
        for response in responses {
            self.watched(number, response, now);
        }
        Ok(())
    }

    pub(super) fn watched(&mut self, number: usize, response: pb::WatchResponse, now: u64) {
        let header = response.header.map_or(0, |header| header.revision);
        self.trace = mix(self.trace ^ header.unsigned_abs() ^ (response.events.len() as u64) << 40);
        told!(
            self,
            "watcher {number} gets for {} at {header}: {:?}",
            response.watch_id,
            response
                .events
                .iter()
                .filter_map(|e| e.kv.as_ref())
                .map(|kv| (kv.mod_revision, kv.key.clone()))
                .collect::<Vec<_>>()
        );
        let watcher = &mut self.watchers[number];
        if response.watch_id == -1 {
            // Progress of the whole stream.
            for place in watcher.watches.values() {
                self.history.watches[*place].responses.push((now, response.clone()));
            }
            return;
        }
        let Some(place) = watcher.watches.get(&response.watch_id).copied() else { return };
        let is_over = response.canceled;
        let compacted = response.compact_revision;
        self.history.watches[place].responses.push((now, response));
        if is_over {
            watcher.watches.retain(|_, kept| *kept != place);
            let create = self.history.watches[place].create.clone();
            // Exactly where the compaction was: nothing is missing from there on.
            watcher.wanted.push(pb::WatchCreateRequest { start_revision: compacted, watch_id: 0, ..create });
            if watcher.watches.is_empty() {
                self.end_stream(number);
            }
        }
    }

    /// Gives a watcher all the time it needs.
    pub(super) fn drain_watcher(&mut self, number: usize) -> Checked {
        let Some((member, life)) = self.watchers[number].stream else { return Ok(()) };
        let (now, stream) = (self.now, self.watchers[number].number);
        if let Some(running) = self.life(member, life) {
            while running.has_tell {
                running.watch.tell();
                running.has_tell = false;
            }
            // Once more: the feed may have been longer than one turn takes.
            running.watch.tell();
        }
        for _ in 0..200 {
            let Some(running) = self.life(member, life) else { return Ok(()) };
            running.watch.advance(stream);
            let responses = running.watch.read(stream, 1_000).map_err(|status| {
                Violation::new(Rule::WatchReliable, format!("a watch stream ended by itself: {status}"))
            })?;
            for response in responses {
                self.watched(number, response, now);
            }
        }
        let through = self.history.events.last().map(|event| event.kv.mod_revision);
        for place in self.watchers[number].watches.values() {
            self.history.watches[*place].complete_through = through;
        }
        Ok(())
    }
}
