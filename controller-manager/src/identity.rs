//! Lets each controller act as its own ServiceAccount in `kube-system` (`--use-service-account-credentials`), so that it may do what its role allows and
//! nothing else. Owns the accounts' tokens; without the flag all controllers act as the process.

use std::time::Duration;

use anyhow::Context as _;
use coracle_client::bearer_token::BearerToken;
use coracle_client::config::{
    CALL_DEADLINE, ClientConfig, connect_with_token, is_conflict, is_not_found, within,
};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
/// What is asked for; the server may give less.
const LIFETIME_SECONDS: i64 = 3600;
/// A token is renewed when this share of its life is over.
const RENEW_AT: f64 = 0.8;
/// Not sooner than this after the last one, whatever the server says.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Makes clients that act as ServiceAccounts.
#[derive(Clone)]
pub struct Identities {
    /// The process's own connection, by which tokens are had.
    own: Client,
    config: ClientConfig,
    shutdown: CancellationToken,
}

impl Identities {
    /// Over the process's own connection and how it was made.
    pub fn new(own: Client, config: ClientConfig, shutdown: CancellationToken) -> Self {
        Self { own, config, shutdown }
    }

    /// A client that acts as the account, which is made if it is not there. Tries until it works; `None` after shutdown.
    pub async fn client(&self, account: &'static str) -> Option<Client> {
        let token = BearerToken::default();
        let lifetime = loop {
            match self.renew(account, &token).await {
                Ok(lifetime) => break lifetime,
                Err(error) => {
                    tracing::warn!(account, error = %format!("{error:#}"), "no token for a controller yet; trying again");
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep(PAUSE_MIN) => {}
            }
        };
        match connect_with_token(&self.config, &token).await {
            Ok(client) => {
                tokio::spawn(self.clone().keep(account, token, lifetime));
                Some(client)
            }
            Err(error) => {
                tracing::error!(account, %error, "a controller cannot connect");
                None
            }
        }
    }

    /// Renews the token in time, and when the server refuses it, until shutdown.
    async fn keep(self, account: &'static str, token: BearerToken, mut lifetime: Duration) {
        loop {
            let due = tokio::time::sleep(lifetime.mul_f64(RENEW_AT).max(PAUSE_MIN));
            let needed = async {
                tokio::select! {
                    () = due => {}
                    () = token.refused() => tokio::time::sleep(PAUSE_MIN).await,
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = needed => {}
            }
            lifetime = match self.renew(account, &token).await {
                Ok(lifetime) => lifetime,
                Err(error) => {
                    tracing::warn!(account, error = %format!("{error:#}"), "a controller's token is not renewed; trying again");
                    PAUSE_MIN
                }
            };
        }
    }

    /// Gets a new token and tells how long it is good for.
    async fn renew(&self, account: &str, token: &BearerToken) -> anyhow::Result<Duration> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.own.clone(), NAMESPACE);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(LIFETIME_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let parameters = PostParams::default();
        let create = || within(CALL_DEADLINE, accounts.create_token_request(account, &parameters, &request));
        let answer = match create().await {
            Err(error) if is_not_found(&error) => {
                self.create(&accounts, account).await.context("creating the ServiceAccount")?;
                create().await
            }
            result => result,
        };
        let status = answer.context("asking for a token")?.status.context("the server gave no token")?;
        token.set(&status.token).context("the server gave no usable token")?;
        let left = status.expiration_timestamp.0.as_second() - jiff::Timestamp::now().as_second();
        Ok(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
    }

    async fn create(&self, accounts: &Api<ServiceAccount>, account: &str) -> Result<(), kube::Error> {
        let wanted = ServiceAccount {
            metadata: ObjectMeta { name: Some(account.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        match within(CALL_DEADLINE, accounts.create(&PostParams::default(), &wanted)).await {
            // Another instance was faster.
            Err(error) if is_conflict(&error) => Ok(()),
            result => result.map(|_| ()),
        }
    }
}
