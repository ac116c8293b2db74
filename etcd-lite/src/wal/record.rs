//! What the log holds, as bytes: the records inside one frame. Pure.
//!
//! | Kind | Body | What |
//! | --- | --- | --- |
//! | 1 | version, cluster id, member id, segment number, index and term before it | begins every segment |
//! | 2 | term, vote, commit | what raft has to remember |
//! | 3 | index, term, entry kind, data | one log entry; it replaces every earlier one from its index on |
//! | 4 | index, term | the log starts anew after this position (a snapshot from the leader was installed) |
//!
//! Every record is its kind (1 byte), its body's length (4) and its body; numbers are little-endian, 8 bytes unless said otherwise.
//! Never here: checksums and files.

use bytes::{Buf, BufMut, Bytes};

/// Version of the format, in every segment's first record.
pub const FORMAT_VERSION: u32 = 1;

const SEGMENT: u8 = 1;
const STATE: u8 = 2;
const ENTRY: u8 = 3;
const RESTART: u8 = 4;

/// A place in the raft log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Log index; 0 is before the first entry.
    pub index: u64,
    /// Term of the entry at that index.
    pub term: u64,
}

/// What raft must find again after a restart, besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistentState {
    /// Current term.
    pub term: u64,
    /// Whom this member voted for in it, 0 for nobody.
    pub vote: u64,
    /// How far the log is known to be committed. May be behind the truth.
    pub commit: u64,
}

/// One entry of the raft log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// Log index, from 1.
    pub index: u64,
    /// Term of the leader that wrote it.
    pub term: u64,
    /// Raft's entry type: 0 for a command.
    pub kind: u8,
    /// The command; empty for the entry a new leader begins with.
    pub data: Bytes,
}

impl LogEntry {
    /// Where the entry is.
    pub fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term }
    }
}

/// Whose log this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Cluster id.
    pub cluster_id: u64,
    /// Member id.
    pub member_id: u64,
}

/// First record of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log.
    pub identity: Identity,
    /// Number of the segment, counted up from 1.
    pub number: u64,
    /// The last position before this segment.
    pub previous: LogPosition,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Beginning of a segment.
    Segment(SegmentHeader),
    /// Term, vote, commit.
    State(PersistentState),
    /// A log entry.
    Entry(LogEntry),
    /// The log starts anew after this position.
    Restart(LogPosition),
}

/// Records that passed their checksum but make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside a record.
    #[error("a record is cut short")]
    Short,
    /// A kind of record this build does not know.
    #[error("record kind {0} is unknown; the log was written by a newer build")]
    UnknownKind(u8),
    /// A format this build does not know.
    #[error("log format {0} is unknown; the log was written by a newer build")]
    UnknownVersion(u32),
}

fn put_header(to: &mut Vec<u8>, kind: u8, length: usize) {
    to.put_u8(kind);
    // Records are bounded by the request size limit, far below 4 GiB.
    to.put_u32_le(length as u32);
}

/// Appends a record to `to`.
pub fn encode(record: &Record, to: &mut Vec<u8>) {
    match record {
        Record::Segment(header) => {
            put_header(to, SEGMENT, 4 + 5 * 8);
            to.put_u32_le(FORMAT_VERSION);
            let SegmentHeader { identity, number, previous } = header;
            for value in [identity.cluster_id, identity.member_id, *number, previous.index, previous.term] {
                to.put_u64_le(value);
            }
        }
        Record::State(state) => encode_state(state, to),
        Record::Entry(entry) => encode_entry(entry, to),
        Record::Restart(position) => encode_restart(*position, to),
    }
}

/// Appends term, vote and commit to `to`.
pub fn encode_state(state: &PersistentState, to: &mut Vec<u8>) {
    put_header(to, STATE, 3 * 8);
    for value in [state.term, state.vote, state.commit] {
        to.put_u64_le(value);
    }
}

/// Appends an entry to `to`.
pub fn encode_entry(entry: &LogEntry, to: &mut Vec<u8>) {
    put_header(to, ENTRY, 2 * 8 + 1 + entry.data.len());
    to.put_u64_le(entry.index);
    to.put_u64_le(entry.term);
    to.put_u8(entry.kind);
    to.extend_from_slice(&entry.data);
}

/// Appends a new beginning of the log to `to`.
pub fn encode_restart(position: LogPosition, to: &mut Vec<u8>) {
    put_header(to, RESTART, 2 * 8);
    to.put_u64_le(position.index);
    to.put_u64_le(position.term);
}

/// Takes the first record off `from`; `None` at its end. An entry's data is a slice of `from`.
///
/// # Errors
/// See [`RecordError`].
pub fn decode(from: &mut Bytes) -> Result<Option<Record>, RecordError> {
    if from.is_empty() {
        return Ok(None);
    }
    if from.len() < 5 {
        return Err(RecordError::Short);
    }
    let kind = from.get_u8();
    let length = from.get_u32_le() as usize;
    if from.len() < length {
        return Err(RecordError::Short);
    }
    let mut body = from.split_to(length);
    let fixed = match kind {
        SEGMENT => 4 + 5 * 8,
        STATE => 3 * 8,
        ENTRY => 2 * 8 + 1,
        RESTART => 2 * 8,
        unknown => return Err(RecordError::UnknownKind(unknown)),
    };
    if body.len() < fixed {
        return Err(RecordError::Short);
    }
    let record = match kind {
        SEGMENT => {
            let version = body.get_u32_le();
            if version != FORMAT_VERSION {
                return Err(RecordError::UnknownVersion(version));
            }
            let identity = Identity { cluster_id: body.get_u64_le(), member_id: body.get_u64_le() };
            let number = body.get_u64_le();
            let previous = LogPosition { index: body.get_u64_le(), term: body.get_u64_le() };
            Record::Segment(SegmentHeader { identity, number, previous })
        }
        STATE => {
            let (term, vote, commit) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
            Record::State(PersistentState { term, vote, commit })
        }
        ENTRY => {
            let (index, term, kind) = (body.get_u64_le(), body.get_u64_le(), body.get_u8());
            Record::Entry(LogEntry { index, term, kind, data: body })
        }
        _ => Record::Restart(LogPosition { index: body.get_u64_le(), term: body.get_u64_le() }),
    };
    Ok(Some(record))
}

#[cfg(test)]
pub(crate) mod strategies {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn entry() -> impl Strategy<Value = LogEntry> {
        (any::<u64>(), any::<u64>(), 0..3u8, proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(index, term, kind, data)| LogEntry { index, term, kind, data: data.into() })
    }

    fn record() -> impl Strategy<Value = Record> {
        let numbers = any::<[u64; 5]>();
        prop_oneof![
            numbers.prop_map(|[cluster_id, member_id, number, index, term]| {
                Record::Segment(SegmentHeader {
                    identity: Identity { cluster_id, member_id },
                    number,
                    previous: LogPosition { index, term },
                })
            }),
            any::<[u64; 3]>()
                .prop_map(|[term, vote, commit]| Record::State(PersistentState { term, vote, commit })),
            entry().prop_map(Record::Entry),
            any::<[u64; 2]>().prop_map(|[index, term]| Record::Restart(LogPosition { index, term })),
        ]
    }

    pub(crate) fn records() -> impl Strategy<Value = Vec<Record>> {
        proptest::collection::vec(record(), 0..12)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_read_back_as_they_were_written(records in strategies::records()) {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| encode(record, &mut bytes));
            let mut bytes = Bytes::from(bytes);
            let mut read = Vec::new();
            while let Some(record) = decode(&mut bytes).expect("decodes") {
                read.push(record);
            }
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = Bytes::from(bytes);
            while let Ok(Some(_)) = decode(&mut bytes) {}
        }
    }
}
