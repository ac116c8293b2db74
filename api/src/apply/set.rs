//! Sets of fields, as `FieldsV1` writes them.
//!
//! Worked example: `{"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}` has two members, `.metadata.labels` and
//! `.metadata.labels.app`; `.metadata` is only on the way to them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::field::go_quote;

/// A set of field paths, held as a tree. An element of a path is kept in its written form: `f:name` for a field,
/// `k:{"name":"web"}` for a list item with keys, `v:"x"` for an item that is its own key, `i:0` for a place in a list.
///
/// Most sets are small and come into being in order: a sorted list costs one allocation where a map has its nodes of fixed size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// By element, each once.
    nodes: Vec<(String, Node)>,
}

/// What a set holds at and below one path element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) children: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl FieldSet {
    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn find(&self, element: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|(other, _)| other.as_str().cmp(element))
    }

    /// What the set holds at and below an element.
    pub(super) fn get(&self, element: &str) -> Option<&Node> {
        self.find(element).ok().map(|place| &self.nodes[place].1)
    }

    /// Puts a node in the place of what was there.
    pub(super) fn put(&mut self, element: String, node: Node) {
        match self.find(&element) {
            Ok(place) => self.nodes[place].1 = node,
            Err(place) => self.nodes.insert(place, (element, node)),
        }
    }

    /// The node of an element; an empty one if there was none.
    fn entry(&mut self, element: &str) -> &mut Node {
        let place = self.find(element).unwrap_or_else(|place| {
            self.nodes.insert(place, (element.to_owned(), Node::default()));
            place
        });
        &mut self.nodes[place].1
    }

    /// Adds the path.
    pub fn insert<'a>(&mut self, path: impl IntoIterator<Item = &'a str>) {
        let mut set = self;
        let mut path = path.into_iter().peekable();
        while let Some(element) = path.next() {
            let node = set.entry(element);
            if path.peek().is_none() {
                node.member = true;
                return;
            }
            set = &mut node.children;
        }
    }

    /// Whether the path is a member.
    pub fn contains<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> bool {
        let mut node = None;
        let mut set = self;
        for element in path {
            let Some(found) = set.get(element) else { return false };
            set = &found.children;
            node = Some(found);
        }
        node.is_some_and(|node| node.member)
    }

    /// Members of either set.
    pub fn union(self, other: FieldSet) -> FieldSet {
        if self.is_empty() {
            return other;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len() + other.nodes.len());
        let mut others = other.nodes.into_iter().peekable();
        for (element, mut ours) in self.nodes {
            while let Some(earlier) = others.next_if(|(other, _)| *other < element) {
                nodes.push(earlier);
            }
            if let Some((_, theirs)) = others.next_if(|(other, _)| *other == element) {
                ours.member |= theirs.member;
                ours.children = ours.children.union(theirs.children);
            }
            nodes.push((element, ours));
        }
        nodes.extend(others);
        Self { nodes }
    }

    /// Members of this set that are not members of the other.
    pub fn difference(mut self, other: &FieldSet) -> FieldSet {
        self.nodes.retain_mut(|(element, ours)| {
            if let Some(theirs) = other.get(element) {
                ours.member &= !theirs.member;
                ours.children = std::mem::take(&mut ours.children).difference(&theirs.children);
            }
            !ours.is_empty()
        });
        self
    }

    /// Members of both sets.
    pub fn intersection(mut self, other: &FieldSet) -> FieldSet {
        self.nodes.retain_mut(|(element, ours)| {
            let Some(theirs) = other.get(element) else { return false };
            ours.member &= theirs.member;
            ours.children = std::mem::take(&mut ours.children).intersection(&theirs.children);
            !ours.is_empty()
        });
        self
    }

    /// Drops the path and all below it.
    pub(super) fn remove_below(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let Ok(place) = self.find(first) else { return };
        let node = &mut self.nodes[place].1;
        node.children.remove_below(rest);
        if rest.is_empty() || node.is_empty() {
            self.nodes.remove(place);
        }
    }

    /// The same set with every field that lies on the way to a member made a member.
    pub(super) fn with_named_parents(mut self) -> FieldSet {
        for (element, node) in &mut self.nodes {
            node.member |= element.starts_with("f:");
            node.children = std::mem::take(&mut node.children).with_named_parents();
        }
        self
    }

    /// The members, as upstream prints paths: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(&mut String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut String, paths: &mut Vec<String>) {
        for (element, node) in &self.nodes {
            let length = prefix.len();
            push_element(prefix, element);
            if node.member {
                paths.push(prefix.clone());
            }
            node.children.collect_paths(prefix, paths);
            prefix.truncate(length);
        }
    }

    /// The `FieldsV1` object.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        for (element, node) in &self.nodes {
            let mut value = node.children.to_fields_v1();
            if node.member
                && !node.children.is_empty()
                && let Value::Object(children) = &mut value
            {
                children.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.clone(), value);
        }
        Value::Object(map)
    }

    /// Reads a `FieldsV1` object; the error says what is not one.
    pub fn from_fields_v1(value: &Value) -> Result<FieldSet, String> {
        let Value::Object(map) = value else { return Err(format!("{value} is not a set of fields")) };
        let mut set = FieldSet::default();
        for (element, below) in map {
            if element == "." {
                continue;
            }
            let children = FieldSet::from_fields_v1(below)?;
            let member = children.is_empty() || below.get(".").is_some();
            set.put(canonical_element(element)?, Node { member, children });
        }
        Ok(set)
    }
}

/// The element in the one form that this crate writes: keys sorted, JSON without spaces.
fn canonical_element(element: &str) -> Result<String, String> {
    let refused = || format!("{} is not the element of a field path", go_quote(element));
    let (kind, rest) = element.split_once(':').ok_or_else(refused)?;
    match kind {
        "f" => Ok(element.to_owned()),
        "k" | "v" => {
            let value: Value = serde_json::from_str(rest).map_err(|_| refused())?;
            if kind == "v" {
                return Ok(value_element(&value));
            }
            let keys = value.as_object().ok_or_else(refused)?;
            Ok(key_element(keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect()))
        }
        "i" => {
            rest.parse::<u32>().map_err(|_| refused())?;
            Ok(element.to_owned())
        }
        _ => Err(refused()),
    }
}

/// The element of a list item that is its own key.
pub(super) fn value_element(value: &Value) -> String {
    format!("v:{value}")
}

/// The element of a list item with keys.
pub(super) fn key_element(keys: BTreeMap<&str, Value>) -> String {
    let mut text = String::from("k:{");
    for (index, (key, value)) in keys.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&format!("{}:{value}", Value::from(*key)));
    }
    text.push('}');
    text
}

/// Appends an element as upstream prints it.
pub(super) fn push_element(text: &mut String, element: &str) {
    match element.split_once(':') {
        Some(("f", name)) => {
            text.push('.');
            text.push_str(name);
        }
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let printed: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            text.push_str(&format!("[{}]", printed.join(",")));
        }
        Some(("v", value)) => text.push_str(&format!("[={value}]")),
        Some((_, rest)) => text.push_str(&format!("[{rest}]")),
        None => text.push_str(element),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn written_form_and_printed_paths() {
        let mut set = FieldSet::default();
        set.insert(["f:spec", "f:containers", "k:{\"name\":\"web\"}"]);
        set.insert(["f:spec", "f:containers", "k:{\"name\":\"web\"}", "f:image"]);
        set.insert(["f:metadata", "f:finalizers", "v:\"x\""]);
        assert_eq!(
            set.to_fields_v1(),
            json!({"f:metadata": {"f:finalizers": {"v:\"x\"": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}}}}})
        );
        assert_eq!(
            set.paths(),
            vec![
                ".metadata.finalizers[=\"x\"]",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].image"
            ]
        );
        let spaced = json!({"k:{\"protocol\": \"TCP\", \"port\": 80}": {}});
        assert_eq!(
            FieldSet::from_fields_v1(&spaced).map(|set| set.paths()),
            Ok(vec!["[port=80,protocol=\"TCP\"]".to_owned()])
        );
        assert!(FieldSet::from_fields_v1(&json!({"x": {}})).is_err());
        assert!(FieldSet::from_fields_v1(&json!({"f:x": 1})).is_err());
    }

    pub(super) fn sets() -> impl Strategy<Value = FieldSet> {
        let element = prop::sample::select(vec!["f:a", "f:b", "k:{\"name\":\"x\"}", "v:1"]);
        prop::collection::vec(prop::collection::vec(element, 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.into_iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn fields_v1_round_trips(set in sets()) {
            prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()), Ok(set));
        }

        #[test]
        fn set_operations_are_those_of_sets_of_paths(one in sets(), other in sets()) {
            use std::collections::BTreeSet;
            let paths = |set: &FieldSet| set.paths().into_iter().collect::<BTreeSet<_>>();
            let (ours, theirs) = (paths(&one), paths(&other));
            prop_assert_eq!(paths(&one.clone().union(other.clone())), &ours | &theirs);
            prop_assert_eq!(paths(&one.clone().difference(&other)), &ours - &theirs);
            prop_assert_eq!(paths(&one.clone().intersection(&other)), &ours & &theirs);
            prop_assert!(one.clone().difference(&one).is_empty());
        }
    }
}
