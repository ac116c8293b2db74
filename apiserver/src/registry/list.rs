//! Lists: from the watch cache wherever it can answer (newest, at least as new, exactly as old if the changes since are kept), else from the store;
//! pages with continue tokens.

use std::num::{IntErrorKind, ParseIntError};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::field::{self, FieldError};
use coracle_api::resource::Resource;
use coracle_api::status::{ApiError, GroupKind};

use super::continue_token::ContinueToken;
use super::get::parse_version;
use super::selection::Selection;
use super::{Registry, decode_stored};
use crate::cache::NotFresh;
use crate::cache::object::CachedObject;
use crate::cache::resource::{Cursor, Listing, ResourceCache};
use crate::server::request_info::Query;
use crate::storage::{StorageError, keys};
use crate::strategy;

/// Objects read from the store at a time when a list cannot be served from the cache.
const STORE_PAGE: i64 = 1000;
/// Upstream's text for a continue token whose revision is forgotten.
const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
const OPTIONS_KIND: GroupKind<'_> = GroupKind { group: "meta.k8s.io", kind: "ListOptions" };

/// The parameters of a list or watch, as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// 0: no limit.
    pub limit: i64,
    /// Token of the page before; empty for the first.
    pub continue_token: String,
    /// As sent.
    pub resource_version: String,
    /// As sent: empty, `Exact` or `NotOlderThan`.
    pub resource_version_match: String,
    /// For watches: begin with the present objects.
    pub send_initial_events: Option<bool>,
    /// For watches.
    pub allow_bookmarks: bool,
    /// For watches and lists: when to end.
    pub timeout_seconds: Option<u64>,
    /// It is a watch.
    pub watch: bool,
}

impl ListOptions {
    /// From the query.
    ///
    /// # Errors
    /// 400 for malformed numbers, 422 with upstream's texts for combinations that make no sense.
    pub fn from_query(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let number = |name: &str| match query.get(name) {
            None | Some("") => Ok(None),
            Some(text) => parse_int(text).map(Some),
        };
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        let options = Self {
            limit: number("limit")?.unwrap_or(0).max(0),
            continue_token: text("continue"),
            resource_version: text("resourceVersion"),
            resource_version_match: text("resourceVersionMatch"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            timeout_seconds: number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0),
            watch,
        };
        let errors = options.problems();
        if errors.is_empty() { Ok(options) } else { Err(ApiError::invalid(OPTIONS_KIND, "", errors)) }
    }

    fn problems(&self) -> Vec<FieldError> {
        let matching = self.resource_version_match.as_str();
        let asked = !matching.is_empty();
        let of_match =
            |wrong: bool, text: &str| wrong.then(|| field::forbidden("resourceVersionMatch", text));
        let unsupported = |supported: &[&str]| {
            (asked && !supported.contains(&matching))
                .then(|| field::not_supported_in_order("resourceVersionMatch", matching, supported))
        };
        let with_continue = of_match(
            asked && !self.continue_token.is_empty(),
            "resourceVersionMatch is forbidden when continue is provided",
        );
        let errors = if self.watch {
            [
                of_match(
                    self.send_initial_events.is_some() && matching != "NotOlderThan",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                of_match(
                    self.send_initial_events.is_none() && asked,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ),
                unsupported(&["NotOlderThan"]),
                with_continue,
                None,
            ]
        } else {
            [
                of_match(
                    asked && self.resource_version.is_empty(),
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ),
                with_continue,
                unsupported(&["Exact", "NotOlderThan", ""]),
                of_match(
                    matching == "Exact" && self.resource_version == "0",
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ),
                self.send_initial_events.map(|_| {
                    field::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
                }),
            ]
        };
        errors.into_iter().flatten().collect()
    }

    /// How many objects a page has at most; 0 is no limit. A list of any version comes whole, as upstream's cache answers it.
    fn page_size(&self) -> usize {
        if self.resource_version == "0" && self.continue_token.is_empty() {
            return 0;
        }
        usize::try_from(self.limit).unwrap_or(0)
    }
}

/// A number as Go parses it.
fn parse_int(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|error: ParseIntError| {
        let reason = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {reason}"))
    })
}

/// A page of a list.
pub struct Page {
    /// In key order, in stored form.
    pub objects: Vec<Arc<CachedObject>>,
    /// The list's resourceVersion.
    pub revision: i64,
    /// Token of the next page; empty when this is the last.
    pub continue_token: String,
    /// How many are left; only without selectors.
    pub remaining: Option<i64>,
}

impl Registry {
    /// Lists what `selection` selects.
    ///
    /// # Errors
    /// 400 for malformed tokens, 410 for expired ones, 504 for versions that have not come yet, and the store's errors.
    pub async fn list(
        &self,
        resource: &'static Resource,
        selection: &Selection,
        options: &ListOptions,
    ) -> Result<Page, ApiError> {
        let cache = self
            .cache
            .of(resource)
            .ok_or_else(|| ApiError::method_not_supported(resource.group_resource(), "list"))?;
        if !options.continue_token.is_empty() {
            return self.list_on(&cache, selection, options).await;
        }
        let version = options.resource_version.as_str();
        let exact = options.resource_version_match == "Exact"
            || (options.limit > 0
                && options.resource_version_match.is_empty()
                && !matches!(version, "" | "0"));
        if exact {
            let revision = list_version(version)?;
            return self.list_at(&cache, selection, options, revision, None).await;
        }
        let wanted = match version {
            "" => self.storage.current_revision().await?,
            version => list_version(version)?,
        };
        match self.cache.wait_for(wanted).await {
            Ok(reached) => {
                let listing = cache.list(&selection.key_prefix(), Bound::Unbounded);
                let revision = reached.max(listing.last_change);
                Ok(page(listing.objects, revision, selection, options, strategy_of(&cache), None))
            }
            Err(NotFresh { at }) if !version.is_empty() && wanted > 0 => {
                let now = self.storage.current_revision().await?;
                if now < wanted {
                    return Err(too_large_version(wanted, at.unwrap_or(now), 1));
                }
                self.list_from_store(&cache, selection, options, 0, None).await
            }
            Err(_) => self.list_from_store(&cache, selection, options, 0, None).await,
        }
    }

    /// Goes on with a token.
    async fn list_on(
        &self,
        cache: &Arc<ResourceCache>,
        selection: &Selection,
        options: &ListOptions,
    ) -> Result<Page, ApiError> {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = ContinueToken::decode(&options.continue_token)
            .map_err(|reason| ApiError::bad_request(format!("invalid continue token: {reason}")))?;
        let start = format!("{}{}", selection.key_prefix(), token.start);
        if token.revision < 0 {
            return self.list_from_store(cache, selection, options, 0, Some(&start)).await;
        }
        match self.list_at(cache, selection, options, token.revision, Some(&start)).await {
            Err(error) if error.code() == 410 => {
                Err(ApiError::expired(INCONSISTENT).with_continue(token.inconsistent().encode()))
            }
            result => result,
        }
    }

    /// Exactly what was at `revision`: from the cache if it keeps the changes since. What the store has forgotten is forgotten here
    /// too, so that all servers over one store answer alike.
    async fn list_at(
        &self,
        cache: &Arc<ResourceCache>,
        selection: &Selection,
        options: &ListOptions,
        revision: i64,
        start: Option<&str>,
    ) -> Result<Page, ApiError> {
        if self.cache.revision().is_some_and(|at| at >= revision) && self.cache.compacted() <= revision {
            let from = start.map_or(Bound::Unbounded, Bound::Included);
            if let Some(objects) = cache.list_at(&selection.key_prefix(), from, revision) {
                return Ok(page(objects, revision, selection, options, strategy_of(cache), None));
            }
        }
        self.list_from_store(cache, selection, options, revision, start).await
    }

    /// Reads no further than the page needs.
    async fn list_from_store(
        &self,
        cache: &Arc<ResourceCache>,
        selection: &Selection,
        options: &ListOptions,
        revision: i64,
        start: Option<&str>,
    ) -> Result<Page, ApiError> {
        let strategy = strategy_of(cache);
        let prefix = format!("{}{}", cache.prefix, selection.key_prefix());
        let end = Bytes::from(keys::prefix_end(prefix.as_bytes()));
        let mut key = Bytes::from(start.map_or(prefix, |start| format!("{}{start}", cache.prefix)));
        let (mut objects, mut at, mut step, mut total) = (Vec::new(), revision, STORE_PAGE, None);
        let enough = |found: usize| options.page_size() > 0 && found > options.page_size();
        loop {
            let answer = match self.storage.page(key.clone(), end.clone(), step, at).await {
                Err(StorageError::AnswerTooLarge) if step > 1 => {
                    step = (step / 8).max(1);
                    continue;
                }
                Err(StorageError::FutureRevision) => {
                    let now = self.storage.current_revision().await?;
                    return Err(too_large_version(revision, now, 0));
                }
                answer => answer?,
            };
            if at == 0 {
                at = answer.header.as_ref().map_or(0, |header| header.revision);
            }
            total.get_or_insert(usize::try_from(answer.count).unwrap_or(0));
            for kv in &answer.kvs {
                let text = std::str::from_utf8(&kv.key).unwrap_or_default();
                let Some(suffix) = text.strip_prefix(&cache.prefix) else { continue };
                let (namespace, name) = suffix.split_once('/').unwrap_or(("", suffix));
                let object = decode_stored(cache.resource, namespace, name, &kv.value, kv.mod_revision)?;
                if selection.matches(&object, strategy) {
                    objects.push(object);
                }
            }
            match answer.kvs.last() {
                Some(last) if answer.more && !enough(objects.len()) => {
                    let mut next = last.key.to_vec();
                    next.push(0);
                    key = next.into();
                }
                _ => break,
            }
        }
        Ok(page(objects, at, selection, options, strategy, total))
    }

    /// The present objects for a watch that begins with them, and where it goes on.
    pub(super) async fn list_for_watch(
        &self,
        cache: &Arc<ResourceCache>,
        selection: &Selection,
        version: &str,
    ) -> Result<(Vec<Arc<CachedObject>>, i64, Cursor), ApiError> {
        let wanted = match version {
            "" => self.storage.current_revision().await?,
            version => parse_version(version)?,
        };
        let reached = match self.cache.wait_for(wanted).await {
            Ok(reached) => reached,
            Err(NotFresh { at: Some(at) }) if self.storage.current_revision().await? >= wanted => at,
            Err(NotFresh { at }) => return Err(too_large_version(wanted, at.unwrap_or(0), 1)),
        };
        let Listing { mut objects, last_change, cursor } =
            cache.list(&selection.key_prefix(), Bound::Unbounded);
        let strategy = strategy_of(cache);
        objects.retain(|object| selection.matches(object, strategy));
        Ok((objects, reached.max(last_change), cursor))
    }
}

fn strategy_of(cache: &ResourceCache) -> &'static dyn strategy::Strategy {
    strategy::for_resource(cache.resource)
}

/// Selects and cuts to the limit. `total` is how many objects there are, if they are not all among `objects`.
fn page(
    objects: Vec<Arc<CachedObject>>,
    revision: i64,
    selection: &Selection,
    options: &ListOptions,
    strategy: &dyn strategy::Strategy,
    total: Option<usize>,
) -> Page {
    let limit = match options.page_size() {
        0 => usize::MAX,
        limit => limit,
    };
    let everything = selection.selects_everything();
    let mut selected = if everything {
        objects
    } else {
        // One more than the limit tells whether there is another page.
        let wanted = limit.saturating_add(1);
        objects.into_iter().filter(|object| selection.matches(object, strategy)).take(wanted).collect()
    };
    let left = total.unwrap_or(0).max(selected.len()).saturating_sub(limit);
    let is_cut = selected.len() > limit;
    selected.truncate(limit);
    let continue_token = match selected.last() {
        Some(last) if is_cut => {
            let relative = last.suffix.strip_prefix(selection.key_prefix().as_str()).unwrap_or(&last.suffix);
            ContinueToken::behind(revision, relative).encode()
        }
        _ => String::new(),
    };
    let remaining = (is_cut && everything).then_some(left as i64);
    Page { objects: selected, revision, continue_token, remaining }
}

/// The resourceVersion of a list.
fn list_version(text: &str) -> Result<i64, ApiError> {
    parse_version(text)
        .map_err(|error| ApiError::bad_request(format!("invalid resource version: {}", error.message())))
}

/// 504 for a resourceVersion that the store has not reached.
pub(super) fn too_large_version(wanted: i64, current: i64, retry_seconds: u32) -> ApiError {
    ApiError::too_large_resource_version(wanted.unsigned_abs(), current.unsigned_abs(), retry_seconds)
}
