//! Who the members of a cluster are, and their ids, as the flags have it.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use url::Url;

use super::{MAX_REQUEST_BYTES_MAX, Options};
use crate::member::MemberInfo;

impl Options {
    /// Checks what belongs together, and finds the members. This one's id is that of its name in `--initial-cluster`.
    ///
    /// # Errors
    /// Names the flag and the remedy.
    pub fn cluster(&self) -> anyhow::Result<ClusterDescription> {
        if self.tuning.election_timeout < 5 * self.tuning.heartbeat_interval {
            bail!(
                "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
                self.tuning.election_timeout,
                self.tuning.heartbeat_interval
            );
        }
        if self.tuning.max_request_bytes > MAX_REQUEST_BYTES_MAX {
            bail!(
                "--max-request-bytes={} is more than the log takes; the most is {MAX_REQUEST_BYTES_MAX}",
                self.tuning.max_request_bytes
            );
        }
        if self.tuning.heartbeat_interval == 0 {
            bail!("--heartbeat-interval must be >0 (set to 0ms)");
        }
        if let Some(gate) = self
            .tuning
            .feature_gates
            .iter()
            .flat_map(|g| g.split(','))
            .find(|g| !g.starts_with("InitialCorruptCheck="))
        {
            bail!("--feature-gates: {gate} is not there; InitialCorruptCheck is");
        }
        let own =
            self.urls.initial_advertise_peer_urls.iter().map(|url| format!("{}={}", self.name, plain(url)));
        let text =
            self.clustering.initial_cluster.clone().unwrap_or_else(|| own.collect::<Vec<_>>().join(","));
        let mut urls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, url) = pair
                .split_once('=')
                .with_context(|| format!("--initial-cluster: {pair:?} is not NAME=URL"))?;
            let url: Url = url.parse().with_context(|| format!("--initial-cluster: {url}"))?;
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

/// A URL without the slash that parsing adds.
pub fn plain(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
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
