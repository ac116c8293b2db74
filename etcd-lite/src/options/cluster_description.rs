//! Who the members of a cluster are, and their ids, as the flags have it.

use std::collections::BTreeMap;

use super::{EtcdUrl, Options, plain};
use crate::member::MemberInfo;
use anyhow::{Context, bail};

impl Options {
    /// Finds the members. This one's id is that of its name in `--initial-cluster`.
    ///
    /// # Errors
    /// Names the flag and the remedy.
    pub fn cluster(&self) -> anyhow::Result<ClusterDescription> {
        let own =
            self.urls.initial_advertise_peer_urls.iter().map(|url| format!("{}={}", self.name, plain(url)));
        let text =
            self.clustering.initial_cluster.clone().unwrap_or_else(|| own.collect::<Vec<_>>().join(","));
        let mut urls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, url) = pair
                .split_once('=')
                .with_context(|| format!("--initial-cluster: {pair:?} is not NAME=URL"))?;
            let url: EtcdUrl = url.parse().with_context(|| format!("--initial-cluster: {url}"))?;
            urls.entry(name).or_default().push(plain(&url));
        }
        let members: Vec<MemberInfo> = urls
            .into_iter()
            .map(|(name, mut peer_urls)| {
                peer_urls.sort();
                let id = hash(&[&peer_urls.join(""), &self.clustering.initial_cluster_token]);
                MemberInfo { id, name: name.to_owned(), peer_urls, ..MemberInfo::default() }
            })
            .collect();
        let Some(own) = members.iter().find(|member| member.name == self.name) else {
            bail!("couldn't find local name {:?} in the initial cluster configuration", self.name);
        };
        let id = own.id;
        let mut ids: Vec<String> = members.iter().map(|member| format!("{:x}", member.id)).collect();
        ids.sort();
        let distinct = ids.len();
        ids.dedup();
        if ids.len() != distinct {
            bail!("--initial-cluster gives two members the same peer URLs");
        }
        Ok(ClusterDescription {
            cluster_id: hash(&[&ids.join(","), &self.clustering.initial_cluster_token]),
            id,
            members,
        })
    }
}

/// Who the members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Hash of members and token.
    pub cluster_id: u64,
    /// This member.
    pub id: u64,
    /// All members.
    pub members: Vec<MemberInfo>,
}

/// FNV-1a, 64 bits; never 0, which means "nobody".
fn hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash.max(1)
}
