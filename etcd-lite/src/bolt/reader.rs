//! Reads a bbolt file and checks it while reading. The file may be anything: nothing in it makes the reader panic, go round in circles, or
//! take more memory than one page of the file, with its overflow, has bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{
    BRANCH, BRANCH_ELEMENT_BYTES, BUCKET_BYTES, COUNT_FOLLOWS, FREELIST, HEADER_BYTES, IS_BUCKET, LEAF,
    LEAF_ELEMENT_BYTES, META_BYTES, Meta, MetaError, NO_FREELIST, PageHeader, u32_at, u64_at,
};

/// A tree of the largest file that can be written is far less deep.
const DEPTH_MAX: usize = 32;
const PAGE_BYTES_MIN: u32 = 1024;
const PAGE_BYTES_MAX: u32 = 65536;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Neither meta page is good.
    #[error("{0}")]
    Meta(&'static str),
    /// A page is not as it should be.
    #[error("page {page}: {what}")]
    Page {
        /// The page's number.
        page: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Whoever takes the content has refused it.
    #[error("{0}")]
    Refused(String),
}

fn damaged<T>(page: u64, what: impl Into<String>) -> Result<T, BoltError> {
    Err(BoltError::Page { page, what: what.into() })
}

/// A piece of the content, in order of buckets and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A bucket begins.
    Bucket(&'a [u8]),
    /// A pair of the bucket.
    Pair(&'a [u8], &'a [u8]),
}

/// An open file with a good meta page.
pub struct Reader {
    file: File,
    meta: Meta,
    page_bytes: u64,
}

impl Reader {
    /// Finds the meta page. A file may have more bytes than pages, such as a checksum behind them, never fewer.
    ///
    /// # Errors
    /// The file is no bbolt file, or its end is missing.
    pub fn open(file: File) -> Result<Self, BoltError> {
        let file_bytes = file.metadata()?.len();
        let read = |offset: u64| -> Result<Result<Meta, MetaError>, BoltError> {
            let mut bytes = [0; HEADER_BYTES + META_BYTES];
            match file.read_exact_at(&mut bytes, offset) {
                Ok(()) => Ok(Meta::decode(&bytes[HEADER_BYTES..])),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(MetaError::Invalid)),
                Err(error) => Err(error.into()),
            }
        };
        let first = read(0)?;
        // Where the second one lies depends on the page size. If the first is damaged, it lies at the size that it has itself.
        let sizes: Vec<u32> = match first {
            Ok(meta) => vec![meta.page_size],
            Err(_) => (PAGE_BYTES_MIN.ilog2()..=PAGE_BYTES_MAX.ilog2()).map(|power| 1 << power).collect(),
        };
        let mut found: Vec<Meta> = first.into_iter().collect();
        for page_bytes in sizes {
            found.extend(read(u64::from(page_bytes))?.ok().filter(|meta| meta.page_size == page_bytes));
        }
        found.retain(|meta| {
            meta.page_size.is_power_of_two() && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&meta.page_size)
        });
        let Some(meta) = found.into_iter().max_by_key(|meta| meta.transaction) else {
            return Err(BoltError::Meta(match first {
                Err(MetaError::Version) => "version mismatch",
                Err(MetaError::Checksum) => "checksum error",
                Ok(_) | Err(MetaError::Invalid) => "invalid database",
            }));
        };
        let page_bytes = u64::from(meta.page_size);
        if meta.page_count > file_bytes / page_bytes {
            return Err(BoltError::Meta("file size too small: the end of the file is missing"));
        }
        Ok(Self { file, meta, page_bytes })
    }

    /// Bytes of all pages.
    pub fn size_bytes(&self) -> u64 {
        self.meta.page_count * self.page_bytes
    }

    /// Gives the whole content to `each`, in order, checking every page on the way and that every page is either used once or free.
    ///
    /// # Errors
    /// The first fault found, or what `each` refused.
    pub fn read(&self, each: &mut dyn FnMut(Item<'_>) -> Result<(), String>) -> Result<(), BoltError> {
        let mut walk = Walk { reader: self, used: PageSet::new(self.meta.page_count), each };
        for meta in [0, 1] {
            walk.used.take(meta)?;
        }
        let free = self.free_pages(&mut walk.used)?;
        let mut names = Order::default();
        walk.tree(self.meta.root, 0, &mut names, &mut |walk, element, order| {
            if element.flags & IS_BUCKET == 0 {
                return damaged(element.page, "a pair outside all buckets");
            }
            order.check(element.page, element.key)?;
            walk.bucket(&element)
        })?;
        let Some(free) = free else { return Ok(()) };
        for page in 0..self.meta.page_count {
            match (walk.used.contains(page), free.contains(page)) {
                (true, true) => return damaged(page, "reachable freed"),
                (false, false) => return damaged(page, "unreachable unfreed"),
                _ => {}
            }
        }
        Ok(())
    }

    /// The pages the freelist names, or `None` when the file has no freelist.
    fn free_pages(&self, used: &mut PageSet) -> Result<Option<PageSet>, BoltError> {
        let id = self.meta.freelist;
        if id == NO_FREELIST {
            return Ok(None);
        }
        let (header, page) = self.page(id, used)?;
        if header.flags != FREELIST {
            return damaged(id, "is not the freelist");
        }
        let (count, first) = match header.count {
            COUNT_FOLLOWS => (u64_at(&page, HEADER_BYTES).unwrap_or(u64::MAX), 1),
            count => (u64::from(count), 0),
        };
        let mut free = PageSet::new(self.meta.page_count);
        let numbers = page.get(HEADER_BYTES..).unwrap_or_default().chunks_exact(8).skip(first);
        if count > numbers.len() as u64 {
            return damaged(id, "the freelist is longer than its page");
        }
        for number in numbers.take(count as usize) {
            free.take(u64_at(number, 0).unwrap_or(u64::MAX))?;
        }
        Ok(Some(free))
    }

    /// Reads a page with its overflow, which nothing else may use.
    fn page(&self, id: u64, used: &mut PageSet) -> Result<(PageHeader, Vec<u8>), BoltError> {
        used.take(id)?;
        let mut head = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut head, id * self.page_bytes)?;
        let Some(header) = PageHeader::decode(&head) else { return damaged(id, "has no header") };
        if header.id != id {
            return damaged(id, format!("self identifies as {}", header.id));
        }
        for more in 1..=u64::from(header.overflow) {
            used.take(id + more)?;
        }
        // All of these pages are within the file, so this is no more than the file has.
        let mut bytes = vec![0; ((u64::from(header.overflow) + 1) * self.page_bytes) as usize];
        self.file.read_exact_at(&mut bytes, id * self.page_bytes)?;
        Ok((header, bytes))
    }
}

/// One element of a leaf.
struct Element<'a> {
    page: u64,
    flags: u32,
    key: &'a [u8],
    value: &'a [u8],
}

type EachElement<'e, 'w> = dyn FnMut(&mut Walk<'w>, Element<'_>, &mut Order) -> Result<(), BoltError> + 'e;

struct Walk<'a> {
    reader: &'a Reader,
    used: PageSet,
    each: &'a mut dyn FnMut(Item<'_>) -> Result<(), String>,
}

impl<'a> Walk<'a> {
    /// Visits the leaves below a page in order.
    fn tree(
        &mut self,
        id: u64,
        depth: usize,
        order: &mut Order,
        each: &mut EachElement<'_, 'a>,
    ) -> Result<(), BoltError> {
        if depth > DEPTH_MAX {
            return damaged(id, "the tree is too deep");
        }
        let (header, page) = self.reader.page(id, &mut self.used)?;
        match header.flags {
            LEAF => self.leaf(id, &header, &page, order, each),
            BRANCH => {
                for place in 0..usize::from(header.count) {
                    let at = HEADER_BYTES + place * BRANCH_ELEMENT_BYTES;
                    let parts = u32_at(&page, at).zip(u32_at(&page, at + 4)).zip(u64_at(&page, at + 8));
                    let Some(((position, key_length), child)) = parts else {
                        return damaged(id, "an element lies outside the page");
                    };
                    let Some(key) = slice(&page, at, position, 0, key_length) else {
                        return damaged(id, "a key lies outside the page");
                    };
                    order.check_branch(id, key)?;
                    self.tree(child, depth + 1, order, each)?;
                }
                Ok(())
            }
            other => damaged(id, format!("invalid type: unknown<{other:02x}>")),
        }
    }

    fn leaf(
        &mut self,
        id: u64,
        header: &PageHeader,
        page: &[u8],
        order: &mut Order,
        each: &mut EachElement<'_, 'a>,
    ) -> Result<(), BoltError> {
        for place in 0..usize::from(header.count) {
            let at = HEADER_BYTES + place * LEAF_ELEMENT_BYTES;
            let number = |offset: usize| u32_at(page, at + offset);
            let (Some(flags), Some(position), Some(key_length), Some(value_length)) =
                (number(0), number(4), number(8), number(12))
            else {
                return damaged(id, "an element lies outside the page");
            };
            let key = slice(page, at, position, 0, key_length);
            let value = slice(page, at, position, key_length, value_length);
            let (Some(key), Some(value)) = (key, value) else {
                return damaged(id, "a key or value lies outside the page");
            };
            each(self, Element { page: id, flags, key, value }, order)?;
        }
        Ok(())
    }

    /// Visits a bucket, which is an element of the root's tree.
    fn bucket(&mut self, bucket: &Element<'_>) -> Result<(), BoltError> {
        let Some(root) = u64_at(bucket.value, 0).filter(|_| bucket.value.len() >= BUCKET_BYTES) else {
            return damaged(bucket.page, "a bucket is cut short");
        };
        (self.each)(Item::Bucket(bucket.key)).map_err(BoltError::Refused)?;
        let mut order = Order::default();
        let mut each = |walk: &mut Self, element: Element<'_>, order: &mut Order| {
            if element.flags & IS_BUCKET != 0 {
                return damaged(element.page, "a bucket inside a bucket, which etcd has none of");
            }
            order.check(element.page, element.key)?;
            (walk.each)(Item::Pair(element.key, element.value)).map_err(BoltError::Refused)
        };
        if root != 0 {
            return self.tree(root, 0, &mut order, &mut each);
        }
        let page = &bucket.value[BUCKET_BYTES..];
        match PageHeader::decode(page) {
            Some(header) if header.flags == LEAF => {
                self.leaf(bucket.page, &header, page, &mut order, &mut each)
            }
            _ => damaged(bucket.page, "an inline bucket is no leaf"),
        }
    }
}

/// `length` bytes of an element's data; `position` counts from the element at `at`.
fn slice(page: &[u8], at: usize, position: u32, skip: u32, length: u32) -> Option<&[u8]> {
    let start = at.checked_add(position as usize)?.checked_add(skip as usize)?;
    page.get(start..start.checked_add(length as usize)?)
}

/// Sees that the keys of one tree ascend, and that branches announce no key above what follows.
#[derive(Default)]
struct Order {
    last: Vec<u8>,
    /// The lowest key that may follow.
    announced: Vec<u8>,
}

impl Order {
    fn check(&mut self, page: u64, key: &[u8]) -> Result<(), BoltError> {
        if key <= self.last.as_slice() || key < self.announced.as_slice() {
            return damaged(page, "keys are out of order");
        }
        key.clone_into(&mut self.last);
        Ok(())
    }

    fn check_branch(&mut self, page: u64, key: &[u8]) -> Result<(), BoltError> {
        if (!self.last.is_empty() && key <= self.last.as_slice()) || key < self.announced.as_slice() {
            return damaged(page, "keys are out of order");
        }
        key.clone_into(&mut self.announced);
        Ok(())
    }
}

/// A set of page numbers below a limit that lies within the file.
struct PageSet {
    limit: u64,
    words: Vec<u64>,
}

impl PageSet {
    fn new(limit: u64) -> Self {
        Self { limit, words: vec![0; limit.div_ceil(64) as usize] }
    }

    fn contains(&self, page: u64) -> bool {
        self.words[(page / 64) as usize] & (1 << (page % 64)) != 0
    }

    /// Adds a page that must be below the limit and not in the set yet.
    fn take(&mut self, page: u64) -> Result<(), BoltError> {
        if page >= self.limit {
            return damaged(page, format!("out of bounds: {}", self.limit));
        }
        if self.contains(page) {
            return damaged(page, "multiple references");
        }
        self.words[(page / 64) as usize] |= 1 << (page % 64);
        Ok(())
    }
}
