//! What is wanted and what has been written, and the transaction that leads from one to the other. Owns the order of its lines: nothing is
//! referred to before it exists or removed while it is referred to. Only Services that changed are looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::base::{self, NODEPORT_IPS, ProxyConfig, TABLE, line};
use crate::fragment::{self, Fragment};

/// Namespace and name of a Service.
pub type ServiceKey = (Arc<str>, Arc<str>);

type ElementKey = (&'static str, String);

/// The label that names a slice's Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The state of one node's proxy.
pub struct ProxyModel {
    config: ProxyConfig,
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<ServiceKey, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    node_port_addresses: BTreeSet<String>,
    written: Written,
    changed: BTreeSet<ServiceKey>,
}

/// What is in the kernel as far as we know.
#[derive(Clone, Default)]
struct Written {
    fragments: HashMap<ServiceKey, Fragment>,
    /// Whose element it is: an external address and port may be claimed by several Services, the first gets it.
    owners: HashMap<ElementKey, ServiceKey>,
    /// Services that did not get an element they want.
    deprived: BTreeSet<ServiceKey>,
    node_port_addresses: BTreeSet<String>,
}

/// A transaction for `nft -f -`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The lines.
    pub text: String,
    /// How many Services it touches.
    pub services: usize,
}

/// A fragment's way from old to new, one part a phase of the transaction.
#[derive(Default)]
struct Phases {
    remove_elements: String,
    add_objects: String,
    rules: String,
    add_elements: String,
    flush_chains: String,
    remove_objects: String,
}

impl ProxyModel {
    /// An empty model: nothing wanted, nothing written.
    pub fn new(config: ProxyConfig) -> Self {
        Self {
            config,
            services: HashMap::new(),
            slices: HashMap::new(),
            node_port_addresses: BTreeSet::new(),
            written: Written::default(),
            changed: BTreeSet::new(),
        }
    }

    /// Takes over a Service, or its removal.
    pub fn set_service(&mut self, key: ServiceKey, service: Option<Arc<Service>>) {
        match service {
            Some(service) => self.services.insert(key.clone(), service),
            None => self.services.remove(&key),
        };
        self.changed.insert(key);
    }

    /// Takes over an EndpointSlice of the Service `key`, or its removal.
    pub fn set_slice(&mut self, key: ServiceKey, name: &str, slice: Option<Arc<EndpointSlice>>) {
        match slice {
            Some(slice) => {
                self.slices.entry(key.clone()).or_default().insert(Arc::from(name), slice);
            }
            None => {
                if let Some(slices) = self.slices.get_mut(&key) {
                    slices.remove(name);
                    if slices.is_empty() {
                        self.slices.remove(&key);
                    }
                }
            }
        }
        self.changed.insert(key);
    }

    /// Takes over the node's IPv4 addresses that take NodePort traffic.
    pub fn set_node_port_addresses(&mut self, addresses: BTreeSet<String>) {
        self.node_port_addresses = addresses;
    }

    /// Whether there may be something to write.
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty() || self.node_port_addresses != self.written.node_port_addresses
    }

    /// How many Services there are.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// The transaction that replaces whatever is in the table by what is wanted. The model then takes it as written; if it
    /// fails, the next one has to be a full one again.
    pub fn plan_full(&mut self) -> Transaction {
        self.written = Written::default();
        self.changed = self.services.keys().cloned().collect();
        let body = self.plan_changes();
        Transaction { text: format!("{}{}", base::reset(&self.config), body.text), services: body.services }
    }

    /// The transaction from what has been written to what is wanted, `None` if they are the same. The model then takes it as
    /// written; if it fails, the next one has to be a full one.
    pub fn plan(&mut self) -> Option<Transaction> {
        let transaction = self.plan_changes();
        (!transaction.text.is_empty()).then_some(transaction)
    }

    fn plan_changes(&mut self) -> Transaction {
        let mut phases = Phases::default();
        let mut touched = std::mem::take(&mut self.changed);
        let mut wanted: BTreeMap<ServiceKey, Fragment> = BTreeMap::new();
        // First all removals, so that an address can pass from one Service to another.
        for key in &touched {
            let fragment = self.fragment(key);
            self.release(key, &fragment, &mut phases);
            wanted.insert(key.clone(), fragment);
        }
        if !phases.remove_elements.is_empty() {
            for key in std::mem::take(&mut self.written.deprived) {
                if touched.insert(key.clone()) {
                    wanted.insert(key.clone(), self.fragment(&key));
                }
            }
        }
        let mut services = 0;
        for (key, mut fragment) in wanted {
            let old = self.written.fragments.remove(&key).unwrap_or_default();
            self.claim(&key, &mut fragment);
            services += usize::from(diff(&old, &fragment, &mut phases));
            if fragment != Fragment::default() {
                self.written.fragments.insert(key, fragment);
            }
        }
        self.diff_node_port_addresses(&mut phases);
        let text = [
            phases.remove_elements,
            phases.add_objects,
            phases.rules,
            phases.add_elements,
            phases.flush_chains,
            phases.remove_objects,
        ]
        .concat();
        Transaction { text, services }
    }

    fn fragment(&self, key: &ServiceKey) -> Fragment {
        let Some(service) = self.services.get(key) else { return Fragment::default() };
        let slices = self.slices.get(key);
        fragment::of_service(service, slices.into_iter().flat_map(BTreeMap::values), &self.config)
    }

    /// Removes the elements of a Service that are wanted no longer, or with another verdict.
    fn release(&mut self, key: &ServiceKey, wanted: &Fragment, phases: &mut Phases) {
        let Some(old) = self.written.fragments.get_mut(key) else { return };
        old.elements.retain(|element, verdict| {
            let keep = wanted.elements.get(element) == Some(verdict);
            if !keep {
                let (set, value) = element;
                line(&mut phases.remove_elements, format_args!("delete element {TABLE} {set} {{ {value} }}"));
                self.written.owners.remove(element);
            }
            keep
        });
    }

    /// Makes a Service the owner of its elements; those that another Service owns are left out.
    fn claim(&mut self, key: &ServiceKey, fragment: &mut Fragment) {
        fragment.elements.retain(|element, _| {
            let owner = self.written.owners.entry(element.clone()).or_insert_with(|| key.clone());
            if owner != key {
                self.written.deprived.insert(key.clone());
            }
            owner == key
        });
    }

    fn diff_node_port_addresses(&mut self, phases: &mut Phases) {
        let (old, new) = (&self.written.node_port_addresses, &self.node_port_addresses);
        for address in old.difference(new) {
            line(
                &mut phases.remove_elements,
                format_args!("delete element {TABLE} {NODEPORT_IPS} {{ {address} }}"),
            );
        }
        for address in new.difference(old) {
            line(
                &mut phases.add_elements,
                format_args!("add element {TABLE} {NODEPORT_IPS} {{ {address} }}"),
            );
        }
        self.written.node_port_addresses.clone_from(&self.node_port_addresses);
    }
}

/// Writes the difference of two fragments, without the removal of elements. True if there is any.
fn diff(old: &Fragment, new: &Fragment, phases: &mut Phases) -> bool {
    for (name, definition) in &new.sets {
        if old.sets.get(name) == Some(definition) {
            continue;
        }
        if old.sets.contains_key(name) {
            // A set's timeout cannot be changed; it starts anew. The chains that use it are written again below.
            for chain in old.chains.iter().filter(|(_, rules)| uses(rules, name)).map(|(chain, _)| chain) {
                line(&mut phases.add_objects, format_args!("flush chain {TABLE} {chain}"));
            }
            line(&mut phases.add_objects, format_args!("delete set {TABLE} {name}"));
        }
        line(&mut phases.add_objects, format_args!("add set {TABLE} {name} {definition}"));
    }
    let reset_sets: Vec<_> = new
        .sets
        .iter()
        .filter(|(name, definition)| old.sets.get(*name).is_some_and(|old| old != *definition))
        .map(|(name, _)| name)
        .collect();
    for (chain, rules) in &new.chains {
        let before = old.chains.get(chain);
        if before == Some(rules) && !reset_sets.iter().any(|set| uses(rules, set)) {
            continue;
        }
        match before {
            None => line(&mut phases.add_objects, format_args!("add chain {TABLE} {chain}")),
            Some(_) => line(&mut phases.rules, format_args!("flush chain {TABLE} {chain}")),
        }
        for rule in rules {
            line(&mut phases.rules, format_args!("add rule {TABLE} {chain} {rule}"));
        }
    }
    for (element, verdict) in &new.elements {
        if old.elements.contains_key(element) {
            continue;
        }
        let (set, value) = element;
        match verdict {
            Some(verdict) => {
                line(
                    &mut phases.add_elements,
                    format_args!("add element {TABLE} {set} {{ {value} : {verdict} }}"),
                );
            }
            None => line(&mut phases.add_elements, format_args!("add element {TABLE} {set} {{ {value} }}")),
        }
    }
    // Chains refer to each other, so all are emptied before any is deleted.
    for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
        line(&mut phases.flush_chains, format_args!("flush chain {TABLE} {chain}"));
        line(&mut phases.remove_objects, format_args!("delete chain {TABLE} {chain}"));
    }
    for set in old.sets.keys().filter(|set| !new.sets.contains_key(*set)) {
        line(&mut phases.remove_objects, format_args!("delete set {TABLE} {set}"));
    }
    old != new
}

fn uses(rules: &[String], set: &str) -> bool {
    let reference = format!("@{set} ");
    rules.iter().any(|rule| rule.contains(&reference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn key(name: &str) -> ServiceKey {
        (Arc::from("default"), Arc::from(name))
    }

    fn service(name: &str, ip: &str, extra: Value) -> Arc<Service> {
        let mut value = json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
        });
        for (key, field) in extra.as_object().expect("object") {
            value["spec"][key] = field.clone();
        }
        Arc::new(serde_json::from_value(value).expect("service"))
    }

    fn slice(addresses: &[&str]) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let value = json!({
            "addressType": "IPv4", "metadata": {"name": "s"}, "endpoints": endpoints,
            "ports": [{"port": 8080, "protocol": "TCP"}],
        });
        Arc::new(serde_json::from_value(value).expect("slice"))
    }

    fn model() -> ProxyModel {
        let mut model = ProxyModel::new(ProxyConfig::new("node-a", Some("10.244.0.0/16")));
        model.set_service(key("web"), Some(service("web", "10.96.0.5", json!({}))));
        model.set_slice(key("web"), "s", Some(slice(&["10.244.0.2"])));
        model.plan_full();
        model
    }

    fn text(model: &mut ProxyModel) -> String {
        model.plan().map(|transaction| transaction.text).unwrap_or_default()
    }

    #[test]
    fn nothing_new_means_no_transaction() {
        let mut model = model();
        assert!(model.plan().is_none());
        model.set_service(key("web"), Some(service("web", "10.96.0.5", json!({}))));
        assert!(model.is_changed());
        assert!(model.plan().is_none());
    }

    #[test]
    fn a_new_endpoint_adds_its_chain_and_rewrites_only_the_services_own() {
        let mut model = model();
        model.set_slice(key("web"), "s", Some(slice(&["10.244.0.2", "10.244.0.3"])));
        let text = text(&mut model);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(
            lines[0].starts_with("add chain ip kube-proxy endpoint-")
                && lines[0].ends_with("__10.244.0.3/8080")
        );
        assert!(text.contains("numgen random mod 2 vmap"), "{text}");
        assert!(!text.contains("element"), "{text}");
    }

    #[test]
    fn the_last_endpoint_gone_moves_the_address_to_the_rejecting_map_before_its_chains_go() {
        let mut model = model();
        model.set_slice(key("web"), "s", None);
        let text = text(&mut model);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in {text}"));
        assert!(at("delete element ip kube-proxy service-ips { 10.96.0.5 . tcp . 80 }") < at("flush chain"));
        assert!(
            at("add element ip kube-proxy no-endpoint-services { 10.96.0.5 . tcp . 80 : goto reject-chain }")
                < at("flush")
        );
        assert!(text.rfind("flush chain") < text.find("delete chain"), "{text}");
    }

    #[test]
    fn an_address_passes_from_a_deleted_service_to_a_new_one_in_one_transaction() {
        let mut model = model();
        model.set_service(key("web"), None);
        model.set_service(key("again"), Some(service("again", "10.96.0.5", json!({}))));
        let text = text(&mut model);
        let delete = text.find("delete element ip kube-proxy cluster-ips { 10.96.0.5 }").expect("deleted");
        assert!(delete < text.find("add element ip kube-proxy cluster-ips { 10.96.0.5 }").expect("added"));
    }

    #[test]
    fn two_services_that_claim_one_external_address_do_not_break_the_transaction() {
        let mut model = model();
        let external = json!({"externalIPs": ["192.0.2.1"]});
        for (name, ip) in [("one", "10.96.0.6"), ("two", "10.96.0.7")] {
            model.set_service(key(name), Some(service(name, ip, external.clone())));
            model.set_slice(key(name), "s", Some(slice(&["10.244.0.9"])));
        }
        let first = text(&mut model);
        assert_eq!(first.matches("{ 192.0.2.1 . tcp . 80 : ").count(), 1, "{first}");
        model.set_service(key("one"), None);
        let second = text(&mut model);
        assert!(
            second.contains("delete element ip kube-proxy service-ips { 192.0.2.1 . tcp . 80 }"),
            "{second}"
        );
        assert!(
            second.contains("add element ip kube-proxy service-ips { 192.0.2.1 . tcp . 80 : goto external-"),
            "{second}"
        );
        assert!(second.contains("default/two/tcp"), "{second}");
    }

    #[test]
    fn a_full_plan_after_a_failure_has_everything() {
        let mut model = model();
        model.set_node_port_addresses(BTreeSet::from(["192.168.1.1".to_owned()]));
        assert!(text(&mut model).contains("add element ip kube-proxy nodeport-ips { 192.168.1.1 }"));
        let full = model.plan_full().text;
        assert!(full.starts_with("add table ip kube-proxy\ndelete table ip kube-proxy\n"));
        for part in [
            "{ 10.96.0.5 . tcp . 80 : goto service-",
            "nodeport-ips { 192.168.1.1 }",
            "dnat to 10.244.0.2:8080",
        ] {
            assert!(full.contains(part), "{part} is missing in {full}");
        }
        assert!(model.plan().is_none());
    }
}
