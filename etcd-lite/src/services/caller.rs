//! Who sends a request: a token in its metadata, or the common name of its connection's certificate.

use std::sync::Arc;

use etcd_lite_core::{Caller, StoreError};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::{Context, status};
use crate::member::Member;

/// The common name that the certificate of a connection's client has, put into each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct PeerCommonName(pub(crate) Arc<str>);

/// What a request says about its sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    token: Option<Box<str>>,
    common_name: Option<PeerCommonName>,
}

impl Credentials {
    pub(crate) fn of(metadata: &MetadataMap, extensions: &Extensions) -> Self {
        // The second is the name under which the JSON gateway hands it on.
        let token = metadata.get("token").or_else(|| metadata.get("authorization"));
        // What is not text is no token that was ever given.
        let token = token.map(|value| value.to_str().unwrap_or_default().into());
        Self { token, common_name: extensions.get::<PeerCommonName>().cloned() }
    }

    /// The user these stand for, in the present state of users and roles; `None` while authentication is off, and for nobody.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    pub(crate) async fn caller<M: Member>(&self, member: &M) -> Result<Option<Caller>, StoreError> {
        let tokens = member.tokens();
        if !tokens.is_enabled() {
            return Ok(None);
        }
        let (user, auth_revision) = match (&self.token, &self.common_name) {
            (Some(token), _) => {
                let owner = tokens.owner(token, || member.status().applied_index).await?;
                (owner.user, owner.auth_revision)
            }
            (None, Some(name)) if tokens.common_name_is_user() => (name.0.as_ref().to_owned(), None),
            _ => return Ok(None),
        };
        let auth_revision = auth_revision.unwrap_or_else(|| member.store().read().auth().revision());
        Ok(Some(Caller { user, auth_revision }))
    }
}

impl<M: Member> Context<M> {
    /// The user a request comes from; `None` while authentication is off, and for nobody. One atomic load while it is off.
    ///
    /// # Errors
    /// `etcdserver: invalid auth token`.
    pub(crate) async fn caller<T>(&self, request: &Request<T>) -> Result<Option<Caller>, Status> {
        if !self.member.tokens().is_enabled() {
            return Ok(None);
        }
        let credentials = Credentials::of(request.metadata(), request.extensions());
        credentials.caller(&*self.member).await.map_err(status::of_store)
    }

    /// Refuses a request whose sender does not have the role root, while authentication is on.
    ///
    /// # Errors
    /// `etcdserver: user name is empty`, `etcdserver: permission denied`, `etcdserver: invalid auth token`.
    pub(crate) async fn require_admin<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let caller = self.caller(request).await?;
        self.member.store().read().auth().check_admin(caller.as_ref()).map_err(status::of_store)
    }
}
