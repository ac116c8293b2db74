//! The certificate for a request: what is in it, and how long it is valid. The signature is made by the caller, who has the key.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use serde_json::{Value, json};
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{BitString, GeneralizedTime, OctetString, UtcTime};
use x509_cert::der::flagset::FlagSet;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, EncodePem};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::{Time, Validity};

use super::request::Request;
use super::rules::{SIGNERS, check};
use super::{has_true_condition, is_issued};
use crate::action::{Action, CERTIFICATE_SIGNING_REQUESTS};
use crate::object_meta::{name, seconds};
use crate::status_report;

/// Certificates are valid from a little earlier on: clocks differ.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Certificates for less than this last as long as was asked for, from now.
const SHORT: Duration = Duration::from_secs(8 * 3600);
/// Nobody gets less.
const LIFETIME_MIN: Duration = Duration::from_secs(10 * 60);
/// Where UTCTime ends.
const YEAR_2050_SECONDS: u64 = 2_524_608_000;

const SUBJECT_KEY: &str = "2.5.29.14";

/// How the caller signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    RsaSha256,
    /// ECDSA with SHA-256.
    EcdsaSha256,
    /// ECDSA with SHA-384.
    EcdsaSha384,
    /// Ed25519.
    Ed25519,
}

impl Algorithm {
    fn identifier(self) -> AlgorithmIdentifierOwned {
        let (oid, parameters) = match self {
            Self::RsaSha256 => ("1.2.840.113549.1.1.11", Some(x509_cert::der::Any::null())),
            Self::EcdsaSha256 => ("1.2.840.10045.4.3.2", None),
            Self::EcdsaSha384 => ("1.2.840.10045.4.3.3", None),
            Self::Ed25519 => ("1.3.101.112", None),
        };
        AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap(oid), parameters }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    /// It is not ours, not approved, or done.
    Nothing,
    /// It is not what the signer signs: the request has failed.
    Fail(Box<Action>),
    /// It is to be signed.
    Sign(Box<Request>),
}

/// Decides about a request.
///
/// # Errors
/// The request cannot be read.
pub fn decide(object: &CertificateSigningRequest, now: Timestamp) -> Result<Decision, String> {
    let signer = &*object.spec.signer_name;
    if is_issued(object)
        || !SIGNERS.contains(&signer)
        || !has_true_condition(object, "Approved")
        || has_true_condition(object, "Denied")
        || has_true_condition(object, "Failed")
    {
        return Ok(Decision::Nothing);
    }
    let request = Request::parse(&object.spec.request.0)
        .map_err(|error| format!("unable to parse csr {:?}: {error}", name(&object.metadata)))?;
    let usages = object.spec.usages.clone().unwrap_or_default();
    Ok(match check(signer, &request, &usages) {
        Ok(()) => Decision::Sign(Box::new(request)),
        Err(reason) => Decision::Fail(Box::new(fail(object, reason, now))),
    })
}

fn fail(object: &CertificateSigningRequest, message: String, now: Timestamp) -> Action {
    let status = object.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(message),
        last_transition_time: None,
        last_update_time: Some(seconds(now)),
    });
    write(object, json!({ "conditions": conditions }))
}

/// Puts the certificate into the request's status.
pub fn deliver(object: &CertificateSigningRequest, pem: String) -> Action {
    let certificate = Some(k8s_openapi::ByteString(pem.into_bytes()));
    let status = CertificateSigningRequestStatus { certificate, ..Default::default() };
    write(object, json!(status))
}

fn write(object: &CertificateSigningRequest, status: Value) -> Action {
    status_report::patch(&CERTIFICATE_SIGNING_REQUESTS, &object.metadata, status)
}

/// How long a certificate lasts: as long as was asked for, within bounds.
pub fn lifetime(asked_seconds: Option<i32>, most: Duration) -> Duration {
    let asked = asked_seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    match asked {
        None => most,
        Some(asked) if asked > most => most,
        Some(asked) => asked.max(LIFETIME_MIN),
    }
}

/// What is to be signed, and what it will be put into.
pub struct Unsigned {
    certificate: TbsCertificate,
    /// The bytes to sign.
    pub bytes: Vec<u8>,
}

/// The certificate's contents.
///
/// # Errors
/// The CA's certificate cannot be read or has expired; a usage is unknown.
pub fn unsigned(
    request: &Request,
    usages: &[String],
    lifetime: Duration,
    ca_der: &[u8],
    algorithm: Algorithm,
    serial: [u8; 16],
    now: Timestamp,
) -> Result<Unsigned, String> {
    let malformed = |what: &'static str| move |error: x509_cert::der::Error| format!("{what}: {error}");
    let ca = Certificate::from_der(ca_der).map_err(malformed("the CA's certificate"))?.tbs_certificate;
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let ca_until = ca.validity.not_after.to_unix_duration();
    if now >= ca_until {
        return Err(format!(
            "refusing to sign a certificate that expired in the past: the CA's certificate ended at {}",
            ca.validity.not_after
        ));
    }
    let shortened = if lifetime < SHORT { lifetime } else { lifetime - BACKDATE };
    let until = (now + shortened).min(ca_until);
    let mut extensions = key_usages(usages)?;
    let put = |extensions: &mut Vec<Extension>, oid, critical, value: x509_cert::der::Result<Vec<u8>>| {
        let value = value.and_then(OctetString::new).map_err(malformed("an extension"))?;
        extensions.push(Extension { extn_id: oid, critical, extn_value: value });
        Ok::<(), String>(())
    };
    let constraints = BasicConstraints { ca: false, path_len_constraint: None };
    put(
        &mut extensions,
        <BasicConstraints as x509_cert::der::oid::AssociatedOid>::OID,
        true,
        constraints.to_der(),
    )?;
    if let Some(key) = subject_key(&ca) {
        let authority = AuthorityKeyIdentifier { key_identifier: Some(key), ..Default::default() };
        put(
            &mut extensions,
            <AuthorityKeyIdentifier as x509_cert::der::oid::AssociatedOid>::OID,
            false,
            authority.to_der(),
        )?;
    }
    if let Some(names) = &request.alternative {
        // It stands for the subject where there is none.
        let critical = request.inner.info.subject.is_empty();
        extensions.push(Extension { critical, ..names.clone() });
    }
    let certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial).map_err(malformed("the serial number"))?,
        signature: algorithm.identifier(),
        issuer: ca.subject,
        validity: Validity {
            not_before: time(now.saturating_sub(BACKDATE)).map_err(malformed("the time"))?,
            not_after: time(until).map_err(malformed("the time"))?,
        },
        subject: request.inner.info.subject.clone(),
        subject_public_key_info: request.inner.info.public_key.clone(),
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    let bytes = certificate.to_der().map_err(malformed("the certificate"))?;
    Ok(Unsigned { certificate, bytes })
}

impl Unsigned {
    /// The certificate as PEM.
    ///
    /// # Errors
    /// It cannot be written, which does not happen to what could be signed.
    pub fn signed(self, signature: &[u8]) -> Result<String, String> {
        let signature_algorithm = self.certificate.signature.clone();
        let signature = BitString::from_bytes(signature).map_err(|error| error.to_string())?;
        Certificate { tbs_certificate: self.certificate, signature_algorithm, signature }
            .to_pem(LineEnding::LF)
            .map_err(|error| error.to_string())
    }
}

fn time(since_epoch: Duration) -> x509_cert::der::Result<Time> {
    if since_epoch.as_secs() < YEAR_2050_SECONDS {
        UtcTime::from_unix_duration(since_epoch).map(Time::UtcTime)
    } else {
        GeneralizedTime::from_unix_duration(since_epoch).map(Time::GeneralTime)
    }
}

fn subject_key(ca: &TbsCertificate) -> Option<OctetString> {
    let found = ca.extensions.iter().flatten().find(|one| one.extn_id.to_string() == SUBJECT_KEY)?;
    Some(SubjectKeyIdentifier::from_der(found.extn_value.as_bytes()).ok()?.0)
}

/// The extensions of usages, by their names in the API.
fn key_usages(usages: &[String]) -> Result<Vec<Extension>, String> {
    let mut plain: FlagSet<KeyUsages> = FlagSet::default();
    let mut extended: Vec<ObjectIdentifier> = Vec::new();
    for usage in usages {
        match flag(usage) {
            Some(flag) => plain |= flag,
            None => match purpose(usage) {
                Some(oid) => extended.push(ObjectIdentifier::new_unwrap(oid)),
                None => return Err(format!("unrecognized usage values: [{usage:?}]")),
            },
        }
    }
    extended.sort_unstable();
    extended.dedup();
    let mut extensions = Vec::new();
    let mut put = |oid, critical, value: x509_cert::der::Result<Vec<u8>>| {
        let value = value.and_then(OctetString::new).map_err(|error| error.to_string())?;
        extensions.push(Extension { extn_id: oid, critical, extn_value: value });
        Ok::<(), String>(())
    };
    if !plain.is_empty() {
        put(<KeyUsage as x509_cert::der::oid::AssociatedOid>::OID, true, KeyUsage(plain).to_der())?;
    }
    if !extended.is_empty() {
        put(
            <ExtendedKeyUsage as x509_cert::der::oid::AssociatedOid>::OID,
            false,
            ExtendedKeyUsage(extended).to_der(),
        )?;
    }
    Ok(extensions)
}

fn flag(usage: &str) -> Option<KeyUsages> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsages::DigitalSignature,
        "content commitment" => KeyUsages::NonRepudiation,
        "key encipherment" => KeyUsages::KeyEncipherment,
        "key agreement" => KeyUsages::KeyAgreement,
        "data encipherment" => KeyUsages::DataEncipherment,
        "cert sign" => KeyUsages::KeyCertSign,
        "crl sign" => KeyUsages::CRLSign,
        "encipher only" => KeyUsages::EncipherOnly,
        "decipher only" => KeyUsages::DecipherOnly,
        _ => return None,
    })
}

fn purpose(usage: &str) -> Option<&'static str> {
    Some(match usage {
        "any" => "2.5.29.37.0",
        "server auth" => "1.3.6.1.5.5.7.3.1",
        "client auth" => "1.3.6.1.5.5.7.3.2",
        "code signing" => "1.3.6.1.5.5.7.3.3",
        "email protection" | "s/mime" => "1.3.6.1.5.5.7.3.4",
        "ipsec end system" => "1.3.6.1.5.5.7.3.5",
        "ipsec tunnel" => "1.3.6.1.5.5.7.3.6",
        "ipsec user" => "1.3.6.1.5.5.7.3.7",
        "timestamping" => "1.3.6.1.5.5.7.3.8",
        "ocsp signing" => "1.3.6.1.5.5.7.3.9",
        "microsoft sgc" => "1.3.6.1.4.1.311.10.3.3",
        "netscape sgc" => "2.16.840.1.113730.4.1",
        _ => return None,
    })
}
