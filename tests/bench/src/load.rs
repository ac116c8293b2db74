//! Clients that each send their next request when the last is answered, and what is measured of them and of the program meanwhile.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::latency::Latencies;
use crate::processes::cpu_seconds;

/// What is under load.
pub trait UnderLoad {
    /// User and system seconds so far.
    ///
    /// # Errors
    /// When a process is gone.
    fn cpu_seconds(&self) -> anyhow::Result<f64>;

    /// Resident bytes of a process, the mean if there are several.
    ///
    /// # Errors
    /// When a process is gone.
    fn resident_bytes(&self) -> anyhow::Result<u64>;
}

/// How long a workload runs.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub measured: Duration,
}

/// What one run of a workload showed.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// Operations a second.
    pub per_second: f64,
    /// CPU seconds of all that is under load for 1,000 operations.
    pub cpu_seconds_per_thousand: f64,
    /// Median latency.
    pub p50_ms: f64,
    /// The latency that 1 % exceed.
    pub p99_ms: f64,
    /// Resident megabytes of a process at the end.
    pub resident_mb: f64,
    /// Share of one core that the load program itself took.
    pub load_cores: f64,
    /// Operations that failed; their time is in no column.
    pub errors: u64,
}

/// CPU seconds of what is under load and of this program at a moment.
pub struct Usage {
    at: Instant,
    loaded: f64,
    own: f64,
}

impl Usage {
    /// Reads both.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn now(program: &impl UnderLoad) -> anyhow::Result<Self> {
        let own = cpu_seconds(std::process::id())?;
        Ok(Self { at: Instant::now(), loaded: program.cpu_seconds()?, own })
    }

    /// The figures of `operations` and their `latencies` since then.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn rate(
        &self,
        program: &impl UnderLoad,
        operations: u64,
        latencies: &Latencies,
        errors: u64,
    ) -> anyhow::Result<Rate> {
        let end = Self::now(program)?;
        self.rate_until(&end, program, operations, latencies, errors)
    }

    fn rate_until(
        &self,
        end: &Self,
        program: &impl UnderLoad,
        operations: u64,
        latencies: &Latencies,
        errors: u64,
    ) -> anyhow::Result<Rate> {
        let seconds = (end.at - self.at).as_secs_f64();
        Ok(Rate {
            per_second: operations as f64 / seconds,
            cpu_seconds_per_thousand: (end.loaded - self.loaded) * 1000.0 / operations.max(1) as f64,
            p50_ms: latencies.quantile_ms(0.5),
            p99_ms: latencies.quantile_ms(0.99),
            resident_mb: program.resident_bytes()? as f64 / 1e6,
            load_cores: (end.own - self.own) / seconds,
            errors,
        })
    }
}

/// What a client's attempt came to.
pub enum Outcome {
    /// One operation done.
    Done,
    /// Nothing done yet (a lost race): the time goes to the operation that follows.
    Again,
}

/// Runs `clients` clients; `operation(client, number)` is one attempt.
///
/// # Errors
/// When a process is gone, or when no operation succeeds.
pub async fn closed_loop<F, Fut>(
    program: &impl UnderLoad,
    clients: usize,
    timing: Timing,
    operation: F,
) -> anyhow::Result<Rate>
where
    F: Fn(usize, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = anyhow::Result<Outcome>> + Send,
{
    let begin = Instant::now() + timing.warm_up;
    let end = begin + timing.measured;
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let operation = operation.clone();
        tasks.spawn(async move {
            let (mut latencies, mut errors, mut last_error) = (Latencies::default(), 0_u64, None);
            let mut started = Instant::now();
            for number in 0.. {
                let outcome = operation(client, number).await;
                let now = Instant::now();
                if now >= end {
                    break;
                }
                match outcome {
                    Ok(Outcome::Again) => continue,
                    Ok(Outcome::Done) if started >= begin => latencies.record(now - started),
                    Ok(Outcome::Done) => {}
                    Err(error) => {
                        errors += 1;
                        last_error = Some(error);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                started = Instant::now();
            }
            (latencies, errors, last_error)
        });
    }
    tokio::time::sleep_until(begin.into()).await;
    let usage = Usage::now(program)?;
    tokio::time::sleep_until(end.into()).await;
    let until = Usage::now(program)?;
    let (mut latencies, mut errors, mut last_error) = (Latencies::default(), 0, None);
    while let Some(result) = tasks.join_next().await {
        let (more, failed, error) = result?;
        latencies.add(&more);
        errors += failed;
        last_error = error.or(last_error);
    }
    if latencies.count() == 0 {
        anyhow::bail!("no operation succeeded: {}", last_error.map_or("no error".into(), |e| e.to_string()));
    }
    usage.rate_until(&until, program, latencies.count(), &latencies, errors)
}
