//! Secrets that hold a ServiceAccount's token, which never expires and goes with the account. Owns what has to be in such a Secret and which tokens and
//! references go; signing is the shell's, by the claims made here.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{SequenceOf, UintRef};

use crate::action::{Action, SECRETS, SERVICE_ACCOUNTS, Target};
use crate::object_meta::{annotation, name, namespace, preconditions, uid};

/// The type of these Secrets.
pub const SECRET_TYPE: &str = "kubernetes.io/service-account-token";
/// Annotation: the account's name.
pub const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// Annotation: the account's uid.
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

const TOKEN: &str = "token";
const NAMESPACE: &str = "namespace";
const ROOT_CA: &str = "ca.crt";
const ISSUER: &str = "kubernetes/serviceaccount";

/// The account that a token Secret names; none for a Secret of another type, or that names nobody.
pub fn account_of(secret: &Secret) -> Option<&str> {
    let is_token = secret.type_.as_deref() == Some(SECRET_TYPE);
    annotation(&secret.metadata, ACCOUNT_NAME).filter(|name| is_token && !name.is_empty())
}

/// Whether the account is the one that the Secret means: of its name, and of its uid if it says one.
pub fn is_for(secret: &Secret, account: &ObjectMeta) -> bool {
    let wanted = annotation(&secret.metadata, ACCOUNT_UID).unwrap_or_default();
    account_of(secret) == Some(name(account)) && (wanted.is_empty() || wanted == uid(account))
}

/// What a token says, as all of its kind have since they exist.
pub fn claims(secret: &ObjectMeta, account: &ObjectMeta) -> Value {
    let (of, account_name) = (namespace(secret), name(account));
    json!({
        "iss": ISSUER,
        "sub": format!("system:serviceaccount:{of}:{account_name}"),
        "kubernetes.io/serviceaccount/namespace": of,
        "kubernetes.io/serviceaccount/secret.name": name(secret),
        "kubernetes.io/serviceaccount/service-account.name": account_name,
        "kubernetes.io/serviceaccount/service-account.uid": uid(account),
    })
}

/// The name of a key, by which those who verify tokens find it: a digest of its public half (`SubjectPublicKeyInfo` in DER).
pub fn key_id(public: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(public))
}

/// The algorithms by which tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA (PKCS#1 v1.5) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
}

/// What is signed of a token: its header and its claims.
pub fn unsigned(algorithm: Algorithm, key_id: &str, claims: &Value) -> String {
    let name = match algorithm {
        Algorithm::Rs256 => "RS256",
        Algorithm::Es256 => "ES256",
        Algorithm::Es384 => "ES384",
    };
    let header = json!({ "alg": name, "kid": key_id });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(&header), part(claims))
}

/// The token. Tokens carry the two numbers of an ECDSA signature side by side (RFC 7518, 3.4), libraries of cryptography give them in DER.
///
/// # Errors
/// The signature is none of the algorithm.
pub fn signed(algorithm: Algorithm, unsigned: &str, signature: &[u8]) -> Result<String, &'static str> {
    let width = match algorithm {
        Algorithm::Rs256 => return Ok(format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))),
        Algorithm::Es256 => 32,
        Algorithm::Es384 => 48,
    };
    let numbers = SequenceOf::<UintRef<'_>, 2>::from_der(signature).map_err(|_| "not an ECDSA signature")?;
    let mut raw = Vec::with_capacity(2 * width);
    for number in numbers.iter() {
        let bytes = number.as_bytes();
        let missing = width.checked_sub(bytes.len()).ok_or("an ECDSA signature by another curve")?;
        raw.extend(std::iter::repeat_n(0, missing));
        raw.extend_from_slice(bytes);
    }
    Ok(format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(raw)))
}

/// The Secret with all that belongs in it; none if that is there. `sign` makes a token of claims.
///
/// # Errors
/// No token can be made.
pub fn complete<E>(
    secret: &Secret,
    account: &ObjectMeta,
    root_ca: Option<&str>,
    sign: impl FnOnce(&Value) -> Result<String, E>,
) -> Result<Option<Secret>, E> {
    let mut complete = secret.clone();
    let data = complete.data.get_or_insert_default();
    if let Some(root_ca) = root_ca.filter(|text| !text.is_empty()) {
        data.insert(ROOT_CA.to_owned(), bytes(root_ca));
    }
    let is_missing =
        |data: &BTreeMap<String, ByteString>, key: &str| data.get(key).is_none_or(|it| it.0.is_empty());
    if is_missing(data, NAMESPACE) {
        data.insert(NAMESPACE.to_owned(), bytes(namespace(&secret.metadata)));
    }
    if is_missing(data, TOKEN) {
        data.insert(TOKEN.to_owned(), bytes(&sign(&claims(&secret.metadata, account))?));
    }
    if complete.data == secret.data {
        return Ok(None);
    }
    let annotations = complete.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_NAME.to_owned(), name(account).to_owned());
    annotations.insert(ACCOUNT_UID.to_owned(), uid(account).to_owned());
    Ok(Some(complete))
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

/// Takes away a token whose account is gone.
pub fn remove(secret: &ObjectMeta) -> Action {
    Action::Delete {
        target: Target::new(&SECRETS, namespace(secret), name(secret)),
        uid: secret.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: None,
    }
}

/// Takes the reference to a Secret that is gone from an account; none if it has none.
pub fn forget(account: &ServiceAccount, secret: &str) -> Option<Action> {
    let all = account.secrets.as_deref().unwrap_or_default();
    let kept: Vec<_> = all.iter().filter(|one| one.name.as_deref() != Some(secret)).collect();
    (kept.len() < all.len()).then(|| {
        let meta = &account.metadata;
        let secrets = crate::object_meta::list_or_null(&kept);
        Action::Patch {
            target: Target::new(&SERVICE_ACCOUNTS, namespace(meta), name(meta)),
            subresource: "",
            patch: json!({ "metadata": preconditions(meta, true), "secrets": secrets }),
        }
    })
}
