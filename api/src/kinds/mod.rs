//! Defaulting and validation, one file a kind.
