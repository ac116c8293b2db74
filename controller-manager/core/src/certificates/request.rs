//! What a PKCS #10 request asks for.

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::Ia5String;
use x509_cert::der::{Decode, DecodePem, Tagged};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";
/// The attribute that lists the extensions wanted.
const EXTENSION_REQUEST: &str = "1.2.840.113549.1.9.14";
pub(super) const SUBJECT_ALT_NAME: &str = "2.5.29.17";

/// A request that could be read.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) inner: CertReq,
    /// The subject's common name; empty without.
    pub common_name: String,
    /// The subject's organizations, in order.
    pub organizations: Vec<String>,
    /// How many names of each sort the subject is to have besides.
    pub names: AlternativeNames,
    /// All names, as they were asked for.
    pub(super) alternative: Option<Extension>,
}

/// Numbers of alternative names by sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// DNS names.
    pub dns: usize,
    /// Addresses.
    pub addresses: usize,
    /// Mail addresses.
    pub mail: usize,
    /// URIs.
    pub uris: usize,
}

impl Request {
    /// Reads the PEM of `spec.request`.
    ///
    /// # Errors
    /// What keeps it from being read.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let inner = CertReq::from_pem(pem)
            .map_err(|error| format!("PEM block type must be CERTIFICATE REQUEST: {error}"))?;
        let text = |wanted: &str| {
            let all = inner.info.subject.0.iter().flat_map(|set| set.0.iter());
            all.filter(|one| one.oid.to_string() == wanted).map(shown).collect::<Vec<String>>()
        };
        let organizations = text(ORGANIZATION);
        let common_name = text(COMMON_NAME).pop().unwrap_or_default();
        let alternative = alternative(&inner).map_err(|error| format!("malformed extensions: {error}"))?;
        let mut names = AlternativeNames::default();
        if let Some(extension) = &alternative {
            let list = SubjectAltName::from_der(extension.extn_value.as_bytes())
                .map_err(|error| format!("malformed subjectAltName: {error}"))?;
            for name in list.0 {
                match name {
                    GeneralName::DnsName(_) => names.dns += 1,
                    GeneralName::IpAddress(_) => names.addresses += 1,
                    GeneralName::Rfc822Name(_) => names.mail += 1,
                    GeneralName::UniformResourceIdentifier(_) => names.uris += 1,
                    _ => {}
                }
            }
        }
        Ok(Self { inner, common_name, organizations, names, alternative })
    }
}

/// The text of a part of a name, whatever kind of string it is.
fn shown(part: &AttributeTypeAndValue) -> String {
    match part.value.tag() {
        x509_cert::der::Tag::Ia5String => {
            part.value.decode_as::<Ia5String>().map(|text| text.to_string()).unwrap_or_default()
        }
        _ => String::from_utf8_lossy(part.value.value()).into_owned(),
    }
}

fn alternative(request: &CertReq) -> x509_cert::der::Result<Option<Extension>> {
    for attribute in request.info.attributes.iter().filter(|one| one.oid.to_string() == EXTENSION_REQUEST) {
        for value in attribute.values.iter() {
            let wanted: ExtensionReq = value.decode_as()?;
            if let Some(found) = wanted.0.into_iter().find(|one| one.extn_id.to_string() == SUBJECT_ALT_NAME)
            {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
