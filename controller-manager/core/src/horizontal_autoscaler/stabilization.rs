//! From what the metrics ask for to what is done: windows in which the calmest recommendation counts, and rates that changes must keep to. Owns what
//! is remembered of one autoscaler; all of it may be lost.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Without rules, a scale at most doubles at once, or becomes this.
const SCALE_UP_MIN: i32 = 4;

/// A condition to show: its reason and its text.
pub type Shown = (&'static str, &'static str);

/// A change that was made, or a recommendation.
type At = (i32, Timestamp);

/// What is remembered of one autoscaler.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    recommendations: Vec<At>,
    added: Vec<At>,
    removed: Vec<At>,
}

/// What came of a recommendation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalized {
    /// So many pods.
    pub replicas: i32,
    /// What to show as AbleToScale.
    pub able: Shown,
    /// What to show as ScalingLimited, and whether it is.
    pub limited: (bool, Shown),
}

/// The bounds that an autoscaler sets.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// As many as there are to be now.
    pub current: i32,
    /// The fewest.
    pub min: i32,
    /// The most.
    pub max: i32,
}

const LOWER: Shown = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const HIGHER: Shown = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const READY: Shown = ("ReadyForNewScale", "recommended size matches current size");
const WITHIN: Shown = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FAST_UP: Shown =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: Shown =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Shown =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Shown = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

fn ago(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
}

/// One direction's rules, with what is not given filled in.
struct Rules {
    window: i64,
    select: String,
    policies: Vec<HPAScalingPolicy>,
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 }
}

impl Rules {
    fn new(given: Option<&HPAScalingRules>, window: i64, policies: Vec<HPAScalingPolicy>) -> Self {
        let own = given.and_then(|given| given.stabilization_window_seconds);
        let select = given.and_then(|given| given.select_policy.clone());
        Self {
            window: own.map_or(window, i64::from),
            select: select.unwrap_or_else(|| "Max".to_owned()),
            policies: given.and_then(|given| given.policies.clone()).unwrap_or(policies),
        }
    }

    fn up(behavior: &HorizontalPodAutoscalerBehavior) -> Self {
        Self::new(behavior.scale_up.as_ref(), 0, vec![policy("Pods", 4), policy("Percent", 100)])
    }

    fn down(behavior: &HorizontalPodAutoscalerBehavior, window: SignedDuration) -> Self {
        Self::new(behavior.scale_down.as_ref(), window.as_secs(), vec![policy("Percent", 100)])
    }

    fn longest_period(&self) -> i64 {
        self.policies.iter().map(|policy| i64::from(policy.period_seconds)).max().unwrap_or(0)
    }
}

fn within(changes: &[At], since: Timestamp) -> i32 {
    changes.iter().filter(|(_, at)| *at > since).fold(0_i32, |sum, (change, _)| sum.saturating_add(*change))
}

impl Memory {
    /// The first size that was seen counts as a recommendation, so that a fresh start does not scale down at once.
    pub fn first_seen(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    /// What to do about `wanted` pods. `window` is for scaling down when no rule says another (`--horizontal-pod-autoscaler-downscale-stabilization`).
    pub fn normalize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        bounds: Bounds,
        wanted: i32,
        window: SignedDuration,
        now: Timestamp,
    ) -> Normalized {
        let (stable, shown, (replicas, limit)) = match behavior {
            None => {
                let stable = self.highest_of(wanted, window, now);
                (stable, HIGHER, within_bounds(bounds, stable))
            }
            Some(behavior) => {
                let (up, down) = (Rules::up(behavior), Rules::down(behavior, window));
                let (stable, shown) = self.calmest(bounds.current, wanted, &up, &down, now);
                (stable, shown, self.within_rates(bounds, stable, &up, &down, now))
            }
        };
        Normalized {
            replicas,
            able: if stable == wanted { READY } else { shown },
            limited: (replicas != stable, limit),
        }
    }

    fn highest_of(&mut self, wanted: i32, window: SignedDuration, now: Timestamp) -> i32 {
        let cutoff = ago(now, window.as_secs());
        self.recommendations.retain(|(_, at)| *at >= cutoff);
        let highest = self.recommendations.iter().map(|(recommended, _)| *recommended).max();
        self.recommendations.push((wanted, now));
        highest.map_or(wanted, |highest| highest.max(wanted))
    }

    fn calmest(
        &mut self,
        current: i32,
        wanted: i32,
        up: &Rules,
        down: &Rules,
        now: Timestamp,
    ) -> (i32, Shown) {
        let (window, better, shown): (i64, fn(i32, i32) -> i32, Shown) =
            if wanted >= current { (up.window, i32::min, LOWER) } else { (down.window, i32::max, HIGHER) };
        let oldest = ago(now, up.window.max(down.window));
        self.recommendations.retain(|(_, at)| *at >= oldest);
        let cutoff = ago(now, window);
        let recent = self.recommendations.iter().filter(|(_, at)| *at > cutoff);
        let stable = recent.fold(wanted, |stable, (recommended, _)| better(stable, *recommended));
        self.recommendations.push((wanted, now));
        (stable, shown)
    }

    fn within_rates(
        &self,
        bounds: Bounds,
        wanted: i32,
        up: &Rules,
        down: &Rules,
        now: Timestamp,
    ) -> (i32, Shown) {
        if wanted > bounds.current {
            let rate = self.up_limit(bounds.current, up, now).max(bounds.current);
            let (most, why) = if bounds.max > rate { (rate, TOO_FAST_UP) } else { (bounds.max, TOO_MANY) };
            if wanted > most {
                return (most, why);
            }
        } else if wanted < bounds.current {
            let rate = self.down_limit(bounds.current, down, now).min(bounds.current);
            let (least, why) = if bounds.min < rate { (rate, TOO_FAST_DOWN) } else { (bounds.min, TOO_FEW) };
            if wanted < least {
                return (least, why);
            }
        }
        (wanted, WITHIN)
    }

    /// As many as there were when a policy's period began.
    fn at_start(&self, current: i32, policy: &HPAScalingPolicy, now: Timestamp) -> i32 {
        let since = ago(now, i64::from(policy.period_seconds));
        current.saturating_sub(within(&self.added, since)).saturating_add(within(&self.removed, since))
    }

    fn up_limit(&self, current: i32, rules: &Rules, now: Timestamp) -> i32 {
        if rules.select == "Disabled" {
            return current;
        }
        let proposed = rules.policies.iter().map(|policy| {
            let start = self.at_start(current, policy, now);
            if policy.type_ == "Percent" {
                (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32
            } else {
                start.saturating_add(policy.value)
            }
        });
        let chosen = if rules.select == "Min" { proposed.min() } else { proposed.max() };
        chosen.unwrap_or(0)
    }

    fn down_limit(&self, current: i32, rules: &Rules, now: Timestamp) -> i32 {
        if rules.select == "Disabled" {
            return current;
        }
        let proposed = rules.policies.iter().map(|policy| {
            let start = self.at_start(current, policy, now);
            if policy.type_ == "Percent" {
                (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32
            } else {
                start.saturating_sub(policy.value)
            }
        });
        let chosen = if rules.select == "Min" { proposed.max() } else { proposed.min() };
        chosen.unwrap_or(i32::MAX)
    }

    /// The scale was changed.
    pub fn scaled(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        before: i32,
        after: i32,
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        // What is removed slows what is added and the other way round, so both are kept as long as any rule looks back.
        let longest = Rules::up(behavior)
            .longest_period()
            .max(Rules::down(behavior, SignedDuration::ZERO).longest_period());
        let cutoff = ago(now, longest);
        self.added.retain(|(_, at)| *at >= cutoff);
        self.removed.retain(|(_, at)| *at >= cutoff);
        if after > before {
            self.added.push((after - before, now));
        } else {
            self.removed.push((before - after, now));
        }
    }
}

/// The bounds that hold without rules.
fn within_bounds(bounds: Bounds, wanted: i32) -> (i32, Shown) {
    let rate = bounds.current.saturating_mul(2).max(SCALE_UP_MIN);
    let (most, why) = if bounds.max > rate { (rate, TOO_FAST_UP) } else { (bounds.max, TOO_MANY) };
    if wanted < bounds.min {
        (bounds.min, TOO_FEW)
    } else if wanted > most {
        (most, why)
    } else {
        (wanted, WITHIN)
    }
}
