//! Named health checks behind `/healthz`, `/livez` and `/readyz`, with upstream's text.

use std::fmt::Write;
use std::sync::Arc;

use parking_lot::RwLock;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of one process. Cloning shares them.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<RwLock<Vec<Named>>>,
}

struct Named {
    name: String,
    live: bool,
    check: Check,
}

/// Which endpoint is being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/healthz`: every check.
    Healthz,
    /// `/livez`: only checks whose failure means that the process should be restarted.
    Livez,
    /// `/readyz`: every check.
    Readyz,
}

impl Endpoint {
    /// The path segment, which upstream also prints in the body.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    /// Splits `/livez/etcd` into the endpoint and the single check asked for.
    pub fn parse(path: &str) -> Option<(Self, Option<&str>)> {
        let path = path.strip_prefix('/')?;
        let (first, check) = match path.split_once('/') {
            Some((first, check)) if !check.is_empty() => (first, Some(check)),
            Some((first, _)) => (first, None),
            None => (path, None),
        };
        [Self::Healthz, Self::Livez, Self::Readyz].into_iter().find(|e| e.name() == first).map(|e| (e, check))
    }
}

/// The answer to a health request.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether all asked checks passed (HTTP 200), else 500.
    pub healthy: bool,
    /// The body.
    pub body: String,
}

impl Health {
    /// Only `ping`, which always passes: a process that answers is reachable.
    pub fn new() -> Self {
        let health = Self::default();
        health.add("ping", true, || Ok(()));
        health
    }

    /// Adds a check that counts for liveness and readiness.
    pub fn add_live(&self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.add(name, true, check);
    }

    /// Adds a check that counts for readiness only.
    pub fn add_ready(&self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.add(name, false, check);
    }

    fn add(&self, name: &str, live: bool, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.checks.write().push(Named { name: name.to_owned(), live, check: Arc::new(check) });
    }

    /// Runs the checks of an endpoint. `query` is the raw query string: `verbose` and `exclude=NAME` are understood.
    /// `None` when a single check is asked for that does not exist.
    pub fn report(&self, endpoint: Endpoint, single: Option<&str>, query: Option<&str>) -> Option<Report> {
        let parameters =
            || query.unwrap_or_default().split('&').map(|p| p.split_once('=').unwrap_or((p, "")));
        let verbose = parameters().any(|(key, _)| key == "verbose");
        let excluded: Vec<&str> =
            parameters().filter(|(key, _)| *key == "exclude").map(|(_, value)| value).collect();
        let asked: Vec<(String, Check)> = self
            .checks
            .read()
            .iter()
            .filter(|c| endpoint != Endpoint::Livez || c.live)
            .filter(|c| single.is_none_or(|name| name == c.name))
            .map(|c| (c.name.clone(), Arc::clone(&c.check)))
            .collect();
        if asked.is_empty() && single.is_some() {
            return None;
        }
        let (mut body, mut healthy) = (String::new(), true);
        for (name, check) in asked {
            // Writing to a String cannot fail.
            let _ = if excluded.contains(&name.as_str()) {
                writeln!(body, "[+]{name} excluded: ok")
            } else {
                match check() {
                    Ok(()) => writeln!(body, "[+]{name} ok"),
                    Err(reason) => {
                        tracing::warn!(
                            endpoint = endpoint.name(),
                            check = name,
                            reason,
                            "health check failed"
                        );
                        healthy = false;
                        writeln!(body, "[-]{name} failed: reason withheld")
                    }
                }
            };
        }
        let verdict = if healthy { "passed" } else { "failed" };
        let _ = writeln!(body, "{} check {verdict}", endpoint.name());
        let body = if healthy && !verbose { "ok".to_owned() } else { body };
        Some(Report { healthy, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_fails_where_liveness_passes() {
        let health = Health::new();
        health.add_ready("shutdown", || Err("draining".into()));
        assert_eq!(health.report(Endpoint::Livez, None, None).expect("exists").body, "ok");
        let ready = health.report(Endpoint::Readyz, None, None).expect("exists");
        assert!(!ready.healthy);
        assert_eq!(ready.body, "[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n");
        assert!(health.report(Endpoint::Readyz, None, Some("exclude=shutdown")).expect("exists").healthy);
        assert!(health.report(Endpoint::Readyz, Some("nothing"), None).is_none());
    }

    #[test]
    fn paths_name_the_endpoint_and_the_check() {
        assert_eq!(Endpoint::parse("/livez/etcd"), Some((Endpoint::Livez, Some("etcd"))));
        assert_eq!(Endpoint::parse("/readyz"), Some((Endpoint::Readyz, None)));
        assert_eq!(Endpoint::parse("/metrics"), None);
    }
}
