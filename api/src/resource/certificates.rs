//! The resources of `certificates.k8s.io`.

use super::{READ_AND_WRITE, Resource, of_group, sub};

const GROUP: &str = "certificates.k8s.io";
const VERSION: &str = "certificates.k8s.io/v1";

pub(super) const ROWS: &[Resource] = &[Resource {
    namespaced: false,
    subresources: &[
        sub("approval", GROUP, "v1", "CertificateSigningRequest", READ_AND_WRITE),
        sub("status", GROUP, "v1", "CertificateSigningRequest", READ_AND_WRITE),
    ],
    ..of_group(
        GROUP,
        VERSION,
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
        &["csr"],
    )
}];
