//! One step of a history.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// An object's place: the store's folder of its resource (`pods`, `minions` for nodes), its namespace (empty if it has none), its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The folder below `/registry`.
    pub resource: String,
    /// The namespace; empty for objects without one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.resource, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.resource, self.name),
        }
    }
}

impl Key {
    /// A key by its parts.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Reads `/registry/RESOURCE/NAMESPACE/NAME` or `/registry/RESOURCE/NAME`; `None` for what is no built-in object (ranges of addresses, objects of
    /// custom resources).
    pub fn parse(key: &str) -> Option<Self> {
        let parts: Vec<&str> = key.strip_prefix("/registry/")?.split('/').collect();
        match parts.as_slice() {
            [resource, ..] if resource.contains('.') => None,
            [resource, name] => Some(Self::new(resource, "", name)),
            [resource, namespace, name] => Some(Self::new(resource, namespace, name)),
            _ => None,
        }
    }
}

/// An object as it is from this revision on, or its end.
#[derive(Clone, Debug)]
pub struct Change {
    /// The store's revision.
    pub revision: u64,
    /// When, from any fixed point; as near as the observer can tell.
    pub at: Duration,
    /// Which object.
    pub key: Key,
    /// The object; `None` when it was removed.
    pub object: Option<Value>,
}
