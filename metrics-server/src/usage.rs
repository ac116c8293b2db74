//! From two measurements of a counter to a rate: what nodes and containers use now. Pure, as upstream's metrics-server reckons.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::exposition::{PodName, Point, Sample};

/// A container younger than one round can be reckoned from its start, once it has run for this long.
const FRESH_MIN: SignedDuration = SignedDuration::from_secs(10);

/// What is used, over a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a CPU.
    pub nanocores: u64,
    /// Bytes of the working set.
    pub memory_bytes: u64,
}

/// When a usage was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its end.
    pub end: Timestamp,
    /// How long before that it began.
    pub window: SignedDuration,
}

/// The last two measurements of something.
#[derive(Clone, Copy, Debug)]
struct Track {
    before: Option<Point>,
    last: Point,
}

/// The last two measurements of everything that answered in the last round.
#[derive(Debug, Default)]
pub struct Usages {
    nodes: BTreeMap<String, Track>,
    pods: BTreeMap<PodName, BTreeMap<String, Track>>,
}

impl Usages {
    /// Takes a round of measurements, by node. What is not in it is forgotten. `resolution` is the time between rounds.
    pub fn take(&mut self, round: Vec<(String, Sample)>, resolution: SignedDuration) {
        let (mut nodes, mut pods) = (BTreeMap::new(), BTreeMap::new());
        for (name, sample) in round {
            if let Some(point) = sample.node {
                let known = self.nodes.get(&name).copied();
                nodes.insert(name, next(known, point, resolution));
            }
            for (pod, containers) in sample.pods {
                let known = self.pods.get(&pod);
                let of = |(name, point): (String, Point)| {
                    let known = known.and_then(|known| known.get(&name)).copied();
                    (name, next(known, point, resolution))
                };
                let tracks = containers.into_iter().map(of).collect();
                pods.insert(pod, tracks);
            }
        }
        (self.nodes, self.pods) = (nodes, pods);
    }

    /// A node's usage, once it has been measured twice.
    pub fn node(&self, name: &str) -> Option<(Usage, Span)> {
        rate(self.nodes.get(name)?)
    }

    /// The usage of all containers of a pod, by name; `None` until each is known. The span is that of the one measured first.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<(Vec<(&str, Usage)>, Span)> {
        let tracks = self.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        let mut usages = Vec::with_capacity(tracks.len());
        let mut earliest: Option<Span> = None;
        for (container, track) in tracks {
            let (usage, span) = rate(track)?;
            usages.push((container.as_str(), usage));
            if earliest.is_none_or(|known| span.end < known.end) {
                earliest = Some(span);
            }
        }
        Some((usages, earliest?))
    }
}

fn next(known: Option<Track>, point: Point, resolution: SignedDuration) -> Track {
    // A kubelet that shows an old measurement again adds nothing.
    if let Some(known) = known
        && point.at <= known.last.at
    {
        return known;
    }
    let restarted = |before: &Point| point.started.is_some_and(|started| started > before.at);
    if let Some(before) = known.map(|known| known.last).filter(|before| !restarted(before)) {
        return Track { before: Some(before), last: point };
    }
    let age = point.started.map(|started| point.at.duration_since(started));
    let is_fresh = age.is_some_and(|age| age >= FRESH_MIN && age < resolution);
    let zero = point.started.filter(|_| is_fresh).map(|started| Point {
        at: started,
        started: point.started,
        cpu_seconds: 0.0,
        memory_bytes: 0,
    });
    Track { before: zero, last: point }
}

fn rate(track: &Track) -> Option<(Usage, Span)> {
    let before = track.before?;
    let window = track.last.at.duration_since(before.at);
    let used = track.last.cpu_seconds - before.cpu_seconds;
    // A counter that fell is another container's.
    if !window.is_positive() || used < 0.0 {
        return None;
    }
    let nanocores = (used / window.as_secs_f64() * 1e9).round() as u64;
    Some((Usage { nanocores, memory_bytes: track.last.memory_bytes }, Span { end: track.last.at, window }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: SignedDuration = SignedDuration::from_secs(15);

    fn point(at: i64, started: Option<i64>, cpu_seconds: f64) -> Point {
        let time = |second: i64| Timestamp::from_second(second).expect("a time");
        Point { at: time(at), started: started.map(time), cpu_seconds, memory_bytes: 100 }
    }

    fn round(points: &[(&str, Point)]) -> Vec<(String, Sample)> {
        let containers = points.iter().map(|(name, point)| ((*name).to_owned(), *point)).collect();
        let pods = BTreeMap::from([(("n".to_owned(), "p".to_owned()), containers)]);
        vec![("node".to_owned(), Sample { node: points.first().map(|(_, point)| *point), pods })]
    }

    fn nanocores(usages: &Usages) -> Option<Vec<u64>> {
        Some(usages.pod("n", "p")?.0.iter().map(|(_, usage)| usage.nanocores).collect())
    }

    #[test]
    fn two_measurements_make_a_rate() {
        let mut usages = Usages::default();
        usages.take(round(&[("a", point(100, Some(0), 5.0))]), ROUND);
        assert_eq!(nanocores(&usages), None, "one says nothing of a rate");
        usages.take(round(&[("a", point(110, Some(0), 10.0))]), ROUND);
        assert_eq!(nanocores(&usages), Some(vec![500_000_000]));
        let (usage, span) = usages.node("node").expect("the node");
        assert_eq!(
            (usage.nanocores, usage.memory_bytes, span.window),
            (500_000_000, 100, SignedDuration::from_secs(10))
        );
        // The same measurement again changes nothing.
        usages.take(round(&[("a", point(110, Some(0), 10.0))]), ROUND);
        assert_eq!(nanocores(&usages), Some(vec![500_000_000]));
        usages.take(Vec::new(), ROUND);
        assert_eq!(
            (nanocores(&usages), usages.node("node")),
            (None, None),
            "who does not answer is not known"
        );
    }

    #[test]
    fn a_pod_is_shown_when_each_of_its_containers_is_known() {
        let mut usages = Usages::default();
        usages.take(round(&[("a", point(100, Some(0), 5.0))]), ROUND);
        usages.take(round(&[("a", point(115, Some(0), 5.0)), ("b", point(115, Some(110), 1.0))]), ROUND);
        assert_eq!(nanocores(&usages), None);
        usages.take(round(&[("a", point(130, Some(0), 5.0)), ("b", point(129, Some(110), 15.0))]), ROUND);
        assert_eq!(nanocores(&usages), Some(vec![0, 1_000_000_000]));
        assert_eq!(
            usages.pod("n", "p").map(|(_, span)| span.end.as_second()),
            Some(129),
            "the earlier one's"
        );
    }

    #[test]
    fn a_container_that_began_anew_is_reckoned_from_its_start() {
        let mut usages = Usages::default();
        usages.take(round(&[("a", point(100, Some(0), 50.0))]), ROUND);
        // Restarted at 105 and old enough.
        usages.take(round(&[("a", point(116, Some(105), 11.0))]), ROUND);
        assert_eq!(nanocores(&usages), Some(vec![1_000_000_000]));
        // Restarted too short a time ago.
        usages.take(round(&[("a", point(130, Some(125), 1.0))]), ROUND);
        assert_eq!(nanocores(&usages), None);
        // A counter that fell without a word.
        usages.take(round(&[("a", point(145, None, 0.5))]), ROUND);
        assert_eq!(nanocores(&usages), None);
    }
}
