//! The applied state on disk, behind the log: versions of keys in [`segments`], everything else with the table of segments in sled
//! ([`sled_state`]), and now and then a [`snapshot_file`] that can be relied on after a power cut. [`writer`] is the thread that keeps them up to
//! date. Never here: the log, which is the truth.

pub mod segments;
pub mod sled_state;
pub mod snapshot_file;
pub mod writer;
