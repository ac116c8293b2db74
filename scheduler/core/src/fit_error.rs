//! Why a pod found no node, in upstream's words: `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
//! Owns the text and the per-node reasons behind it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::framework::Rejection;

/// Why no node will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    /// How many nodes there are.
    pub node_count: usize,
    /// What a plugin said before any node was looked at.
    pub pre_filter: Option<String>,
    /// What was said about each node.
    pub rejected: Vec<(Arc<str>, Rejection)>,
    /// Why the nodes that are not in `rejected` were not even looked at.
    pub absent_reason: Option<String>,
    /// The plugins that objected; a change that cannot change their mind does not wake the pod.
    pub plugins: BTreeSet<&'static str>,
    /// What preemption has to say.
    pub post_filter: Option<String>,
}

/// `0/3 nodes are available: 1 reason, 2 other reason.` with the reasons as upstream orders them: as text, number included.
pub(crate) fn histogram<'r>(
    node_count: usize,
    reasons: impl Iterator<Item = (Cow<'r, str>, usize)>,
) -> String {
    let mut counts: BTreeMap<Cow<'r, str>, usize> = BTreeMap::new();
    for (reason, count) in reasons {
        *counts.entry(reason).or_insert(0) += count;
    }
    let mut parts: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    let mut text = format!("0/{node_count} nodes are available:");
    if !parts.is_empty() {
        text.push_str(&format!(" {}.", parts.join(", ")));
    }
    text
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node_count == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        match &self.pre_filter {
            Some(message) => write!(f, "0/{} nodes are available: {message}.", self.node_count)?,
            None => {
                let looked_at = self.rejected.iter().flat_map(|(_, rejection)| &rejection.reasons);
                let looked_at = looked_at.map(|reason| (Cow::Borrowed(&**reason), 1));
                let absent = self.absent_reason.iter().map(|reason| {
                    (Cow::Borrowed(reason.as_str()), self.node_count.saturating_sub(self.rejected.len()))
                });
                let text =
                    histogram(self.node_count, looked_at.chain(absent.filter(|(_, count)| *count > 0)));
                f.write_str(&text)?;
            }
        }
        match &self.post_filter {
            Some(message) => write!(f, " {message}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_ordered_as_upstream_does() {
        let rejected = |node: &str, rejection| (Arc::from(node), rejection);
        let error = FitError {
            node_count: 3,
            rejected: vec![
                rejected("a", Rejection::resolvable("NodeResourcesFit", "Insufficient cpu")),
                rejected("b", Rejection::unresolvable("NodeUnschedulable", "node(s) were unschedulable")),
                rejected("c", Rejection::resolvable("NodeResourcesFit", "Insufficient cpu")),
            ],
            post_filter: Some("preemption: 0/3 nodes are available: 3 x.".into()),
            ..FitError::default()
        };
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. \
             preemption: 0/3 nodes are available: 3 x."
        );
        assert_eq!(FitError::default().to_string(), "no nodes available to schedule pods");
        let early = FitError { node_count: 2, pre_filter: Some("no claim".into()), ..FitError::default() };
        assert_eq!(early.to_string(), "0/2 nodes are available: no claim.");
    }
}
