//! A container's environment: services, `envFrom`, `env` with references and expansion.
//!
//! Never here: fetching; ConfigMaps and Secrets come through [`Sources`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use crate::expansion::expand;
use crate::field_ref::{self, NodeFacts};
use crate::pod_view;

/// Where values come from.
pub trait Sources {
    /// A ConfigMap by namespace and name.
    fn config_map(&self, namespace: &str, name: &str) -> Option<&ConfigMap>;
    /// A Secret by namespace and name.
    fn secret(&self, namespace: &str, name: &str) -> Option<&Secret>;
}

/// Builds the environment, in the order in which it is given to the container.
///
/// # Errors
/// What is missing, in upstream's words for `CreateContainerConfigError`.
pub fn build(
    pod: &Pod,
    container: &Container,
    services: &[&Service],
    sources: &dyn Sources,
    node: &NodeFacts,
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod_view::namespace(pod);
    let mut result: Vec<(String, String)> = Vec::new();
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    let mut set = |result: &mut Vec<(String, String)>, name: &str, value: String| match index.get(name) {
        Some(position) => result[*position].1 = value,
        None => {
            index.insert(name.to_owned(), result.len());
            result.push((name.to_owned(), value));
        }
    };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_map(namespace, &reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        set(&mut result, &format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secret(namespace, &reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        set(
                            &mut result,
                            &format!("{prefix}{key}"),
                            String::from_utf8_lossy(&value.0).into_owned(),
                        );
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        }
    }
    let links = pod_view::spec(pod).enable_service_links.unwrap_or(true);
    let service_variables = service_environment(services, namespace, links);
    for variable in container.env.iter().flatten() {
        let name = &variable.name;
        if let Some(text) = &variable.value
            && !text.is_empty()
        {
            let value = expand(text, |wanted| {
                result
                    .iter()
                    .find(|(have, _)| have == wanted)
                    .map(|(_, value)| value.clone())
                    .or_else(|| service_variables.get(wanted).cloned())
            });
            set(&mut result, name, value);
            continue;
        }
        let Some(from) = &variable.value_from else {
            set(&mut result, name, String::new());
            continue;
        };
        let value = if let Some(reference) = &from.field_ref {
            Some(field_ref::field(pod, &reference.field_path, node)?)
        } else if let Some(reference) = &from.resource_field_ref {
            Some(field_ref::resource_field(pod, &container.name, reference, node)?)
        } else if let Some(reference) = &from.config_map_key_ref {
            let optional = reference.optional == Some(true);
            match sources.config_map(namespace, &reference.name) {
                Some(map) => match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
                    Some(value) => Some(value.clone()),
                    None if optional => None,
                    None => {
                        return Err(format!(
                            "couldn't find key {} in ConfigMap {namespace}/{}",
                            reference.key, reference.name
                        ));
                    }
                },
                None if optional => None,
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        } else if let Some(reference) = &from.secret_key_ref {
            let optional = reference.optional == Some(true);
            match sources.secret(namespace, &reference.name) {
                Some(secret) => match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
                    Some(value) => Some(String::from_utf8_lossy(&value.0).into_owned()),
                    None if optional => None,
                    None => {
                        return Err(format!(
                            "couldn't find key {} in Secret {namespace}/{}",
                            reference.key, reference.name
                        ));
                    }
                },
                None if optional => None,
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        } else {
            return Err(format!("env {name}: this kind of valueFrom is not supported"));
        };
        if let Some(value) = value {
            set(&mut result, name, value);
        }
    }
    for (name, value) in service_variables {
        if !index.contains_key(&name) {
            result.push((name, value));
        }
    }
    Ok(result)
}

/// The variables for Services: those of the pod's namespace if `links`, and always the API server's own.
fn service_environment(services: &[&Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let service_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let own = links && service_namespace == namespace;
        let master = service_namespace == "default" && name == "kubernetes";
        if own || (master && !chosen.contains_key(name)) {
            chosen.insert(name, service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let mut put = |suffix: &str, value: String| variables.insert(format!("{prefix}_{suffix}"), value);
        put("SERVICE_HOST", address.to_owned());
        put("SERVICE_PORT", first.port.to_string());
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_lowercase();
            let url = format!("{lower}://{host}:{}", port.port);
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                put(
                    &format!("SERVICE_PORT_{}", name.to_uppercase().replace('-', "_")),
                    port.port.to_string(),
                );
            }
            if index == 0 {
                put("PORT", url.clone());
            }
            let base = format!("PORT_{}_{}", port.port, protocol.to_uppercase());
            put(&base, url);
            put(&format!("{base}_PROTO"), lower);
            put(&format!("{base}_PORT"), port.port.to_string());
            put(&format!("{base}_ADDR"), address.to_owned());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed(ConfigMap, Secret);

    impl Sources for Fixed {
        fn config_map(&self, _: &str, name: &str) -> Option<&ConfigMap> {
            (name == "cm").then_some(&self.0)
        }
        fn secret(&self, _: &str, name: &str) -> Option<&Secret> {
            (name == "s").then_some(&self.1)
        }
    }

    fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [container.clone()]}}),
        )
        .unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "my-db", "namespace": "n"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "sql", "port": 5432}]}
        }))
        .unwrap();
        let other: Service = serde_json::from_value(json!({
            "metadata": {"name": "elsewhere", "namespace": "x"},
            "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}
        }))
        .unwrap();
        let fixed = Fixed(
            serde_json::from_value(json!({"data": {"K": "v", "L": "w"}})).unwrap(),
            serde_json::from_value(json!({"data": {"PW": "c2VjcmV0"}})).unwrap(),
        );
        build(&pod, &container, &[&service, &other], &fixed, &NodeFacts::default())
    }

    fn get<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
        env.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn sources_are_merged_in_order_and_expanded() {
        let env = run(json!({"name": "c",
            "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "X_"}, {"secretRef": {"name": "s"}}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(X_K)-$(MY_DB_SERVICE_HOST)-$(NO)"},
                    {"name": "X_L", "value": "over"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}}]}))
        .unwrap();
        assert_eq!(get(&env, "B"), Some("1-v-10.96.0.9-$(NO)"));
        assert_eq!(get(&env, "X_L"), Some("over"));
        assert_eq!(get(&env, "PW"), Some("secret"));
        assert_eq!(get(&env, "N"), Some("p"));
        assert_eq!(get(&env, "O"), None);
        assert_eq!(get(&env, "MY_DB_PORT_5432_TCP_ADDR"), Some("10.96.0.9"));
        assert_eq!(get(&env, "MY_DB_SERVICE_PORT_SQL"), Some("5432"));
        assert_eq!(get(&env, "ELSEWHERE_SERVICE_HOST"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = run(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "gone"}}]}));
        assert_eq!(missing.unwrap_err(), "configmap \"gone\" not found");
        let key = run(
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}}]}),
        );
        assert_eq!(key.unwrap_err(), "couldn't find key x in Secret n/s");
    }
}
