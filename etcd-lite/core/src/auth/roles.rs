//! Changes of roles and their permissions. Error order and revision counting as etcd's.

use std::sync::Arc;

use bytes::Bytes;
use coracle_proto::authpb;
use coracle_proto::etcdserverpb::{AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest};

use super::{Auth, NamedRole, Outcome, ROOT, has_role};
use crate::error::StoreError;
use crate::records::{Record, RecordKey};

impl Auth {
    pub(super) fn add_role(&mut self, name: &str, outcome: &mut Outcome<'_>) -> Result<(), StoreError> {
        if name.is_empty() {
            return Err(StoreError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(StoreError::RoleExists);
        }
        let role = authpb::Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        let number = self.take_number();
        self.put_role(name, number, role, outcome);
        self.commit(outcome);
        Ok(())
    }

    /// Deletes a role, also from the users who have it.
    pub(super) fn delete_role(&mut self, name: &str, outcome: &mut Outcome<'_>) -> Result<(), StoreError> {
        if self.enabled && name == ROOT {
            return Err(StoreError::InvalidAuthManagement);
        }
        let named = self.roles.remove(name).ok_or(StoreError::RoleNotFound)?;
        outcome.delete(RecordKey::role(named.number));
        let holders: Vec<String> = self.holders(name);
        for holder in holders {
            self.drop_role_of(&holder, name, outcome);
        }
        self.commit(outcome);
        Ok(())
    }

    /// Adds a permission, or changes its kind if the role has one for the same range.
    pub(super) fn grant_permission(
        &mut self,
        request: &AuthRoleGrantPermissionRequest,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), StoreError> {
        let wanted = request.perm.as_ref().ok_or(StoreError::PermissionNotGiven)?;
        if !is_valid_range(&wanted.key, &wanted.range_end) {
            return Err(StoreError::InvalidAuthManagement);
        }
        let named = self.roles.get(&request.name).ok_or(StoreError::RoleNotFound)?;
        let (number, mut role) = (named.number, authpb::Role::clone(&named.role));
        let same = role
            .key_permission
            .iter_mut()
            .find(|permission| permission.key == wanted.key && permission.range_end == wanted.range_end);
        match same {
            Some(permission) => permission.perm_type = wanted.perm_type,
            None => {
                role.key_permission.push(authpb::Permission {
                    perm_type: wanted.perm_type,
                    key: Bytes::copy_from_slice(&wanted.key),
                    range_end: Bytes::copy_from_slice(&wanted.range_end),
                });
                role.key_permission.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.put_role(&request.name, number, role, outcome);
        self.commit(outcome);
        Ok(())
    }

    pub(super) fn revoke_permission(
        &mut self,
        request: &AuthRoleRevokePermissionRequest,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), StoreError> {
        let named = self.roles.get(&request.role).ok_or(StoreError::RoleNotFound)?;
        let (number, mut role) = (named.number, authpb::Role::clone(&named.role));
        let count = role.key_permission.len();
        role.key_permission
            .retain(|permission| permission.key != request.key || permission.range_end != request.range_end);
        if role.key_permission.len() == count {
            return Err(StoreError::PermissionNotGranted);
        }
        self.put_role(&request.role, number, role, outcome);
        self.commit(outcome);
        Ok(())
    }

    fn put_role(&mut self, name: &str, number: u64, role: authpb::Role, outcome: &mut Outcome<'_>) {
        let role = Arc::new(role);
        outcome.set(Record::Role { number, role: Arc::clone(&role) });
        self.roles.insert(name.to_owned(), NamedRole { number, role });
        for holder in self.holders(name) {
            let Some(user) = self.user(&holder).map(Arc::clone) else { continue };
            let permissions = self.permissions_of(&user);
            if let Some(account) = self.accounts.get_mut(&holder) {
                account.permissions = permissions;
            }
        }
    }

    /// Names of the users who have a role.
    fn holders(&self, role: &str) -> Vec<String> {
        self.users().filter(|(_, user)| has_role(user, role)).map(|(name, _)| name.to_owned()).collect()
    }
}

/// Whether a permission can ever allow something: a key, and an end after it if there is one.
fn is_valid_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}
