//! One leader among several instances, by a `coordination.k8s.io/v1` Lease under client-go's rules. [`Elector`] decides
//! and takes time as an argument; [`run_or_exit`] does the calls. It protects against two active instances only as well as
//! clocks *rates* agree; it never compares the clocks of two machines.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{describe, host_name, is_not_found, within};
use crate::metrics::LeaderElectionMetrics;

/// Upstream's `--leader-elect*` flags, to be flattened into a component's own.
#[derive(Clone, Debug, clap::Args)]
pub struct LeaderElectionFlags {
    /// Act only while holding the lease; stand by otherwise.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value_t = true)]
    pub leader_elect: bool,
    /// How long others wait after the last renewal they saw before they take over.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub leader_elect_renew_deadline: Duration,
    /// How long to wait between attempts to acquire or renew.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub leader_elect_retry_period: Duration,
    /// The kind of lock; only `leases` exists.
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    /// The lease's name; the component's own by default.
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    /// The lease's namespace.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text.parse().map_err(|error| format!("{error}"))?;
    if parsed.is_negative() { Err("must not be negative".into()) } else { Ok(parsed.into()) }
}

/// What an election needs to know.
#[derive(Clone, Debug)]
pub struct LeaderElectionConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who this instance is; must differ between instances.
    pub identity: String,
    /// How long others wait after the last renewal they saw.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Time between attempts.
    pub retry_period: Duration,
}

impl LeaderElectionFlags {
    /// Checks the flags and completes them with the component's lease name and a fresh identity (`HOST_UUID`).
    pub fn config(&self, default_name: &str) -> Result<LeaderElectionConfig, String> {
        let (lease, renew, retry) = (
            self.leader_elect_lease_duration,
            self.leader_elect_renew_deadline,
            self.leader_elect_retry_period,
        );
        if lease <= renew {
            return Err(
                "--leader-elect-lease-duration must be greater than --leader-elect-renew-deadline".into()
            );
        }
        if renew.as_secs_f64() <= retry.as_secs_f64() * JITTER {
            return Err(
                "--leader-elect-renew-deadline must be greater than 1.2 times --leader-elect-retry-period"
                    .into(),
            );
        }
        if retry.is_zero() {
            return Err("--leader-elect-retry-period must be greater than zero".into());
        }
        let name = self.leader_elect_resource_name.clone().filter(|name| !name.is_empty());
        Ok(LeaderElectionConfig {
            namespace: self.leader_elect_resource_namespace.clone(),
            name: name.unwrap_or_else(|| default_name.to_owned()),
            identity: format!("{}_{}", host_name(), uuid::Uuid::new_v4()),
            lease_duration: lease,
            renew_deadline: renew,
            retry_period: retry,
        })
    }
}

/// Candidates that fail to acquire wait up to this factor of the retry period, so that they do not march in step.
const JITTER: f64 = 1.2;

/// What to do next about the lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Someone else holds it; try again later.
    Wait,
    /// It does not exist; create this.
    Create(Lease),
    /// Write this over what was read (its `resourceVersion` guards against a race).
    Update(Lease),
}

/// The rules of the election for one instance. `now` is monotonic time since any fixed point; `wall` is only written into
/// the lease for people to read.
#[derive(Debug)]
pub struct Elector {
    config: LeaderElectionConfig,
    observed: Option<LeaseSpec>,
    observed_at: Duration,
    leading: bool,
}

impl Elector {
    /// An instance that has not seen the lease yet.
    pub fn new(config: LeaderElectionConfig) -> Self {
        Self { config, observed: None, observed_at: Duration::ZERO, leading: false }
    }

    /// Whether the last step written makes this instance the leader.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// The holder last seen, empty if none.
    pub fn holder(&self) -> &str {
        self.observed.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }

    /// Decides from the lease as just read (`None`: it does not exist).
    pub fn step(&mut self, now: Duration, wall: jiff::Timestamp, current: Option<&Lease>) -> Step {
        let wall = MicroTime(wall);
        let Some(current) = current else {
            return Step::Create(Lease {
                metadata: ObjectMeta {
                    name: Some(self.config.name.clone()),
                    namespace: Some(self.config.namespace.clone()),
                    ..Default::default()
                },
                spec: Some(self.record(wall.clone(), wall, 0)),
            });
        };
        let spec = current.spec.clone().unwrap_or_default();
        if self.observed.as_ref() != Some(&spec) {
            self.observed = Some(spec.clone());
            self.observed_at = now;
        }
        let held_by_us = spec.holder_identity.as_deref() == Some(self.config.identity.as_str());
        let held = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
        let duration =
            Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        if held && !held_by_us && self.observed_at + duration > now {
            self.leading = false;
            return Step::Wait;
        }
        let transitions = spec.lease_transitions.unwrap_or(0);
        let record = if held_by_us {
            self.record(spec.acquire_time.clone().unwrap_or_else(|| wall.clone()), wall, transitions)
        } else {
            self.record(wall.clone(), wall, transitions.saturating_add(1))
        };
        Step::Update(Lease { metadata: current.metadata.clone(), spec: Some(record) })
    }

    /// Takes note that a `Create` or `Update` was accepted: this instance leads.
    pub fn written(&mut self, now: Duration, lease: &Lease) {
        self.observed = lease.spec.clone();
        self.observed_at = now;
        self.leading = true;
    }

    /// The lease to write on leaving: no holder and one second to live, so that another takes over at once.
    pub fn release(&mut self, wall: jiff::Timestamp, current: &Lease) -> Option<Lease> {
        let spec = current.spec.as_ref()?;
        if spec.holder_identity.as_deref() != Some(self.config.identity.as_str()) {
            return None;
        }
        self.leading = false;
        Some(Lease {
            metadata: current.metadata.clone(),
            spec: Some(LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: Some(MicroTime(wall)),
                renew_time: Some(MicroTime(wall)),
                lease_transitions: spec.lease_transitions,
                ..Default::default()
            }),
        })
    }

    fn record(&self, acquired: MicroTime, renewed: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX),
            ),
            acquire_time: Some(acquired),
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }
}

struct Shell {
    api: Api<Lease>,
    elector: Elector,
    started: Instant,
    config: LeaderElectionConfig,
    /// Our own last write; renewing from it saves the read.
    written: Option<Lease>,
}

impl Shell {
    /// One attempt to acquire or renew; true if this instance leads after it.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let limit = self.config.renew_deadline.div_f64(2.0);
        let cached = self.written.take();
        if let Some(lease) = cached
            && let Step::Update(next) =
                self.elector.step(self.started.elapsed(), jiff::Timestamp::now(), Some(&lease))
            && let Ok(lease) = self.update(limit, &next).await
        {
            return Ok(self.accept(lease));
        }
        let current = match within(limit, self.api.get(&self.config.name)).await {
            Ok(lease) => Some(lease),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        let lease = match self.elector.step(self.started.elapsed(), jiff::Timestamp::now(), current.as_ref())
        {
            Step::Wait => return Ok(false),
            Step::Create(lease) => within(limit, self.api.create(&PostParams::default(), &lease)).await?,
            Step::Update(lease) => self.update(limit, &lease).await?,
        };
        Ok(self.accept(lease))
    }

    async fn update(&self, limit: Duration, lease: &Lease) -> Result<Lease, kube::Error> {
        within(limit, self.api.replace(&self.config.name, &PostParams::default(), lease)).await
    }

    fn accept(&mut self, lease: Lease) -> bool {
        self.elector.written(self.started.elapsed(), &lease);
        self.written = Some(lease);
        true
    }

    async fn release(&mut self) {
        let limit = self.config.retry_period;
        let Ok(current) = within(limit, self.api.get(&self.config.name)).await else { return };
        if let Some(lease) = self.elector.release(jiff::Timestamp::now(), &current)
            && let Err(error) = self.update(limit, &lease).await
        {
            tracing::warn!(
                lease = lease.name_any(),
                error = describe(&error),
                "the lease could not be given back"
            );
        }
    }

    /// Waits for leadership. Returns false if `shutdown` came first.
    async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        let mut seen_holder = String::new();
        loop {
            match self.attempt().await {
                Ok(true) => return true,
                Ok(false) if self.elector.holder() != seen_holder => {
                    seen_holder = self.elector.holder().to_owned();
                    tracing::info!(lease = self.config.name, holder = seen_holder, "standing by");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(
                        lease = self.config.name,
                        error = describe(&error),
                        "cannot reach the lease yet"
                    );
                }
            }
            // Spread by identity and attempt, which needs no random source.
            let spread = (self.started.elapsed().subsec_micros() % 1000) as f64 / 1000.0;
            let pause = self.config.retry_period.mul_f64(1.0 + (JITTER - 1.0) * spread);
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Keeps the lease. Returns true if it was lost, false on `shutdown`.
    async fn keep(&mut self, shutdown: &CancellationToken) -> bool {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
            let deadline = renewed + self.config.renew_deadline;
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return true,
                Ok(Err(error)) => {
                    tracing::warn!(
                        lease = self.config.name,
                        error = describe(&error),
                        "renewing the lease failed, trying again"
                    );
                }
                Err(_elapsed) => {}
            }
            if Instant::now() >= deadline {
                return true;
            }
        }
    }
}

/// Waits until this instance leads, then runs `lead`; the lease is renewed meanwhile and given back on shutdown. If the
/// lease is lost the process ends with code 1, as upstream: whoever supervises it starts it again as a standby.
/// `lead` gets a token that is cancelled on shutdown and must return after it.
pub async fn run_or_exit<F, Fut>(
    client: Client,
    config: LeaderElectionConfig,
    metrics: &LeaderElectionMetrics,
    shutdown: &CancellationToken,
    lead: F,
) where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let name = config.name.clone();
    metrics.set(&name, false);
    let mut shell = Shell {
        api: Api::namespaced(client, &config.namespace),
        elector: Elector::new(config.clone()),
        started: Instant::now(),
        config,
        written: None,
    };
    if !shell.acquire(shutdown).await {
        return;
    }
    tracing::info!(lease = name, identity = shell.config.identity, "became leader");
    metrics.set(&name, true);
    let mut work = tokio::spawn(lead(shutdown.clone()));
    let renew_deadline = shell.config.renew_deadline;
    tokio::select! {
        lost = shell.keep(shutdown) => {
            if lost {
                tracing::error!(
                    lease = name,
                    "leader election lost: the lease was not renewed within {renew_deadline:?} or another instance \
                     took it; ending so that a fresh start stands by"
                );
                std::process::exit(1);
            }
        }
        ended = &mut work => {
            // A leader that does nothing must not keep others from leading.
            if !shutdown.is_cancelled() {
                tracing::error!(lease = name, panicked = ended.is_err(), "the leader's work ended by itself; ending");
                shell.release().await;
                std::process::exit(1);
            }
            work = tokio::spawn(async {});
        }
    }
    if let Err(error) = work.await {
        tracing::error!(error = %error, "the leader's work ended abnormally");
    }
    metrics.set(&name, false);
    shell.release().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(identity: &str) -> LeaderElectionConfig {
        LeaderElectionConfig {
            namespace: "kube-system".into(),
            name: "kube-scheduler".into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).expect("valid")
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease(step: Step) -> Lease {
        match step {
            Step::Create(lease) | Step::Update(lease) => lease,
            Step::Wait => panic!("nothing to write"),
        }
    }

    #[test]
    fn the_first_instance_creates_and_the_second_takes_over_only_after_silence() {
        let (mut a, mut b) = (Elector::new(config("a")), Elector::new(config("b")));
        let first = lease(a.step(s(0), at(100), None));
        a.written(s(0), &first);
        assert!(a.is_leading());
        assert_eq!(b.step(s(1), at(101), Some(&first)), Step::Wait);
        // A renewal 14 s later restarts the count for the other.
        let renewed = lease(a.step(s(14), at(114), Some(&first)));
        assert_eq!(b.step(s(15), at(115), Some(&renewed)), Step::Wait);
        assert_eq!(b.step(s(29), at(129), Some(&renewed)), Step::Wait);
        let taken = lease(b.step(s(30), at(130), Some(&renewed)));
        let spec = taken.spec.clone().expect("spec");
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(1));
        assert_eq!(spec.acquire_time, Some(MicroTime(at(130))));
        // The old leader sees it and knows.
        assert_eq!(a.step(s(31), at(131), Some(&taken)), Step::Wait);
        assert!(!a.is_leading());
    }

    #[test]
    fn renewing_keeps_acquire_time_and_transitions() {
        let mut a = Elector::new(config("a"));
        let first = lease(a.step(s(0), at(100), None));
        let spec = lease(a.step(s(2), at(102), Some(&first))).spec.expect("spec");
        assert_eq!(spec.acquire_time, Some(MicroTime(at(100))));
        assert_eq!(spec.renew_time, Some(MicroTime(at(102))));
        assert_eq!(spec.lease_transitions, Some(0));
    }

    #[test]
    fn a_released_lease_is_free_at_once_and_only_the_holder_releases() {
        let (mut a, mut b) = (Elector::new(config("a")), Elector::new(config("b")));
        let first = lease(a.step(s(0), at(100), None));
        assert!(b.release(at(101), &first).is_none());
        let released = a.release(at(101), &first).expect("holder");
        assert!(matches!(b.step(s(2), at(102), Some(&released)), Step::Update(_)));
    }

    #[test]
    fn flags_that_cannot_work_are_refused() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            election: LeaderElectionFlags,
        }
        let parse = |args: &[&str]| <Cli as clap::Parser>::try_parse_from([&["x"], args].concat());
        let flags =
            parse(&["--leader-elect=false", "--leader-elect-lease-duration=5s"]).expect("parses").election;
        assert!(!flags.leader_elect);
        assert!(flags.config("kube-scheduler").expect_err("5s <= 10s").contains("lease-duration"));
        let flags = parse(&["--leader-elect"]).expect("parses").election;
        assert!(flags.leader_elect);
        assert_eq!(flags.config("kube-scheduler").expect("defaults are fine").name, "kube-scheduler");
    }
}
