//! Fair queuing for one priority level: which request starts next, given what each flow has been served so far. Pure: time is an argument, waiters are tags
//! of the caller's.
//!
//! Flows are dealt onto queues by shuffle sharding: each flow has a hand of a few queues and its requests go to the least loaded of them, so that a flow
//! that floods its hand leaves every other flow almost surely a queue of its own. Queues take turns by start-time fair queuing: virtual time R(t) is the
//! service, in seat-seconds, that every active queue would have got by now if seats could be divided at will; the queue whose oldest request would end
//! first in virtual time goes first.

use std::collections::VecDeque;
use std::time::Duration;

use super::demand::Demand;

/// Seconds a request is taken to need until it has ended.
const GUESS_SECONDS: f64 = 0.003;

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The level has no queues and no seats left.
    ConcurrencyLimit,
    /// The queue it belongs to is full.
    QueueFull,
    /// It has waited too long.
    TimeOut,
}

impl Refusal {
    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// How a level queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    /// Queues; 0 turns away what cannot start at once.
    pub queues: usize,
    /// Queues of a flow.
    pub hand_size: usize,
    /// Requests that may wait in a queue.
    pub length_max: usize,
}

/// A request that has started; to be given back at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    queue: Option<usize>,
    /// Seats it takes.
    pub seats: u32,
    started: Duration,
}

/// A request in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    queue: usize,
}

/// What becomes of a request when it comes.
#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// It starts at once.
    Starts(Running),
    /// It waits; [`QueueSet::next`] says when it starts.
    Waits(Ticket),
    /// It is turned away.
    Refused(Refusal),
}

struct Waiting<T> {
    number: u64,
    seats: u32,
    tag: T,
}

struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Virtual time at which the oldest waiting request starts.
    next_start: f64,
    waiting_seats: u32,
    running_seats: u32,
    running: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), next_start: 0.0, waiting_seats: 0, running_seats: 0, running: 0 }
    }
}

impl<T> Queue<T> {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }
}

/// What a queue looks like from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueView {
    /// Requests waiting.
    pub waiting: usize,
    /// Requests at work.
    pub running: usize,
    /// Seats they take.
    pub running_seats: u32,
    /// Virtual time of the next start.
    pub next_start: f64,
    /// Seats that those waiting want.
    pub waiting_seats: u32,
    /// Seat-seconds they are taken to need.
    pub waiting_work: f64,
}

/// The queues and seats of one level.
pub struct QueueSet<T> {
    queuing: Queuing,
    queues: Vec<Queue<T>>,
    limit: u32,
    running: usize,
    running_seats: u32,
    waiting: usize,
    waiting_seats: u32,
    virtual_time: f64,
    moved: Duration,
    turn: usize,
    numbers: u64,
    demand: Demand,
}

impl<T> QueueSet<T> {
    /// Without any request, with so many seats.
    pub fn new(queuing: Queuing, limit: u32, now: Duration) -> Self {
        Self {
            queuing,
            queues: std::iter::repeat_with(Queue::default).take(queuing.queues).collect(),
            limit,
            running: 0,
            running_seats: 0,
            waiting: 0,
            waiting_seats: 0,
            virtual_time: 0.0,
            moved: now,
            turn: 0,
            numbers: 0,
            demand: Demand::new(now),
        }
    }

    /// Changes how the level queues. Requests that wait keep their order; of queues that go they move to others.
    pub fn reconfigure(&mut self, queuing: Queuing, now: Duration) {
        self.advance(now);
        self.queuing = queuing;
        let wanted = queuing.queues;
        let homeless: Vec<Queue<T>> =
            if wanted > 0 && wanted < self.queues.len() { self.queues.split_off(wanted) } else { Vec::new() };
        self.queues.resize_with(wanted.max(self.queues.len()), Queue::default);
        for (index, gone) in homeless.into_iter().enumerate() {
            let home = &mut self.queues[index % wanted];
            if !home.is_active() {
                home.next_start = self.virtual_time;
            }
            home.waiting_seats += gone.waiting_seats;
            home.waiting.extend(gone.waiting);
        }
    }

    /// Sets the number of seats.
    pub fn set_limit(&mut self, limit: u32, now: Duration) {
        self.advance(now);
        self.limit = limit;
    }

    /// Seats there are.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Requests at work, the seats they take, and requests that wait.
    pub fn load(&self) -> (usize, u32, usize) {
        (self.running, self.running_seats, self.waiting)
    }

    /// What was asked of the level since this was last asked.
    pub fn take_demand(&mut self, now: Duration) -> Demand {
        self.demand.note(self.running_seats + self.waiting_seats, now);
        let next = self.demand.following(now);
        std::mem::replace(&mut self.demand, next)
    }

    /// Virtual time moves with the seats that are in use, shared by the queues that want any.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.moved).as_secs_f64();
        self.moved = self.moved.max(now);
        if self.running == 0 && self.waiting == 0 {
            return;
        }
        let active = self.queues.iter().filter(|queue| queue.is_active()).count();
        if active > 0 {
            let used = f64::from((self.running_seats + self.waiting_seats).min(self.limit));
            self.virtual_time += passed * used / active as f64;
        }
    }

    fn note_demand(&mut self, now: Duration) {
        self.demand.note(self.running_seats + self.waiting_seats, now);
    }

    fn fits(&self, seats: u32) -> bool {
        // One that is wider than all seats together goes alone.
        self.running_seats == 0 || self.running_seats + seats <= self.limit
    }

    /// A request of the flow with this hash comes and wants so many seats. `tag` is kept while it waits; it is made only then.
    pub fn arrive(&mut self, hash: u64, seats: u32, now: Duration, tag: impl FnOnce() -> T) -> Arrival {
        self.advance(now);
        let seats = seats.clamp(1, self.limit.max(1));
        if self.queuing.queues == 0 {
            if !self.fits(seats) || self.limit == 0 {
                return Arrival::Refused(Refusal::ConcurrencyLimit);
            }
            self.running += 1;
            self.running_seats += seats;
            self.note_demand(now);
            return Arrival::Starts(Running { queue: None, seats, started: now });
        }
        let index = self.least_loaded(hash);
        if self.queues[index].waiting.len() >= self.queuing.length_max && self.running_seats >= self.limit {
            return Arrival::Refused(Refusal::QueueFull);
        }
        if !self.queues[index].is_active() {
            self.queues[index].next_start = self.virtual_time;
        }
        if self.waiting == 0 && self.fits(seats) {
            let running = self.start(index, seats, now);
            self.note_demand(now);
            return Arrival::Starts(running);
        }
        self.numbers += 1;
        let number = self.numbers;
        let queue = &mut self.queues[index];
        queue.waiting.push_back(Waiting { number, seats, tag: tag() });
        queue.waiting_seats += seats;
        self.waiting += 1;
        self.waiting_seats += seats;
        self.note_demand(now);
        Arrival::Waits(Ticket { number, queue: index })
    }

    fn start(&mut self, index: usize, seats: u32, now: Duration) -> Running {
        let queue = &mut self.queues[index];
        queue.next_start += GUESS_SECONDS * f64::from(seats);
        queue.running += 1;
        queue.running_seats += seats;
        self.running += 1;
        self.running_seats += seats;
        Running { queue: Some(index), seats, started: now }
    }

    /// The queue of the flow's hand with the least to do.
    fn least_loaded(&self, hash: u64) -> usize {
        let mut best = (u32::MAX, 0);
        deal(hash, self.queuing.queues.min(self.queues.len()), self.queuing.hand_size, |index| {
            let queue = &self.queues[index];
            let load = queue.waiting_seats + queue.running_seats;
            if load < best.0 {
                best = (load, index);
            }
        });
        best.1
    }

    /// The next waiting request that can start now, if there is one. To be called until there is none whenever a request has come or ended or seats have
    /// been added.
    pub fn next(&mut self, now: Duration) -> Option<(T, Running)> {
        if self.waiting == 0 {
            return None;
        }
        self.advance(now);
        let count = self.queues.len();
        let mut best: Option<(f64, usize)> = None;
        for step in 1..=count {
            let index = (self.turn + step) % count;
            let queue = &self.queues[index];
            let Some(oldest) = queue.waiting.front() else { continue };
            let end = queue.next_start + GUESS_SECONDS * f64::from(oldest.seats);
            if best.is_none_or(|(least, _)| end < least) {
                best = Some((end, index));
            }
        }
        let (_, index) = best?;
        let seats = self.queues[index].waiting.front()?.seats;
        // Narrower ones do not overtake it, or it would wait for ever.
        if !self.fits(seats) {
            return None;
        }
        let queue = &mut self.queues[index];
        let waiting = queue.waiting.pop_front()?;
        queue.waiting_seats -= seats;
        self.waiting -= 1;
        self.waiting_seats -= seats;
        self.turn = index;
        let running = self.start(index, seats, now);
        Some((waiting.tag, running))
    }

    /// A request ends. What it took beyond or below the guess counts for its queue.
    pub fn finish(&mut self, running: Running, now: Duration) {
        self.advance(now);
        self.running -= 1;
        self.running_seats -= running.seats;
        let took = now.saturating_sub(running.started).as_secs_f64();
        if let Some(queue) = running.queue.and_then(|index| self.queues.get_mut(index)) {
            queue.next_start += (took - GUESS_SECONDS) * f64::from(running.seats);
            queue.running = queue.running.saturating_sub(1);
            queue.running_seats = queue.running_seats.saturating_sub(running.seats);
        }
        self.note_demand(now);
    }

    /// A request waits no longer. Its tag, unless it has started already.
    pub fn give_up(&mut self, ticket: Ticket, now: Duration) -> Option<T> {
        self.advance(now);
        let of = |queue: &Queue<T>| queue.waiting.iter().position(|one| one.number == ticket.number);
        // It may have been moved.
        let found = self.queues.get(ticket.queue).and_then(of).map(|place| (ticket.queue, place));
        let (index, place) = found.or_else(|| {
            self.queues.iter().enumerate().find_map(|(index, queue)| Some((index, of(queue)?)))
        })?;
        let queue = &mut self.queues[index];
        let gone = queue.waiting.remove(place)?;
        queue.waiting_seats -= gone.seats;
        self.waiting -= 1;
        self.waiting_seats -= gone.seats;
        self.note_demand(now);
        Some(gone.tag)
    }

    /// The queues as they are, for people who look.
    pub fn views(&self) -> Vec<QueueView> {
        let view = |queue: &Queue<T>| QueueView {
            waiting: queue.waiting.len(),
            running: queue.running,
            running_seats: queue.running_seats,
            next_start: queue.next_start,
            waiting_seats: queue.waiting_seats,
            waiting_work: f64::from(queue.waiting_seats) * GUESS_SECONDS,
        };
        self.queues.iter().map(view).collect()
    }
}

/// Deals a hand of different cards out of a deck, always the same for the same entropy.
fn deal(mut entropy: u64, deck: usize, hand: usize, mut take: impl FnMut(usize)) {
    const HAND_MAX: usize = 16;
    let mut dealt = [0_usize; HAND_MAX];
    for drawn in 0..hand.clamp(1, HAND_MAX).min(deck) {
        let left = (deck - drawn) as u64;
        let mut card = (entropy % left) as usize;
        entropy /= left;
        // The card is one of those left: skip the ones before it that are gone. `dealt` is sorted.
        let mut place = 0;
        while place < drawn && dealt[place] <= card {
            card += 1;
            place += 1;
        }
        dealt.copy_within(place..drawn, place + 1);
        dealt[place] = card;
        take(card);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const QUEUING: Queuing = Queuing { queues: 64, hand_size: 6, length_max: 50 };

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_level_without_queues_turns_away_what_does_not_fit() {
        let mut level: QueueSet<()> =
            QueueSet::new(Queuing { queues: 0, hand_size: 0, length_max: 0 }, 2, at(0));
        let Arrival::Starts(first) = level.arrive(1, 2, at(0), || ()) else { panic!("starts") };
        assert_eq!(level.arrive(2, 1, at(0), || ()), Arrival::Refused(Refusal::ConcurrencyLimit));
        level.finish(first, at(1));
        assert!(matches!(level.arrive(2, 1, at(1), || ()), Arrival::Starts(_)));
    }

    #[test]
    fn a_full_queue_turns_away_and_who_gives_up_leaves_a_place() {
        let mut level = QueueSet::new(Queuing { queues: 1, hand_size: 1, length_max: 1 }, 1, at(0));
        let Arrival::Starts(first) = level.arrive(1, 1, at(0), || 'a') else { panic!("starts") };
        let Arrival::Waits(second) = level.arrive(1, 1, at(0), || 'b') else { panic!("waits") };
        assert_eq!(level.arrive(1, 1, at(0), || 'c'), Arrival::Refused(Refusal::QueueFull));
        assert_eq!(level.give_up(second, at(1)), Some('b'));
        assert_eq!(level.give_up(second, at(1)), None);
        assert!(matches!(level.arrive(1, 1, at(1), || 'd'), Arrival::Waits(_)));
        assert_eq!(level.next(at(1)), None);
        level.finish(first, at(2));
        assert_eq!(level.next(at(2)).map(|(tag, _)| tag), Some('d'));
    }

    #[test]
    fn a_wide_request_is_not_overtaken_for_ever() {
        let mut level = QueueSet::new(QUEUING, 4, at(0));
        let Arrival::Starts(narrow) = level.arrive(1, 1, at(0), || 0) else { panic!("starts") };
        assert!(matches!(level.arrive(7, 10, at(0), || 1), Arrival::Waits(_)));
        assert!(matches!(level.arrive(99, 1, at(1), || 2), Arrival::Waits(_)));
        // The narrow one ends before the wide one in virtual time and goes first; then the wide one has its turn.
        let mut order = Vec::new();
        let mut running = vec![narrow];
        for time in 2..100 {
            while let Some((tag, started)) = level.next(at(time)) {
                order.push(tag);
                running.push(started);
            }
            if let Some(one) = running.pop() {
                level.finish(one, at(time));
            }
        }
        assert_eq!(order, [2, 1]);
    }

    proptest! {
        /// Hands have different cards of the deck.
        #[test]
        fn hands_are_dealt_without_repeats(entropy: u64, deck in 1_usize..200, hand in 1_usize..10) {
            let mut cards = Vec::new();
            deal(entropy, deck, hand, |card| cards.push(card));
            prop_assert_eq!(cards.len(), hand.min(deck));
            let mut unique = cards.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), cards.len());
            prop_assert!(cards.iter().all(|card| *card < deck));
        }

        /// Seats are never given out twice, and at the end everybody was served, turned away or has given up.
        #[test]
        fn seats_are_counted_right(steps in prop::collection::vec((0_u8..4, any::<u64>(), 1_u32..12), 1..300), limit in 1_u32..20) {
            let mut level = QueueSet::new(Queuing { queues: 8, hand_size: 3, length_max: 4 }, limit, at(0));
            let (mut running, mut waiting) = (Vec::new(), HashMap::new());
            for (time, (action, hash, seats)) in steps.into_iter().enumerate() {
                let now = at(time as u64);
                match action {
                    0 | 1 => match level.arrive(hash, seats, now, || time) {
                        Arrival::Starts(one) => running.push(one),
                        Arrival::Waits(ticket) => { waiting.insert(time, ticket); }
                        Arrival::Refused(_) => {}
                    },
                    2 => if let Some(one) = running.pop() { level.finish(one, now) },
                    _ => if let Some(tag) = waiting.keys().next().copied() {
                        let ticket = waiting.remove(&tag).expect("is there");
                        prop_assert_eq!(level.give_up(ticket, now), Some(tag));
                    },
                }
                while let Some((tag, one)) = level.next(now) {
                    prop_assert!(waiting.remove(&tag).is_some());
                    running.push(one);
                }
                let seats: u32 = running.iter().map(|one| one.seats).sum();
                prop_assert_eq!(level.load(), (running.len(), seats, waiting.len()));
                prop_assert!(seats <= limit || running.len() == 1);
                prop_assert!(waiting.is_empty() || !running.is_empty());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// A flow that floods the level does not keep a modest flow waiting: that one is never turned away, and it waits no longer than for a few others.
        #[test]
        fn a_runaway_flow_does_not_starve_others(flood: u64, modest: u64, took in 1_u64..50) {
            const END: u64 = 800;
            let limit = 4;
            let mut level = QueueSet::new(QUEUING, limit, at(0));
            let hand = |hash| { let mut cards = Vec::new(); deal(hash, 64, 6, |card| cards.push(card)); cards };
            // One in 75 million pairs of flows has the same hand.
            prop_assume!(hand(modest).iter().any(|card| !hand(flood).contains(card)));
            let mut running: Vec<(u64, Running, bool)> = Vec::new();
            let (mut asked, mut longest) = (HashMap::new(), 0);
            for time in 0..END {
                let now = at(time);
                running.retain(|(end, one, _)| { if *end <= time { level.finish(*one, now); } *end > time });
                let note = |one, own: bool, running: &mut Vec<_>| running.push((time + took, one, own));
                for _ in 0..6 {
                    if let Arrival::Starts(one) = level.arrive(flood, 1, now, || None) { note(one, false, &mut running); }
                }
                // One at a time.
                if time % (took * 10) == 0 && time > 0 {
                    match level.arrive(modest, 1, now, || Some(time)) {
                        Arrival::Starts(one) => note(one, true, &mut running),
                        Arrival::Waits(_) => { asked.insert(time, time); }
                        Arrival::Refused(why) => prop_assert!(false, "turned away: {why:?}"),
                    }
                }
                while let Some((tag, one)) = level.next(now) {
                    if let Some(since) = tag { asked.remove(&since); longest = longest.max(time - since); }
                    note(one, tag.is_some(), &mut running);
                }
            }
            prop_assert!(longest <= took * 8 + 8, "waited {longest} ms with requests of {took} ms");
            prop_assert!(asked.values().all(|since| END - since <= took * 8 + 8));
        }
    }
}
