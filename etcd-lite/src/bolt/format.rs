//! The pieces that reader and writer share: page headers, elements, the meta page.

/// Bytes of a page's header.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of a leaf's element, without key and value.
pub(super) const LEAF_ELEMENT_BYTES: usize = 16;
/// Bytes of a branch's element, without key.
pub(super) const BRANCH_ELEMENT_BYTES: usize = 16;
/// Bytes of a bucket's value before the inline page.
pub(super) const BUCKET_BYTES: usize = 16;
/// Bytes of the meta page that count, with the checksum.
pub(super) const META_BYTES: usize = 64;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREELIST: u16 = 0x10;

/// The flag of a leaf's element that is a bucket.
pub(super) const IS_BUCKET: u32 = 0x01;

/// The freelist's page number in a file without a freelist.
pub(super) const NO_FREELIST: u64 = u64::MAX;
/// A count that says: the count is the first number of the page.
pub(super) const COUNT_FOLLOWS: u16 = u16::MAX;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// A page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    /// Pages that belong to this one, beyond the first.
    pub(super) overflow: u32,
}

impl PageHeader {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, 0)?,
            flags: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// What the meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size: u32,
    pub(super) root: u64,
    pub(super) freelist: u64,
    /// All pages have lower numbers.
    pub(super) page_count: u64,
    pub(super) transaction: u64,
}

/// Why a meta page does not count; the words are bbolt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaError {
    Invalid,
    Version,
    Checksum,
}

impl Meta {
    pub(super) fn encode(self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        // 12: flags, not used; 24: the root bucket's sequence, not used.
        bytes[16..24].copy_from_slice(&self.root.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.page_count.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.transaction.to_le_bytes());
        let checksum = fnv_1a(&bytes[..56]);
        bytes[56..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads what follows the header of a meta page.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        let number = |at: usize| u64_at(bytes, at).ok_or(MetaError::Invalid);
        if u32_at(bytes, 0) != Some(MAGIC) {
            return Err(MetaError::Invalid);
        }
        if u32_at(bytes, 4) != Some(VERSION) {
            return Err(MetaError::Version);
        }
        let covered = bytes.get(..56).ok_or(MetaError::Invalid)?;
        if number(56)? != fnv_1a(covered) {
            return Err(MetaError::Checksum);
        }
        Ok(Self {
            page_size: u32_at(bytes, 8).ok_or(MetaError::Invalid)?,
            root: number(16)?,
            freelist: number(32)?,
            page_count: number(40)?,
            transaction: number(48)?,
        })
    }
}

/// FNV-1a, 64 bits.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
