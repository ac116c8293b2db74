//! Writes a fresh bbolt file from sorted pairs, page after page, without going back: it can go into a pipe.
//!
//! The meta pages come first but name pages that come last. So the content is gone through twice: [`layout`] finds out where everything
//! will be, [`write`] writes. In memory are one page and the first key of each leaf.

use std::io::{self, Write};

use super::format::{
    BRANCH, BRANCH_ELEMENT_BYTES, BUCKET_BYTES, COUNT_FOLLOWS, FREELIST, HEADER_BYTES, IS_BUCKET, LEAF,
    LEAF_ELEMENT_BYTES, META, META_BYTES, Meta, PageHeader,
};

/// The page size of the files written: that of x86-64, which any bbolt reads.
pub(super) const PAGE_BYTES: usize = 4096;
/// A bucket no larger than this lies inside the element that names it; bbolt's rule.
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;
const FIRST_META: u64 = 0;
const SECOND_META: u64 = 1;
const FREELIST_PAGE: u64 = 2;
const FIRST_FREE_PAGE: u64 = 3;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Where it goes to refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Keys or buckets did not come in ascending order, or were empty.
    #[error("the keys of a snapshot file are not in ascending order; this is a fault of the program")]
    Order,
    /// A key or value is too large for the format.
    #[error("a key or value is too large for a snapshot file")]
    TooLarge,
    /// The content was not the same when it was gone through again.
    #[error("the content of a snapshot file changed while it was written; this is a fault of the program")]
    Changed,
}

/// Where things lie in a file that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    root: u64,
    page_count: u64,
}

impl Layout {
    /// Bytes of the whole file.
    pub fn size_bytes(&self) -> u64 {
        self.page_count * PAGE_BYTES as u64
    }
}

/// Goes through the content once to find the layout.
///
/// # Errors
/// See [`WriteError`].
pub fn layout(fill: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) -> Result<Layout, WriteError> {
    let mut nowhere = io::sink();
    let mut writer = Writer::new(&mut nowhere);
    fill(&mut writer)?;
    writer.finish()
}

/// Writes the file; `fill` gives the same content as it gave for the layout.
///
/// # Errors
/// See [`WriteError`].
pub fn write(
    layout: Layout,
    out: &mut dyn Write,
    fill: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    for id in [FIRST_META, SECOND_META] {
        let meta = Meta {
            page_size: PAGE_BYTES as u32,
            root: layout.root,
            freelist: FREELIST_PAGE,
            page_count: layout.page_count,
            transaction: id,
        };
        let mut page = [0; PAGE_BYTES];
        page[..HEADER_BYTES].copy_from_slice(&PageHeader { id, flags: META, count: 0, overflow: 0 }.encode());
        page[HEADER_BYTES..HEADER_BYTES + META_BYTES].copy_from_slice(&meta.encode());
        out.write_all(&page)?;
    }
    let mut page = [0; PAGE_BYTES];
    let freelist = PageHeader { id: FREELIST_PAGE, flags: FREELIST, count: 0, overflow: 0 };
    page[..HEADER_BYTES].copy_from_slice(&freelist.encode());
    out.write_all(&page)?;
    let mut writer = Writer::new(out);
    fill(&mut writer)?;
    if writer.finish()? != layout {
        return Err(WriteError::Changed);
    }
    Ok(())
}

/// Takes buckets and their pairs, in order.
pub struct Writer<'a> {
    pages: Pages<'a>,
    root: Tree,
    /// The bucket being filled.
    bucket: Option<(Vec<u8>, Tree)>,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self { pages: Pages { out, next: FIRST_FREE_PAGE }, root: Tree::default(), bucket: None }
    }

    /// Begins a bucket; buckets come in ascending order of names.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.end_bucket()?;
        self.bucket = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    /// Adds a pair to the bucket; pairs come in ascending order of keys.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let (_, tree) = self.bucket.as_mut().ok_or(WriteError::Order)?;
        tree.put(&mut self.pages, 0, key, value)
    }

    fn end_bucket(&mut self) -> Result<(), WriteError> {
        let Some((name, tree)) = self.bucket.take() else { return Ok(()) };
        let mut value = vec![0; BUCKET_BYTES];
        if tree.branches.is_empty() && tree.leaf.size_bytes() <= INLINE_BYTES_MAX {
            // Root 0: the page follows, inside the value.
            value.extend_from_slice(&tree.leaf.encode(0, 0));
        } else {
            let root = tree.finish(&mut self.pages)?;
            value[..8].copy_from_slice(&root.to_le_bytes());
        }
        self.root.put(&mut self.pages, IS_BUCKET, &name, &value)
    }

    fn finish(mut self) -> Result<Layout, WriteError> {
        self.end_bucket()?;
        let root = self.root.finish(&mut self.pages)?;
        Ok(Layout { root, page_count: self.pages.next })
    }
}

/// Where pages go, in order of their numbers.
struct Pages<'a> {
    out: &'a mut dyn Write,
    next: u64,
}

impl Pages<'_> {
    /// Writes a page, over as many places as it needs. `encode` is told its number and overflow.
    fn write(
        &mut self,
        size_bytes: usize,
        encode: impl FnOnce(u64, u32) -> Vec<u8>,
    ) -> Result<u64, WriteError> {
        let count = size_bytes.div_ceil(PAGE_BYTES);
        let overflow = u32::try_from(count - 1).map_err(|_| WriteError::TooLarge)?;
        let id = self.next;
        let mut bytes = encode(id, overflow);
        bytes.resize(count * PAGE_BYTES, 0);
        self.out.write_all(&bytes)?;
        self.next += count as u64;
        Ok(id)
    }
}

/// A tree being written: leaves as they fill, then the branches above them.
#[derive(Default)]
struct Tree {
    leaf: Leaf,
    /// First key and page of each leaf.
    branches: Vec<(Vec<u8>, u64)>,
    last_key: Vec<u8>,
}

impl Tree {
    fn put(&mut self, pages: &mut Pages<'_>, flags: u32, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        // Also refuses an empty key.
        if key <= self.last_key.as_slice() {
            return Err(WriteError::Order);
        }
        key.clone_into(&mut self.last_key);
        let more = LEAF_ELEMENT_BYTES + key.len() + value.len();
        let is_full = self.leaf.size_bytes() + more > PAGE_BYTES
            || self.leaf.elements.len() + 1 >= usize::from(COUNT_FOLLOWS);
        if is_full && !self.leaf.elements.is_empty() {
            self.write_leaf(pages)?;
        }
        self.leaf.put(flags, key, value)
    }

    fn write_leaf(&mut self, pages: &mut Pages<'_>) -> Result<(), WriteError> {
        let leaf = std::mem::take(&mut self.leaf);
        let id = pages.write(leaf.size_bytes(), |id, overflow| leaf.encode(id, overflow))?;
        self.branches.push((leaf.first_key().to_vec(), id));
        Ok(())
    }

    /// Writes what is left, and the branches; the root's page.
    fn finish(mut self, pages: &mut Pages<'_>) -> Result<u64, WriteError> {
        if !self.leaf.elements.is_empty() || self.branches.is_empty() {
            self.write_leaf(pages)?;
        }
        let mut level = self.branches;
        while level.len() > 1 {
            let mut above = Vec::new();
            let mut rest = level.as_slice();
            while !rest.is_empty() {
                let (here, later) = rest.split_at(branch_length(rest));
                let size = HEADER_BYTES
                    + here.iter().map(|(key, _)| BRANCH_ELEMENT_BYTES + key.len()).sum::<usize>();
                let id = pages.write(size, |id, overflow| encode_branch(here, id, overflow))?;
                above.push((here[0].0.clone(), id));
                rest = later;
            }
            level = above;
        }
        level.first().map(|(_, id)| *id).ok_or(WriteError::Order)
    }
}

/// How many children go into the next branch: as many as fit, two at least so that the tree gets narrower, and none left alone behind it.
fn branch_length(children: &[(Vec<u8>, u64)]) -> usize {
    let mut size = HEADER_BYTES;
    let mut fitting = 0;
    for (key, _) in children.iter().take(usize::from(COUNT_FOLLOWS) - 1) {
        size += BRANCH_ELEMENT_BYTES + key.len();
        if size > PAGE_BYTES {
            break;
        }
        fitting += 1;
    }
    let length = fitting.max(2).min(children.len());
    match children.len() - length {
        1 if length > 2 => length - 1,
        1 => length + 1,
        _ => length,
    }
}

fn encode_branch(children: &[(Vec<u8>, u64)], id: u64, overflow: u32) -> Vec<u8> {
    let header = PageHeader { id, flags: BRANCH, count: children.len() as u16, overflow };
    let mut bytes = header.encode().to_vec();
    // An element's position counts from the element itself.
    let mut keys_before = 0;
    for (place, (key, page)) in children.iter().enumerate() {
        let position = (children.len() - place) * BRANCH_ELEMENT_BYTES + keys_before;
        bytes.extend_from_slice(&(position as u32).to_le_bytes());
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&page.to_le_bytes());
        keys_before += key.len();
    }
    children.iter().for_each(|(key, _)| bytes.extend_from_slice(key));
    bytes
}

/// A leaf being filled.
#[derive(Default)]
struct Leaf {
    /// Flags, bytes of the key, bytes of the value.
    elements: Vec<(u32, u32, u32)>,
    /// Keys and values, one after the other.
    data: Vec<u8>,
}

impl Leaf {
    fn put(&mut self, flags: u32, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| WriteError::TooLarge);
        let element = (flags, length(key)?, length(value)?);
        self.elements.push(element);
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.elements.len() * LEAF_ELEMENT_BYTES + self.data.len()
    }

    fn first_key(&self) -> &[u8] {
        self.elements.first().map_or(&[], |(_, key_length, _)| &self.data[..*key_length as usize])
    }

    fn encode(&self, id: u64, overflow: u32) -> Vec<u8> {
        let header = PageHeader { id, flags: LEAF, count: self.elements.len() as u16, overflow };
        let mut bytes = Vec::with_capacity(self.size_bytes());
        bytes.extend_from_slice(&header.encode());
        let mut data_before = 0;
        for (place, (flags, key_length, value_length)) in self.elements.iter().enumerate() {
            let position = (self.elements.len() - place) * LEAF_ELEMENT_BYTES + data_before;
            for number in [*flags, position as u32, *key_length, *value_length] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            data_before += (*key_length + *value_length) as usize;
        }
        bytes.extend_from_slice(&self.data);
        bytes
    }
}
