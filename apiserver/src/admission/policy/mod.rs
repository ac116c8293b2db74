//! Admission policies: what ValidatingAdmissionPolicies say of a write, and what MutatingAdmissionPolicies make of it, where bindings put them into force.
//!
//! What policies of both kinds have is in `matter`, which of them a write comes under in `selection`, the objects that they take as parameters in
//! `parameters`. One policy, read once and pure, is in `validation` and `mutation`; `validating` and `mutating` ask them. `status` is the status of policies.

mod matter;
pub mod mutating;
mod mutation;
mod parameters;
mod selection;
pub mod status;
pub mod validating;
mod validation;

use coracle_api::resource::{self, Resource};

const GROUP: &str = "admissionregistration.k8s.io";
const POLICIES: &str = "validatingadmissionpolicies";

fn row(plural: &str) -> Option<&'static Resource> {
    resource::lookup(GROUP, "v1", plural)
}
