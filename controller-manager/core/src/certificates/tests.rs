//! Requests made with a real key, judged, approved and signed by a CA of the test's own.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, DnType, KeyPair, SanType, SigningKey};
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::issue::{Algorithm, Decision, decide, deliver, lifetime, unsigned};
use super::request::Request;
use super::rules::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, check};
use super::{approval, cleaning};
use crate::action::Action;

const NODE: &[&str] = &["digital signature", "client auth"];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn pem(name: &str, organization: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if !organization.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().expect("a name")),
        })
        .collect();
    let key = KeyPair::generate().expect("a key");
    params.serialize_request(&key).expect("a request").pem().expect("PEM")
}

fn object(signer: &str, usages: &[&str], pem: &str, status: Value) -> CertificateSigningRequest {
    let mut object: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": "csr", "uid": "u", "resourceVersion": "1", "creationTimestamp": at(1000).to_string()},
        "spec": {"signerName": signer, "usages": usages, "request": "", "username": "system:node:a", "groups": ["system:nodes"]},
        "status": status,
    }))
    .expect("a request");
    object.spec.request = k8s_openapi::ByteString(pem.as_bytes().to_vec());
    object
}

fn approved() -> Value {
    json!({"conditions": [{"type": "Approved", "status": "True"}]})
}

#[test]
fn each_signer_has_its_rules() {
    let node = pem("system:node:a", "system:nodes", &[]);
    let serving = pem("system:node:a", "system:nodes", &["a.local", "10.0.0.1"]);
    let serve = &["digital signature", "key encipherment", "server auth"];
    for (signer, pem, usages, expected) in [
        (KUBELET_CLIENT, &node, NODE, Ok(())),
        (
            KUBELET_CLIENT,
            &node,
            &["client auth"][..],
            Err("usages did not match [client auth digital signature key encipherment]"),
        ),
        (KUBELET_CLIENT, &serving, NODE, Err("DNS subjectAltNames are not allowed")),
        (
            KUBELET_CLIENT,
            &pem("system:node:a", "else", &[]),
            NODE,
            Err("subject organization is not system:nodes"),
        ),
        (
            KUBELET_CLIENT,
            &pem("me", "system:nodes", &[]),
            NODE,
            Err("subject common name does not begin with system:node:"),
        ),
        (KUBELET_SERVING, &serving, serve, Ok(())),
        (KUBELET_SERVING, &node, serve, Err("DNS or IP subjectAltName is required")),
        (CLIENT, &pem("jane", "", &[]), &["client auth"], Ok(())),
        (
            CLIENT,
            &pem("jane", "", &[]),
            &["server auth"],
            Err("invalid usage for client certificate: server auth"),
        ),
        (
            CLIENT,
            &pem("jane", "", &[]),
            &[],
            Err("missing required usage for client certificate: client auth"),
        ),
        (LEGACY_UNKNOWN, &pem("x", "", &[]), &["server auth"], Ok(())),
    ] {
        let request = Request::parse(pem.as_bytes()).expect("can be read");
        assert_eq!(
            check(signer, &request, &texts(usages)),
            expected.map_err(str::to_owned),
            "{signer} {usages:?}"
        );
    }
    assert!(Request::parse(b"nonsense").is_err());
}

#[test]
fn kubelets_requests_are_approved_for_who_may() {
    let node = pem("system:node:a", "system:nodes", &[]);
    let ways = |signer, status| {
        let found = approval::ways(&object(signer, NODE, &node, status)).expect("can be read");
        found.into_iter().map(|way| way.subresource).collect::<Vec<_>>()
    };
    assert_eq!(ways(KUBELET_CLIENT, json!({})), ["selfnodeclient", "nodeclient"]);
    assert_eq!(ways(CLIENT, json!({})), [""; 0]);
    assert_eq!(ways(KUBELET_CLIENT, approved()), [""; 0]);
    let other = object(KUBELET_CLIENT, NODE, &pem("system:node:b", "system:nodes", &[]), json!({}));
    let way = approval::ways(&other).expect("can be read")[0];
    assert_eq!(way.subresource, "nodeclient");
    assert_eq!(approval::review(&other.spec, way)["spec"]["user"], "system:node:a");
    let Action::Patch { patch, subresource: "approval", .. } = approval::approve(&other, way, at(5)) else {
        panic!("an approval")
    };
    assert_eq!(patch["status"]["conditions"][0]["reason"], "AutoApproved");
}

#[test]
fn approved_requests_are_signed_or_fail() {
    let node = pem("system:node:a", "system:nodes", &[]);
    let of =
        |usages, status| decide(&object(KUBELET_CLIENT, usages, &node, status), at(9)).expect("can be read");
    assert!(matches!(of(NODE, json!({})), Decision::Nothing));
    assert!(matches!(of(NODE, approved()), Decision::Sign(_)));
    let denied = json!({"conditions": [{"type": "Denied", "status": "True"}]});
    assert!(matches!(of(NODE, denied), Decision::Nothing));
    let Decision::Fail(action) = of(&["server auth"], approved()) else { panic!("fails") };
    let Action::Patch { patch, .. } = *action else { panic!("a write") };
    assert_eq!(patch["status"]["conditions"][1]["reason"], "SignerValidationFailure");
    let issued = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="});
    assert!(matches!(of(NODE, issued), Decision::Nothing));
}

#[test]
fn lifetimes_have_bounds() {
    let most = Duration::from_secs(86_400);
    for (asked, expected) in
        [(None, 86_400), (Some(600), 600), (Some(1), 600), (Some(99_999), 86_400), (Some(7200), 7200)]
    {
        assert_eq!(lifetime(asked, most).as_secs(), expected);
    }
}

#[test]
fn a_certificate_has_what_was_asked_for_and_its_issuers_signature() {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "test-ca");
    ca.not_before = rcgen::date_time_ymd(2020, 1, 1);
    ca.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let ca = ca.self_signed(&ca_key).expect("a CA");
    let now = at(1_700_000_000);
    let request = Request::parse(pem("system:node:a", "system:nodes", &["a.local", "10.0.0.1"]).as_bytes())
        .expect("reads");
    let make = |lifetime: u64| {
        let usages = texts(&["digital signature", "server auth"]);
        let lifetime = Duration::from_secs(lifetime);
        unsigned(&request, &usages, lifetime, ca.der(), Algorithm::EcdsaSha256, [7; 16], now)
    };
    let made = make(3600).expect("is made");
    let signature = ca_key.sign(&made.bytes).expect("is signed");
    let pem = made.signed(&signature).expect("is written");
    let der = Certificate::to_der(&<Certificate as x509_cert::der::DecodePem>::from_pem(&pem).expect("PEM"))
        .expect("DER");
    let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
    let (_, issuer) = X509Certificate::from_der(ca.der()).expect("a certificate");
    assert_eq!(certificate.verify_signature(Some(issuer.public_key())), Ok(()));
    assert_eq!(certificate.subject().to_string(), "CN=system:node:a, O=system:nodes");
    assert_eq!(certificate.issuer(), issuer.subject());
    assert_eq!(certificate.validity().not_before.timestamp(), 1_700_000_000 - 300);
    assert_eq!(certificate.validity().not_after.timestamp(), 1_700_000_000 + 3600);
    let names = certificate.subject_alternative_name().expect("well-formed").expect("there");
    assert_eq!(names.value.general_names.len(), 2);
    let usage = certificate.extended_key_usage().expect("well-formed").expect("there");
    assert!(usage.value.server_auth && !usage.value.client_auth);
    assert!(certificate.key_usage().expect("well-formed").expect("there").value.digital_signature());
    assert!(!certificate.is_ca());
    // A long one ends five minutes earlier, as it began; none outlives its issuer.
    let ends = |lifetime| {
        let made = make(lifetime).expect("is made");
        let signed = made.signed(&[1, 2, 3]).expect("is written");
        let certificate = <Certificate as x509_cert::der::DecodePem>::from_pem(&signed).expect("PEM");
        certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs() as i64
    };
    assert_eq!(ends(86_400), 1_700_000_000 + 86_400 - 300);
    assert_eq!(ends(86_400 * 365 * 30), issuer.validity().not_after.timestamp());
    assert!(Certificate::from_der(ca.der()).is_ok());
    let Action::Patch { patch, subresource: "status", .. } =
        deliver(&object(CLIENT, NODE, "", json!({})), pem)
    else {
        panic!("a write")
    };
    assert!(patch["status"]["certificate"].as_str().is_some_and(|text| text.starts_with("LS0tLS1CRUdJTi")));
}

#[test]
fn old_requests_go() {
    let hour = 3600;
    let status = |kind: &str, updated: i64, certificate: bool| {
        let mut status = json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": at(updated).to_string()}]});
        if certificate {
            status["certificate"] = json!("eA==");
        }
        status
    };
    for (status, now, expected) in [
        (json!({}), 1000 + 24 * hour, false),
        (json!({}), 1001 + 24 * hour, true),
        (status("Denied", 5000, false), 5000 + hour, false),
        (status("Denied", 5000, false), 5001 + hour, true),
        (status("Failed", 5000, false), 5001 + hour, true),
        (status("Approved", 5000, false), 5001 + hour, false),
        (status("Approved", 5000, true), 5001 + hour, true),
    ] {
        let request = object(CLIENT, &[], "", status.clone());
        assert_eq!(cleaning::is_outdated(&request, at(now)), expected, "{status} {now}");
    }
}
