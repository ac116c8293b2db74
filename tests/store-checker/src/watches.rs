//! What watchers got, against what was written.

use std::collections::HashMap;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::mvccpb;
use pb::watch_create_request::FilterType;

use crate::Summary;
use crate::history::{Event, History, Request, Time, Watch};
use crate::replay::{Replayed, in_range};
use crate::violation::{Rule, Violation};

pub(crate) fn check(history: &History, replayed: &Replayed, summary: &mut Summary) -> Result<(), Violation> {
    let mut by_key: HashMap<&Bytes, Vec<usize>> = HashMap::new();
    for (at, event) in history.events.iter().enumerate() {
        by_key.entry(&event.kv.key).or_default().push(at);
    }
    let compactions = history.operations.iter().filter_map(|operation| match &operation.request {
        Request::Compact(compact) => Some((operation.invoked, compact.revision)),
        _ => None,
    });
    let compactions: Vec<(Time, i64)> = compactions.collect();
    for watch in &history.watches {
        let of_key = by_key.get(&watch.create.key).map_or(&[][..], Vec::as_slice);
        let checker = Checker { history, replayed, watch, compactions: &compactions };
        let result = checker.check(of_key, summary);
        result.map_err(|violation| Violation {
            what: format!(
                "{}\n  watcher: client {} at member {}, asked {:?}",
                violation.what, watch.client, watch.member, watch.create
            ),
            ..violation
        })?;
    }
    Ok(())
}

struct Checker<'a> {
    history: &'a History,
    replayed: &'a Replayed,
    watch: &'a Watch,
    compactions: &'a [(Time, i64)],
}

impl Checker<'_> {
    fn wants(&self, event: &Event) -> bool {
        let filter = if event.is_deletion { FilterType::Nodelete } else { FilterType::Noput };
        !self.watch.create.filters.contains(&filter.into()) && in_range(&self.watch.create, &event.kv.key)
    }

    /// Walks through the responses beside the events that are due.
    fn check(&self, of_key: &[usize], summary: &mut Summary) -> Result<(), Violation> {
        let create = &self.watch.create;
        let events = &self.history.events;
        let mut start = create.start_revision;
        let mut responses = self.watch.responses.iter();
        let Some((_, created)) = responses.next() else { return Ok(()) };
        if !created.created {
            return Err(Violation::new(Rule::WatchAsAsked, "the first response is not the creation"));
        }
        if start <= 0 {
            start = created.header.as_ref().map_or(0, |header| header.revision) + 1;
        }
        // At a member that has only just joined; what was written then is not known here.
        if start <= self.history.start.revision {
            return Ok(());
        }
        // Single keys have a list of their own; ranges look at everything.
        let mut due: Box<dyn Iterator<Item = &Event>> =
            if create.range_end.is_empty() && !create.key.is_empty() {
                let first = of_key.partition_point(|at| events[*at].kv.mod_revision < start);
                Box::new(of_key[first..].iter().map(|at| &events[*at]))
            } else {
                let first = events.partition_point(|event| event.kv.mod_revision < start);
                Box::new(events[first..].iter())
            };
        let mut next_due = || due.find(|event| self.wants(event));
        let mut expected = next_due();
        let mut last = 0;
        let mut is_whole = true;
        let mut bookmark = 0;
        for (at, response) in responses {
            let header = response.header.as_ref().map_or(0, |header| header.revision);
            if response.canceled {
                self.check_cancel(*at, response, start)?;
                return Ok(());
            }
            for event in &response.events {
                let Some(kv) = event.kv.as_ref() else {
                    return Err(Violation::new(Rule::WatchAsWritten, "an event without key"));
                };
                self.check_order(kv, start, last, bookmark, expected)?;
                let Some(written) = expected else { break };
                self.check_event(*at, event, kv, written)?;
                if last == kv.mod_revision && !is_whole {
                    let what =
                        format!("revision {last} is split over responses that are not marked as fragments");
                    return Err(Violation::new(Rule::WatchAtomic, what).at(last));
                }
                is_whole = true;
                last = kv.mod_revision;
                if header < last {
                    let what = format!("a response at revision {header} has an event of revision {last}");
                    return Err(Violation::new(Rule::WatchBookmark, what).at(last));
                }
                summary.watched += 1;
                expected = next_due();
            }
            if response.events.is_empty() && !response.created {
                if let Some(missing) = expected.filter(|event| event.kv.mod_revision <= header) {
                    let what = format!(
                        "progress up to {header} was told at {at} ms, but the event of revision {} had not come",
                        missing.kv.mod_revision
                    );
                    return Err(Violation::new(Rule::WatchBookmark, what).at(missing.kv.mod_revision));
                }
                bookmark = bookmark.max(header);
            }
            is_whole = response.fragment || response.events.is_empty();
        }
        match (self.watch.complete_through, expected) {
            (Some(through), Some(missing)) if missing.kv.mod_revision <= through => {
                let what = format!(
                    "the event of revision {} never came, though there was time for all up to {through}; the last was {last}",
                    missing.kv.mod_revision
                );
                Err(Violation::new(Rule::WatchReliable, what).at(missing.kv.mod_revision))
            }
            _ => Ok(()),
        }
    }

    /// Whether the event that came is the one that is due, and if not, why.
    fn check_order(
        &self,
        kv: &mvccpb::KeyValue,
        start: i64,
        last: i64,
        bookmark: i64,
        expected: Option<&Event>,
    ) -> Result<(), Violation> {
        let revision = kv.mod_revision;
        if expected.is_some_and(|due| due.kv.mod_revision == revision && due.kv.key == kv.key) {
            return Ok(());
        }
        let (rule, what) = if !in_range(&self.watch.create, &kv.key) || revision < start {
            (
                Rule::WatchAsAsked,
                format!("an event of revision {revision} and key {:?} was not asked for", kv.key),
            )
        } else if revision <= bookmark {
            (
                Rule::WatchBookmark,
                format!("an event of revision {revision} came after progress up to {bookmark}"),
            )
        } else if revision == last {
            (Rule::WatchUnique, format!("revision {revision} came again, or in another order than written"))
        } else if revision < last {
            (Rule::WatchOrdered, format!("revision {revision} came after {last}"))
        } else {
            match expected {
                Some(due) if due.kv.mod_revision < revision => (
                    Rule::WatchReliable,
                    format!("revision {} is missing: {revision} came instead", due.kv.mod_revision),
                ),
                Some(due) => (
                    Rule::WatchOrdered,
                    format!(
                        "revision {revision}, key {:?}, came where revision {}, key {:?} was due",
                        kv.key, due.kv.mod_revision, due.kv.key
                    ),
                ),
                None => (Rule::WatchAsWritten, format!("revision {revision} came, which nobody wrote")),
            }
        };
        Err(Violation::new(rule, what).at(revision))
    }

    fn check_event(
        &self,
        at: Time,
        event: &mvccpb::Event,
        kv: &mvccpb::KeyValue,
        written: &Event,
    ) -> Result<(), Violation> {
        let revision = kv.mod_revision;
        let is_deletion = event.r#type() == mvccpb::event::EventType::Delete;
        let is_same = if is_deletion { kv.key == written.kv.key } else { *kv == written.kv };
        if is_deletion != written.is_deletion || !is_same {
            let what = format!("an event says {event:?}, written was {written:?}");
            return Err(Violation::new(Rule::WatchAsWritten, what).at(revision));
        }
        let before = self.replayed.model.at(&kv.key, revision - 1);
        let expected = before.filter(|_| self.watch.create.prev_kv);
        if event.prev_kv.as_ref() == expected {
            return Ok(());
        }
        let may_be_compacted =
            self.compactions.iter().any(|(asked, compacted)| *asked <= at && *compacted >= revision);
        if event.prev_kv.is_none() && may_be_compacted {
            return Ok(());
        }
        let what = format!("an event says that before it was {:?}, it was {expected:?}", event.prev_kv);
        Err(Violation::new(Rule::WatchPrevious, what).at(revision))
    }

    /// Cancelled by the client, or because of a compaction beyond what was due.
    fn check_cancel(&self, at: Time, response: &pb::WatchResponse, start: i64) -> Result<(), Violation> {
        let compacted = response.compact_revision;
        if compacted == 0 {
            return Ok(());
        }
        if !self.compactions.iter().any(|(asked, revision)| *asked <= at && *revision == compacted) {
            let what = format!("cancelled for a compaction at {compacted} that nobody asked for");
            return Err(Violation::new(Rule::WatchCancel, what).at(compacted));
        }
        if start >= compacted {
            let what = format!("cancelled for a compaction at {compacted}, but it began at {start}");
            return Err(Violation::new(Rule::WatchCancel, what).at(compacted));
        }
        Ok(())
    }
}
