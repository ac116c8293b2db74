//! A pool of numbers (addresses, ports), some of them taken. The record is JSON: each taken value with its owner, `NAMESPACE/NAME`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bytes::Bytes;
use coracle_api::status::ApiError;
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::storage::{Storage, Swap};

const ATTEMPTS_MAX: u32 = 64;

/// What values stand for, and how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    ClusterIp,
    /// TCP, UDP and SCTP ports of nodes.
    NodePort,
}

/// A range of values with its record in the store.
#[derive(Clone, Debug)]
pub struct Pool {
    kind: Kind,
    first: u32,
    last: u32,
    /// The range as users write it.
    text: String,
}

/// Why a value cannot be had.
#[derive(Debug)]
pub enum ClaimError {
    /// Somebody has it.
    Taken,
    /// It is no value of this pool.
    OutOfRange,
    /// All are taken.
    Full,
    /// The store failed.
    Api(ApiError),
}

#[derive(Default, Serialize, Deserialize)]
struct Record {
    range: String,
    /// Value to owner.
    taken: BTreeMap<u32, String>,
}

impl Pool {
    /// The ClusterIPs of `--service-cluster-ip-range`, without the network's own address and broadcast.
    ///
    /// # Errors
    /// The flag is no IPv4 range.
    pub fn cluster_ips(options: &Options) -> Result<Self, String> {
        let text = options.service_cluster_ip_range.first().cloned().unwrap_or_default();
        let bad = || format!("--service-cluster-ip-range={text}: expected one IPv4 range like 10.96.0.0/16");
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u32 = bits.parse().ok().filter(|bits| (8..=30).contains(bits)).ok_or_else(bad)?;
        let size = 1_u32 << (32 - bits);
        let network = u32::from(address) & !(size - 1);
        Ok(Self { kind: Kind::ClusterIp, first: network + 1, last: network + size - 2, text })
    }

    /// The ports of `--service-node-port-range`.
    ///
    /// # Errors
    /// The flag is no range of ports.
    pub fn node_ports(options: &Options) -> Result<Self, String> {
        let text = options.service_node_port_range.clone();
        let (first, last) = options.node_port_range()?;
        Ok(Self { kind: Kind::NodePort, first: first.into(), last: last.into(), text })
    }

    /// The range as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first address, which the `kubernetes` Service has.
    pub fn first(&self) -> u32 {
        self.first
    }

    fn key(&self, storage: &Storage) -> String {
        let name = match self.kind {
            Kind::ClusterIp => "serviceips",
            Kind::NodePort => "servicenodeports",
        };
        format!("{}/ranges/{name}", storage.prefix())
    }

    async fn change<T>(
        &self,
        storage: &Storage,
        change: impl Fn(&mut Record) -> Result<T, ClaimError>,
    ) -> Result<T, ClaimError> {
        let key = self.key(storage);
        let api = |error: crate::storage::StorageError| ClaimError::Api(error.into());
        for _ in 0..ATTEMPTS_MAX {
            let (found, _) = storage.get(&key).await.map_err(api)?;
            let (mut record, revision) = match &found {
                Some(kv) => {
                    let record = serde_json::from_slice::<Record>(&kv.value).map_err(|error| {
                        ClaimError::Api(ApiError::internal(format!("{key} in the store is damaged: {error}")))
                    })?;
                    (record, kv.mod_revision)
                }
                None => (Record::default(), 0),
            };
            let before = record.taken.clone();
            let result = change(&mut record)?;
            if record.taken == before {
                return Ok(result);
            }
            record.range.clone_from(&self.text);
            let value =
                serde_json::to_vec(&record).map_err(|error| ClaimError::Api(ApiError::internal(error)))?;
            if let Swap::Done { .. } =
                storage.put_if(&key, Bytes::from(value), revision, 0).await.map_err(api)?
            {
                return Ok(result);
            }
        }
        Err(ClaimError::Api(ApiError::too_many_requests(
            "too many Services are being changed at once; try again",
            1,
        )))
    }

    /// Takes a value for `owner`: the one wanted, or any.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub async fn claim(
        &self,
        storage: &Storage,
        wanted: Option<u32>,
        owner: &str,
    ) -> Result<u32, ClaimError> {
        if wanted.is_some_and(|value| !(self.first..=self.last).contains(&value)) {
            return Err(ClaimError::OutOfRange);
        }
        let mut random = [0_u8; 4];
        getrandom::fill(&mut random).map_err(|error| ClaimError::Api(ApiError::internal(error)))?;
        let random = u32::from_le_bytes(random);
        self.change(storage, |record| {
            let value = match wanted {
                Some(value) if record.taken.contains_key(&value) => return Err(ClaimError::Taken),
                Some(value) => value,
                None => {
                    choose(self.kind, self.first, self.last, random, &record.taken).ok_or(ClaimError::Full)?
                }
            };
            record.taken.insert(value, owner.to_owned());
            Ok(value)
        })
        .await
    }

    /// Gives back values that `owner` holds.
    ///
    /// # Errors
    /// The store failed; the repair gives them back later.
    pub async fn release(&self, storage: &Storage, values: &[u32], owner: &str) -> Result<(), ApiError> {
        let released = self.change(storage, |record| {
            for value in values {
                if record.taken.get(value).is_some_and(|holder| holder == owner) {
                    record.taken.remove(value);
                }
            }
            Ok(())
        });
        match released.await {
            Ok(()) | Err(ClaimError::Taken | ClaimError::OutOfRange | ClaimError::Full) => Ok(()),
            Err(ClaimError::Api(error)) => Err(error),
        }
    }

    /// Brings the record in line with the values in use: notes those that are missing, gives back those that are not in use now nor were at the
    /// last repair (`suspects`). Returns the new suspects.
    ///
    /// # Errors
    /// The store failed.
    pub async fn repair(
        &self,
        storage: &Storage,
        used: &BTreeMap<u32, String>,
        suspects: &BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, ApiError> {
        let repaired = self.change(storage, |record| {
            for (value, owner) in used.range(self.first..=self.last) {
                record.taken.entry(*value).or_insert_with(|| owner.clone());
            }
            let unused: BTreeSet<u32> =
                record.taken.keys().filter(|value| !used.contains_key(value)).copied().collect();
            for value in unused.intersection(suspects) {
                tracing::info!(kind = ?self.kind, value, "gave back what no Service uses");
                record.taken.remove(value);
            }
            Ok(unused.difference(suspects).copied().collect())
        });
        match repaired.await {
            Ok(suspects) => Ok(suspects),
            Err(ClaimError::Api(error)) => Err(error),
            Err(ClaimError::Taken | ClaimError::OutOfRange | ClaimError::Full) => Ok(BTreeSet::new()),
        }
    }
}

/// A free value: from a random one on upwards, round the range. The lowest part of an address range is left for addresses that people choose, as
/// long as there are others.
fn choose(kind: Kind, first: u32, last: u32, random: u32, taken: &BTreeMap<u32, String>) -> Option<u32> {
    let size = last - first + 1;
    let reserved = match kind {
        Kind::ClusterIp => (size / 16).clamp(16.min(size / 2), 256),
        Kind::NodePort => (size / 32).clamp(16.min(size / 2), 128),
    };
    let free = |value: &u32| !taken.contains_key(value);
    let (low, count) = (first + reserved, size - reserved);
    let start = random % count;
    (0..count).map(|i| low + (start + i) % count).find(free).or_else(|| (first..low).find(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_before_the_pool_is_full() {
        let mut taken = BTreeMap::new();
        for step in 0..100_u32 {
            let value =
                choose(Kind::NodePort, 1000, 1099, step.wrapping_mul(7919), &taken).expect("a free value");
            assert!((1000..=1099).contains(&value));
            assert!(taken.insert(value, String::new()).is_none(), "{value} was given twice");
        }
        assert_eq!(choose(Kind::NodePort, 1000, 1099, 5, &taken), None);
    }

    #[test]
    fn the_low_part_is_given_last() {
        let taken = BTreeMap::new();
        assert!((0..1000).all(|random| {
            choose(Kind::ClusterIp, 0x0a60_0001, 0x0a60_fffe, random * 97, &taken)
                .is_some_and(|v| v > 0x0a60_0100)
        }));
    }
}
