//! The rules on the whole store: commands in, answers and records out.

use bytes::Bytes;
use coracle_proto::authpb::Permission;
use coracle_proto::authpb::permission::Type;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::store::{AuthAuthenticate, AuthUserAdd, AuthUserChangePassword, Caller};

use super::{AuthChange, by_member, on_behalf};
use crate::{Applied, Command, Request, Response, Store, StoreError};

struct Fixture(Store);

impl Fixture {
    fn apply(&mut self, request: Request) -> Applied {
        let index = self.0.applied_index() + 1;
        self.0.apply(index, 1, &Command { id: 0, request: Some(request) })
    }

    fn run(&mut self, request: Request) -> Result<(), StoreError> {
        self.apply(request).response.map(drop)
    }

    fn run_as(&mut self, user: &str, request: Request) -> Result<(), StoreError> {
        let caller = self.caller(user);
        self.run(on_behalf(Some(caller), request))
    }

    fn caller(&self, user: &str) -> Caller {
        Caller { user: user.into(), auth_revision: self.0.auth().revision() }
    }

    fn revision(&self) -> u64 {
        self.0.auth().revision()
    }

    /// Root, and alice who may read `/a/` and write `/a/w/`.
    fn enabled() -> Self {
        let mut fixture = Self(Store::new());
        for request in [
            add_user("root"),
            grant_role("root", "root"),
            add_user("alice"),
            add_role("reader"),
            grant("reader", Type::Read, "/a/", "/a0"),
            grant("reader", Type::Write, "/a/w/", "/a/w0"),
            grant_role("alice", "reader"),
            enable(),
        ] {
            fixture.run(request).expect("setup");
        }
        fixture
    }
}

fn add_user(name: &str) -> Request {
    Request::AuthUserAdd(AuthUserAdd {
        name: name.into(),
        password_hash: Bytes::from_static(b"$2a$"),
        no_password: false,
    })
}

fn delete_user(name: &str) -> Request {
    Request::AuthUserDelete(pb::AuthUserDeleteRequest { name: name.into() })
}

fn grant_role(user: &str, role: &str) -> Request {
    Request::AuthUserGrantRole(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
}

fn revoke_role(name: &str, role: &str) -> Request {
    Request::AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() })
}

fn add_role(name: &str) -> Request {
    Request::AuthRoleAdd(pb::AuthRoleAddRequest { name: name.into() })
}

fn delete_role(role: &str) -> Request {
    Request::AuthRoleDelete(pb::AuthRoleDeleteRequest { role: role.into() })
}

fn grant(role: &str, perm_type: Type, key: &'static str, end: &'static str) -> Request {
    Request::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
        name: role.into(),
        perm: Some(Permission { perm_type: perm_type.into(), key: key.into(), range_end: end.into() }),
    })
}

fn revoke(role: &str, key: &'static str, end: &'static str) -> Request {
    Request::AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
        role: role.into(),
        key: key.into(),
        range_end: end.into(),
    })
}

fn enable() -> Request {
    Request::AuthEnable(pb::AuthEnableRequest {})
}

fn disable() -> Request {
    Request::AuthDisable(pb::AuthDisableRequest {})
}

fn put(key: &'static str) -> Request {
    Request::Put(put_request(key))
}

fn put_request(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

fn txn(success: Vec<Op>) -> pb::TxnRequest {
    let success = success.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    pb::TxnRequest { success, ..Default::default() }
}

#[test]
fn enabling_needs_root_with_the_role_root() {
    let mut fixture = Fixture(Store::new());
    assert_eq!(fixture.revision(), 1);
    assert_eq!(fixture.run(enable()), Err(StoreError::RootUserMissing));
    fixture.run(add_user("root")).expect("added");
    assert_eq!(fixture.run(enable()), Err(StoreError::RootRoleMissing));
    fixture.run(grant_role("root", "root")).expect("the role root needs not be added");
    assert_eq!(fixture.revision(), 3);
    assert_eq!(fixture.apply(enable()).auth, [AuthChange::Enabled]);
    assert_eq!(fixture.revision(), 3, "enabling is no change of users and roles");
    assert_eq!(fixture.run_as("root", enable()), Ok(()), "again");
    assert_eq!(fixture.run(disable()), Err(StoreError::UserEmpty));
    assert_eq!(fixture.run_as("root", disable()), Ok(()));
    assert_eq!(fixture.revision(), 4);
    assert_eq!(fixture.run(disable()), Ok(()), "again");
    assert_eq!(fixture.revision(), 4);
}

#[test]
fn every_change_is_refused_with_its_own_reason() {
    let mut fixture = Fixture(Store::new());
    for (request, expected) in [
        (add_user(""), Err(StoreError::UserEmpty)),
        (add_user("u"), Ok(())),
        (add_user("u"), Err(StoreError::UserExists)),
        (add_role(""), Err(StoreError::RoleEmpty)),
        (add_role("r"), Ok(())),
        (add_role("r"), Err(StoreError::RoleExists)),
        (grant_role("x", "r"), Err(StoreError::UserNotFound)),
        (grant_role("u", "x"), Err(StoreError::RoleNotFound)),
        (revoke_role("u", "r"), Err(StoreError::RoleNotGranted)),
        (revoke_role("x", "r"), Err(StoreError::UserNotFound)),
        (grant("x", Type::Read, "a", ""), Err(StoreError::RoleNotFound)),
        (grant("r", Type::Read, "b", "a"), Err(StoreError::InvalidAuthManagement)),
        (grant("r", Type::Read, "", ""), Err(StoreError::InvalidAuthManagement)),
        (revoke("r", "a", ""), Err(StoreError::PermissionNotGranted)),
        (revoke("x", "a", ""), Err(StoreError::RoleNotFound)),
        (delete_role("x"), Err(StoreError::RoleNotFound)),
        (delete_user("x"), Err(StoreError::UserNotFound)),
        (
            Request::AuthUserChangePassword(AuthUserChangePassword {
                name: "x".into(),
                ..Default::default()
            }),
            Err(StoreError::UserNotFound),
        ),
        (
            Request::AuthAuthenticate(AuthAuthenticate { name: "u".into(), ..Default::default() }),
            Err(StoreError::AuthNotEnabled),
        ),
        (
            Request::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
                name: "r".into(),
                perm: None,
            }),
            Err(StoreError::PermissionNotGiven),
        ),
    ] {
        let before = fixture.revision();
        assert_eq!(fixture.run(request.clone()), expected, "{request:?}");
        assert_eq!(fixture.revision() - before, u64::from(expected.is_ok()), "{request:?}");
    }
    assert_eq!(fixture.run(grant_role("u", "r")), Ok(()));
    let before = fixture.revision();
    assert_eq!(fixture.run(grant_role("u", "r")), Ok(()));
    assert_eq!(fixture.revision(), before, "granted already");
    fixture.run(delete_role("r")).expect("deleted");
    assert!(fixture.0.auth().user("u").expect("user").roles.is_empty(), "gone with the role");
}

#[test]
fn root_stays_root_while_authentication_is_on() {
    let mut fixture = Fixture::enabled();
    fixture.run_as("root", add_role("root")).expect("added");
    for request in [delete_user("root"), delete_role("root"), revoke_role("root", "root")] {
        assert_eq!(fixture.run_as("root", request.clone()), Err(StoreError::InvalidAuthManagement));
    }
    fixture.run_as("root", disable()).expect("off");
    for request in [revoke_role("root", "root"), delete_role("root"), delete_user("root")] {
        assert_eq!(fixture.run(request), Ok(()));
    }
}

#[test]
fn writes_are_checked_when_they_are_applied() {
    let mut fixture = Fixture::enabled();
    let denied = Err(StoreError::PermissionDenied);
    assert_eq!(fixture.run(put("/a/w/1")), Err(StoreError::UserEmpty));
    assert_eq!(fixture.run_as("alice", put("/a/w/1")), Ok(()));
    assert_eq!(fixture.run_as("alice", put("/a/1")), denied);
    assert_eq!(fixture.run_as("bob", put("/a/w/1")), denied);
    assert_eq!(fixture.run_as("root", put("/z")), Ok(()));
    let delete = |key: &'static str, end: &'static str, prev_kv| {
        Request::DeleteRange(pb::DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv })
    };
    assert_eq!(fixture.run_as("alice", delete("/a/w/", "/a/w0", true)), Ok(()));
    assert_eq!(fixture.run_as("alice", delete("/a/w/", "/a/x", false)), denied);
    assert_eq!(fixture.run_as("alice", add_role("x")), denied);
    assert_eq!(fixture.run(add_role("x")), Err(StoreError::UserEmpty));
    assert_eq!(fixture.0.revision(), 4);
}

#[test]
fn a_permission_revoked_before_it_in_the_log_stops_a_write() {
    let mut fixture = Fixture::enabled();
    let under_way = on_behalf(Some(fixture.caller("alice")), put("/a/w/1"));
    fixture.run_as("root", revoke("reader", "/a/w/", "/a/w0")).expect("revoked");
    assert_eq!(fixture.run(under_way), Err(StoreError::AuthRevisionOld));
    assert_eq!(fixture.run_as("alice", put("/a/w/1")), Err(StoreError::PermissionDenied));
    let under_way = put("/a/w/1");
    fixture.run_as("root", disable()).expect("off");
    assert_eq!(fixture.run(under_way.clone()), Ok(()));
    fixture.run(enable()).expect("on");
    assert_eq!(fixture.run(under_way), Err(StoreError::UserEmpty), "proposed while it was off");
}

#[test]
fn every_part_of_a_transaction_is_checked() {
    let fixture = Fixture::enabled();
    let alice = fixture.caller("alice");
    let read =
        |key: &'static str| Op::RequestRange(pb::RangeRequest { key: key.into(), ..Default::default() });
    let check = |request: &pb::TxnRequest| fixture.0.check_txn_permitted(Some(&alice), request);
    assert_eq!(check(&txn(vec![read("/a/1"), Op::RequestPut(put_request("/a/w/1"))])), Ok(()));
    let compare = vec![pb::Compare { key: "/b".into(), ..Default::default() }];
    let failure = txn(vec![read("/b")]).success;
    for request in [
        pb::TxnRequest { compare, ..Default::default() },
        pb::TxnRequest { failure, ..Default::default() },
        txn(vec![read("/b")]),
        txn(vec![Op::RequestPut(put_request("/a/1"))]),
        txn(vec![Op::RequestTxn(txn(vec![Op::RequestPut(put_request("/a/1"))]))]),
        txn(vec![Op::RequestDeleteRange(pb::DeleteRangeRequest {
            key: "/a/1".into(),
            ..Default::default()
        })]),
    ] {
        assert_eq!(check(&request), Err(StoreError::PermissionDenied), "{request:?}");
    }
}

#[test]
fn the_previous_value_is_a_read() {
    let mut fixture = Fixture::enabled();
    fixture.run_as("root", grant("reader", Type::Write, "/w", "")).expect("granted");
    let with_previous = pb::PutRequest { prev_kv: true, ..put_request("/w") };
    let denied = Err(StoreError::PermissionDenied);
    assert_eq!(fixture.run_as("alice", put("/w")), Ok(()));
    assert_eq!(fixture.run_as("alice", Request::Put(with_previous.clone())), denied);
    assert_eq!(fixture.run_as("alice", Request::Txn(txn(vec![Op::RequestPut(with_previous)]))), denied);
    let delete = pb::DeleteRangeRequest { key: "/w".into(), prev_kv: true, ..Default::default() };
    assert_eq!(fixture.run_as("alice", Request::DeleteRange(delete)), denied);
}

#[test]
fn a_lease_belongs_to_whoever_may_write_its_keys() {
    let mut fixture = Fixture::enabled();
    let grant_lease = Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 60 });
    fixture.run(grant_lease).expect("granted");
    let with_lease = |key| Request::Put(pb::PutRequest { lease: 7, ..put_request(key) });
    let revoke_lease = || Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 });
    assert_eq!(fixture.run_as("alice", with_lease("/a/w/1")), Ok(()));
    assert_eq!(fixture.run_as("root", with_lease("/z")), Ok(()));
    let denied = Err(StoreError::PermissionDenied);
    assert_eq!(fixture.run_as("alice", with_lease("/a/w/2")), denied);
    assert_eq!(fixture.run_as("alice", revoke_lease()), denied);
    assert_eq!(fixture.0.check_lease_keys_readable(Some(&fixture.caller("alice")), 7), denied);
    assert_eq!(fixture.0.check_lease_keys_readable(None, 7), Err(StoreError::UserEmpty));
    assert_eq!(fixture.run(revoke_lease()), Err(StoreError::UserEmpty));
    assert_eq!(fixture.run(by_member(revoke_lease())), Ok(()), "it ran out");
}

#[test]
fn tokens_are_given_in_the_state_the_password_was_checked_in() {
    let mut fixture = Fixture::enabled();
    let (_, auth_revision) = fixture.0.auth().password_hash("alice").expect("a user");
    let request = Request::AuthAuthenticate(AuthAuthenticate {
        name: "alice".into(),
        token_prefix: "abc".into(),
        auth_revision,
    });
    let applied = fixture.apply(request.clone());
    let token = format!("abc.{}", applied.index);
    assert_eq!(applied.auth, [AuthChange::TokenAssigned { token: token.clone(), user: "alice".into() }]);
    let Ok(Response::Authenticate(response)) = applied.response else { panic!("{:?}", applied.response) };
    assert_eq!(response.token, token);
    let change = AuthUserChangePassword { name: "alice".into(), password_hash: "x".into() };
    let caller = fixture.caller("root");
    let applied = fixture.apply(on_behalf(Some(caller), Request::AuthUserChangePassword(change)));
    assert_eq!(applied.auth, [AuthChange::TokensRevoked { user: "alice".into() }]);
    assert_eq!(fixture.run(request), Err(StoreError::AuthRevisionOld));
    assert_eq!(fixture.0.auth().password_hash("nobody"), Err(StoreError::AuthFailed));
}

#[test]
fn users_see_themselves_and_their_roles() {
    let fixture = Fixture::enabled();
    let (auth, alice, root) = (fixture.0.auth(), fixture.caller("alice"), fixture.caller("root"));
    assert_eq!(auth.check_see_user(Some(&alice), "alice"), Ok(()));
    assert_eq!(auth.check_see_user(Some(&alice), "root"), Err(StoreError::PermissionDenied));
    assert_eq!(auth.check_see_role(Some(&alice), "reader"), Ok(()));
    assert_eq!(auth.check_see_role(Some(&alice), "root"), Err(StoreError::PermissionDenied));
    assert_eq!(auth.check_see_role(Some(&root), "reader"), Ok(()));
    assert_eq!(auth.check_see_user(None, "alice"), Err(StoreError::UserEmpty));
}

#[test]
fn a_command_wrapped_twice_or_around_nothing_does_nothing() {
    let mut fixture = Fixture::enabled();
    assert_eq!(fixture.run(by_member(by_member(put("k")))), Err(StoreError::UnknownCommand));
    assert_eq!(fixture.run(Request::OnBehalf(Box::default())), Err(StoreError::UnknownCommand));
}

#[test]
fn users_and_roles_survive_in_records() {
    let mut fixture = Fixture::enabled();
    fixture.run_as("root", add_user("bob")).expect("added");
    fixture.run_as("root", delete_user("bob")).expect("deleted");
    fixture.run_as("root", add_role("gone")).expect("added");
    fixture.run_as("root", delete_role("gone")).expect("deleted");
    fixture.run_as("root", put("/k")).expect("put");
    let records: Vec<_> = fixture.0.records().map(|r| (r.key(), Bytes::from(r.value()))).collect();
    let mut loaded = Fixture(Store::load(records).expect("loads"));
    assert_eq!(loaded.0.hash_all(), fixture.0.hash_all());
    assert_eq!(loaded.revision(), fixture.revision());
    assert!(loaded.0.auth().is_enabled());
    assert_eq!(loaded.run_as("alice", put("/a/w/1")), Ok(()));
    assert_eq!(loaded.run_as("alice", put("/a/1")), Err(StoreError::PermissionDenied));
    assert_eq!(loaded.run_as("root", add_user("carol")), Ok(()));
    let numbers: Vec<_> = loaded.0.records().map(|r| r.key()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

#[test]
fn the_record_changes_of_commands_add_up_to_the_records() {
    let mut fixture = Fixture(Store::new());
    let mut saved = std::collections::BTreeMap::new();
    for request in [
        add_user("root"),
        add_role("r"),
        grant("r", Type::Readwrite, "a", "z"),
        grant("r", Type::Read, "a", "z"),
        grant("r", Type::Read, "b", ""),
        revoke("r", "b", ""),
        grant_role("root", "root"),
        grant_role("root", "r"),
        add_user("u"),
        grant_role("u", "r"),
        delete_role("r"),
        add_role("s"),
        delete_user("u"),
        enable(),
    ] {
        for change in fixture.apply(request).changes {
            match change {
                crate::RecordChange::Set(record) => {
                    saved.insert(record.key(), Bytes::from(record.value()));
                }
                crate::RecordChange::Delete(key) => drop(saved.remove(&key)),
            }
        }
    }
    let records: Vec<_> = fixture.0.records().map(|r| (r.key(), Bytes::from(r.value()))).collect();
    assert_eq!(saved.into_iter().collect::<Vec<_>>(), records);
}
