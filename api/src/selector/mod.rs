//! What a list or a controller selects: by labels ([`LabelSelector`]) or by fields ([`FieldSelector`]).

mod fields;
mod labels;
pub mod node;

pub use fields::{FieldRequirement, FieldSelector};
pub use labels::{LabelRequirement, LabelSelector, Operator};

/// Why a text or an object is not a selector; the message is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);
