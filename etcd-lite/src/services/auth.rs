//! `etcdserverpb.Auth`: users, roles, and the exchange of a password for a token.
//!
//! Passwords end here: what goes into the log is their hash. Answers about users and roles are read from the store behind a ReadIndex, changes go
//! through the log, where the caller's right to them is checked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::store::{AuthAuthenticate, AuthUserAdd, AuthUserChangePassword};
use etcd_lite_core::auth::{Auth, on_behalf};
use etcd_lite_core::{Caller, Request as Command, Response as Answer, StoreError};
use tonic::{Code, Request, Response, Status};

use super::{Context, status};
use crate::member::{Member, ProposeError};

/// How often a password is checked anew because users or roles changed meanwhile.
const AUTHENTICATION_ATTEMPTS_MAX: usize = 10;

pub(crate) struct AuthService<M>(pub(crate) Arc<Context<M>>);

impl<M: Member> AuthService<M> {
    /// Puts a change through the log in the name of whoever sent it.
    async fn change<T>(
        &self,
        request: Request<T>,
        command: impl FnOnce(T) -> Command,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let caller = self.0.caller(&request).await?;
        let command = on_behalf(caller, command(request.into_inner()));
        match self.0.member.propose(command).await.map_err(status::of_propose)?.response {
            Answer::Done => Ok(self.0.header()),
            _ => Err(status::unexpected()),
        }
    }

    /// Answers from the newest state.
    async fn read<T, A>(
        &self,
        request: &Request<T>,
        answer: impl FnOnce(&Auth, Option<&Caller>) -> Result<A, StoreError>,
    ) -> Result<A, Status> {
        self.0.member.read_index().await.map_err(status::of_propose)?;
        let caller = self.0.caller(request).await?;
        answer(self.0.member.store().read().auth(), caller.as_ref()).map_err(status::of_store)
    }

    /// The hash to keep of a new password; one that the client has made already is taken as it is.
    async fn hash(&self, password: String, hashed: &str) -> Result<Bytes, Status> {
        if password.is_empty() && !hashed.is_empty() {
            let hash = STANDARD.decode(hashed);
            return hash
                .map(Bytes::from)
                .map_err(|_| Status::invalid_argument("etcdserver: hashed_password is not base64"));
        }
        match self.0.member.tokens().hash_password(password).await {
            Ok(hash) => Ok(hash.into()),
            Err(text) => Err(Status::new(Code::Unknown, text)),
        }
    }
}

#[tonic::async_trait]
impl<M: Member> pb::auth_server::Auth for AuthService<M> {
    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (enabled, auth_revision) = self
            .read(&request, |auth, caller| {
                auth.check_admin(caller).map(|()| (auth.is_enabled(), auth.revision()))
            })
            .await?;
        Ok(Response::new(pb::AuthStatusResponse { header: self.0.header(), enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let (member, tokens) = (&self.0.member, self.0.member.tokens());
        member.read_index().await.map_err(status::of_propose)?;
        for _ in 0..AUTHENTICATION_ATTEMPTS_MAX {
            let (hash, auth_revision) = {
                let store = member.store().read();
                let (hash, revision) = store.auth().password_hash(&name).map_err(status::of_store)?;
                (hash.to_vec(), revision)
            };
            if !tokens.password_is(password.clone(), hash).await {
                tracing::info!(user = name, "a password is wrong");
                return Err(status::of_store(StoreError::AuthFailed));
            }
            let token_prefix = tokens.new_prefix().map_err(status::of_store)?;
            let command = Command::AuthAuthenticate(AuthAuthenticate {
                name: name.clone(),
                token_prefix,
                auth_revision,
            });
            let kept = match member.propose(command).await {
                Ok(proposed) => match proposed.response {
                    Answer::Authenticate(response) => response.token,
                    _ => return Err(status::unexpected()),
                },
                Err(ProposeError::Store(StoreError::AuthRevisionOld)) => continue,
                Err(error) => return Err(status::of_propose(error)),
            };
            let token = tokens.sign(&name, auth_revision, kept).map_err(status::of_store)?;
            return Ok(Response::new(pb::AuthenticateResponse { header: self.0.header(), token }));
        }
        Err(status::of_store(StoreError::AuthRevisionOld))
    }

    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let header = self.change(request, Command::AuthEnable).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(request, Command::AuthDisable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn user_add(
        &self,
        mut request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let user = request.get_mut();
        let no_password = user.options.as_ref().is_some_and(|options| options.no_password);
        let password_hash = if no_password {
            Bytes::new()
        } else {
            let (password, hashed) =
                (std::mem::take(&mut user.password), std::mem::take(&mut user.hashed_password));
            self.hash(password, &hashed).await?
        };
        let command = |user: pb::AuthUserAddRequest| {
            Command::AuthUserAdd(AuthUserAdd { name: user.name, password_hash, no_password })
        };
        let header = self.change(request, command).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let name = &request.get_ref().name;
        let roles = self
            .read(&request, |auth, caller| {
                auth.check_see_user(caller, name)?;
                auth.user(name).map(|user| user.roles.clone()).ok_or(StoreError::UserNotFound)
            })
            .await?;
        Ok(Response::new(pb::AuthUserGetResponse { header: self.0.header(), roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let users = self
            .read(&request, |auth, caller| {
                auth.check_admin(caller).map(|()| auth.users().map(|(name, _)| name.to_owned()).collect())
            })
            .await?;
        Ok(Response::new(pb::AuthUserListResponse { header: self.0.header(), users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let header = self.change(request, Command::AuthUserDelete).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        mut request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let user = request.get_mut();
        let (password, hashed) =
            (std::mem::take(&mut user.password), std::mem::take(&mut user.hashed_password));
        // As in etcd, no password at all is one that nobody can give.
        let password_hash = if password.is_empty() && hashed.is_empty() {
            Bytes::new()
        } else {
            self.hash(password, &hashed).await?
        };
        let command = |user: pb::AuthUserChangePasswordRequest| {
            Command::AuthUserChangePassword(AuthUserChangePassword { name: user.name, password_hash })
        };
        let header = self.change(request, command).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let header = self.change(request, Command::AuthUserGrantRole).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let header = self.change(request, Command::AuthUserRevokeRole).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let header = self.change(request, Command::AuthRoleAdd).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let name = &request.get_ref().role;
        let perm = self
            .read(&request, |auth, caller| {
                auth.check_see_role(caller, name)?;
                auth.role(name).map(|role| role.key_permission.clone()).ok_or(StoreError::RoleNotFound)
            })
            .await?;
        Ok(Response::new(pb::AuthRoleGetResponse { header: self.0.header(), perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let roles = self
            .read(&request, |auth, caller| {
                auth.check_admin(caller).map(|()| auth.roles().map(|(name, _)| name.to_owned()).collect())
            })
            .await?;
        Ok(Response::new(pb::AuthRoleListResponse { header: self.0.header(), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let header = self.change(request, Command::AuthRoleDelete).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let header = self.change(request, Command::AuthRoleGrantPermission).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let header = self.change(request, Command::AuthRoleRevokePermission).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
