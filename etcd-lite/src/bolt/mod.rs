//! bbolt files, the form of etcd's snapshots: reading one ([`Reader`]) and writing a fresh one ([`write`]). Buckets in the root, pairs in the
//! buckets; buckets in buckets, which etcd has none of, are refused.
//!
//! A file is pages of one size. Every page begins with a header: its number, its kind, how many elements it has, and over how many more
//! pages it goes on. Pages 0 and 1 are the meta pages, of which the one with a good checksum and the higher transaction counts. It names
//! the freelist and the root of a B+ tree whose leaves hold the buckets; each bucket is again a tree, or, when small, a page inside the
//! element that names it. Numbers are little-endian.
//! Never here: what the buckets mean.

mod format;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{BoltError, Item, Reader};
pub use writer::{Layout, WriteError, Writer, layout, write};
