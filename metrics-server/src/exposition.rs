//! What a kubelet says at `/metrics/resource`, read line by line from the text format of Prometheus. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When the CPU was read.
    pub at: Timestamp,
    /// When what is measured began, if the kubelet says so.
    pub started: Option<Timestamp>,
    /// Seconds of CPU since then.
    pub cpu_seconds: f64,
    /// Bytes of the working set.
    pub memory_bytes: u64,
}

/// Namespace and name of a pod.
pub type PodName = (String, String);

/// All that one kubelet said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The node itself, if both of its values were there.
    pub node: Option<Point>,
    /// Containers by name. A pod of which something is missing is left out.
    pub pods: BTreeMap<PodName, BTreeMap<String, Point>>,
}

/// A point in the making.
#[derive(Clone, Copy, Default)]
struct Part {
    at: Option<Timestamp>,
    started: Option<Timestamp>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<f64>,
}

impl Part {
    fn whole(self, asked: Timestamp) -> Option<Point> {
        let bytes = self.memory_bytes.filter(|bytes| bytes.is_finite() && *bytes >= 0.0)?;
        let cpu_seconds = self.cpu_seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
        let at = self.at.unwrap_or(asked);
        Some(Point { at, started: self.started, cpu_seconds, memory_bytes: bytes as u64 })
    }
}

/// Reads the text. `asked` is the time of what comes without one.
pub fn read(text: &str, asked: Timestamp) -> Sample {
    let mut node = Part::default();
    let mut pods: BTreeMap<PodName, BTreeMap<String, Part>> = BTreeMap::new();
    for line in text.lines() {
        let Some((name, labels, value, at)) = sample(line) else { continue };
        let part = match name {
            "node_cpu_usage_seconds_total" | "node_memory_working_set_bytes" => &mut node,
            "container_cpu_usage_seconds_total"
            | "container_memory_working_set_bytes"
            | "container_start_time_seconds" => {
                let label = |name: &str| labels.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
                let (Some(namespace), Some(pod), Some(container)) =
                    (label("namespace"), label("pod"), label("container"))
                else {
                    continue;
                };
                let of_pod = pods.entry((namespace.clone(), pod.clone())).or_default();
                of_pod.entry(container.clone()).or_default()
            }
            _ => continue,
        };
        if name.ends_with("cpu_usage_seconds_total") {
            part.cpu_seconds = Some(value);
            part.at = at;
        } else if name.ends_with("start_time_seconds") {
            part.started = Timestamp::from_millisecond((value * 1000.0) as i64).ok();
        } else {
            part.memory_bytes = Some(value);
        }
    }
    let whole = |containers: BTreeMap<String, Part>| -> Option<BTreeMap<String, Point>> {
        containers.into_iter().map(|(name, part)| Some((name, part.whole(asked)?))).collect()
    };
    Sample {
        node: node.whole(asked),
        pods: pods.into_iter().filter_map(|(name, containers)| Some((name, whole(containers)?))).collect(),
    }
}

type Line<'a> = (&'a str, Vec<(&'a str, String)>, f64, Option<Timestamp>);

/// `name{label="value"} 1.5 1700000000000`; `None` for comments and what cannot be understood.
fn sample(line: &str) -> Option<Line<'_>> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key, value));
            rest = after;
        }
    }
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let at = match words.next() {
        Some(word) => Some(Timestamp::from_millisecond(word.parse().ok()?).ok()?),
        None => None,
    };
    Some((name, labels, value, at))
}

/// The text up to the closing quote, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_kubelets_text_becomes_points() {
        let text = r#"
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="a",namespace="n",pod="p"} 4.5 1000000
container_memory_working_set_bytes{container="a",namespace="n",pod="p"} 1.048576e+06 1000000
container_start_time_seconds{container="a",namespace="n",pod="p"} 990.5
node_cpu_usage_seconds_total 10 1000000
node_memory_working_set_bytes 2048 1000000
pod_cpu_usage_seconds_total{namespace="n",pod="p"} 5 1000000
resource_scrape_error 0
"#;
        let sample = read(text, at(2000));
        let node = Point { at: at(1000), started: None, cpu_seconds: 10.0, memory_bytes: 2048 };
        assert_eq!(sample.node, Some(node));
        let started = Timestamp::from_millisecond(990_500).ok();
        let a = Point { at: at(1000), started, cpu_seconds: 4.5, memory_bytes: 1 << 20 };
        assert_eq!(sample.pods[&("n".to_owned(), "p".to_owned())]["a"], a);
    }

    #[test]
    fn a_pod_with_a_gap_is_left_out_and_so_is_nonsense() {
        let text = "container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1\n\
            container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"q\\\"\"} 1\n\
            container_memory_working_set_bytes{container=\"a\",namespace=\"n\",pod=\"q\\\"\"} 1\n\
            container_memory_working_set_bytes{container=\"b\",namespace=\"n\",pod=\"r\"} NaN\n\
            container_cpu_usage_seconds_total{container=\"b\",namespace=\"n\",pod=\"r\"} 1\n\
            container_cpu_usage_seconds_total{container=\"a\n{\nnode_cpu_usage_seconds_total x\n";
        let sample = read(text, at(7));
        assert_eq!(sample.node, None);
        let names: Vec<_> = sample.pods.keys().map(|(_, pod)| pod.as_str()).collect();
        assert_eq!(names, ["q\""]);
        assert_eq!(sample.pods.values().next().expect("one")["a"].at, at(7), "without a time it is now");
    }
}
