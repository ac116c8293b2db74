//! JSON web tokens: signed by one member, recognised by all that have the public key, kept by none. They tell the user and the state of users
//! and roles they were given in; any later state needs another token.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use component_base::tls;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use super::TokenOwner;
use super::options::JwtOptions;

/// Signs and recognises tokens.
pub(super) struct JwtTokens {
    algorithm: Algorithm,
    signing: Option<EncodingKey>,
    verifying: DecodingKey,
    ttl: Duration,
}

/// Why no token can be given.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    #[error(transparent)]
    Jwt(#[from] jsonwebtoken::errors::Error),
}

impl JwtTokens {
    pub(super) fn new(options: &JwtOptions) -> anyhow::Result<Self> {
        let JwtOptions { algorithm, ttl, .. } = *options;
        let signing = options
            .private_key
            .as_deref()
            .map(|path| {
                signing_key(algorithm, path)
                    .with_context(|| format!("--auth-token: priv-key={}", path.display()))
            })
            .transpose()?;
        let public = options
            .public_key
            .as_deref()
            // A shared secret has no public part.
            .filter(|_| family(algorithm) != AlgorithmFamily::Hmac)
            .map(|path| {
                verifying_key(algorithm, path)
                    .with_context(|| format!("--auth-token: pub-key={}", path.display()))
            })
            .transpose()?;
        let verifying = match (public, &signing) {
            (Some(public), _) => public,
            (None, Some(signing)) => Jwk::from_encoding_key(signing, algorithm)
                .and_then(|public| DecodingKey::from_jwk(&public))
                .with_context(|| format!("--auth-token: priv-key is no key for {algorithm:?}"))?,
            (None, None) => bail!(
                "auth: missing key data: --auth-token=jwt needs priv-key, or pub-key to recognise tokens only"
            ),
        };
        let tokens = Self { algorithm, signing, verifying, ttl };
        if tokens.signing.is_some() {
            let token = tokens
                .sign("root", 1)
                .with_context(|| format!("--auth-token: priv-key cannot sign by {algorithm:?}"))?;
            // A token of no lifetime is not accepted, whatever the keys.
            if tokens.ttl >= Duration::from_secs(2) && tokens.owner(&token).is_none() {
                bail!(
                    "auth: public and private keys don't match: --auth-token: pub-key does not belong to priv-key"
                );
            }
        }
        Ok(tokens)
    }

    pub(super) fn sign(&self, user: &str, auth_revision: u64) -> Result<String, SignError> {
        let signing = self.signing.as_ref().ok_or(SignError::VerifyOnly)?;
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.ttl;
        let claims = json!({ "username": user, "revision": auth_revision, "exp": expires.as_secs() });
        Ok(jsonwebtoken::encode(&Header::new(self.algorithm), &claims, signing)?)
    }

    pub(super) fn owner(&self, token: &str) -> Option<TokenOwner> {
        let mut validation = Validation::new(self.algorithm);
        validation.leeway = 0;
        validation.required_spec_claims.clear();
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let claims = match jsonwebtoken::decode::<Value>(token, &self.verifying, &validation) {
            Ok(token) => token.claims,
            Err(error) => {
                tracing::debug!(%error, "a token is not valid");
                return None;
            }
        };
        let user = claims["username"].as_str()?.to_owned();
        // Some libraries write whole numbers as 1.0.
        let revision = &claims["revision"];
        let revision = revision.as_u64().or_else(|| revision.as_f64().map(|number| number as u64))?;
        Some(TokenOwner { user, auth_revision: Some(revision) })
    }
}

fn family(algorithm: Algorithm) -> AlgorithmFamily {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => AlgorithmFamily::Hmac,
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => AlgorithmFamily::Rsa,
    }
}

fn signing_key(algorithm: Algorithm, path: &Path) -> anyhow::Result<EncodingKey> {
    Ok(match family(algorithm) {
        AlgorithmFamily::Hmac => {
            let secret = std::fs::read(path)?;
            if secret.is_empty() {
                bail!("auth: missing key data: the file is empty");
            }
            EncodingKey::from_secret(&secret)
        }
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&std::fs::read(path)?)?,
        AlgorithmFamily::Ec => match tls::load_key(path)? {
            PrivateKeyDer::Pkcs8(key) => EncodingKey::from_ec_der(key.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(key) => {
                EncodingKey::from_ec_der(&pkcs8_of_sec1(algorithm, key.secret_sec1_der()))
            }
            _ => bail!("not the private key of an elliptic curve"),
        },
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&std::fs::read(path)?)?,
    })
}

fn verifying_key(algorithm: Algorithm, path: &Path) -> anyhow::Result<DecodingKey> {
    let pem = std::fs::read(path)?;
    Ok(match family(algorithm) {
        AlgorithmFamily::Hmac => DecodingKey::from_secret(&pem),
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&pem)?,
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&pem)?,
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(&pem)?,
    })
}

/// Puts a key in SEC1 form (RFC 5915), as `openssl ecparam -genkey` writes it, into the PKCS#8 form (RFC 5208) that signing takes.
fn pkcs8_of_sec1(algorithm: Algorithm, sec1: &[u8]) -> Vec<u8> {
    /// 1.2.840.10045.2.1, ecPublicKey.
    const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// 1.2.840.10045.3.1.7, prime256v1.
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    /// 1.3.132.0.34, secp384r1.
    const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    const VERSION_0: &[u8] = &[0x02, 0x01, 0x00];
    const SEQUENCE: u8 = 0x30;
    const OCTETS: u8 = 0x04;
    let curve = if algorithm == Algorithm::ES256 { P256 } else { P384 };
    let identifier = der(SEQUENCE, &[EC_PUBLIC_KEY, curve].concat());
    der(SEQUENCE, &[VERSION_0, &identifier, &der(OCTETS, sec1)].concat())
}

/// One DER value with its tag and length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match significant {
        [] => out.push(0),
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | long.len() as u8);
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    fn openssl(dir: &Path, arguments: &str) {
        let status =
            Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().expect("openssl");
        assert!(status.status.success(), "{arguments}: {}", String::from_utf8_lossy(&status.stderr));
    }

    fn options(algorithm: Algorithm, public: Option<PathBuf>, private: Option<PathBuf>) -> JwtOptions {
        JwtOptions { algorithm, public_key: public, private_key: private, ttl: Duration::from_secs(300) }
    }

    #[test]
    fn keys_as_openssl_writes_them_sign_and_verify() {
        let dir = tempfile::tempdir().expect("directory");
        let file = |name: &str| Some(dir.path().join(name));
        std::fs::write(dir.path().join("secret"), b"\0some secret\xff").expect("write");
        for arguments in [
            "genrsa -traditional -out rsa1.pem 2048",
            "rsa -in rsa1.pem -pubout -out rsa.pub",
            "pkcs8 -topk8 -nocrypt -in rsa1.pem -out rsa8.pem",
            "ecparam -genkey -name prime256v1 -out ec1.pem",
            "ec -in ec1.pem -pubout -out ec.pub",
            "pkcs8 -topk8 -nocrypt -in ec1.pem -out ec8.pem",
            "ecparam -genkey -name secp384r1 -noout -out ec384.pem",
            "ec -in ec384.pem -pubout -out ec384.pub",
        ] {
            openssl(dir.path(), arguments);
        }
        for (algorithm, private, public) in [
            (Algorithm::RS256, "rsa1.pem", "rsa.pub"),
            (Algorithm::PS512, "rsa8.pem", "rsa.pub"),
            (Algorithm::ES256, "ec1.pem", "ec.pub"),
            (Algorithm::ES256, "ec8.pem", "ec.pub"),
            (Algorithm::ES384, "ec384.pem", "ec384.pub"),
            (Algorithm::HS256, "secret", "secret"),
        ] {
            let both = JwtTokens::new(&options(algorithm, file(public), file(private))).expect("both");
            let token = both.sign("alice", 7).expect("signed");
            let owner = Some(TokenOwner { user: "alice".into(), auth_revision: Some(7) });
            assert_eq!(both.owner(&token), owner, "{algorithm:?} {private}");
            let private_alone = JwtTokens::new(&options(algorithm, None, file(private))).expect("private");
            assert_eq!(private_alone.owner(&token), owner, "{algorithm:?} {private}");
            if algorithm != Algorithm::HS256 {
                let public_alone = JwtTokens::new(&options(algorithm, file(public), None)).expect("public");
                assert_eq!(public_alone.owner(&token), owner);
                assert!(matches!(public_alone.sign("alice", 7), Err(SignError::VerifyOnly)));
            }
            let mut forged = token.into_bytes();
            let middle = forged.len() / 2;
            forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
            assert_eq!(both.owner(&String::from_utf8(forged).expect("text")), None);
        }
        let error =
            |options| JwtTokens::new(&options).err().map(|error| format!("{error:#}")).unwrap_or_default();
        openssl(dir.path(), "genrsa -out other.pem 2048");
        assert!(error(options(Algorithm::RS256, file("rsa.pub"), file("other.pem"))).contains("don't match"));
        assert!(error(options(Algorithm::RS256, None, None)).contains("missing key data"));
        assert!(error(options(Algorithm::ES384, None, file("ec1.pem"))).contains("priv-key"));
        assert!(error(options(Algorithm::RS256, None, file("gone"))).contains("gone"));
    }

    #[test]
    fn a_token_ends_with_its_time_and_says_who_it_is_for() {
        let dir = tempfile::tempdir().expect("directory");
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "secret").expect("write");
        let tokens = JwtTokens::new(&options(Algorithm::HS256, None, Some(secret))).expect("tokens");
        let token = |claims: Value| {
            jsonwebtoken::encode(
                &Header::new(Algorithm::HS256),
                &claims,
                &EncodingKey::from_secret(b"secret"),
            )
            .expect("signed")
        };
        let owner = |claims| tokens.owner(&token(claims)).map(|owner| owner.user);
        assert_eq!(owner(json!({ "username": "a", "revision": 2.0 })), Some("a".into()));
        assert_eq!(owner(json!({ "username": "a", "revision": 2, "exp": 1_000_000 })), None);
        assert_eq!(owner(json!({ "username": "a" })), None);
        assert_eq!(owner(json!({ "revision": 2 })), None);
    }
}
