//! A store goes into a file and comes back the same.

use std::io::{Seek, Write};

use coracle_proto::etcdserverpb::{
    AuthRoleAddRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest,
};
use coracle_proto::store::AuthUserAdd;
use etcd_lite_core::walk::{StateCopy, Walk};
use etcd_lite_core::{Command, Request, Store};

use super::*;
use crate::bolt::Reader;
use crate::member::MemberInfo;

fn put(key: &str, value: &str, lease: i64) -> Request {
    Request::Put(PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..Default::default()
    })
}

fn delete(key: &str) -> Request {
    Request::DeleteRange(DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() })
}

fn example() -> Store {
    let requests = [
        Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 100 }),
        Request::LeaseGrant(LeaseGrantRequest { id: -7, ttl: 200 }),
        put("a", "1", 7),
        put("b", "1", -7),
        put("a", "2", 0),
        delete("b"),
        put("c", "1", 7),
        put("b", "2", 0),
        Request::Compact(CompactionRequest { revision: 5, physical: true }),
        put("c", "2", 7),
        delete("a"),
        Request::AuthRoleAdd(AuthRoleAddRequest { name: "r".into() }),
        Request::AuthUserAdd(AuthUserAdd {
            name: "u".into(),
            password_hash: "hash".into(),
            no_password: false,
        }),
    ];
    let mut store = Store::new();
    for (index, request) in (1..).zip(requests) {
        store.apply(index, 3, &Command { id: index, request: Some(request) }).response.expect("applied");
    }
    store
}

fn content(store: &Store) -> Content {
    let (mut copy, mut walk) = (StateCopy::begin(store), Walk::Start);
    while walk != Walk::Done {
        copy.add(store, &mut walk).expect("copy");
    }
    let member = MemberInfo {
        id: 0xabc,
        name: "m".into(),
        peer_urls: vec!["http://x:1".into()],
        ..MemberInfo::default()
    };
    Content::new(copy, &[member])
}

fn file_of(store: &Store) -> std::fs::File {
    let content = content(store);
    let mut file = tempfile::tempfile().expect("file");
    let checksum = content.write(content.layout().expect("layout"), &mut file).expect("write");
    file.write_all(&checksum).and_then(|()| file.rewind()).expect("write");
    assert!(has_checksum(file.metadata().expect("metadata").len()));
    file
}

#[test]
fn a_store_comes_back_with_the_same_hashes() {
    let store = example();
    let imported = import(&Reader::open(file_of(&store)).expect("open")).expect("import");
    let restored = imported.into_store(1, 1).expect("store");
    assert_eq!(
        (restored.revision(), restored.compacted_revision(), restored.applied_index()),
        (store.revision(), store.compacted_revision(), 1)
    );
    for revision in 5..=store.revision() {
        assert_eq!(restored.hash(revision), store.hash(revision), "{revision}");
    }
    assert_eq!(restored.leases().collect::<Vec<_>>(), store.leases().collect::<Vec<_>>());
    let users =
        |store: &Store| store.auth().users().map(|(n, u)| (n.to_owned(), u.clone())).collect::<Vec<_>>();
    assert_eq!(users(&restored), users(&store));
    assert_eq!(restored.auth().revision(), store.auth().revision());
    assert_eq!(content(&restored).hash(), content(&store).hash());
}

#[test]
fn an_empty_store_comes_back() {
    let imported = import(&Reader::open(file_of(&Store::new())).expect("open")).expect("import");
    let restored = imported.into_store(0, 0).expect("store");
    assert_eq!(restored.hash_all(), Store::new().hash_all());
}

#[test]
fn a_raised_revision_is_compacted_and_never_overflows() {
    let mut imported = import(&Reader::open(file_of(&example())).expect("open")).expect("import");
    imported.bump_revision(1000).expect("bump");
    let store = imported.into_store(1, 1).expect("store");
    assert_eq!(
        (store.revision(), store.compacted_revision()),
        (example().revision() + 1000, store.revision())
    );
    assert_eq!(store.key_count(), example().key_count());
    let mut imported = import(&Reader::open(file_of(&example())).expect("open")).expect("import");
    assert!(imported.bump_revision(u64::MAX).is_err());
}
