//! API priority and fairness: each request belongs to a flow of a FlowSchema and takes seats of the schema's priority level, or waits for them in a queue
//! it shares with few others, so that no client can starve the rest.
//!
//! Which schema and which flow is `schema`'s matter, who starts next `queues`', how many seats a level has `demand`'s; all three are pure. `level` holds
//! waiting requests; the objects are followed and the default ones kept by `bootstrap::flowcontrol`.

mod debug;
pub(crate) mod defaults;
mod demand;
mod level;
mod metrics;
mod queues;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::metrics::SharedRegistry;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::time::Instant;

use crate::authz::Attributes;
use crate::server::request_info::UserInfo;
pub use debug::dump;
use demand::{Bounds, Share, Want};
use level::{Level, LevelSpec, Occupied};
use metrics::{FlowMetrics, Series};
pub use queues::Refusal;
use schema::FlowSchema;

/// How often seats are lent and borrowed anew.
pub const ADJUSTMENT_PERIOD: Duration = Duration::from_secs(10);
/// Objects of a list that one seat stands for.
const OBJECTS_PER_SEAT: u64 = 100;
/// The most seats of one request.
const SEATS_MAX: u64 = 10;

/// The schemas and levels in force, and the requests that run and wait.
pub struct FlowControl {
    total: u32,
    epoch: Instant,
    metrics: FlowMetrics,
    config: RwLock<Arc<Config>>,
}

impl std::fmt::Debug for FlowControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowControl").field("total", &self.total).finish_non_exhaustive()
    }
}

struct Config {
    /// By precedence, then name; those whose level is missing left out.
    schemas: Vec<Arc<Flow>>,
    levels: BTreeMap<String, Arc<Level>>,
}

/// A schema and its level.
struct Flow {
    schema: FlowSchema,
    level: Arc<Level>,
    series: Series,
}

/// A level as others see it.
#[derive(Clone, Debug)]
pub struct LevelView {
    /// Its name.
    pub name: String,
    /// Its requests neither wait nor count.
    pub exempt: bool,
    /// Seats it may have.
    pub bounds: Bounds,
    /// Seats it has now.
    pub limit: u32,
}

/// What a request was taken for, whether it was let in or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// uid of the FlowSchema.
    pub schema_uid: String,
    /// uid of the PriorityLevelConfiguration.
    pub level_uid: String,
}

/// A request at work; its seats come back when this is dropped.
pub struct Admitted {
    flow: Arc<Flow>,
    seats: u32,
    started: Instant,
    _occupied: Option<Occupied>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let series = &self.flow.series;
        series.executing.dec();
        series.seats.dec_by(i64::from(self.seats));
        series.execution.observe(self.started.elapsed().as_secs_f64());
    }
}

impl FlowControl {
    /// With so many seats; the default objects are in force until others are known.
    pub fn new(total: usize, registry: &SharedRegistry) -> Arc<Self> {
        let control = Arc::new(Self {
            total: u32::try_from(total).unwrap_or(u32::MAX).max(1),
            epoch: Instant::now(),
            metrics: FlowMetrics::register(registry),
            config: RwLock::new(Arc::new(Config { schemas: Vec::new(), levels: BTreeMap::new() })),
        });
        control.configure(&[], &[]);
        metrics::register_levels(registry, &control);
        control
    }

    /// Puts these FlowSchemas and PriorityLevelConfigurations into force, and the mandatory ones whether they are among them or not.
    pub fn configure(&self, schemas: &[Value], levels: &[Value]) {
        // Without any of their own the suggested ones count too.
        let fresh = schemas.is_empty() && levels.is_empty();
        let with = |found: &[Value], defaults: Vec<(bool, Value)>| {
            let name = |object: &Value| coracle_api::meta::name(object).to_owned();
            let mut all: BTreeMap<String, Value> = defaults
                .into_iter()
                .filter(|(mandatory, _)| *mandatory || fresh)
                .map(|(_, object)| (name(&object), object))
                .collect();
            all.extend(found.iter().map(|object| (name(object), object.clone())));
            all
        };
        let specs: Vec<LevelSpec> =
            with(levels, defaults::priority_levels()).values().map(LevelSpec::of).collect();
        let shares: Vec<Share> = specs.iter().map(|spec| spec.share).collect();
        let bounds = demand::bounds(self.total, &shares);
        let mut config = self.config.write();
        let mut known = BTreeMap::new();
        for (spec, bounds) in specs.into_iter().zip(bounds) {
            let name = spec.name.clone();
            let level = match config.levels.get(&name).filter(|level| level.spec.exempt == spec.exempt) {
                Some(level) => level.with(spec, bounds),
                None => Level::new(spec, bounds, self.epoch),
            };
            known.insert(name, Arc::new(level));
        }
        let mut flows: Vec<Arc<Flow>> = with(schemas, defaults::flow_schemas())
            .values()
            .map(FlowSchema::of)
            .filter_map(|schema| {
                let level = Arc::clone(known.get(&schema.level)?);
                let series = self.metrics.of(&schema.name, &schema.level);
                Some(Arc::new(Flow { schema, level, series }))
            })
            .collect();
        flows.sort_by(|a, b| {
            (a.schema.precedence, &a.schema.name).cmp(&(b.schema.precedence, &b.schema.name))
        });
        *config = Arc::new(Config { schemas: flows, levels: known });
        let config = Arc::clone(&config);
        for level in config.levels.values() {
            level.dispatch();
        }
    }

    fn current(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    /// Lets a request in that wants so many seats, or keeps it waiting for at most `patience`. What it was taken for comes with the answer.
    pub async fn admit(
        &self,
        user: &UserInfo,
        asked: &Attributes<'_>,
        seats: u32,
        patience: Duration,
    ) -> (Option<Classified>, Result<Admitted, Refusal>) {
        let found = self.current().schemas.iter().find(|flow| flow.schema.matches(user, asked)).cloned();
        // Nobody is outside of both groups that the last schema is about, but for those of strange authenticators.
        let Some(flow) = found else { return (None, Err(Refusal::ConcurrencyLimit)) };
        let spec = &flow.level.spec;
        let classified =
            Some(Classified { schema_uid: flow.schema.uid.clone(), level_uid: spec.uid.clone() });
        let mut occupied = None;
        if !spec.exempt {
            let hash = flow.schema.hash(flow.schema.distinguisher(user, asked));
            let came = Instant::now();
            match flow.level.enter(hash, seats, patience, || flow.series.waiting.clone()).await {
                Ok(seats) => {
                    flow.series.waited.observe(came.elapsed().as_secs_f64());
                    occupied = Some(seats);
                }
                Err(refusal) => {
                    flow.series.refuse(refusal, came.elapsed().as_secs_f64());
                    return (classified, Err(refusal));
                }
            }
        }
        let seats = occupied.as_ref().map_or(1, Occupied::seats);
        flow.series.dispatched.inc();
        flow.series.executing.inc();
        flow.series.seats.inc_by(i64::from(seats));
        (classified, Ok(Admitted { flow, seats, started: Instant::now(), _occupied: occupied }))
    }

    /// Lends and borrows seats by what was asked of the levels since the last time.
    pub fn adjust(&self) {
        let config = self.current();
        let levels: Vec<&Arc<Level>> = config.levels.values().filter(|level| !level.spec.exempt).collect();
        let mut wants = Vec::with_capacity(levels.len());
        for level in &levels {
            let now = level.now();
            let mut state = level.state.lock();
            let demand = state.queues.take_demand(now);
            state.smoothed = demand.smoothed(state.smoothed);
            wants.push(Want { bounds: state.bounds, high: demand.high(), smoothed: state.smoothed });
        }
        for (level, limit) in levels.iter().zip(demand::allocate(self.total, &wants)) {
            {
                let mut state = level.state.lock();
                if state.queues.limit() != limit {
                    state.queues.set_limit(limit, level.now());
                }
            }
            level.dispatch();
        }
    }

    /// The levels as they are.
    pub(crate) fn level_views(&self) -> Vec<LevelView> {
        let view = |level: &Arc<Level>| {
            let state = level.state.lock();
            LevelView {
                name: level.spec.name.clone(),
                exempt: level.spec.exempt,
                bounds: state.bounds,
                limit: state.queues.limit(),
            }
        };
        self.current().levels.values().map(view).collect()
    }
}

/// Seats of a request: of lists, by how many objects they look at; of all else one.
pub fn seats(verb: &str, name: &str, limit: Option<u64>, stored: usize) -> u32 {
    if verb != "list" && verb != "watch" || !name.is_empty() {
        return 1;
    }
    let objects = limit.filter(|limit| *limit > 0).unwrap_or(u64::MAX).min(stored as u64);
    u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, SEATS_MAX)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::ResourceAttributes;

    fn user(name: &str, group: &str) -> UserInfo {
        UserInfo { name: name.into(), groups: vec![group.into()], ..UserInfo::default() }
    }

    fn pods<'a>() -> Attributes<'a> {
        Attributes::Resource(ResourceAttributes {
            verb: "list",
            resource: "pods",
            namespace: "a",
            ..ResourceAttributes::default()
        })
    }

    #[test]
    fn lists_are_as_wide_as_what_they_look_at() {
        assert_eq!(seats("get", "", None, 5_000), 1);
        assert_eq!(seats("list", "", None, 0), 1);
        assert_eq!(seats("list", "", None, 501), 6);
        assert_eq!(seats("list", "", Some(100), 5_000), 1);
        assert_eq!(seats("list", "", None, 100_000), 10);
        assert_eq!(seats("list", "one", None, 100_000), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_while_leaders_are_elected() {
        let control = FlowControl::new(20, &component_base::metrics::registry());
        let authenticated = "system:authenticated";
        let mut held = Vec::new();
        let mut refused = 0;
        // Far more than the level has seats, none of which ends.
        for _ in 0..400 {
            match control
                .admit(&user("runaway", authenticated), &pods(), 1, Duration::from_millis(10))
                .await
                .1
            {
                Ok(admitted) => held.push(admitted),
                Err(Refusal::TimeOut) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(!held.is_empty() && held.len() < 20 && refused > 300, "{} {refused}", held.len());
        let lease = Attributes::Resource(ResourceAttributes {
            verb: "update",
            group: "coordination.k8s.io",
            resource: "leases",
            namespace: "kube-system",
            ..ResourceAttributes::default()
        });
        let leader = user("system:kube-scheduler", authenticated);
        assert!(control.admit(&leader, &lease, 1, Duration::ZERO).await.1.is_ok());
        assert!(control.admit(&user("admin", "system:masters"), &pods(), 1, Duration::ZERO).await.1.is_ok());
        // A seat that comes back goes to who waits.
        let waiting = user("runaway", authenticated);
        let asked = pods();
        let entering = control.admit(&waiting, &asked, 1, Duration::from_secs(5));
        tokio::pin!(entering);
        assert!(futures::poll!(entering.as_mut()).is_pending());
        held.pop();
        assert!(entering.await.1.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_level_borrows_seats_of_idle_ones() {
        let control = FlowControl::new(100, &component_base::metrics::registry());
        let limit = |name: &str| {
            control.level_views().into_iter().find(|view| view.name == name).expect("is there").limit
        };
        let before = limit("global-default");
        let mut held = Vec::new();
        for _ in 0..200 {
            let admitted = control
                .admit(&user("busy", "system:authenticated"), &pods(), 1, Duration::from_millis(1))
                .await;
            held.extend(admitted.1);
        }
        tokio::time::advance(ADJUSTMENT_PERIOD).await;
        control.adjust();
        assert!(limit("global-default") > before);
        assert!(control.level_views().iter().all(|view| view.exempt || view.limit >= view.bounds.lower));
    }

    #[tokio::test]
    async fn levels_keep_their_requests_when_they_are_configured_anew() {
        let control = FlowControl::new(20, &component_base::metrics::registry());
        let (busy, asked) = (user("busy", "system:authenticated"), pods());
        let (classified, admitted) = control.admit(&busy, &asked, 1, Duration::ZERO).await;
        assert_eq!(classified, Some(Classified { schema_uid: String::new(), level_uid: String::new() }));
        let mut levels: Vec<Value> =
            defaults::priority_levels().into_iter().map(|(_, level)| level).collect();
        for level in &mut levels {
            level["metadata"]["uid"] = "u".into();
            if level["metadata"]["name"] == "global-default" {
                level["spec"]["limited"]["limitResponse"]["queuing"]["queues"] = 1.into();
            }
        }
        let schemas: Vec<Value> = defaults::flow_schemas().into_iter().map(|(_, schema)| schema).collect();
        control.configure(&schemas, &levels);
        assert_eq!(control.admit(&busy, &asked, 1, Duration::ZERO).await.0.expect("is known").level_uid, "u");
        let running = || control.current().levels["global-default"].state.lock().queues.load().0;
        assert_eq!(running(), 1);
        drop(admitted);
        assert_eq!(running(), 0);
        // Without its level a schema is not in force.
        control.configure(&schemas, &levels[..2]);
        assert!(
            control
                .current()
                .schemas
                .iter()
                .all(|flow| ["exempt", "catch-all"].contains(&flow.schema.level.as_str()))
        );
    }
}
