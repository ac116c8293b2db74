//! ServiceAccount tokens: signing, verification, and the public keys for others to verify with. Knows keys and claims; whether the objects a token is bound
//! to still exist is for the caller to ask.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::legacy::{self, LegacyClaims};

/// A reference inside a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    /// Name.
    pub name: String,
    /// Unique id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claim `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Namespace of all objects named.
    #[serde(default)]
    pub namespace: String,
    /// The account.
    #[serde(default)]
    pub serviceaccount: BoundObject,
    /// The pod that the token dies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// The secret that the token dies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    /// The node of the pod, or that the token dies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// Seconds since the epoch after which use of the token is worth a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// One or several texts, as `aud` may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    /// As a list.
    pub fn list(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Many(many) => many.clone(),
        }
    }
}

/// The claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    pub aud: Audience,
    /// End of validity, seconds since the epoch.
    pub exp: i64,
    /// Start of validity.
    #[serde(default)]
    pub nbf: i64,
    /// When it was made.
    #[serde(default)]
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
    /// Unique id of the token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What the token is bound to.
    #[serde(rename = "kubernetes.io")]
    pub binding: Binding,
}

/// Why a token is not accepted. `Display` never contains the token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of any of our issuers: another authenticator may know it.
    #[error("not a service account token of this cluster")]
    NotOurs,
    /// No key verifies it.
    #[error("the token's signature does not match any service account key")]
    Signature,
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("service account token is not valid yet")]
    NotYet,
    /// It is meant for others.
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// The token's.
        found: Vec<String>,
        /// Ours.
        wanted: Vec<String>,
    },
    /// It makes no sense.
    #[error("malformed service account token: {0}")]
    Malformed(String),
}

struct VerificationKey {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    jwk: Jwk,
}

struct SigningKey {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

/// The keys of a cluster's ServiceAccount tokens.
pub struct TokenKeys {
    verification: Vec<VerificationKey>,
    signing: Option<SigningKey>,
    issuers: Vec<String>,
}

/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: i64 = 10;

impl TokenKeys {
    /// Reads the keys. Without key files the signing key verifies.
    ///
    /// # Errors
    /// A text naming the file.
    pub fn load(
        key_files: &[impl AsRef<Path>],
        signing: Option<&Path>,
        issuers: &[String],
    ) -> Result<Self, String> {
        let mut keys = Self { verification: Vec::new(), signing: None, issuers: issuers.to_vec() };
        for path in key_files {
            let path = path.as_ref();
            let pem = read(path)?;
            let found = public_keys(&pem)?;
            if found.is_empty() {
                return Err(format!("{}: holds no PEM public or private RSA or ECDSA key", path.display()));
            }
            for jwk in found {
                keys.add(jwk).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        if let Some(path) = signing {
            let pem = read(path)?;
            let named = |error: String| format!("{}: {error}", path.display());
            let (key, algorithm) = private_key(&pem).map_err(named)?;
            let jwk = Jwk::from_encoding_key(&key, algorithm).map_err(|error| named(error.to_string()))?;
            let id = key_id(&jwk).map_err(named)?;
            if keys.verification.is_empty() {
                keys.add(jwk).map_err(named)?;
            }
            keys.signing = Some(SigningKey { id, algorithm, key });
        }
        Ok(keys)
    }

    fn add(&mut self, mut jwk: Jwk) -> Result<(), String> {
        let id = key_id(&jwk)?;
        let algorithm = algorithm_of(&jwk)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_algorithm = Some(match algorithm {
            Algorithm::ES256 => KeyAlgorithm::ES256,
            Algorithm::ES384 => KeyAlgorithm::ES384,
            _ => KeyAlgorithm::RS256,
        });
        if !self.verification.iter().any(|known| known.id == id) {
            self.verification.push(VerificationKey { id, algorithm, key, jwk });
        }
        Ok(())
    }

    /// The issuer that new tokens carry.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// Signs claims.
    ///
    /// # Errors
    /// No signing key, or one that does not work.
    pub fn sign(&self, claims: &Claims) -> Result<String, String> {
        let signing = self.signing.as_ref().ok_or("no --service-account-signing-key-file was given")?;
        let mut header = Header::new(signing.algorithm);
        header.typ = None;
        header.kid = Some(signing.id.clone());
        jsonwebtoken::encode(&header, claims, &signing.key).map_err(|error| error.to_string())
    }

    /// Checks signature, issuer, times (`now` in seconds since the epoch) and that one of `audiences` is among the token's.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &str, audiences: &[String], now: i64) -> Result<Claims, TokenError> {
        let claims = self.signed(token, |issuer| self.issuers.iter().any(|known| known == issuer))?;
        let claims: Claims =
            serde_json::from_value(claims).map_err(|error| TokenError::Malformed(error.to_string()))?;
        if now >= claims.exp.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf.saturating_sub(LEEWAY_SECONDS) {
            return Err(TokenError::NotYet);
        }
        let found = claims.aud.list();
        if !audiences.is_empty() && !found.iter().any(|audience| audiences.contains(audience)) {
            return Err(TokenError::Audience { found, wanted: audiences.to_vec() });
        }
        let account = &claims.binding.serviceaccount.name;
        if claims.sub != format!("system:serviceaccount:{}:{account}", claims.binding.namespace) {
            return Err(TokenError::Malformed("subject and bound service account differ".into()));
        }
        Ok(claims)
    }

    /// The claims of a token that lives in a Secret, if one of the keys has signed it. It has no time of its own.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_legacy(&self, token: &str) -> Result<LegacyClaims, TokenError> {
        let claims = self.signed(token, |issuer| issuer == legacy::ISSUER)?;
        serde_json::from_value(claims).map_err(|error| TokenError::Malformed(error.to_string()))
    }

    /// The claims of a token of an issuer that counts, if one of the keys has signed it.
    fn signed(&self, token: &str, counts: impl Fn(&str) -> bool) -> Result<Value, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::NotOurs)?;
        let payload = token.split('.').nth(1).ok_or(TokenError::NotOurs)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::NotOurs)?;
        let issuer: Value = serde_json::from_slice(&payload).map_err(|_| TokenError::NotOurs)?;
        let issuer = issuer.get("iss").and_then(Value::as_str).unwrap_or_default();
        if !counts(issuer) {
            return Err(TokenError::NotOurs);
        }
        let mut candidates: Vec<&VerificationKey> =
            self.verification.iter().filter(|key| key.algorithm == header.alg).collect();
        if let Some(id) = &header.kid
            && let Some(exact) = candidates.iter().position(|key| key.id == *id)
        {
            candidates = vec![candidates[exact]];
        }
        candidates
            .into_iter()
            .find_map(|key| {
                let mut validation = Validation::new(key.algorithm);
                // Times and audiences are checked below, with texts of their own.
                validation.validate_exp = false;
                validation.validate_aud = false;
                validation.set_required_spec_claims::<&str>(&[]);
                jsonwebtoken::decode::<Value>(token, &key.key, &validation).ok()
            })
            .map(|decoded| decoded.claims)
            .ok_or(TokenError::Signature)
    }

    /// The public keys as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.verification.iter().map(|key| &key.jwk).collect::<Vec<_>>()})
    }

    /// The OpenID provider's description.
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        let mut algorithms: Vec<String> =
            self.verification.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        algorithms.sort();
        algorithms.dedup();
        json!({
            "issuer": self.issuer(),
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The PEM blocks of a file, each with its label.
fn blocks(pem: &str) -> impl Iterator<Item = (&str, &str)> {
    pem.split("-----BEGIN ").skip(1).filter_map(|block| {
        let (label, rest) = block.split_once("-----")?;
        let end = rest.find("-----END ")?;
        Some((label, &rest[..end]))
    })
}

fn der(body: &str) -> Result<Vec<u8>, String> {
    let text: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string())
}

/// All public keys in a PEM file: given as such, or as halves of private keys.
fn public_keys(pem: &str) -> Result<Vec<Jwk>, String> {
    let mut keys = Vec::new();
    for (label, body) in blocks(pem) {
        if label == "PUBLIC KEY" {
            keys.push(jwk_of_spki(&der(body)?)?);
        } else if label.ends_with("PRIVATE KEY") {
            let block = format!("-----BEGIN {label}-----{body}-----END {label}-----\n");
            let (key, algorithm) = private_key(&block)?;
            keys.push(Jwk::from_encoding_key(&key, algorithm).map_err(|error| error.to_string())?);
        }
    }
    Ok(keys)
}

fn private_key(pem: &str) -> Result<(EncodingKey, Algorithm), String> {
    if let Ok(key) = EncodingKey::from_rsa_pem(pem.as_bytes()) {
        return Ok((key, Algorithm::RS256));
    }
    for algorithm in [Algorithm::ES256, Algorithm::ES384] {
        if let Ok(key) = EncodingKey::from_ec_pem(pem.as_bytes())
            && Jwk::from_encoding_key(&key, algorithm).is_ok()
        {
            return Ok((key, algorithm));
        }
    }
    Err("holds no PEM RSA or ECDSA (PKCS#8) private key".to_owned())
}

/// A SubjectPublicKeyInfo as a key for tokens.
fn jwk_of_spki(spki: &[u8]) -> Result<Jwk, String> {
    use x509_parser::prelude::FromDer;
    let (_, info) =
        x509_parser::x509::SubjectPublicKeyInfo::from_der(spki).map_err(|error| error.to_string())?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = match info.parsed().map_err(|error| error.to_string())? {
        x509_parser::public_key::PublicKey::RSA(rsa) => {
            let modulus = rsa.modulus.strip_prefix(&[0]).unwrap_or(rsa.modulus);
            json!({"kty": "RSA", "n": encode(modulus), "e": encode(rsa.exponent)})
        }
        x509_parser::public_key::PublicKey::EC(point) => {
            let data = point.data();
            let (curve, half) = match data.len() {
                65 => ("P-256", 32),
                97 => ("P-384", 48),
                _ => return Err("only the curves P-256 and P-384 are supported".to_owned()),
            };
            json!({"kty": "EC", "crv": curve, "x": encode(&data[1..=half]), "y": encode(&data[1 + half..])})
        }
        _ => return Err("neither an RSA nor an ECDSA key".to_owned()),
    };
    serde_json::from_value(jwk).map_err(|error| error.to_string())
}

fn algorithm_of(jwk: &Jwk) -> Result<Algorithm, String> {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Ok(Algorithm::RS256),
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            jsonwebtoken::jwk::EllipticCurve::P256 => Ok(Algorithm::ES256),
            jsonwebtoken::jwk::EllipticCurve::P384 => Ok(Algorithm::ES384),
            _ => Err("only the curves P-256 and P-384 are supported".to_owned()),
        },
        _ => Err("neither an RSA nor an ECDSA key".to_owned()),
    }
}

/// The key's id as upstream makes it: a hash over the DER form of the public key, so that servers sharing keys agree on ids.
fn key_id(jwk: &Jwk) -> Result<String, String> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string());
    let spki = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let mut numbers = der_integer(&decode(&rsa.n)?);
            numbers.extend(der_integer(&decode(&rsa.e)?));
            // rsaEncryption with NULL parameters.
            let algorithm = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
            spki(&algorithm, &der_value(0x30, &numbers))
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let mut point = vec![4];
            point.extend(decode(&ec.x)?);
            point.extend(decode(&ec.y)?);
            // id-ecPublicKey, then the curve.
            let mut algorithm = vec![0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
            algorithm.extend_from_slice(match ec.curve {
                jsonwebtoken::jwk::EllipticCurve::P256 => {
                    &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7][..]
                }
                _ => &[0x06, 5, 0x2b, 0x81, 0x04, 0, 34][..],
            });
            spki(&algorithm, &point)
        }
        _ => return Err("neither an RSA nor an ECDSA key".to_owned()),
    };
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(spki)))
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let mut content = der_value(0x30, algorithm);
    let mut bits = vec![0];
    bits.extend_from_slice(key);
    content.extend(der_value(0x03, &bits));
    der_value(0x30, &content)
}

fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let mut content = bytes.to_vec();
    if content.first().is_some_and(|first| first & 0x80 != 0) {
        content.insert(0, 0);
    }
    der_value(0x02, &content)
}

fn der_value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut value = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|b| *b != 0).unwrap_or(length.len() - 1)..];
    if content.len() < 0x80 {
        value.push(content.len() as u8);
    } else {
        value.push(0x80 | significant.len() as u8);
        value.extend_from_slice(significant);
    }
    value.extend_from_slice(content);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> Claims {
        Claims {
            aud: Audience::Many(vec!["api".into()]),
            exp,
            nbf: 100,
            iat: 100,
            iss: "https://issuer".into(),
            sub: "system:serviceaccount:ns:robot".into(),
            jti: String::new(),
            binding: Binding {
                namespace: "ns".into(),
                serviceaccount: BoundObject { name: "robot".into(), uid: "u".into() },
                ..Binding::default()
            },
        }
    }

    fn keys(dir: &Path) -> (TokenKeys, TokenKeys) {
        let pair = rcgen::KeyPair::generate().expect("key");
        let (private, public) = (dir.join("sa.key"), dir.join("sa.pub"));
        std::fs::write(&private, pair.serialize_pem()).expect("write");
        std::fs::write(&public, pair.public_key_pem()).expect("write");
        let issuers = ["https://issuer".to_owned()];
        let none: [&Path; 0] = [];
        (
            TokenKeys::load(&none, Some(&private), &issuers).expect("private half"),
            TokenKeys::load(&[&public], None, &issuers).expect("public half"),
        )
    }

    #[test]
    fn a_token_of_the_private_key_verifies_with_the_public_one() {
        let dir = tempfile::tempdir().expect("dir");
        let (signer, verifier) = keys(dir.path());
        let token = signer.sign(&claims(1000)).expect("signs");
        let audiences = ["api".to_owned()];
        assert_eq!(verifier.verify(&token, &audiences, 500), Ok(claims(1000)));
        assert_eq!(signer.jwks(), verifier.jwks());
        assert_eq!(verifier.verify(&token, &audiences, 2000), Err(TokenError::Expired));
        assert_eq!(verifier.verify(&token, &audiences, 10), Err(TokenError::NotYet));
        assert!(matches!(verifier.verify(&token, &["other".into()], 500), Err(TokenError::Audience { .. })));
    }

    #[test]
    fn forged_and_foreign_tokens_are_told_apart() {
        let dir = tempfile::tempdir().expect("dir");
        let (signer, verifier) = keys(dir.path());
        let token = signer.sign(&claims(1000)).expect("signs");
        let mut forged: Vec<&str> = token.split('.').collect();
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims(9999)).expect("JSON"));
        forged[1] = &payload;
        assert_eq!(verifier.verify(&forged.join("."), &[], 500), Err(TokenError::Signature));
        assert_eq!(verifier.verify("abc", &[], 500), Err(TokenError::NotOurs));
    }

    #[test]
    fn der_lengths_grow() {
        assert_eq!(der_value(4, &[0; 3])[..2], [4, 3]);
        assert_eq!(der_value(4, &[0; 200])[..3], [4, 0x81, 200]);
        assert_eq!(der_value(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(der_integer(&[0x80]), [2, 2, 0, 0x80]);
    }
}
