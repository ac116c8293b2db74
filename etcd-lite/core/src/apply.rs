//! The one place where state changes: [`Store::apply`].

use std::sync::Arc;

use coracle_proto::etcdserverpb::{
    AlarmResponse, AuthenticateResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseCheckpointRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, PutRequest, PutResponse, TxnResponse,
};
use coracle_proto::store::{ClusterVersion, MemberAttributes, MemberRecord};

use crate::auth::{AuthChange, Outcome, Proposer};
use crate::check::LEASE_TTL_SECONDS_MAX;
use crate::error::StoreError;
use crate::key_range::KeyRange;
use crate::lease::Lease;
use crate::members::Members;
use crate::mutant;
use crate::range::header;
use crate::records::{Record, RecordChange, RecordKey};
use crate::store::Store;
use crate::version::{Event, Life, Revision, Version};
use crate::{Command, Request};

/// What applying one command did.
#[derive(Debug)]
pub struct Applied {
    /// The command's log index.
    pub index: u64,
    /// The store's revision after it.
    pub revision: i64,
    /// The answer for the proposer; headers have only the revision.
    pub response: Result<Response, StoreError>,
    /// What watchers are to be told, in order; all of `revision`.
    pub events: Arc<[Event]>,
    /// What happened to leases, for the leader's timers.
    pub leases: Vec<LeaseChange>,
    /// What happened to authentication, for the tokens that members keep.
    pub auth: Vec<AuthChange>,
    /// Changes to the saved records, in order; the last is the meta record.
    pub changes: Vec<RecordChange>,
}

/// A change of the set of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// A lease was granted.
    Granted {
        /// Its id.
        id: i64,
        /// Seconds granted.
        ttl_seconds: i64,
    },
    /// A lease is gone, with its keys.
    Revoked {
        /// Its id.
        id: i64,
    },
}

/// The answer to a command, by kind.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Response {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    Authenticate(AuthenticateResponse),
    Alarm(AlarmResponse),
    /// All members after a change, by id.
    Members(Vec<MemberRecord>),
    /// For commands that are not a client's request.
    Done,
}

/// The writes of one command: all get the same main revision.
pub(crate) struct WriteBatch {
    main: i64,
    pub(crate) events: Vec<Event>,
    pub(crate) changes: Vec<RecordChange>,
    leases: Vec<LeaseChange>,
    auth: Vec<AuthChange>,
}

impl WriteBatch {
    /// The revision a read inside the batch sees and reports.
    pub(crate) fn revision(&self) -> i64 {
        if self.events.is_empty() { self.main - 1 } else { self.main }
    }

    fn next_revision(&self) -> Revision {
        Revision { main: self.main, sub: self.events.len() as i64 }
    }
}

impl Store {
    /// Applies the command of log entry `index`. Deterministic: the same commands in the same order give the same store, answers, events
    /// and record changes on every member. A refused command changes nothing but the applied index.
    pub fn apply(&mut self, index: u64, term: u64, command: &Command) -> Applied {
        let mut batch = WriteBatch {
            main: self.revision() + 1,
            events: Vec::new(),
            changes: Vec::new(),
            leases: Vec::new(),
            auth: Vec::new(),
        };
        let (proposer, request) = Proposer::of(command);
        let permitted = match request {
            // The consensus core decides about these too, and knows the members alone: whatever else speaks against one is looked at before it
            // is proposed.
            Some(request) if Members::is_change(request) => Ok(()),
            Some(request) => {
                self.check_permitted(proposer, request).and_then(|()| self.check_alarms(request))
            }
            None => Ok(()),
        };
        let response = permitted.and_then(|()| match request {
            Some(Request::Put(request)) => self.apply_put(&mut batch, request).map(Response::Put),
            Some(Request::DeleteRange(request)) => {
                Ok(Response::DeleteRange(self.delete_range(&mut batch, request)))
            }
            Some(Request::Txn(request)) => self.apply_txn(&mut batch, request).map(Response::Txn),
            Some(Request::Compact(request)) => self.apply_compact(&mut batch, request),
            Some(Request::LeaseGrant(request)) => self.apply_lease_grant(&mut batch, request),
            Some(Request::LeaseRevoke(request)) => self.apply_lease_revoke(&mut batch, request),
            // A later leader's timers know better.
            Some(Request::LeaseExpire(expired))
                if expired.term != term && !mutant!(LeaseExpiryOnFollower) =>
            {
                Ok(Response::Done)
            }
            Some(Request::LeaseExpire(expired)) => {
                self.apply_lease_revoke(&mut batch, &LeaseRevokeRequest { id: expired.id })
            }
            Some(Request::LeaseCheckpoint(request)) => self.apply_lease_checkpoint(&mut batch, request),
            Some(Request::MemberAttributes(attributes)) => self.apply_attributes(&mut batch, attributes),
            Some(Request::ClusterVersion(version)) => self.apply_cluster_version(&mut batch, version),
            Some(Request::Alarm(request)) => self.apply_alarm(&mut batch, request),
            Some(request) if Members::is_change(request) => self.apply_members(&mut batch, request),
            Some(request) => self.apply_auth(&mut batch, index, request),
            None => Err(StoreError::UnknownCommand),
        });
        self.meta.revision = batch.revision();
        if !matches!(request, Some(Request::Compact(_))) {
            self.go_on_compacting(&mut batch.changes);
        }
        self.advance(index, term);
        let mut saved = self.meta;
        if mutant!(AppliesTwiceAfterRestart) {
            saved.applied_index -= 1;
        }
        batch.changes.push(RecordChange::Set(Record::Meta(saved)));
        Applied {
            index,
            revision: self.meta.revision,
            response,
            events: batch.events.into(),
            leases: batch.leases,
            auth: batch.auth,
            changes: batch.changes,
        }
    }

    /// Passes over a log entry without a command. Gives the meta record to be saved.
    pub fn advance(&mut self, index: u64, term: u64) -> Record {
        self.meta.applied_index = index;
        self.meta.applied_term = term;
        Record::Meta(self.meta)
    }

    /// The commands left over are those about users and roles.
    fn apply_auth(
        &mut self,
        batch: &mut WriteBatch,
        index: u64,
        request: &Request,
    ) -> Result<Response, StoreError> {
        let mut outcome = Outcome { changes: &mut batch.changes, auth: &mut batch.auth };
        let token = self.auth.apply(index, request, &mut outcome).ok_or(StoreError::UnknownCommand)??;
        Ok(token.map_or(Response::Done, |token| {
            Response::Authenticate(AuthenticateResponse { header: header(self.revision()), token })
        }))
    }

    fn apply_put(&mut self, batch: &mut WriteBatch, request: &PutRequest) -> Result<PutResponse, StoreError> {
        self.check_put_lease(request)?;
        self.check_put_key(request)?;
        Ok(self.put(batch, request))
    }

    /// Whether the key whose value or lease is to stay exists.
    pub(crate) fn check_put_key(&self, request: &PutRequest) -> Result<(), StoreError> {
        let keeps_something = request.ignore_value || request.ignore_lease;
        if keeps_something && self.index.get(&request.key).is_none_or(|versions| versions.live().is_none()) {
            return Err(StoreError::KeyNotFound);
        }
        Ok(())
    }

    /// Whether the lease exists.
    pub(crate) fn check_put_lease(&self, request: &PutRequest) -> Result<(), StoreError> {
        if request.lease != 0 && self.lease(request.lease).is_none() {
            return Err(StoreError::LeaseNotFound);
        }
        Ok(())
    }

    /// Writes a checked put.
    pub(crate) fn put(&mut self, batch: &mut WriteBatch, request: &PutRequest) -> PutResponse {
        let revision = batch.next_revision();
        let newest = self.index.get(&request.key).map(|versions| Arc::clone(versions.newest()));
        let previous = newest.filter(|v| !v.tombstone || mutant!(RecreatedKeyKeepsItsPast));
        let (value, lease) = match &previous {
            Some(previous) => (
                if request.ignore_value { previous.value() } else { &request.value[..] },
                if request.ignore_lease { previous.lease } else { request.lease },
            ),
            None => (&request.value[..], request.lease),
        };
        self.leases.move_key(&request.key, previous.as_ref().map_or(0, |v| v.lease), lease);
        let life = Life {
            create_revision: previous.as_ref().map_or(revision.main, |v| v.create_revision),
            version: previous.as_ref().map_or(1, |v| v.version + 1),
            lease,
        };
        let version = Arc::new(Version::put(revision, &request.key, value, life));
        let prev_kv = previous.as_ref().filter(|_| request.prev_kv).map(|v| v.to_key_value());
        self.write(batch, version);
        PutResponse { header: header(batch.revision()), prev_kv }
    }

    pub(crate) fn delete_range(
        &mut self,
        batch: &mut WriteBatch,
        request: &DeleteRangeRequest,
    ) -> DeleteRangeResponse {
        let range = KeyRange::new(&request.key, &request.range_end);
        let doomed: Vec<Arc<Version>> =
            self.index.range(&range).filter_map(|versions| versions.live()).map(Arc::clone).collect();
        let deleted = doomed.len() as i64;
        let prev_kvs =
            if request.prev_kv { doomed.iter().map(|v| v.to_key_value()).collect() } else { Vec::new() };
        for previous in doomed {
            self.bury(batch, previous);
        }
        DeleteRangeResponse { header: header(batch.revision()), deleted, prev_kvs }
    }

    /// Writes the tombstone of a key that exists.
    fn bury(&mut self, batch: &mut WriteBatch, previous: Arc<Version>) {
        self.leases.move_key(previous.key(), previous.lease, 0);
        let version = Version::tombstone(batch.next_revision(), previous.key());
        self.write(batch, Arc::new(version));
    }

    fn write(&mut self, batch: &mut WriteBatch, version: Arc<Version>) {
        batch.changes.push(RecordChange::Set(Record::Version(Arc::clone(&version))));
        let event = Event { previous: self.before(&version), version };
        batch.events.push(event.clone());
        self.add_version(event);
    }

    fn apply_compact(
        &mut self,
        batch: &mut WriteBatch,
        request: &CompactionRequest,
    ) -> Result<Response, StoreError> {
        self.compact(request.revision, request.physical, &mut batch.changes)?;
        Ok(Response::Compact(CompactionResponse { header: header(self.revision()) }))
    }

    fn apply_lease_grant(
        &mut self,
        batch: &mut WriteBatch,
        request: &LeaseGrantRequest,
    ) -> Result<Response, StoreError> {
        let &LeaseGrantRequest { id, ttl } = request;
        if id == 0 {
            return Err(StoreError::LeaseNotFound);
        }
        if ttl > LEASE_TTL_SECONDS_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if self.lease(id).is_some() {
            return Err(StoreError::LeaseExists);
        }
        let lease = Lease { granted_ttl_seconds: ttl, ..Lease::default() };
        batch.changes.push(RecordChange::Set(Record::Lease { id, record: lease.to_record() }));
        batch.leases.push(LeaseChange::Granted { id, ttl_seconds: ttl });
        self.leases.by_id.insert(id, lease);
        Ok(Response::LeaseGrant(LeaseGrantResponse {
            header: header(self.revision()),
            id,
            ttl,
            error: String::new(),
        }))
    }

    fn apply_lease_revoke(
        &mut self,
        batch: &mut WriteBatch,
        request: &LeaseRevokeRequest,
    ) -> Result<Response, StoreError> {
        let lease = self.leases.by_id.remove(&request.id).ok_or(StoreError::LeaseNotFound)?;
        batch.changes.push(RecordChange::Delete(RecordKey::lease(request.id)));
        batch.leases.push(LeaseChange::Revoked { id: request.id });
        for key in &lease.keys {
            let live = self.index.get(key).and_then(|versions| versions.live()).map(Arc::clone);
            if let Some(previous) = live {
                self.bury(batch, previous);
            }
        }
        Ok(Response::LeaseRevoke(LeaseRevokeResponse { header: header(batch.revision()) }))
    }

    fn apply_lease_checkpoint(
        &mut self,
        batch: &mut WriteBatch,
        request: &LeaseCheckpointRequest,
    ) -> Result<Response, StoreError> {
        for checkpoint in &request.checkpoints {
            if let Some(lease) = self.leases.by_id.get_mut(&checkpoint.id) {
                lease.remaining_ttl_seconds = checkpoint.remaining_ttl;
                batch
                    .changes
                    .push(RecordChange::Set(Record::Lease { id: checkpoint.id, record: lease.to_record() }));
            }
        }
        Ok(Response::Done)
    }

    fn apply_attributes(
        &mut self,
        batch: &mut WriteBatch,
        attributes: &MemberAttributes,
    ) -> Result<Response, StoreError> {
        let member = self.members.set_attributes(attributes)?;
        batch.changes.push(RecordChange::Set(Record::Member(member)));
        Ok(Response::Done)
    }

    fn apply_members(&mut self, batch: &mut WriteBatch, request: &Request) -> Result<Response, StoreError> {
        let changed = self.members.apply(request)?;
        batch.changes.extend(changed.into_iter().map(|member| RecordChange::Set(Record::Member(member))));
        Ok(Response::Members(self.members.iter().map(|member| MemberRecord::clone(member)).collect()))
    }

    fn apply_cluster_version(
        &mut self,
        batch: &mut WriteBatch,
        version: &ClusterVersion,
    ) -> Result<Response, StoreError> {
        let version: Arc<str> = version.version.as_str().into();
        batch.changes.push(RecordChange::Set(Record::ClusterVersion(Arc::clone(&version))));
        self.cluster_version = Some(version);
        Ok(Response::Done)
    }
}
