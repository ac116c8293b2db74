//! Tables as `kubectl get` shows them: columns and cells of every kind, in upstream's layout. Pure; the time is an argument but at the one edge where
//! the server hooks in.

mod cells;
mod columns;
mod core_kinds;
mod duration;
mod node;
mod pod;
mod rbac;
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
        ("", "secrets") => plain(core_kinds::SECRET, core_kinds::secret),
        ("", "serviceaccounts") => plain(core_kinds::SERVICE_ACCOUNT, core_kinds::service_account),
        ("", "services") => plain(core_kinds::SERVICE, core_kinds::service),
        ("", "endpoints") => plain(core_kinds::ENDPOINTS, core_kinds::endpoints),
        ("" | "events.k8s.io", "events") => plain(core_kinds::EVENT, core_kinds::event),
        ("discovery.k8s.io", "endpointslices") => {
            plain(core_kinds::ENDPOINT_SLICE, core_kinds::endpoint_slice)
        }
        ("apps", "deployments") => plain(workloads::DEPLOYMENT, workloads::deployment),
        ("apps", "replicasets") => plain(workloads::REPLICA_SET, workloads::replica_set),
        ("coordination.k8s.io", "leases") => plain(core_kinds::LEASE, core_kinds::lease),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            plain(rbac::BINDING, rbac::binding)
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            plain(core_kinds::PRIORITY_CLASS, core_kinds::priority_class)
        }
        _ => plain(columns::NAME_AND_CREATION, cells::name_and_creation),
    }
}

/// The table of objects of a resource, without list metadata.
pub fn table(resource: &'static Resource, objects: &[Value], options: TableOptions) -> Value {
    table_at(resource, objects, options, Timestamp::now())
}

fn table_at(resource: &Resource, objects: &[Value], options: TableOptions, now: Timestamp) -> Value {
    let layout = layout(resource);
    let context = Context { now };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": (layout.cells)(object, &context)});
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
        "columnDefinitions": layout.columns.iter().map(Column::definition).collect::<Vec<_>>(),
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
        for row in resource::table().filter(|row| row.is_stored()) {
            let table = table_at(row, &[json!({"metadata": {"name": "x"}})], OPTIONS, Timestamp::UNIX_EPOCH);
            let columns = table["columnDefinitions"].as_array().expect("columns");
            let cells = table["rows"][0]["cells"].as_array().expect("cells");
            assert_eq!(columns.len(), cells.len(), "{}", row.plural);
            for (column, cell) in columns.iter().zip(cells) {
                let fits = if column["type"] == "integer" { cell.is_i64() } else { cell.is_string() };
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
