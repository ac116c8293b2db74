//! Runs the controller of ServiceAccount tokens kept in Secrets: fills such Secrets, and takes them away when their account is gone. Acts as the process
//! itself: what it writes is what others act by.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use component_base::tls;
use controller_manager_core::action::{SECRETS, SERVICE_ACCOUNTS, Target};
use controller_manager_core::object_meta::{name, namespace};
use controller_manager_core::service_account_tokens::{
    Algorithm, SECRET_TYPE, account_of, complete, forget, is_for, key_id, remove, signed, unsigned,
};
use coracle_client::ObjectKey;
use coracle_client::config::{is_conflict, is_not_found};
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer};
use coracle_client::store::index_by_namespace;
use futures::future::join;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rustls::SignatureScheme;
use serde_json::{Value, json};

use crate::context::Context;
use crate::executor::{Executor, done};

/// Upstream's default of `--concurrent-serviceaccount-token-syncs`.
const WORKERS: usize = 5;

/// Signs tokens.
#[derive(Debug)]
pub struct Signer {
    algorithm: Algorithm,
    key_id: String,
    signer: Box<dyn rustls::sign::Signer>,
}

impl Signer {
    /// Reads the key.
    ///
    /// # Errors
    /// The file cannot be read or holds no key that signs tokens.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let key = rustls::crypto::ring::sign::any_supported_type(&tls::load_key(path)?)
            .with_context(|| format!("the key in {}", path.display()))?;
        let (signer, algorithm) = [
            (SignatureScheme::RSA_PKCS1_SHA256, Algorithm::Rs256),
            (SignatureScheme::ECDSA_NISTP256_SHA256, Algorithm::Es256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, Algorithm::Es384),
        ]
        .into_iter()
        .find_map(|(scheme, algorithm)| Some((key.choose_scheme(&[scheme])?, algorithm)))
        .with_context(|| format!("the key in {} is of no kind that signs tokens", path.display()))?;
        let public = key.public_key().context("the key tells no public half")?;
        Ok(Self { algorithm, key_id: key_id(&public), signer })
    }

    fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let unsigned = unsigned(self.algorithm, &self.key_id, claims);
        let signature = self.signer.sign(unsigned.as_bytes())?;
        signed(self.algorithm, &unsigned, &signature).map_err(|error| anyhow!(error))
    }
}

#[derive(Clone)]
struct Shared {
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    executor: Executor,
    signer: Arc<Signer>,
    root_ca: Option<String>,
}

/// Runs until shutdown. Does nothing without `--service-account-private-key-file`.
pub async fn run(context: Context) {
    let Some(signer) = context.settings.token_signer.clone() else {
        tracing::warn!("no --service-account-private-key-file: Secrets of ServiceAccount tokens stay empty");
        return;
    };
    let shared = Shared {
        secrets: context
            .informer()
            .fields(&format!("type={SECRET_TYPE}"))
            .index(index_by_namespace())
            .start(&context.shutdown),
        accounts: context.informers.service_accounts.clone(),
        executor: context.executor("serviceaccount-token-controller"),
        signer,
        root_ca: context.settings.root_ca.clone(),
    };
    let (by_account, for_secrets, for_references) = (shared.clone(), shared.clone(), shared.clone());
    let secrets = context
        .controller("serviceaccount_tokens_secret", WORKERS)
        .watch(&shared.secrets, |change| {
            let lives = !change.is_deleted() && account_of(change.object()).is_some();
            lives.then(|| change.key()).into_iter().collect()
        })
        .watch(&shared.accounts, move |change| by_account.secrets_of(change))
        .run(&context.shutdown, move |key| {
            let shared = for_secrets.clone();
            async move { shared.reconcile(&key).await }
        });
    let references = context
        .controller("serviceaccount_tokens_reference", WORKERS)
        .watch(&shared.secrets, |change| {
            let account = account_of(change.object()).filter(|_| change.is_deleted());
            account.map(|account| reference(change, account)).into_iter().collect()
        })
        .wait_for(&shared.accounts)
        .run(&context.shutdown, move |key| {
            let shared = for_references.clone();
            async move { shared.dereference(&key).await }
        });
    join(secrets, references).await;
}

/// The key of an account's reference to a Secret: neither name contains a slash.
fn reference(change: &Change<Secret>, account: &str) -> ObjectKey {
    let key = change.key();
    ObjectKey::new(key.namespace, format!("{account}/{}", key.name))
}

impl Shared {
    /// The Secrets of an account that is gone or new.
    fn secrets_of(&self, change: &Change<ServiceAccount>) -> Vec<ObjectKey> {
        let meta = &change.object().metadata;
        let before = change.old().filter(|_| !change.is_deleted());
        if before.is_some_and(|old| old.metadata.uid == meta.uid) {
            return Vec::new();
        }
        let all = self.secrets.store().indexed("namespace", namespace(meta));
        let of = |secret: &&Arc<Secret>| account_of(secret) == Some(name(meta));
        all.iter().filter(of).map(|secret| ObjectKey::of(&**secret)).collect()
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(secret) = self.secrets.store().get(key) else { return Ok(Outcome::Done) };
        let Some(wanted) = account_of(&secret) else { return Ok(Outcome::Done) };
        let Some(account) = self.account(&key.namespace, wanted, &secret).await? else {
            return forgiving(self.executor.execute(&remove(&secret.metadata)).await);
        };
        let root_ca = self.root_ca.as_deref();
        let Some(full) = complete(&secret, &account, root_ca, |claims| self.signer.sign(claims))? else {
            return Ok(Outcome::Done);
        };
        let target = Target::new(&SECRETS, &key.namespace, &key.name);
        forgiving(self.executor.replace(&target, "", &json!(full)).await.map(|_| ()))
    }

    /// The account that a Secret means, if need be by the server's word: a token is not taken away because our copy is behind.
    async fn account(
        &self,
        namespace: &str,
        wanted: &str,
        secret: &Secret,
    ) -> anyhow::Result<Option<ObjectMeta>> {
        if let Some(known) = self.accounts.store().get_named(namespace, wanted)
            && is_for(secret, &known.metadata)
        {
            return Ok(Some(known.metadata.clone()));
        }
        let live = self.executor.metadata(&Target::new(&SERVICE_ACCOUNTS, namespace, wanted)).await?;
        Ok(live.filter(|live| is_for(secret, live)))
    }

    /// Takes the reference to a Secret that is gone from its account.
    async fn dereference(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some((account, secret)) = key.name.split_once('/') else { return Ok(Outcome::Done) };
        if self.secrets.store().get_named(&key.namespace, secret).is_some() {
            return Ok(Outcome::Done);
        }
        let known = self.accounts.store().get_named(&key.namespace, account);
        let Some(action) = known.and_then(|account| forget(&account, secret)) else {
            return Ok(Outcome::Done);
        };
        done(self.executor.execute(&action).await)
    }
}

/// What changed or went meanwhile is seen by the watch, which brings it here again.
fn forgiving(result: Result<(), kube::Error>) -> anyhow::Result<Outcome> {
    match result {
        Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(Outcome::Done),
        result => Ok(result.map(|()| Outcome::Done)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_tokens_by_its_own_algorithm() {
        let directory = std::env::temp_dir().join(format!("coracle-signer-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("sa.key");
        let key = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(&path, key.serialize_pem()).expect("written");
        let signer = Signer::load(&path);
        std::fs::remove_dir_all(&directory).expect("removed");
        let signer = signer.expect("a signer");
        assert_eq!(signer.algorithm, Algorithm::Es256);
        let token = signer.sign(&json!({"sub": "x"})).expect("a token");
        let lengths: Vec<_> = token.split('.').map(str::len).collect();
        assert_eq!((lengths.len(), lengths[2]), (3, 86), "two numbers of 32 bytes");
    }
}
