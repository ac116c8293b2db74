//! Changes of users. Error order and revision counting as etcd's.

use std::sync::Arc;

use bytes::Bytes;
use coracle_proto::authpb;
use coracle_proto::store::{AuthUserAdd, AuthUserChangePassword};

use super::intervals::Permissions;
use super::{Account, Auth, AuthChange, Outcome, ROOT, has_no_password, has_role};
use crate::error::StoreError;
use crate::records::{Record, RecordKey};

impl Auth {
    pub(super) fn add_user(
        &mut self,
        request: &AuthUserAdd,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), StoreError> {
        if request.name.is_empty() {
            return Err(StoreError::UserEmpty);
        }
        if self.accounts.contains_key(&request.name) {
            return Err(StoreError::UserExists);
        }
        let user = authpb::User {
            name: Bytes::copy_from_slice(request.name.as_bytes()),
            password: if request.no_password {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&request.password_hash)
            },
            roles: Vec::new(),
            options: Some(authpb::UserAddOptions { no_password: request.no_password }),
        };
        let number = self.take_number();
        self.put_user(&request.name, number, user, outcome);
        self.commit(outcome);
        Ok(())
    }

    pub(super) fn delete_user(&mut self, name: &str, outcome: &mut Outcome<'_>) -> Result<(), StoreError> {
        if self.enabled && name == ROOT {
            return Err(StoreError::InvalidAuthManagement);
        }
        let account = self.accounts.remove(name).ok_or(StoreError::UserNotFound)?;
        outcome.delete(RecordKey::user(account.number));
        outcome.auth.push(AuthChange::TokensRevoked { user: name.to_owned() });
        self.commit(outcome);
        Ok(())
    }

    pub(super) fn change_password(
        &mut self,
        request: &AuthUserChangePassword,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), StoreError> {
        let account = self.accounts.get(&request.name).ok_or(StoreError::UserNotFound)?;
        let number = account.number;
        let mut user = authpb::User::clone(&account.user);
        if !has_no_password(&user) {
            user.password = Bytes::copy_from_slice(&request.password_hash);
        }
        self.put_user(&request.name, number, user, outcome);
        outcome.auth.push(AuthChange::TokensRevoked { user: request.name.clone() });
        self.commit(outcome);
        Ok(())
    }

    /// Granting what is granted already changes nothing.
    pub(super) fn grant_role(
        &mut self,
        name: &str,
        role: &str,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), StoreError> {
        let account = self.accounts.get(name).ok_or(StoreError::UserNotFound)?;
        // The role root means everything, whether or not it was added.
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(StoreError::RoleNotFound);
        }
        if has_role(&account.user, role) {
            return Ok(());
        }
        let number = account.number;
        let mut user = authpb::User::clone(&account.user);
        user.roles.push(role.to_owned());
        user.roles.sort_unstable();
        self.put_user(name, number, user, outcome);
        self.commit(outcome);
        Ok(())
    }

    pub(super) fn revoke_role(
        &mut self,
        name: &str,
        role: &str,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), StoreError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(StoreError::InvalidAuthManagement);
        }
        let account = self.accounts.get(name).ok_or(StoreError::UserNotFound)?;
        if !has_role(&account.user, role) {
            return Err(StoreError::RoleNotGranted);
        }
        self.drop_role_of(name, role, outcome);
        self.commit(outcome);
        Ok(())
    }

    /// Takes a role from a user that may have it.
    pub(super) fn drop_role_of(&mut self, name: &str, role: &str, outcome: &mut Outcome<'_>) {
        if let Some(account) = self.accounts.get(name).filter(|account| has_role(&account.user, role)) {
            let number = account.number;
            let mut user = authpb::User::clone(&account.user);
            user.roles.retain(|granted| granted != role);
            self.put_user(name, number, user, outcome);
        }
    }

    fn put_user(&mut self, name: &str, number: u64, user: authpb::User, outcome: &mut Outcome<'_>) {
        let user = Arc::new(user);
        let permissions = self.permissions_of(&user);
        outcome.set(Record::User { number, user: Arc::clone(&user) });
        self.accounts.insert(name.to_owned(), Account { number, user, permissions });
    }

    /// What a user's roles allow; a role that does not exist allows nothing, except root.
    pub(super) fn permissions_of(&self, user: &authpb::User) -> Arc<Permissions> {
        let roles = user.roles.iter().filter_map(|role| self.role(role)).map(|role| &**role);
        Arc::new(Permissions::of_roles(has_role(user, ROOT), roles))
    }
}
