//! Who may do what: the checks of a request against users and roles.
//!
//! The member that answers makes them for reads, while it holds the store; for writes every member makes them when it applies the command,
//! so that nothing is written that was forbidden before it in the log. What etcd leaves open to everyone (granting leases, compaction,
//! alarms) is open here.

use std::collections::BTreeSet;

use bytes::Bytes;
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use coracle_proto::store::Caller;

use super::{Auth, ROOT, has_role};
use crate::error::StoreError;
use crate::store::Store;
use crate::{Command, Request};

/// Who asked for a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proposer<'a> {
    /// The member itself.
    Member,
    /// A client, as the user it is known as if any.
    Client(Option<&'a Caller>),
}

impl<'a> Proposer<'a> {
    /// Takes the command out of its wrapping.
    pub(crate) fn of(command: &'a Command) -> (Self, Option<&'a Request>) {
        let Some(Request::OnBehalf(wrapped)) = &command.request else {
            return (Self::Client(None), command.request.as_ref());
        };
        let request = match wrapped.command.as_deref().and_then(|inner| inner.request.as_ref()) {
            Some(Request::OnBehalf(_)) | None => None,
            Some(request) => Some(request),
        };
        let proposer = if wrapped.is_member { Self::Member } else { Self::Client(wrapped.caller.as_ref()) };
        (proposer, request)
    }
}

impl Auth {
    /// Whether a caller may read all keys of a range.
    ///
    /// # Errors
    /// `UserEmpty` without a caller, `AuthRevisionOld`, `PermissionDenied`. None while authentication is off.
    pub fn check_read(
        &self,
        caller: Option<&Caller>,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Result<(), StoreError> {
        self.check_keys(caller, key, range_end, false)
    }

    /// Whether a caller may write all keys of a range.
    ///
    /// # Errors
    /// As for [`Self::check_read`].
    pub fn check_write(
        &self,
        caller: Option<&Caller>,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Result<(), StoreError> {
        self.check_keys(caller, key, range_end, true)
    }

    /// Whether a caller has the role root. Its authentication may be old.
    ///
    /// # Errors
    /// `UserEmpty` without a caller, `UserNotFound`, `PermissionDenied`. None while authentication is off.
    pub fn check_admin(&self, caller: Option<&Caller>) -> Result<(), StoreError> {
        if !self.enabled {
            return Ok(());
        }
        let caller = caller.filter(|caller| !caller.user.is_empty()).ok_or(StoreError::UserEmpty)?;
        let user = self.user(&caller.user).ok_or(StoreError::UserNotFound)?;
        if has_role(user, ROOT) { Ok(()) } else { Err(StoreError::PermissionDenied) }
    }

    /// Whether a caller may see a user: itself, or with the role root any.
    ///
    /// # Errors
    /// As for [`Self::check_admin`].
    pub fn check_see_user(&self, caller: Option<&Caller>, name: &str) -> Result<(), StoreError> {
        self.check_admin(caller).or_else(|error| {
            if caller.is_some_and(|caller| caller.user == name) { Ok(()) } else { Err(error) }
        })
    }

    /// Whether a caller may see a role: one it has, or with the role root any.
    ///
    /// # Errors
    /// As for [`Self::check_admin`].
    pub fn check_see_role(&self, caller: Option<&Caller>, role: &str) -> Result<(), StoreError> {
        let has_it =
            || caller.and_then(|caller| self.user(&caller.user)).is_some_and(|user| has_role(user, role));
        self.check_admin(caller).or_else(|error| if has_it() { Ok(()) } else { Err(error) })
    }

    fn check_keys(
        &self,
        caller: Option<&Caller>,
        key: &Bytes,
        range_end: &Bytes,
        writes: bool,
    ) -> Result<(), StoreError> {
        if !self.enabled {
            return Ok(());
        }
        let caller = caller.filter(|caller| caller.auth_revision != 0).ok_or(StoreError::UserEmpty)?;
        if caller.auth_revision < self.revision {
            return Err(StoreError::AuthRevisionOld);
        }
        let account = self.accounts.get(&caller.user).ok_or(StoreError::PermissionDenied)?;
        let permissions = &account.permissions;
        let keys = if writes { &permissions.write } else { &permissions.read };
        if permissions.is_root || keys.covers(key, range_end) {
            Ok(())
        } else {
            Err(StoreError::PermissionDenied)
        }
    }
}

static NO_END: Bytes = Bytes::new();

impl Store {
    /// Whether a caller may have a transaction run, whichever branch it takes.
    ///
    /// # Errors
    /// As for [`Auth::check_read`].
    pub fn check_txn_permitted(
        &self,
        caller: Option<&Caller>,
        request: &TxnRequest,
    ) -> Result<(), StoreError> {
        if !self.auth.enabled {
            return Ok(());
        }
        for compare in &request.compare {
            self.auth.check_read(caller, &compare.key, &compare.range_end)?;
        }
        self.check_ops_permitted(caller, &request.success)?;
        self.check_ops_permitted(caller, &request.failure)
    }

    /// Whether a caller may see which keys a lease holds.
    ///
    /// # Errors
    /// As for [`Auth::check_read`].
    pub fn check_lease_keys_readable(&self, caller: Option<&Caller>, id: i64) -> Result<(), StoreError> {
        if !self.auth.enabled {
            return Ok(());
        }
        if caller.is_none_or(|caller| caller.user.is_empty()) {
            return Err(StoreError::UserEmpty);
        }
        if self.auth.check_admin(caller).is_ok() {
            return Ok(());
        }
        self.lease_keys(id).try_for_each(|key| self.auth.check_read(caller, key, &NO_END))
    }

    /// Whether the proposer may have a command applied. Cheap while authentication is off.
    pub(crate) fn check_permitted(
        &self,
        proposer: Proposer<'_>,
        request: &Request,
    ) -> Result<(), StoreError> {
        if !self.auth.enabled {
            return Ok(());
        }
        let Proposer::Client(caller) = proposer else { return Ok(()) };
        match request {
            Request::Put(put) => {
                self.auth.check_write(caller, &put.key, &NO_END)?;
                self.check_put_extras(caller, put)
            }
            Request::DeleteRange(delete) => {
                self.auth.check_write(caller, &delete.key, &delete.range_end)?;
                self.check_delete_extras(caller, delete)
            }
            Request::Txn(txn) => self.check_txn_permitted(caller, txn),
            Request::LeaseRevoke(revoke) => self.check_lease_writable(caller, revoke.id),
            Request::AuthEnable(_)
            | Request::AuthDisable(_)
            | Request::AuthUserAdd(_)
            | Request::AuthUserDelete(_)
            | Request::AuthUserChangePassword(_)
            | Request::AuthUserGrantRole(_)
            | Request::AuthUserRevokeRole(_)
            | Request::AuthRoleAdd(_)
            | Request::AuthRoleDelete(_)
            | Request::AuthRoleGrantPermission(_)
            | Request::AuthRoleRevokePermission(_) => self.auth.check_admin(caller),
            _ => Ok(()),
        }
    }

    fn check_ops_permitted(&self, caller: Option<&Caller>, ops: &[RequestOp]) -> Result<(), StoreError> {
        ops.iter().filter_map(|op| op.request.as_ref()).try_for_each(|op| match op {
            Op::RequestRange(range) => self.auth.check_read(caller, &range.key, &range.range_end),
            Op::RequestPut(put) => {
                self.auth.check_write(caller, &put.key, &NO_END)?;
                self.check_put_extras(caller, put)
            }
            Op::RequestDeleteRange(delete) => {
                self.check_delete_extras(caller, delete)?;
                self.auth.check_write(caller, &delete.key, &delete.range_end)
            }
            Op::RequestTxn(nested) => self.check_txn_permitted(caller, nested),
        })
    }

    /// A put with a lease needs the right to write all that goes with the lease, as whoever may put could otherwise not revoke it; one that
    /// asks for the previous value needs the right to read it.
    fn check_put_extras(&self, caller: Option<&Caller>, put: &PutRequest) -> Result<(), StoreError> {
        self.check_lease_writable(caller, put.lease)?;
        if put.prev_kv {
            self.auth.check_read(caller, &put.key, &NO_END)?;
        }
        Ok(())
    }

    fn check_delete_extras(
        &self,
        caller: Option<&Caller>,
        delete: &DeleteRangeRequest,
    ) -> Result<(), StoreError> {
        if delete.prev_kv {
            self.auth.check_read(caller, &delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    /// A lease without keys, or none at all, is anyone's.
    fn check_lease_writable(&self, caller: Option<&Caller>, id: i64) -> Result<(), StoreError> {
        self.lease_keys(id).try_for_each(|key| self.auth.check_write(caller, key, &NO_END))
    }

    fn lease_keys(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.lease(id).map(|lease| &lease.keys).into_iter().flat_map(BTreeSet::iter)
    }
}
