//! Runs the three controllers of certificate requests: approving, signing, cleaning up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use component_base::tls;
use controller_manager_core::action::ResourceId;
use controller_manager_core::certificates::issue::{
    Algorithm, Decision, Unsigned, decide, deliver, lifetime, unsigned,
};
use controller_manager_core::certificates::request::Request;
use controller_manager_core::certificates::{approval, cleaning};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use http::Method;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls::SignatureScheme;

use crate::context::Context;
use crate::executor::{Executor, done, path};
use crate::settings::Settings;

const WORKERS: usize = 5;
/// How often old requests are looked for.
const CLEANING_INTERVAL: Duration = Duration::from_secs(3600);
const REVIEWS: ResourceId = ResourceId {
    group: std::borrow::Cow::Borrowed("authorization.k8s.io"),
    version: std::borrow::Cow::Borrowed("v1"),
    kind: std::borrow::Cow::Borrowed("SubjectAccessReview"),
    plural: std::borrow::Cow::Borrowed("subjectaccessreviews"),
    namespaced: false,
};

/// The files of the CA that signs for one signer. They are read for each certificate, so that new ones need no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFiles {
    /// The CA's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Runs the approver until shutdown.
pub async fn run_approver(context: Context) {
    let requests = &context.informers.certificate_requests;
    let executor = context.executor("certificate-controller");
    let store = Arc::clone(requests.store());
    context
        .controller("certificate_approving", WORKERS)
        .watch(requests, |change| vec![change.key()])
        .run(&context.shutdown, move |key| {
            let (store, executor) = (Arc::clone(&store), executor.clone());
            async move {
                match store.get(&key) {
                    Some(request) => approve(&executor, &request).await,
                    None => Ok(Outcome::Done),
                }
            }
        })
        .await;
}

async fn approve(executor: &Executor, request: &CertificateSigningRequest) -> anyhow::Result<Outcome> {
    let ways = approval::ways(request).map_err(|error| anyhow!(error))?;
    let json = "application/json";
    for way in &ways {
        let question = approval::review(&request.spec, *way).to_string().into_bytes();
        let address = path(&REVIEWS, "", "", "");
        let answer: SubjectAccessReview = executor.call(Method::POST, &address, json, json, question).await?;
        if answer.status.is_some_and(|status| status.allowed) {
            let action = approval::approve(request, *way, crate::clock::now());
            return done(executor.execute(&action).await);
        }
    }
    if ways.is_empty() {
        return Ok(Outcome::Done);
    }
    // They may be allowed to later: tried again after growing pauses.
    let tried: Vec<&str> = ways.iter().map(|way| way.subresource).collect();
    let name = request.metadata.name.as_deref().unwrap_or_default();
    bail!("recognized csr {name:?} as {tried:?} but subject access review was not approved")
}

/// Runs the signer until shutdown. Signs for those signers of which there is a CA.
pub async fn run_signer(context: Context) {
    if context.settings.signing_cas.is_empty() {
        tracing::warn!(
            "no --cluster-signing-cert-file and --cluster-signing-key-file: no certificates are signed"
        );
        return;
    }
    let requests = &context.informers.certificate_requests;
    let executor = context.executor("certificate-controller");
    let (store, settings) = (Arc::clone(requests.store()), Arc::clone(&context.settings));
    context
        .controller("certificate_signing", WORKERS)
        .watch(requests, |change| vec![change.key()])
        .run(&context.shutdown, move |key| {
            let (store, settings, executor) = (Arc::clone(&store), Arc::clone(&settings), executor.clone());
            async move {
                match store.get(&key) {
                    Some(request) => sign(&executor, &settings, &request).await,
                    None => Ok(Outcome::Done),
                }
            }
        })
        .await;
}

async fn sign(
    executor: &Executor,
    settings: &Settings,
    object: &CertificateSigningRequest,
) -> anyhow::Result<Outcome> {
    let Some(ca) = settings.signing_cas.get(&*object.spec.signer_name) else { return Ok(Outcome::Done) };
    let action = match decide(object, crate::clock::now()).map_err(|error| anyhow!(error))? {
        Decision::Nothing => return Ok(Outcome::Done),
        Decision::Fail(action) => *action,
        Decision::Sign(request) => {
            let (ca, most) = (ca.clone(), settings.signing_duration);
            let usages = object.spec.usages.clone().unwrap_or_default();
            let lifetime = lifetime(object.spec.expiration_seconds, most);
            let pem = tokio::task::spawn_blocking(move || issue(&ca, &request, &usages, lifetime)).await??;
            deliver(object, pem)
        }
    };
    done(executor.execute(&action).await)
}

/// Makes and signs a certificate with the CA that the files hold now.
///
/// # Errors
/// The files cannot be read, do not go together, or the CA cannot sign.
pub fn issue(
    ca: &CaFiles,
    request: &Request,
    usages: &[String],
    lifetime: Duration,
) -> anyhow::Result<String> {
    let chain = tls::load_certs(&ca.certificate)?;
    let certificate = chain.first().context("the CA's file holds no certificate")?;
    let key = rustls::crypto::ring::sign::any_supported_type(&tls::load_key(&ca.key)?)
        .with_context(|| format!("the key in {}", ca.key.display()))?;
    let (signer, algorithm) = [
        (SignatureScheme::RSA_PKCS1_SHA256, Algorithm::RsaSha256),
        (SignatureScheme::ECDSA_NISTP256_SHA256, Algorithm::EcdsaSha256),
        (SignatureScheme::ECDSA_NISTP384_SHA384, Algorithm::EcdsaSha384),
        (SignatureScheme::ED25519, Algorithm::Ed25519),
    ]
    .into_iter()
    .find_map(|(scheme, algorithm)| Some((key.choose_scheme(&[scheme])?, algorithm)))
    .with_context(|| format!("the key in {} is of no kind that signs certificates", ca.key.display()))?;
    let mut serial = [0_u8; 16];
    getrandom::fill(&mut serial).map_err(|error| anyhow!("no random number: {error}"))?;
    let now = crate::clock::now();
    let made: Unsigned = unsigned(request, usages, lifetime, certificate, algorithm, serial, now)
        .map_err(|error| anyhow!(error))?;
    let signature = signer.sign(&made.bytes)?;
    made.signed(&signature).map_err(|error| anyhow!(error))
}

/// Takes old requests away until shutdown.
pub async fn run_cleaner(context: Context) {
    let requests = &context.informers.certificate_requests;
    let executor = context.executor("certificate-controller");
    let store = Arc::clone(requests.store());
    context
        .controller("certificate_cleaning", 1)
        .watch(requests, |change| {
            let is_news = !change.is_deleted() && change.old().is_none();
            is_news.then(|| change.key()).into_iter().collect()
        })
        .run(&context.shutdown, move |key: ObjectKey| {
            let (store, executor) = (Arc::clone(&store), executor.clone());
            async move {
                let Some(request) = store.get(&key) else { return Ok(Outcome::Done) };
                if !cleaning::is_outdated(&request, crate::clock::now()) {
                    return Ok(Outcome::RequeueAfter(CLEANING_INTERVAL));
                }
                executor.execute(&cleaning::remove(&request)).await?;
                Ok(Outcome::Done)
            }
        })
        .await;
}
