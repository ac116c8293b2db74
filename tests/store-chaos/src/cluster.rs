//! Three members: who leads, do all serve, do all have the same; a member's replacement.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coracle_proto::etcdserverpb as pb;
use store_checker::{Rule, Violation};

use crate::calls::call;
use crate::member::{Member, name, peer_url};

/// How many there are.
pub const SIZE: usize = 3;
/// Without faults the cluster has to do what it is asked within this time.
const RECOVERY: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// The members.
pub struct Cluster {
    /// By number.
    pub members: Vec<Member>,
}

/// What all members agree on at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Of all keys at the revision asked for.
    pub hash: u32,
    /// What is compacted.
    pub compact_revision: i64,
}

/// Tries until it works, for as long as the cluster may take to recover.
///
/// # Errors
/// A [`Violation`] of [`Rule::Recovers`] with what was seen last.
pub async fn until_works<T>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if error.is::<Violation>() => return Err(error),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            bail!(Violation::new(Rule::Recovers, format!("{what}: not within {RECOVERY:?}: {error:#}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Cluster {
    /// Lays out the members and starts them.
    ///
    /// # Errors
    /// The system's.
    pub fn start(program: &Path, dir: &Path) -> anyhow::Result<Self> {
        let members = (0..SIZE).map(|number| Member::new(number, program, dir));
        let mut members = members.collect::<anyhow::Result<Vec<_>>>()?;
        members.iter_mut().try_for_each(|member| member.start(SIZE))?;
        Ok(Self { members })
    }

    /// Ends all trouble.
    ///
    /// # Errors
    /// The system's.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.members.iter_mut().try_for_each(|member| member.heal(SIZE))
    }

    /// A violation if a member ended without being told to.
    ///
    /// # Errors
    /// That [`Violation`].
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        for number in 0..SIZE {
            if let Some(how) = self.members[number].ended() {
                let words = self.members[number].last_words();
                bail!(Violation::new(
                    Rule::NoPanic,
                    format!("{} ended by itself: {how}\n{words}", name(number))
                ));
            }
        }
        Ok(())
    }

    /// Waits until every member answers a linearizable read.
    ///
    /// # Errors
    /// A [`Violation`] if one does not, or ends.
    pub async fn serving(&mut self) -> anyhow::Result<()> {
        for number in 0..SIZE {
            until_works(&format!("{} serves", name(number)), async || {
                self.check_running()?;
                call::<pb::RangeResponse>(
                    number,
                    "KV/Range",
                    &pb::RangeRequest { key: "x".into(), ..Default::default() },
                )
                .await
            })
            .await?;
        }
        Ok(())
    }

    /// The member that leads as far as the members know that answer now.
    pub async fn leader(&self) -> Option<usize> {
        let mut found = None;
        for number in (0..SIZE).filter(|number| self.members[*number].is_well()) {
            let request = pb::StatusRequest::default();
            let asked = call(number, "Maintenance/Status", &request);
            let Ok(Ok(status)) = tokio::time::timeout(Duration::from_millis(200), asked).await else {
                continue;
            };
            let status: pb::StatusResponse = status;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                found = found.max(Some((status.raft_term, number)));
            }
        }
        found.map(|(_, number)| number)
    }

    /// Removes a member, wipes its data, adds it again and waits until all serve.
    ///
    /// # Errors
    /// A [`Violation`] if that does not work, or the system's.
    pub async fn replace(&mut self, number: usize, is_dead: bool) -> anyhow::Result<()> {
        self.heal()?;
        self.serving().await?;
        let helper = (number + 1) % SIZE;
        let old = member_at(helper, number).await?.context("the member to be replaced is not there")?.id;
        if is_dead {
            self.members[number].kill();
        }
        until_works("remove a member", async || {
            let request = pb::MemberRemoveRequest { id: old };
            // It may have worked although the answer was lost.
            if member_at(helper, number).await?.is_some() {
                call::<pb::MemberRemoveResponse>(helper, "Cluster/MemberRemove", &request).await?;
            }
            Ok(())
        })
        .await?;
        if !is_dead {
            until_works("a removed member ends", async || match self.members[number].ended() {
                Some(_) => Ok(()),
                None => bail!("it still runs"),
            })
            .await?;
        }
        self.members[number].wipe()?;
        let new = until_works("add a member", async || {
            if let Some(member) = member_at(helper, number).await? {
                return Ok(member.id);
            }
            let request = pb::MemberAddRequest { peer_urls: vec![peer_url(number)], is_learner: is_dead };
            call::<pb::MemberAddResponse>(helper, "Cluster/MemberAdd", &request).await?;
            bail!("it is not among the members")
        })
        .await?;
        self.members[number].start(SIZE)?;
        until_works("promote a learner", async || {
            self.check_running()?;
            let member = member_at(helper, number).await?.context("the member that was added is gone")?;
            if member.is_learner {
                let request = pb::MemberPromoteRequest { id: new };
                call::<pb::MemberPromoteResponse>(helper, "Cluster/MemberPromote", &request).await?;
            }
            Ok(())
        })
        .await?;
        self.serving().await
    }

    /// Waits until all members have applied a revision; what they then agree on.
    ///
    /// # Errors
    /// A [`Violation`] of [`Rule::MembersAgree`] if they do not.
    pub async fn agree(&mut self, revision: i64) -> anyhow::Result<Agreed> {
        until_works("all members have the same", async || {
            let mut all = Vec::new();
            for number in 0..SIZE {
                let hash: pb::HashKvResponse =
                    call(number, "Maintenance/HashKV", &pb::HashKvRequest { revision }).await?;
                all.push(Agreed { hash: hash.hash, compact_revision: hash.compact_revision });
            }
            if all.iter().any(|agreed| agreed.compact_revision != all[0].compact_revision) {
                bail!("they are not all compacted alike: {all:?}");
            }
            if all.iter().any(|agreed| *agreed != all[0]) {
                bail!(
                    Violation::new(
                        Rule::MembersAgree,
                        format!("hashes at revision {revision} differ: {all:?}")
                    )
                    .at(revision)
                );
            }
            Ok(all[0])
        })
        .await
    }

    /// Waits until every member says that the members are those there should be, all of them voters with a name.
    ///
    /// # Errors
    /// A [`Violation`] if one does not.
    pub async fn members_as_expected(&self) -> anyhow::Result<()> {
        let expected: BTreeSet<(String, Vec<String>)> =
            (0..SIZE).map(|m| (name(m), vec![peer_url(m)])).collect();
        until_works("the members are those there should be", async || {
            for number in 0..SIZE {
                let members = list(number).await?;
                let told = members.iter().map(|m| (m.name.clone(), m.peer_urls.clone())).collect();
                if expected != told || members.len() != SIZE || members.iter().any(|m| m.is_learner) {
                    bail!("{} says {members:?}", name(number));
                }
            }
            Ok(())
        })
        .await
    }
}

async fn list(asked: usize) -> anyhow::Result<Vec<pb::Member>> {
    let request = pb::MemberListRequest { linearizable: true };
    Ok(call::<pb::MemberListResponse>(asked, "Cluster/MemberList", &request).await?.members)
}

/// Who has a member's peer URL.
async fn member_at(asked: usize, number: usize) -> anyhow::Result<Option<pb::Member>> {
    let url = peer_url(number);
    Ok(list(asked).await?.into_iter().find(|member| member.peer_urls.contains(&url)))
}
