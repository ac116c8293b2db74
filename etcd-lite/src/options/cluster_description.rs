//! Who the members of a cluster are, and their ids, as the flags have it.

use std::collections::{BTreeMap, BTreeSet};

use super::{EtcdUrl, Options, plain};
use crate::member::MemberInfo;
use crate::member_ids::{cluster_id, member_id};
use anyhow::{Context, bail};
use etcd_lite_core::MemberRecord;

impl Options {
    /// The members a cluster begins with. This one's id is that of its name in `--initial-cluster`.
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
                let id = member_id(&peer_urls, &self.clustering.initial_cluster_token, None);
                MemberInfo { id, name: name.to_owned(), peer_urls, ..MemberInfo::default() }
            })
            .collect();
        let Some(own) = members.iter().find(|member| member.name == self.name) else {
            bail!("couldn't find local name {:?} in the initial cluster configuration", self.name);
        };
        let id = own.id;
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
            bail!("--initial-cluster gives two members the same peer URLs");
        }
        Ok(ClusterDescription { cluster_id: cluster_id(ids), id, members })
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

impl ClusterDescription {
    /// The members as the records of a cluster that begins with them.
    pub fn records(&self) -> Vec<MemberRecord> {
        self.members
            .iter()
            .map(|member| MemberRecord {
                id: member.id,
                name: member.name.clone(),
                peer_urls: member.peer_urls.clone(),
                ..MemberRecord::default()
            })
            .collect()
    }
}
