//! The three patch formats besides server-side apply, over JSON values.
//!
//! A patch never checks the result: decoding, defaulting and validation come after.

pub mod json;
pub mod merge;
pub mod strategic;
