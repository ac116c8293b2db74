//! Who a request comes from: tokens given and recognised, passwords hashed and compared.
//!
//! Owns: the two kinds of tokens ([`simple`], [`jwt`]), bcrypt ([`passwords`]), the flags ([`options`]), and the switch that spares requests
//! the look-up while authentication is off. Follows the replicated state through [`Tokens::applied`].
//! Never here: users, roles and permissions, which are the store's.

mod jwt;
pub mod options;
mod passwords;
mod simple;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_lite_core::auth::AuthChange;
use etcd_lite_core::{Store, StoreError};

use jwt::JwtTokens;
use options::{AuthOptions, TokenKind};
use passwords::Passwords;
use simple::SimpleTokens;

/// How long a request waits for a token that another member gave and this one has still to hear of.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// The user.
    pub user: String,
    /// The state of users and roles the token was given in; `None` for a token that is good for any, since members forget it in time.
    pub auth_revision: Option<u64>,
}

enum Provider {
    Simple(SimpleTokens),
    Jwt(Box<JwtTokens>),
    /// `--auth-token=''`: certificates are the only way in.
    None,
}

/// See the module.
pub struct Tokens {
    enabled: AtomicBool,
    provider: Provider,
    passwords: Passwords,
    common_name_is_user: bool,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the keys that the flags name. `common_name_is_user`: `--client-cert-auth`.
    ///
    /// # Errors
    /// A flag that makes no sense, with the remedy.
    pub fn new(options: &AuthOptions, common_name_is_user: bool) -> anyhow::Result<Self> {
        let provider = match options.token_kind()? {
            TokenKind::Simple => Provider::Simple(SimpleTokens::new(options.simple_token_ttl())),
            TokenKind::Jwt(jwt) => Provider::Jwt(Box::new(JwtTokens::new(&jwt)?)),
            TokenKind::None => Provider::None,
        };
        Ok(Self {
            enabled: AtomicBool::new(false),
            provider,
            passwords: Passwords::new(options.bcrypt_cost()),
            common_name_is_user,
        })
    }

    /// Whether requests have to say who they come from. May be a moment behind the store, which decides.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Whether the common name of a client's certificate stands for a user.
    pub fn common_name_is_user(&self) -> bool {
        self.common_name_is_user
    }

    /// Takes over a state as a whole: at start, and from the leader's snapshot. Which tokens the state would have is not known, so that
    /// clients have to authenticate again.
    pub fn replaced(&self, store: &Store) {
        if let Provider::Simple(tokens) = &self.provider {
            tokens.clear(store.applied_index());
        }
        self.enabled.store(store.auth().is_enabled(), Ordering::Release);
    }

    /// The command of this log index was applied. Called in log order, before its proposer has the answer; cheap without changes.
    pub fn applied(&self, index: u64, changes: &[AuthChange]) {
        for change in changes {
            match change {
                AuthChange::Enabled => self.enabled.store(true, Ordering::Release),
                AuthChange::Disabled => self.enabled.store(false, Ordering::Release),
                AuthChange::TokenAssigned { .. } | AuthChange::TokensRevoked { .. } => {}
            }
            if let Provider::Simple(tokens) = &self.provider {
                match change {
                    AuthChange::Enabled => {}
                    AuthChange::Disabled => tokens.clear(index),
                    AuthChange::TokenAssigned { token, user } => {
                        tokens.assign(index, token, user, Instant::now());
                    }
                    AuthChange::TokensRevoked { user } => tokens.revoke(user),
                }
            }
        }
    }

    /// What a new token is to begin with; empty when the members keep no tokens.
    ///
    /// # Errors
    /// `AuthFailed` when the system gives no random numbers.
    pub fn new_prefix(&self) -> Result<String, StoreError> {
        match &self.provider {
            Provider::Simple(_) => simple::new_prefix().map_err(|error| {
                tracing::error!(%error, "the system gives no random numbers for tokens");
                StoreError::AuthFailed
            }),
            Provider::Jwt(_) | Provider::None => Ok(String::new()),
        }
    }

    /// The token to hand out when the members keep none, for a user whose password was right in this state of users and roles.
    ///
    /// # Errors
    /// `AuthFailed` when this member has no key to sign with, or tokens are switched off.
    pub fn sign(&self, user: &str, auth_revision: u64, kept: String) -> Result<String, StoreError> {
        match &self.provider {
            Provider::Simple(_) => Ok(kept),
            Provider::Jwt(tokens) => tokens.sign(user, auth_revision).map_err(|error| {
                tracing::warn!(%error, user, "cannot sign a token; clients authenticate at a member with a private key");
                StoreError::AuthFailed
            }),
            Provider::None => Err(StoreError::AuthFailed),
        }
    }

    /// Whose token this is, waiting a little if this member has not applied the command that gave it. `applied_index` is asked only
    /// for a token that is not known.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    pub async fn owner(
        &self,
        token: &str,
        applied_index: impl Fn() -> u64,
    ) -> Result<TokenOwner, StoreError> {
        match &self.provider {
            Provider::Simple(tokens) => {
                let user = tokens.user(token, applied_index, TOKEN_WAIT_MAX).await;
                user.map(|user| TokenOwner { user, auth_revision: None })
            }
            Provider::Jwt(tokens) => tokens.owner(token),
            Provider::None => None,
        }
        .ok_or(StoreError::InvalidAuthToken)
    }

    /// Hashes a new password, off the threads that serve requests.
    ///
    /// # Errors
    /// The text for the client: the password is longer than bcrypt takes.
    pub async fn hash_password(&self, password: String) -> Result<String, String> {
        self.passwords.hash(password).await
    }

    /// Whether a password is the one that was hashed, off the threads that serve requests.
    pub async fn password_is(&self, password: String, hash: Vec<u8>) -> bool {
        self.passwords.verify(password, hash).await
    }
}
