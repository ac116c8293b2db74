//! Aggregation: which server answers for a group and version, this one or another one that an APIService names, and everything that follows: requests
//! passed on, discovery and schemas of the other servers, their availability, and the APIServices of what this server has itself.

pub mod availability;
mod documents;
pub mod priorities;
pub mod proxy;
pub mod registration;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_api::custom::version_order;
use coracle_api::kinds::access::{boolean, integer, items, present, text};
use coracle_api::meta;
use coracle_api::resource::Served;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::derived::Derived;
use crate::extension::Endpoint;
use crate::extension::client::Clients;
use crate::extension::tls::{Identity, Trust};
use crate::registry::Registry;
use documents::Documents;
use priorities::Priority;

const GROUP: &str = "apiregistration.k8s.io";

/// One APIService.
#[derive(Debug)]
pub struct Service {
    /// Its name: `VERSION.GROUP`.
    pub name: String,
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    priority: Priority,
    /// The server that answers; `None`: this one.
    pub remote: Option<Remote>,
}

/// Another API server.
#[derive(Debug)]
pub struct Remote {
    /// Where it is, if that makes sense.
    pub endpoint: Result<Endpoint, String>,
    /// Whether it could be reached when last tried.
    pub available: bool,
}

impl Service {
    fn of(object: &Value) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let remote = present(spec, "service").map(|service| {
            let trust = match boolean(spec, "insecureSkipTLSVerify") {
                true => Ok(Trust::Anyone),
                false => Trust::of_bundle(text(spec, "caBundle")),
            };
            Remote {
                endpoint: trust.map(|trust| Endpoint::of_service(service, "/", trust)),
                available: is_available(object),
            }
        });
        let number = |key: &str| integer(spec, key).unwrap_or_default();
        Self {
            name: meta::name(object).to_owned(),
            group: text(spec, "group").to_owned(),
            version: text(spec, "version").to_owned(),
            priority: Priority { group: number("groupPriorityMinimum"), version: number("versionPriority") },
            remote,
        }
    }
}

fn condition(object: &Value) -> Option<&Value> {
    let conditions = object.get("status").map(|status| items(status, "conditions")).unwrap_or_default();
    conditions.iter().find(|condition| text(condition, "type") == "Available")
}

fn is_available(object: &Value) -> bool {
    condition(object).is_some_and(|condition| text(condition, "status") == "True")
}

/// A group as discovery shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its versions, preferred first, and whether another server answers for them.
    pub versions: Vec<(String, bool)>,
}

/// All groups that this server knows of, in discovery's order. Pure.
pub(crate) fn groups(served: &Served, services: &[Arc<Service>]) -> Vec<Group> {
    let mut versions: Vec<(String, String, Priority, bool)> = services
        .iter()
        .map(|one| (one.group.clone(), one.version.clone(), one.priority, one.remote.is_some()))
        .collect();
    for (group, of_group) in served.groups() {
        for version in of_group {
            // Not registered yet, or never to be.
            if !versions.iter().any(|(name, other, ..)| name == group && other == version) {
                let priority = priorities::of(group, version);
                versions.push((group.to_owned(), version.to_owned(), priority, false));
            }
        }
    }
    versions.sort_by(|(_, one, one_priority, _), (_, other, other_priority, _)| {
        other_priority.version.cmp(&one_priority.version).then_with(|| version_order(one, other))
    });
    let mut groups: Vec<(i64, Group)> = Vec::new();
    for (name, version, priority, remote) in versions {
        match groups.iter_mut().find(|(_, group)| group.name == name) {
            Some((_, group)) => group.versions.push((version, remote)),
            None => groups.push((priority.group, Group { name, versions: vec![(version, remote)] })),
        }
    }
    groups.sort_by(|(one_priority, one), (other_priority, other)| {
        // The group of APIServices has none of its own and comes first.
        let first = (other.name == GROUP).cmp(&(one.name == GROUP));
        first.then_with(|| other_priority.cmp(one_priority)).then_with(|| one.name.cmp(&other.name))
    });
    groups.into_iter().map(|(_, group)| group).collect()
}

/// What is known of all APIServices.
pub struct Aggregator {
    registry: Arc<Registry>,
    /// Shows the certificate that extension servers trust to name users.
    clients: Clients,
    services: Derived<[Arc<Service>]>,
    /// What other servers say they have, by APIService.
    documents: Mutex<HashMap<String, Arc<Documents>>>,
}

impl Aggregator {
    /// Over all APIServices.
    pub fn new(registry: Arc<Registry>) -> Arc<Self> {
        let options = &registry.options;
        let identity = options.proxy_client_cert_file.clone().zip(options.proxy_client_key_file.clone());
        let identity = identity.map(|(cert, key)| Identity::Files { cert, key });
        let clients = Clients::new(Arc::clone(&registry), identity);
        let services = Derived::of(GROUP, "v1", "apiservices");
        Arc::new(Self { registry, clients, services, documents: Mutex::default() })
    }

    fn services(&self) -> Arc<[Arc<Service>]> {
        self.services.current(&self.registry.cache, |objects| {
            objects.iter().map(|object| Arc::new(Service::of(object))).collect()
        })
    }

    /// The APIService of a group and version for which another server answers.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<Service>> {
        // The core group is this server's own.
        if group.is_empty() {
            return None;
        }
        let services = self.services();
        let found =
            |one: &&Arc<Service>| one.remote.is_some() && one.group == group && one.version == version;
        services.iter().find(found).map(Arc::clone)
    }

    /// All groups in discovery's order.
    pub fn groups(&self) -> Vec<Group> {
        groups(&self.registry.cache.served(), &self.services())
    }

    /// The entry of a group and version in aggregated discovery, as the server that answers for it has it: `None` until it has been asked.
    pub fn discovered(&self, group: &str, version: &str) -> Option<Value> {
        let documents = self.documents.lock().get(&format!("{version}.{group}")).map(Arc::clone)?;
        let mut entry = documents.discovery.clone();
        let service = self.remote(group, version)?;
        if !service.remote.as_ref().is_some_and(|remote| remote.available) {
            entry["freshness"] = "Stale".into();
        }
        Some(entry)
    }

    /// Where other servers' OpenAPI v3 documents are: path and URL.
    pub fn schemas(&self) -> Vec<(String, Value)> {
        let documents = self.documents.lock();
        let mut schemas: Vec<(String, Value)> = self
            .services()
            .iter()
            .filter(|one| one.remote.is_some())
            .filter_map(|one| {
                let url = documents.get(&one.name)?.schema.clone()?;
                Some((format!("apis/{}/{}", one.group, one.version), url))
            })
            .collect();
        schemas.sort_by(|(one, _), (other, _)| one.cmp(other));
        schemas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn groups_come_by_priority_and_versions_too() {
        let service = |group: &str, version: &str, of_group: i64, of_version: i64, remote: bool| {
            let mut object = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {"group": group,
                "version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version}});
            if remote {
                object["spec"]["service"] = json!({"namespace": "n", "name": "s"});
            }
            Arc::new(Service::of(&object))
        };
        let services = [
            service("low.example.com", "v1", 10, 1, false),
            service("high.example.com", "v1", 17_790, 1, true),
            service("high.example.com", "v2", 17_790, 1, true),
        ];
        let found = groups(&Served::default(), &services);
        let names: Vec<&str> = found.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names[..5], [GROUP, "", "apps", "high.example.com", "events.k8s.io"]);
        assert_eq!(names.last(), Some(&"low.example.com"));
        assert_eq!(found[3].versions, [("v2".to_owned(), true), ("v1".to_owned(), true)]);
        let autoscaling = found.iter().find(|group| group.name == "autoscaling").expect("is there");
        assert_eq!(autoscaling.versions[0].0, "v2");
    }
}
