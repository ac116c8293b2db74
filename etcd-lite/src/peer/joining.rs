//! Asking a running cluster who its members are, before this one has any data.

use std::time::Duration;

use anyhow::bail;
use coracle_proto::peer::peer_client::PeerClient;
use coracle_proto::peer::{MembersAnswer, MembersQuestion};
use coracle_proto::store::MemberRecord;
use etcd_lite_core::Members;

use super::channel::{self, PeerTls};
use crate::options::EtcdUrl;

const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// What a member of a cluster knows about it.
#[derive(Clone, Debug)]
pub struct MembersFound {
    /// Its cluster.
    pub cluster_id: u64,
    /// Its members.
    pub members: Members,
}

/// Asks whoever listens at a peer URL.
///
/// # Errors
/// Nobody answers.
pub async fn ask_members(url: &str, tls: Option<PeerTls>) -> anyhow::Result<MembersFound> {
    let channel = channel::open(&[url.to_owned()], tls, |_| {})?;
    let mut client = PeerClient::new(channel);
    match tokio::time::timeout(ANSWER_DEADLINE, client.members(MembersQuestion {})).await {
        Err(_) => bail!("{url} does not answer"),
        Ok(Err(status)) => bail!("{url}: {}", status.message()),
        Ok(Ok(response)) => {
            let MembersAnswer { cluster_id, members } = response.into_inner();
            Ok(MembersFound { cluster_id, members: Members::from_records(members) })
        }
    }
}

/// Whether these are the same places, if not by name then by address.
pub(crate) async fn same_urls(left: &[String], right: &[String]) -> bool {
    let normal = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    if normal(left) == normal(right) {
        return true;
    }
    match (resolved(left).await, resolved(right).await) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

/// Scheme and address of each URL, in order; `None` if a name has no address.
async fn resolved(urls: &[String]) -> Option<Vec<(bool, std::net::SocketAddr)>> {
    let mut all = Vec::new();
    for url in urls {
        let url: EtcdUrl = url.parse().ok()?;
        let (host, port) = (url.host().to_owned(), url.port());
        let mut addresses: Vec<_> =
            tokio::time::timeout(ANSWER_DEADLINE, tokio::net::lookup_host((host, port)))
                .await
                .ok()?
                .ok()?
                .collect();
        addresses.sort();
        all.push((url.is_secure(), *addresses.first()?));
    }
    all.sort();
    Some(all)
}

/// The members as etcd prints them in its errors.
pub(crate) fn describe(found: &MembersFound) -> String {
    let one = |member: &MemberRecord| {
        format!(
            "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
            member.id,
            member.peer_urls.join(" "),
            member.is_learner,
            member.name,
            member.client_urls.join(" ")
        )
    };
    let members: Vec<String> = found.members.iter().map(|member| one(member)).collect();
    let removed: Vec<String> = found
        .members
        .records()
        .filter(|member| member.is_removed)
        .map(|member| format!("{:x}", member.id))
        .collect();
    format!(
        "{{ClusterID:{:x} Members:[{}] RemovedMemberIDs:[{}]}}",
        found.cluster_id,
        members.join(" "),
        removed.join(" ")
    )
}
