//! Users, roles and what they may do: the replicated state of etcd's authentication.
//!
//! Owns: the changes ([`users`], [`roles`], enabling and disabling here), the permission checks ([`checks`]) made by the
//! member that answers a read and by every member that applies a write, and the auth revision, which rises with every change
//! and tells a request that was authenticated before it from one after.
//! Never: passwords in clear, tokens, hashing; the proposer has done that.

mod checks;
mod intervals;
mod roles;
mod users;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_proto::authpb;
use coracle_proto::store::{AuthAuthenticate, AuthRecord, Caller};

use crate::Request;
use crate::error::{LoadError, StoreError};
use crate::records::{Record, RecordChange, RecordKey};

pub(crate) use checks::Proposer;
use intervals::Permissions;

/// The user and the role that authentication cannot do without.
pub const ROOT: &str = "root";

/// What a change means for the tokens members keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChange {
    /// Authentication is on.
    Enabled,
    /// Authentication is off; no token is valid any more.
    Disabled,
    /// A user was given a token.
    TokenAssigned {
        /// The token.
        token: String,
        /// Whose.
        user: String,
    },
    /// A user was deleted or has another password: its tokens are not valid any more.
    TokensRevoked {
        /// Whose.
        user: String,
    },
}

/// A user with the permissions that its roles come to.
#[derive(Clone, Debug)]
struct Account {
    number: u64,
    user: Arc<authpb::User>,
    permissions: Arc<Permissions>,
}

#[derive(Clone, Debug)]
struct NamedRole {
    number: u64,
    role: Arc<authpb::Role>,
}

/// The state; see the module.
#[derive(Clone, Debug)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    accounts: BTreeMap<String, Account>,
    roles: BTreeMap<String, NamedRole>,
    /// Above all numbers of users and roles, which name their records.
    next_number: u64,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            accounts: BTreeMap::new(),
            roles: BTreeMap::new(),
            next_number: 1,
        }
    }
}

impl Auth {
    /// Whether requests are checked.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Rises with every change of users, roles and permissions; 1 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One user.
    pub fn user(&self, name: &str) -> Option<&Arc<authpb::User>> {
        self.accounts.get(name).map(|account| &account.user)
    }

    /// All users by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &Arc<authpb::User>)> {
        self.accounts.iter().map(|(name, account)| (name.as_str(), &account.user))
    }

    /// One role.
    pub fn role(&self, name: &str) -> Option<&Arc<authpb::Role>> {
        self.roles.get(name).map(|named| &named.role)
    }

    /// All roles by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Arc<authpb::Role>)> {
        self.roles.iter().map(|(name, named)| (name.as_str(), &named.role))
    }

    /// A user as one whose password can be checked, and the revision in which that is so.
    ///
    /// # Errors
    /// `AuthNotEnabled`, `AuthFailed` when there is no such user, `NoPasswordUser`.
    pub fn password_hash(&self, name: &str) -> Result<(&[u8], u64), StoreError> {
        if !self.enabled {
            return Err(StoreError::AuthNotEnabled);
        }
        let user = self.user(name).ok_or(StoreError::AuthFailed)?;
        if has_no_password(user) {
            return Err(StoreError::NoPasswordUser);
        }
        Ok((user.password.as_ref(), self.revision))
    }

    /// Applies a command about users, roles or authentication itself; `None` for any other command. The caller's right to it has been
    /// checked.
    pub(crate) fn apply(
        &mut self,
        index: u64,
        request: &Request,
        outcome: &mut Outcome<'_>,
    ) -> Option<Result<Option<String>, StoreError>> {
        let result = match request {
            Request::AuthEnable(_) => self.enable(outcome),
            Request::AuthDisable(_) => {
                self.disable(outcome);
                Ok(())
            }
            Request::AuthAuthenticate(request) => {
                return Some(self.authenticate(index, request, outcome).map(Some));
            }
            Request::AuthUserAdd(request) => self.add_user(request, outcome),
            Request::AuthUserDelete(request) => self.delete_user(&request.name, outcome),
            Request::AuthUserChangePassword(request) => self.change_password(request, outcome),
            Request::AuthUserGrantRole(request) => self.grant_role(&request.user, &request.role, outcome),
            Request::AuthUserRevokeRole(request) => self.revoke_role(&request.name, &request.role, outcome),
            Request::AuthRoleAdd(request) => self.add_role(&request.name, outcome),
            Request::AuthRoleDelete(request) => self.delete_role(&request.role, outcome),
            Request::AuthRoleGrantPermission(request) => self.grant_permission(request, outcome),
            Request::AuthRoleRevokePermission(request) => self.revoke_permission(request, outcome),
            _ => return None,
        };
        Some(result.map(|()| None))
    }

    fn enable(&mut self, outcome: &mut Outcome<'_>) -> Result<(), StoreError> {
        if self.enabled {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(StoreError::RootUserMissing)?;
        if !has_role(root, ROOT) {
            return Err(StoreError::RootRoleMissing);
        }
        self.enabled = true;
        outcome.auth.push(AuthChange::Enabled);
        outcome.set(self.record());
        Ok(())
    }

    fn disable(&mut self, outcome: &mut Outcome<'_>) {
        if self.enabled {
            self.enabled = false;
            outcome.auth.push(AuthChange::Disabled);
            self.commit(outcome);
        }
    }

    fn authenticate(
        &self,
        index: u64,
        request: &AuthAuthenticate,
        outcome: &mut Outcome<'_>,
    ) -> Result<String, StoreError> {
        let (_, revision) = self.password_hash(&request.name)?;
        if revision != request.auth_revision {
            return Err(StoreError::AuthRevisionOld);
        }
        if request.token_prefix.is_empty() {
            return Ok(String::new());
        }
        // The index makes the token unique whatever the prefix.
        let token = format!("{}.{index}", request.token_prefix);
        outcome.auth.push(AuthChange::TokenAssigned { token: token.clone(), user: request.name.clone() });
        Ok(token)
    }

    /// Counts a change.
    fn commit(&mut self, outcome: &mut Outcome<'_>) {
        self.revision += 1;
        outcome.set(self.record());
    }

    fn record(&self) -> Record {
        Record::Auth(AuthRecord { enabled: self.enabled, revision: self.revision })
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// The record of the state, then those of the roles, in key order; none while nothing was ever changed.
    pub(crate) fn records_before_leases(&self) -> Vec<Record> {
        if self.revision == Self::default().revision {
            return Vec::new();
        }
        let mut roles: Vec<&NamedRole> = self.roles.values().collect();
        roles.sort_unstable_by_key(|named| named.number);
        let roles = roles
            .into_iter()
            .map(|named| Record::Role { number: named.number, role: Arc::clone(&named.role) });
        std::iter::once(self.record()).chain(roles).collect()
    }

    /// The records of the users, in key order.
    pub(crate) fn records_of_users(&self) -> Vec<Record> {
        let mut accounts: Vec<&Account> = self.accounts.values().collect();
        accounts.sort_unstable_by_key(|account| account.number);
        let record =
            |account: &Account| Record::User { number: account.number, user: Arc::clone(&account.user) };
        accounts.into_iter().map(record).collect()
    }

    pub(crate) fn load_state(&mut self, record: AuthRecord) {
        self.enabled = record.enabled;
        self.revision = record.revision;
    }

    pub(crate) fn load_role(&mut self, number: u64, role: Arc<authpb::Role>) -> Result<(), LoadError> {
        let name = name_of(&role.name)?;
        self.next_number = self.next_number.max(number.saturating_add(1));
        match self.roles.insert(name, NamedRole { number, role }) {
            None => Ok(()),
            Some(_) => Err(LoadError::Inconsistent("two roles have one name")),
        }
    }

    /// Users come after all roles.
    pub(crate) fn load_user(&mut self, number: u64, user: Arc<authpb::User>) -> Result<(), LoadError> {
        let name = name_of(&user.name)?;
        self.next_number = self.next_number.max(number.saturating_add(1));
        let permissions = self.permissions_of(&user);
        match self.accounts.insert(name, Account { number, user, permissions }) {
            None => Ok(()),
            Some(_) => Err(LoadError::Inconsistent("two users have one name")),
        }
    }
}

fn name_of(name: &[u8]) -> Result<String, LoadError> {
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(LoadError::Inconsistent("the name of a user or role is empty or not UTF-8")),
    }
}

fn has_role(user: &authpb::User, role: &str) -> bool {
    user.roles.iter().any(|granted| granted == role)
}

fn has_no_password(user: &authpb::User) -> bool {
    user.options.as_ref().is_some_and(|options| options.no_password)
}

/// Where a change says what is to be saved and what becomes of tokens.
pub(crate) struct Outcome<'a> {
    pub(crate) changes: &'a mut Vec<RecordChange>,
    pub(crate) auth: &'a mut Vec<AuthChange>,
}

impl Outcome<'_> {
    fn set(&mut self, record: Record) {
        self.changes.push(RecordChange::Set(record));
    }

    fn delete(&mut self, key: RecordKey) {
        self.changes.push(RecordChange::Delete(key));
    }
}

/// Wraps a command in the name of whoever asked for it. Without a caller (authentication is off, or nobody is named) it stays as it is.
pub fn on_behalf(caller: Option<Caller>, request: Request) -> Request {
    match caller {
        None => request,
        Some(caller) => wrap(false, Some(caller), request),
    }
}

/// Wraps a command that the member itself asks for, so that no permission is needed.
pub fn by_member(request: Request) -> Request {
    wrap(true, None, request)
}

fn wrap(is_member: bool, caller: Option<Caller>, request: Request) -> Request {
    let command = Some(Box::new(crate::Command { id: 0, request: Some(request) }));
    Request::OnBehalf(Box::new(coracle_proto::store::OnBehalf { is_member, caller, command }))
}
