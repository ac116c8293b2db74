//! Tables as `kubectl get` shows them: columns and cells of every kind, in upstream's layout. Pure; the time is an argument but at the one edge where
//! the server hooks in.

mod batch;
mod cells;
mod columns;
mod core_kinds;
mod custom;
mod devices;
mod duration;
mod limits;
mod network;
mod node;
mod pod;
mod policies;
mod rbac;
mod scaling;
mod storage;
mod workloads;

use coracle_api::resource::Resource;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::server::respond::{IncludeObject, TableOptions};
use columns::Column;

/// What a row needs beside its object.
#[derive(Clone, Copy)]
struct Context {
    now: Timestamp,
}

/// One kind's table.
struct Layout {
    columns: &'static [Column],
    cells: fn(&Value, &Context) -> Vec<Value>,
    conditions: fn(&Value) -> Value,
}

fn no_conditions(_: &Value) -> Value {
    Value::Null
}

fn layout(resource: &Resource) -> Layout {
    let plain = |columns, cells| Layout { columns, cells, conditions: no_conditions };
    match (resource.group, resource.plural) {
        ("", "pods") => Layout { columns: pod::COLUMNS, cells: pod::cells, conditions: pod::conditions },
        ("", "nodes") => plain(node::COLUMNS, node::cells),
        ("", "namespaces") => plain(core_kinds::NAMESPACE, core_kinds::namespace),
        ("", "configmaps") => plain(core_kinds::CONFIG_MAP, core_kinds::config_map),
        ("", "componentstatuses") => plain(core_kinds::COMPONENT_STATUS, core_kinds::component_status),
        ("", "secrets") => plain(core_kinds::SECRET, core_kinds::secret),
        ("", "serviceaccounts") => plain(core_kinds::SERVICE_ACCOUNT, core_kinds::service_account),
        ("", "services") => plain(core_kinds::SERVICE, core_kinds::service),
        ("", "endpoints") => plain(core_kinds::ENDPOINTS, core_kinds::endpoints),
        ("" | "events.k8s.io", "events") => plain(core_kinds::EVENT, core_kinds::event),
        ("discovery.k8s.io", "endpointslices") => {
            plain(core_kinds::ENDPOINT_SLICE, core_kinds::endpoint_slice)
        }
        ("", "podtemplates") => plain(workloads::POD_TEMPLATE, workloads::pod_template),
        ("", "replicationcontrollers") => plain(workloads::REPLICA_SET, workloads::replication_controller),
        ("apps", "controllerrevisions") => {
            plain(workloads::CONTROLLER_REVISION, workloads::controller_revision)
        }
        ("apps", "daemonsets") => plain(workloads::DAEMON_SET, workloads::daemon_set),
        ("apps", "deployments") => plain(workloads::DEPLOYMENT, workloads::deployment),
        ("apps", "replicasets") => plain(workloads::REPLICA_SET, workloads::replica_set),
        ("apps", "statefulsets") => plain(workloads::STATEFUL_SET, workloads::stateful_set),
        ("autoscaling", "horizontalpodautoscalers") => plain(scaling::AUTOSCALER, scaling::autoscaler),
        ("batch", "cronjobs") => plain(batch::CRON_JOB, batch::cron_job),
        ("batch", "jobs") => plain(batch::JOB, batch::job),
        ("policy", "poddisruptionbudgets") => plain(scaling::DISRUPTION_BUDGET, scaling::disruption_budget),
        ("coordination.k8s.io", "leases") => plain(core_kinds::LEASE, core_kinds::lease),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            plain(rbac::BINDING, rbac::binding)
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            plain(core_kinds::PRIORITY_CLASS, core_kinds::priority_class)
        }
        ("", "persistentvolumeclaims") => {
            plain(storage::PERSISTENT_VOLUME_CLAIM, storage::persistent_volume_claim)
        }
        ("", "persistentvolumes") => plain(storage::PERSISTENT_VOLUME, storage::persistent_volume),
        ("", "resourcequotas") => plain(limits::RESOURCE_QUOTA, limits::resource_quota),
        ("node.k8s.io", "runtimeclasses") => plain(limits::RUNTIME_CLASS, limits::runtime_class),
        ("storage.k8s.io", "csidrivers") => plain(storage::CSI_DRIVER, storage::csi_driver),
        ("storage.k8s.io", "csinodes") => plain(storage::CSI_NODE, storage::csi_node),
        ("storage.k8s.io", "csistoragecapacities") => {
            plain(storage::CSI_STORAGE_CAPACITY, storage::csi_storage_capacity)
        }
        ("storage.k8s.io", "storageclasses") => plain(storage::STORAGE_CLASS, storage::storage_class),
        ("storage.k8s.io", "volumeattachments") => {
            plain(storage::VOLUME_ATTACHMENT, storage::volume_attachment)
        }
        ("storage.k8s.io", "volumeattributesclasses") => {
            plain(storage::VOLUME_ATTRIBUTES_CLASS, storage::volume_attributes_class)
        }
        ("networking.k8s.io", "ingressclasses") => plain(network::INGRESS_CLASS, network::ingress_class),
        ("networking.k8s.io", "ingresses") => plain(network::INGRESS, network::ingress),
        ("networking.k8s.io", "ipaddresses") => plain(network::IP_ADDRESS, network::ip_address),
        ("networking.k8s.io", "networkpolicies") => plain(network::NETWORK_POLICY, network::network_policy),
        ("networking.k8s.io", "servicecidrs") => plain(network::SERVICE_CIDR, network::service_cidr),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            plain(policies::POLICY, policies::policy)
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => {
            plain(policies::MUTATING_POLICY, policies::mutating_policy)
        }
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings",
        ) => plain(policies::POLICY_BINDING, policies::policy_binding),
        ("admissionregistration.k8s.io", _) => plain(policies::WEBHOOKS, policies::webhooks),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => {
            plain(policies::FLOW_SCHEMA, policies::flow_schema)
        }
        ("flowcontrol.apiserver.k8s.io", _) => plain(policies::PRIORITY_LEVEL, policies::priority_level),
        ("certificates.k8s.io", _) => plain(policies::SIGNING_REQUEST, policies::signing_request),
        ("apiregistration.k8s.io", _) => plain(policies::API_SERVICE, policies::api_service),
        ("resource.k8s.io", "resourceclaims") => plain(devices::RESOURCE_CLAIM, devices::resource_claim),
        ("resource.k8s.io", "resourceslices") => plain(devices::RESOURCE_SLICE, devices::resource_slice),
        ("resource.k8s.io", _) => plain(devices::NAME_AND_AGE, devices::name_and_age),
        _ => plain(columns::NAME_AND_CREATION, cells::name_and_creation),
    }
}

/// The table of objects of a resource, without list metadata.
pub fn table(resource: &'static Resource, objects: &[Value], options: TableOptions) -> Value {
    table_at(resource, objects, options, Timestamp::now())
}

fn table_at(resource: &Resource, objects: &[Value], options: TableOptions, now: Timestamp) -> Value {
    let context = Context { now };
    let layout = layout(resource);
    let cells = |object: &Value| match resource.custom {
        Some(definition) => custom::cells(definition, object, &context),
        None => (layout.cells)(object, &context),
    };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": cells(object)});
            let conditions = (layout.conditions)(object);
            if !conditions.is_null() {
                row["conditions"] = conditions;
            }
            match options.include {
                IncludeObject::None => {}
                IncludeObject::Object => row["object"] = object.clone(),
                IncludeObject::Metadata => {
                    row["object"] = json!({
                        "kind": "PartialObjectMetadata",
                        "apiVersion": format!("meta.k8s.io/{}", options.version),
                        "metadata": object["metadata"],
                    });
                }
            }
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", options.version),
        "metadata": {},
        "columnDefinitions": match resource.custom {
            Some(definition) => custom::columns(definition),
            None => layout.columns.iter().map(Column::definition).collect::<Vec<_>>(),
        },
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::resource;

    const OPTIONS: TableOptions = TableOptions { include: IncludeObject::Metadata, version: "v1" };

    #[test]
    fn every_kind_has_as_many_cells_as_columns_even_for_an_empty_object() {
        for row in resource::table().filter(|row| row.has_verb("get")) {
            let table = table_at(row, &[json!({"metadata": {"name": "x"}})], OPTIONS, Timestamp::UNIX_EPOCH);
            let columns = table["columnDefinitions"].as_array().expect("columns");
            let cells = table["rows"][0]["cells"].as_array().expect("cells");
            assert_eq!(columns.len(), cells.len(), "{}", row.plural);
            for (column, cell) in columns.iter().zip(cells) {
                let fits = match column["type"].as_str() {
                    Some("integer") => cell.is_i64(),
                    Some("boolean") => cell.is_boolean(),
                    _ => cell.is_string(),
                };
                assert!(fits, "{} of {}: {cell}", column["name"], row.plural);
            }
        }
    }

    #[test]
    fn rows_carry_what_was_asked_for() {
        let pods = resource::lookup("", "v1", "pods").expect("pods");
        let object = json!({"kind": "Pod", "metadata": {"name": "x"}, "spec": {"nodeName": "n"}});
        let made = |include| {
            let options = TableOptions { include, version: "v1" };
            table_at(pods, std::slice::from_ref(&object), options, Timestamp::UNIX_EPOCH)["rows"][0]["object"]
                .clone()
        };
        assert_eq!(made(IncludeObject::None), Value::Null);
        assert_eq!(made(IncludeObject::Object), object);
        assert_eq!(made(IncludeObject::Metadata)["kind"], "PartialObjectMetadata");
    }
}
