//! Which of the node's addresses take NodePort traffic. Owns upstream's rule: the node's primary address, or all local ones in given
//! CIDRs (never loopback).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::bail;
use k8s_openapi::api::core::v1::Node;

/// What `--nodeport-addresses` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's own IPv4 address, from its status.
    Primary,
    /// Local addresses in any of these (network address and mask).
    Cidrs(Vec<(u32, u32)>),
}

impl NodePortAddresses {
    /// Reads the flag's or the file's list.
    pub fn parse(list: &[String]) -> anyhow::Result<Self> {
        let list: Vec<_> = list.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).collect();
        if list.is_empty() || list == ["primary"] {
            return Ok(Self::Primary);
        }
        let mut cidrs = Vec::new();
        for item in list {
            let parsed = item.split_once('/').and_then(|(address, length)| {
                let (address, length) = (address.parse::<Ipv4Addr>().ok()?, length.parse::<u32>().ok()?);
                let mask = if length == 0 { 0 } else { u32::MAX.checked_shl(32u32.checked_sub(length)?)? };
                Some((u32::from(address) & mask, mask))
            });
            match parsed {
                Some(cidr) => cidrs.push(cidr),
                // IPv6 CIDRs concern the IPv6 table, which does not exist here.
                None if item.contains(':') => {}
                None => bail!("--nodeport-addresses {item:?} is not a CIDR such as 10.0.0.0/8"),
            }
        }
        Ok(Self::Cidrs(cidrs))
    }

    /// The addresses, given the Node object.
    pub fn resolve(&self, node: Option<&Node>) -> BTreeSet<String> {
        match self {
            Self::Primary => primary(node).into_iter().collect(),
            Self::Cidrs(cidrs) => {
                let matching = |address: &Ipv4Addr| {
                    !address.is_loopback()
                        && cidrs.iter().any(|(network, mask)| u32::from(*address) & mask == *network)
                };
                local_addresses().into_iter().filter(matching).map(|address| address.to_string()).collect()
            }
        }
    }
}

fn primary(node: Option<&Node>) -> Option<String> {
    let addresses = node?.status.as_ref()?.addresses.as_ref()?;
    let of_type = |wanted: &str| {
        addresses
            .iter()
            .filter(|address| address.type_ == wanted)
            .find(|address| address.address.parse::<Ipv4Addr>().is_ok())
            .map(|address| address.address.clone())
    };
    of_type("InternalIP").or_else(|| of_type("ExternalIP"))
}

fn local_addresses() -> Vec<Ipv4Addr> {
    match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces
            .filter_map(|interface| {
                interface.address.and_then(|address| address.as_sockaddr_in().map(|it| it.ip()))
            })
            .collect(),
        Err(error) => {
            tracing::warn!(error = %error, "cannot list the node's addresses; NodePorts take no traffic");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_primary_address_is_the_nodes_internal_ipv4_address() {
        let node: Node = serde_json::from_value(json!({"metadata": {}, "status": {"addresses": [
            {"type": "Hostname", "address": "node-a"}, {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "172.20.0.2"}]}}))
        .expect("node");
        let primary = NodePortAddresses::parse(&[]).expect("parses");
        assert_eq!(primary.resolve(Some(&node)), BTreeSet::from(["172.20.0.2".to_owned()]));
        assert!(primary.resolve(None).is_empty());
    }

    #[test]
    fn cidrs_are_read_and_nonsense_is_refused() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let parsed = NodePortAddresses::parse(&list(&["10.1.2.3/8", "::/0"])).expect("parses");
        assert_eq!(parsed, NodePortAddresses::Cidrs(vec![(0x0a00_0000, 0xff00_0000)]));
        assert!(NodePortAddresses::parse(&list(&["10.0.0.0/33"])).is_err());
        assert!(NodePortAddresses::parse(&list(&["x"])).is_err());
        let loopback_only = NodePortAddresses::parse(&list(&["127.0.0.0/8"])).expect("parses");
        assert!(loopback_only.resolve(None).is_empty());
    }
}
