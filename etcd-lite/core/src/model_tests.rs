//! The store against a naive model: a list of all writes that was ever made.
