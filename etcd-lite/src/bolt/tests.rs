//! What is written is read; damage never does more than give an error.

use std::collections::BTreeMap;
use std::io::{Seek, Write};

use proptest::prelude::*;

use super::*;

type Content = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn encode(content: &Content) -> Vec<u8> {
    let fill = |writer: &mut Writer<'_>| {
        for (name, pairs) in content {
            writer.bucket(name)?;
            for (key, value) in pairs {
                writer.put(key, value)?;
            }
        }
        Ok(())
    };
    let layout = layout(fill).expect("layout");
    let mut bytes = Vec::new();
    write(layout, &mut bytes, fill).expect("write");
    assert_eq!(bytes.len() as u64, layout.size_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Content, BoltError> {
    let mut file = tempfile::tempfile().expect("file");
    file.write_all(bytes).and_then(|()| file.rewind()).expect("write");
    let mut content = Content::new();
    let mut bucket = Vec::new();
    Reader::open(file)?.read(&mut |item| {
        match item {
            Item::Bucket(name) => {
                bucket = name.to_vec();
                content.insert(bucket.clone(), BTreeMap::new());
            }
            Item::Pair(key, value) => {
                content.entry(bucket.clone()).or_default().insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(())
    })?;
    Ok(content)
}

fn pairs(count: usize, value_bytes: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..count).map(|i| (format!("key{i:08}").into_bytes(), vec![i as u8; value_bytes])).collect()
}

fn sample() -> Content {
    BTreeMap::from([
        (b"deep".to_vec(), pairs(40_000, 20)),
        (b"empty".to_vec(), BTreeMap::new()),
        (b"inline".to_vec(), pairs(3, 5)),
        (b"large".to_vec(), pairs(3, 100_000)),
    ])
}

fn content() -> impl Strategy<Value = Content> {
    let bytes = |most: usize| prop::collection::vec(any::<u8>(), 0..most);
    let key = prop::collection::vec(any::<u8>(), 1..40);
    let value = prop_oneof![8 => bytes(60), 1 => bytes(9000)];
    let bucket = prop::collection::btree_map(key.clone(), value, 0..150);
    prop::collection::btree_map(key, bucket, 0..6)
}

#[test]
fn small_large_many_and_no_pairs_come_back() {
    assert_eq!(decode(&encode(&sample())).expect("read"), sample());
    assert_eq!(decode(&encode(&Content::new())).expect("read"), Content::new());
}

#[test]
fn keys_out_of_order_are_not_written() {
    for names in [["b", "a"], ["a", "a"]] {
        let result = layout(|writer| names.iter().try_for_each(|name| writer.bucket(name.as_bytes())));
        assert!(matches!(result, Err(WriteError::Order)), "{names:?}");
    }
    let result = layout(|writer| {
        writer.bucket(b"a")?;
        writer.put(b"", b"empty key")
    });
    assert!(matches!(result, Err(WriteError::Order)));
}

#[test]
fn the_second_meta_page_stands_in_for_the_first() {
    let mut bytes = encode(&sample());
    bytes[20] ^= 1;
    assert_eq!(decode(&bytes).expect("read"), sample());
    bytes[4096 + 20] ^= 1;
    assert_eq!(decode(&bytes).expect_err("both are bad").to_string(), "version mismatch");
}

#[test]
fn a_file_without_its_end_is_refused() {
    let bytes = encode(&sample());
    for length in [0, 10, 5000, bytes.len() - 1] {
        assert!(decode(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_tree_that_leads_back_to_itself_is_refused() {
    let mut bytes = encode(&sample());
    // The root of the deep bucket is a branch; all its children become the branch itself.
    let page = (3..bytes.len() / 4096).find(|page| bytes[page * 4096 + 8] == 1).expect("a branch");
    let (id, at) = ((page as u64).to_le_bytes(), page * 4096);
    bytes[at + 16 + 8..at + 16 + 16].copy_from_slice(&id);
    let error = decode(&bytes).expect_err("a circle").to_string();
    assert!(error.contains("multiple references"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read(content in content()) {
        prop_assert_eq!(decode(&encode(&content)).expect("read"), content);
    }

    #[test]
    fn damage_gives_an_error_or_content_and_never_a_panic(
        content in content(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..8),
        in_headers in any::<bool>(),
    ) {
        let mut bytes = encode(&content);
        let length = bytes.len();
        for (place, bit) in flips {
            // Most damage is to values; what steers the reader is at the head of the pages.
            let place = if in_headers {
                place.index(length / 4096) * 4096 + place.index(96)
            } else {
                place.index(length)
            };
            bytes[place] ^= 1 << bit;
        }
        // Only that it ends matters.
        let _ = decode(&bytes);
    }
}
