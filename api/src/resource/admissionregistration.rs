//! The resources of `admissionregistration.k8s.io`.

use super::{NOTHING, READ_AND_WRITE, Resource, of_group, sub};

const GROUP: &str = "admissionregistration.k8s.io";
const VERSION: &str = "admissionregistration.k8s.io/v1";
const BETA: &str = "admissionregistration.k8s.io/v1beta1";

pub(super) const ROWS: &[Resource] = &[
    Resource {
        namespaced: false,
        categories: &["api-extensions"],
        ..of_group(
            GROUP,
            VERSION,
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            "mutatingwebhookconfiguration",
            NOTHING,
        )
    },
    Resource {
        namespaced: false,
        categories: &["api-extensions"],
        subresources: &[sub("status", GROUP, "v1", "ValidatingAdmissionPolicy", READ_AND_WRITE)],
        ..of_group(
            GROUP,
            VERSION,
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            "validatingadmissionpolicy",
            NOTHING,
        )
    },
    Resource {
        namespaced: false,
        categories: &["api-extensions"],
        ..of_group(
            GROUP,
            VERSION,
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            "validatingadmissionpolicybinding",
            NOTHING,
        )
    },
    Resource {
        namespaced: false,
        categories: &["api-extensions"],
        ..of_group(
            GROUP,
            VERSION,
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            "validatingwebhookconfiguration",
            NOTHING,
        )
    },
    Resource {
        namespaced: false,
        version: "v1beta1",
        categories: &["api-extensions"],
        ..of_group(
            GROUP,
            BETA,
            "MutatingAdmissionPolicy",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicy",
            NOTHING,
        )
    },
    Resource {
        namespaced: false,
        version: "v1beta1",
        categories: &["api-extensions"],
        ..of_group(
            GROUP,
            BETA,
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            "mutatingadmissionpolicybinding",
            NOTHING,
        )
    },
];
