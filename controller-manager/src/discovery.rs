//! Which resources the server has, as discovery tells. Owns a copy that is read again when it is too old for the caller.

use std::sync::Arc;
use std::time::Duration;

use controller_manager_core::action::ResourceId;
use coracle_client::config::{CALL_DEADLINE, within};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// One resource and what can be done with it.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// The resource.
    pub id: ResourceId,
    /// Verbs such as `list` and `deletecollection`.
    pub verbs: Vec<String>,
}

impl Discovered {
    /// Whether all these verbs are there.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|has| has == verb))
    }
}

/// What discovery found, and what it could not find out.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Resources in each group's preferred version, without subresources.
    pub resources: Vec<Discovered>,
    /// Groups that did not answer.
    pub errors: Vec<String>,
}

type Cached = Option<(Instant, Arc<Catalogue>)>;

/// A shared copy of the catalogue. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    client: Client,
    cached: Arc<Mutex<Cached>>,
}

impl Discovery {
    /// Nothing read yet.
    pub fn new(client: Client) -> Self {
        Self { client, cached: Arc::default() }
    }

    /// The catalogue, at most this old.
    pub async fn catalogue(&self, age_max: Duration) -> Result<Arc<Catalogue>, kube::Error> {
        let mut cached = self.cached.lock().await;
        if let Some((read, catalogue)) = &*cached
            && read.elapsed() <= age_max
        {
            return Ok(Arc::clone(catalogue));
        }
        let catalogue = Arc::new(read(&self.client).await?);
        // A copy with gaps is not kept: the next caller tries again.
        *cached = catalogue.errors.is_empty().then(|| (Instant::now(), Arc::clone(&catalogue)));
        Ok(catalogue)
    }

    /// The resource of this kind in this group, read anew if it is not known.
    pub async fn resource_of_kind(&self, group: &str, kind: &str) -> Result<Option<ResourceId>, kube::Error> {
        for age_max in [Duration::from_secs(300), Duration::from_secs(5)] {
            let catalogue = self.catalogue(age_max).await?;
            let mut ids = catalogue.resources.iter().map(|resource| &resource.id);
            if let Some(id) = ids.find(|id| id.group == group && id.kind == kind) {
                return Ok(Some(id.clone()));
            }
        }
        Ok(None)
    }
}

async fn read(client: &Client) -> Result<Catalogue, kube::Error> {
    let mut catalogue = Catalogue::default();
    add(&mut catalogue, "", "v1", within(CALL_DEADLINE, client.list_core_api_resources("v1")).await?);
    let groups = within(CALL_DEADLINE, client.list_api_groups()).await?;
    for group in groups.groups {
        let Some(preferred) = group.preferred_version.or_else(|| group.versions.into_iter().next()) else {
            continue;
        };
        match within(CALL_DEADLINE, client.list_api_group_resources(&preferred.group_version)).await {
            Ok(list) => add(&mut catalogue, &group.name, &preferred.version, list),
            Err(error) => catalogue.errors.push(format!("{}: {error}", preferred.group_version)),
        }
    }
    Ok(catalogue)
}

fn add(catalogue: &mut Catalogue, group: &str, version: &str, list: APIResourceList) {
    let plain = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
    catalogue.resources.extend(plain.map(|resource| Discovered {
        id: ResourceId {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            kind: resource.kind.into(),
            plural: resource.name.into(),
            namespaced: resource.namespaced,
        },
        verbs: resource.verbs,
    }));
}
