//! How a member comes to be one: from its data directory, as one of those a cluster begins with, or by asking the members of a running cluster.
//!
//! Owns: which id and cluster a starting member has. Never here: changing who the members are, the log.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use coracle_proto::store::MemberRecord;

use crate::options::{ClusterDescription, ClusterState};
use crate::peer::{MembersFound, PeerTls, ask_members, check_urls, describe, same_urls};
use crate::wal::Wal;

/// What a member begins with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beginning {
    /// Its cluster.
    pub cluster_id: u64,
    /// Its id.
    pub id: u64,
    /// The members of a new cluster, to become entry 1 of the log. None for a member with data, and for one that gets its log from others.
    pub members: Option<Vec<MemberRecord>>,
    /// It has no data, but the others know of an earlier life of it, in which it may have promised something.
    pub is_rejoining: bool,
    /// Who is known to be there before the log tells.
    pub known: Vec<MemberRecord>,
}

/// Finds out. `description` makes sense of the flags, which count for nothing once there is data.
///
/// # Errors
/// The flags contradict each other or the running cluster; nobody answers.
pub async fn begin(
    wal_dir: &Path,
    state: ClusterState,
    description: impl FnOnce() -> anyhow::Result<ClusterDescription>,
    tls: Option<&PeerTls>,
) -> anyhow::Result<Beginning> {
    if let Some(own) = Wal::identity(wal_dir)?.filter(|own| own.has_entries) {
        return Ok(Beginning { cluster_id: own.cluster_id, id: own.member_id, ..Beginning::default() });
    }
    let description = description()?;
    for member in &description.members {
        check_urls(&member.peer_urls, tls)?;
    }
    match state {
        ClusterState::Existing => join(&description, tls).await,
        ClusterState::New => found(&description, tls).await,
    }
}

/// Begins a cluster, unless the others say that it is there already and this member was in it: then its data was lost, and it must not
/// begin anew what it promised to remember.
async fn found(description: &ClusterDescription, tls: Option<&PeerTls>) -> anyhow::Result<Beginning> {
    let has_lived = |answer: &MembersFound| {
        answer.cluster_id == description.cluster_id
            && answer.members.get(description.id).is_some_and(has_started)
    };
    let (answers, _) = ask_all(description, tls).await;
    if let Some(answer) = answers.into_iter().find(has_lived) {
        tracing::warn!(
            "the cluster exists and this member was in it, but its data is gone; it takes everything from the others"
        );
        return Ok(Beginning {
            cluster_id: description.cluster_id,
            id: description.id,
            members: None,
            is_rejoining: true,
            known: answer.members.iter().map(|member| MemberRecord::clone(member)).collect(),
        });
    }
    let members = description.records();
    Ok(Beginning {
        cluster_id: description.cluster_id,
        id: description.id,
        members: Some(members.clone()),
        is_rejoining: false,
        known: members,
    })
}

/// Members publish their client URLs when they start for the first time.
fn has_started(member: &Arc<MemberRecord>) -> bool {
    !member.client_urls.is_empty()
}

/// Takes cluster and id from the running cluster, as the member with this one's peer URLs.
async fn join(description: &ClusterDescription, tls: Option<&PeerTls>) -> anyhow::Result<Beginning> {
    let (answers, failures) = ask_all(description, tls).await;
    let mut failure = None;
    for answer in answers {
        match matching(description, &answer).await {
            Ok(id) => {
                let is_rejoining = answer.members.get(id).is_some_and(has_started);
                return Ok(Beginning {
                    cluster_id: answer.cluster_id,
                    id,
                    members: None,
                    is_rejoining,
                    known: answer.members.iter().map(|member| MemberRecord::clone(member)).collect(),
                });
            }
            Err(why) => {
                failure.get_or_insert(format!("error validating peerURLs {}: {why}", describe(&answer)));
            }
        }
    }
    match failure {
        Some(failure) => bail!(
            "{failure}; give --initial-cluster the members as `etcdctl member list` shows them, this one added by `etcdctl member add`"
        ),
        None => bail!(
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs ({})",
            failures.join("; ")
        ),
    }
}

/// Which of the cluster's members this one is. Every member there has to be described by the flags, with the same peer URLs.
async fn matching(description: &ClusterDescription, answer: &MembersFound) -> Result<u64, String> {
    if answer.members.iter().count() != description.members.len() {
        return Err("member count is unequal".into());
    }
    let mut own = None;
    for member in answer.members.iter() {
        let mut found = None;
        for described in &description.members {
            if same_urls(&member.peer_urls, &described.peer_urls).await {
                found = Some(described.id);
                break;
            }
        }
        match found {
            None => {
                return Err(format!(
                    "PeerURLs: no match found for existing member ({:x}, [{}])",
                    member.id,
                    member.peer_urls.join(" ")
                ));
            }
            Some(described) if described == description.id => own = Some(member.id),
            Some(_) => {}
        }
    }
    own.ok_or_else(|| "none of the members has this one's peer URLs".to_owned())
}

/// The answers of the other members that the flags name, at once; and what went wrong with those that do not answer.
async fn ask_all(
    description: &ClusterDescription,
    tls: Option<&PeerTls>,
) -> (Vec<MembersFound>, Vec<String>) {
    let others = description.members.iter().filter(|member| member.id != description.id);
    let asked = others.flat_map(|member| &member.peer_urls).map(|url| ask_members(url, tls.cloned()));
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for answer in futures::future::join_all(asked).await {
        match answer.context("asking for the members") {
            Ok(answer) => answers.push(answer),
            Err(error) => failures.push(format!("{:#}", error.root_cause())),
        }
    }
    (answers, failures)
}
