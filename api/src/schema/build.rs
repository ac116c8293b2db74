//! Builds the compact trees from the published types' JSON schemas, each named type once.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration,
    admissionregistration::v1beta1 as admissionregistration_beta, apps::v1 as apps,
    authentication::v1 as authentication, authorization::v1 as authorization, autoscaling::v1 as autoscaling,
    autoscaling::v2 as autoscaling_v2, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as dra, scheduling::v1 as scheduling,
    scheduling::v1alpha1 as scheduling_alpha, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

use super::facts::{field_fact, is_atomic_type};
use super::{Field, ListType, PatchStrategy, Schema, StringFormat, Struct};
use crate::resource::Resource;

/// What is built so far.
#[derive(Default)]
struct Interned {
    structs: HashMap<&'static str, &'static Struct>,
    kinds: HashMap<(String, String, String), &'static Schema>,
}

static INTERNED: LazyLock<RwLock<Interned>> = LazyLock::new(RwLock::default);
static ANY: Schema = Schema::Any;

fn read() -> RwLockReadGuard<'static, Interned> {
    INTERNED.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Interned> {
    INTERNED.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The schema of a resource's kind.
pub fn of(resource: &Resource) -> &'static Schema {
    if let Some(custom) = resource.custom {
        return custom.merge_schema();
    }
    of_kind(resource.group, resource.version, resource.kind).unwrap_or(&ANY)
}

/// The schema of a kind, also of the kinds that only subresources take; `None` for a kind not known here.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
    let key = (group.to_owned(), version.to_owned(), kind.to_owned());
    if let Some(schema) = read().kinds.get(&key) {
        return Some(schema);
    }
    let (type_name, definitions) = definitions(group, version, kind)?;
    let mut interned = write();
    let schema: &'static Schema =
        Box::leak(Box::new(Schema::Struct(intern(&type_name, &definitions, &mut interned.structs))));
    Some(interned.kinds.entry(key).or_insert(schema))
}

/// The full type name of a kind, and the JSON schemas of it and of all the types that it uses, by full type name.
pub(crate) fn definitions(group: &str, version: &str, kind: &str) -> Option<(String, Map<String, Value>)> {
    fn of<T: JsonSchema>() -> (String, Map<String, Value>) {
        let mut generator = SchemaGenerator::default();
        generator.subschema_for::<T>();
        (T::schema_name().into_owned(), generator.take_definitions(true))
    }
    let build = match (group, version, kind) {
        ("", "v1", "Binding") => of::<core::Binding>,
        ("", "v1", "ComponentStatus") => of::<core::ComponentStatus>,
        ("", "v1", "ConfigMap") => of::<core::ConfigMap>,
        ("", "v1", "Endpoints") => of::<core::Endpoints>,
        ("", "v1", "Event") => of::<core::Event>,
        ("", "v1", "LimitRange") => of::<core::LimitRange>,
        ("", "v1", "Namespace") => of::<core::Namespace>,
        ("", "v1", "Node") => of::<core::Node>,
        ("", "v1", "PersistentVolume") => of::<core::PersistentVolume>,
        ("", "v1", "PersistentVolumeClaim") => of::<core::PersistentVolumeClaim>,
        ("", "v1", "Pod") => of::<core::Pod>,
        ("", "v1", "PodTemplate") => of::<core::PodTemplate>,
        ("", "v1", "ReplicationController") => of::<core::ReplicationController>,
        ("", "v1", "ResourceQuota") => of::<core::ResourceQuota>,
        ("", "v1", "Secret") => of::<core::Secret>,
        ("", "v1", "Service") => of::<core::Service>,
        ("", "v1", "ServiceAccount") => of::<core::ServiceAccount>,
        ("meta", "v1", "DeleteOptions") => of::<meta::DeleteOptions>,
        ("meta", "v1", "ListMeta") => of::<meta::ListMeta>,
        ("meta", "v1", "Patch") => of::<meta::Patch>,
        ("meta", "v1", "Status") => of::<meta::Status>,
        ("meta", "v1", "WatchEvent") => {
            of::<meta::WatchEvent<k8s_openapi::apimachinery::pkg::runtime::RawExtension>>
        }
        ("apps", "v1", "ControllerRevision") => of::<apps::ControllerRevision>,
        ("apps", "v1", "DaemonSet") => of::<apps::DaemonSet>,
        ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration") => {
            of::<admissionregistration::MutatingWebhookConfiguration>
        }
        ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy") => {
            of::<admissionregistration::ValidatingAdmissionPolicy>
        }
        ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding") => {
            of::<admissionregistration::ValidatingAdmissionPolicyBinding>
        }
        ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration") => {
            of::<admissionregistration::ValidatingWebhookConfiguration>
        }
        ("admissionregistration.k8s.io", "v1beta1", "MutatingAdmissionPolicy") => {
            of::<admissionregistration_beta::MutatingAdmissionPolicy>
        }
        ("admissionregistration.k8s.io", "v1beta1", "MutatingAdmissionPolicyBinding") => {
            of::<admissionregistration_beta::MutatingAdmissionPolicyBinding>
        }
        ("apiregistration.k8s.io", "v1", "APIService") => of::<apiregistration::APIService>,
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition") => {
            of::<apiextensions::CustomResourceDefinition>
        }
        ("apps", "v1", "Deployment") => of::<apps::Deployment>,
        ("apps", "v1", "ReplicaSet") => of::<apps::ReplicaSet>,
        ("apps", "v1", "StatefulSet") => of::<apps::StatefulSet>,
        ("authentication.k8s.io", "v1", "SelfSubjectReview") => of::<authentication::SelfSubjectReview>,
        ("authentication.k8s.io", "v1", "TokenRequest") => of::<authentication::TokenRequest>,
        ("authentication.k8s.io", "v1", "TokenReview") => of::<authentication::TokenReview>,
        ("authorization.k8s.io", "v1", "LocalSubjectAccessReview") => {
            of::<authorization::LocalSubjectAccessReview>
        }
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview") => {
            of::<authorization::SelfSubjectAccessReview>
        }
        ("authorization.k8s.io", "v1", "SelfSubjectRulesReview") => {
            of::<authorization::SelfSubjectRulesReview>
        }
        ("authorization.k8s.io", "v1", "SubjectAccessReview") => of::<authorization::SubjectAccessReview>,
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => of::<autoscaling::HorizontalPodAutoscaler>,
        ("autoscaling", "v2", "HorizontalPodAutoscaler") => of::<autoscaling_v2::HorizontalPodAutoscaler>,
        ("autoscaling", "v1", "Scale") => of::<autoscaling::Scale>,
        ("batch", "v1", "CronJob") => of::<batch::CronJob>,
        ("batch", "v1", "Job") => of::<batch::Job>,
        ("certificates.k8s.io", "v1", "CertificateSigningRequest") => {
            of::<certificates::CertificateSigningRequest>
        }
        ("coordination.k8s.io", "v1", "Lease") => of::<coordination::Lease>,
        ("discovery.k8s.io", "v1", "EndpointSlice") => of::<discovery::EndpointSlice>,
        ("events.k8s.io", "v1", "Event") => of::<events::Event>,
        ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema") => of::<flowcontrol::FlowSchema>,
        ("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration") => {
            of::<flowcontrol::PriorityLevelConfiguration>
        }
        ("networking.k8s.io", "v1", "IPAddress") => of::<networking::IPAddress>,
        ("networking.k8s.io", "v1", "Ingress") => of::<networking::Ingress>,
        ("networking.k8s.io", "v1", "IngressClass") => of::<networking::IngressClass>,
        ("networking.k8s.io", "v1", "NetworkPolicy") => of::<networking::NetworkPolicy>,
        ("networking.k8s.io", "v1", "ServiceCIDR") => of::<networking::ServiceCIDR>,
        ("node.k8s.io", "v1", "RuntimeClass") => of::<node::RuntimeClass>,
        ("policy", "v1", "Eviction") => of::<policy::Eviction>,
        ("policy", "v1", "PodDisruptionBudget") => of::<policy::PodDisruptionBudget>,
        ("rbac.authorization.k8s.io", "v1", "ClusterRole") => of::<rbac::ClusterRole>,
        ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding") => of::<rbac::ClusterRoleBinding>,
        ("rbac.authorization.k8s.io", "v1", "Role") => of::<rbac::Role>,
        ("rbac.authorization.k8s.io", "v1", "RoleBinding") => of::<rbac::RoleBinding>,
        ("resource.k8s.io", "v1", "DeviceClass") => of::<dra::DeviceClass>,
        ("resource.k8s.io", "v1", "ResourceClaim") => of::<dra::ResourceClaim>,
        ("resource.k8s.io", "v1", "ResourceClaimTemplate") => of::<dra::ResourceClaimTemplate>,
        ("resource.k8s.io", "v1", "ResourceSlice") => of::<dra::ResourceSlice>,
        ("scheduling.k8s.io", "v1", "PriorityClass") => of::<scheduling::PriorityClass>,
        ("scheduling.k8s.io", "v1alpha1", "Workload") => of::<scheduling_alpha::Workload>,
        ("storage.k8s.io", "v1", "CSIDriver") => of::<storage::CSIDriver>,
        ("storage.k8s.io", "v1", "CSINode") => of::<storage::CSINode>,
        ("storage.k8s.io", "v1", "CSIStorageCapacity") => of::<storage::CSIStorageCapacity>,
        ("storage.k8s.io", "v1", "StorageClass") => of::<storage::StorageClass>,
        ("storage.k8s.io", "v1", "VolumeAttachment") => of::<storage::VolumeAttachment>,
        ("storage.k8s.io", "v1", "VolumeAttributesClass") => of::<storage::VolumeAttributesClass>,
        _ => return None,
    };
    Some(build())
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// The struct of a named type; registered before its fields are built, so that a type may contain itself.
fn intern(
    type_name: &str,
    definitions: &Map<String, Value>,
    structs: &mut HashMap<&'static str, &'static Struct>,
) -> &'static Struct {
    if let Some(known) = structs.get(type_name) {
        return known;
    }
    let name = leak(type_name);
    let atomic = is_atomic_type(type_name);
    let object: &'static Struct =
        Box::leak(Box::new(Struct { type_name: name, atomic, open: false, fields: OnceLock::new() }));
    structs.insert(name, object);
    let properties = definitions
        .get(type_name)
        .and_then(|definition| definition.get("properties"))
        .and_then(Value::as_object);
    let mut fields: Vec<Field> = properties
        .into_iter()
        .flatten()
        .map(|(field, schema)| {
            let fact = field_fact(type_name, field);
            let mut built = shape(schema, definitions, structs);
            if let Some(fact) = fact {
                match &mut built {
                    Schema::List { list_type, .. } => *list_type = fact.list_type,
                    Schema::Map { atomic, .. } => *atomic = fact.map_atomic,
                    _ => {}
                }
            }
            let patch = fact.map_or(PatchStrategy::default(), |fact| fact.patch);
            Field { name: leak(field), schema: built, patch }
        })
        .collect();
    fields.sort_unstable_by_key(|field| field.name);
    object.fields.get_or_init(|| fields.into_boxed_slice());
    object
}

/// The shape that a JSON schema describes.
fn shape(
    schema: &Value,
    definitions: &Map<String, Value>,
    structs: &mut HashMap<&'static str, &'static Struct>,
) -> Schema {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return match definitions.get(name) {
            Some(definition) if definition.get("properties").is_some() => {
                Schema::Struct(intern(name, definitions, structs))
            }
            Some(_) if name.ends_with(".resource.Quantity") => Schema::Quantity,
            Some(_) if name.ends_with(".meta.v1.MicroTime") => Schema::String(StringFormat::MicroTime),
            Some(definition) => shape(definition, definitions, structs),
            None => Schema::Any,
        };
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return Schema::IntOrString;
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
        "string" => Schema::String(match format {
            "byte" => StringFormat::Bytes,
            "date-time" => StringFormat::Time,
            _ => StringFormat::Plain,
        }),
        "integer" => Schema::Integer { bits: if format == "int32" { 32 } else { 64 } },
        "number" => Schema::Number,
        "boolean" => Schema::Boolean,
        "array" => {
            let items = schema.get("items").map_or(Schema::Any, |items| shape(items, definitions, structs));
            Schema::List { items: leaked(items), list_type: ListType::Atomic }
        }
        "object" => match schema.get("additionalProperties") {
            Some(values) => {
                Schema::Map { values: leaked(shape(values, definitions, structs)), atomic: false }
            }
            None => Schema::Any,
        },
        _ => Schema::Any,
    }
}

/// A shared copy of a shape: the plain ones, of which there are many, are held once.
fn leaked(schema: Schema) -> &'static Schema {
    static PLAIN: Schema = Schema::String(StringFormat::Plain);
    static BYTES: Schema = Schema::String(StringFormat::Bytes);
    static QUANTITY: Schema = Schema::Quantity;
    match schema {
        Schema::Any => &ANY,
        Schema::Quantity => &QUANTITY,
        Schema::String(StringFormat::Plain) => &PLAIN,
        Schema::String(StringFormat::Bytes) => &BYTES,
        other => Box::leak(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    #[test]
    fn every_kind_and_subresource_of_the_table_has_a_schema() {
        for row in resource::table() {
            assert!(matches!(of(row), Schema::Struct(_)), "{}", row.kind);
            for subresource in row.subresources {
                let known = of_kind(subresource.group, subresource.version, subresource.kind).is_some();
                assert!(known || subresource.kind.ends_with("Options"), "{}", subresource.kind);
            }
        }
    }

    #[test]
    fn every_fact_names_a_field_that_exists() {
        for row in resource::table() {
            of(row);
        }
        let interned = read();
        let seen = |name: &str| interned.structs.get(name).copied();
        let container = seen("io.k8s.api.core.v1.Container").expect("pods have containers");
        let ports = container.field("ports").expect("ports");
        assert!(matches!(
            ports.schema,
            Schema::List { list_type: ListType::Map(&["containerPort", "protocol"]), .. }
        ));
        assert_eq!(ports.patch.merge_key, "containerPort");
        let spec = seen("io.k8s.api.core.v1.PodSpec").expect("pods have a spec");
        assert!(spec.field("nodeSelector").is_some_and(|field| field.schema.is_atomic()));
        assert!(spec.field("volumes").is_some_and(|field| field.patch.retain_keys));
        assert!(
            seen("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").is_some_and(|object| object.atomic)
        );
    }
}
