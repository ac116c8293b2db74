//! What can happen, and the order of it.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use raft::eraftpb::Message;
use store_checker::Outcome;
use store_clients::random::mix;

use crate::disk::Snapshot;

pub(super) enum Happening {
    Tick { member: u64, life: u64 },
    Round { member: u64, life: u64 },
    Apply { member: u64, life: u64 },
    Tell { member: u64, life: u64 },
    Flush { member: u64, life: u64 },
    LeaseCheck { member: u64, life: u64 },
    Arrive { message: Box<Message>, snapshot: Option<Arc<Snapshot>> },
    SnapshotSent { from: u64, life: u64, to: u64, arrived: bool },
    Connected { at: u64, to: u64 },
    Gone { at: u64, member: u64 },
    Ask { client: usize },
    Request { member: u64, operation: usize },
    Answered { operation: usize, outcome: Box<Outcome> },
    GiveUp { operation: usize },
    WatchStep { watcher: usize },
    Fault { number: usize },
    FaultEnds { number: usize, member: u64 },
    Restart { member: u64 },
    Calm,
    LastWrite { attempt: u64 },
}

impl Happening {
    /// Whose process has to run for it.
    pub(super) fn member(&self) -> Option<u64> {
        match self {
            Self::Tick { member, .. }
            | Self::Round { member, .. }
            | Self::Apply { member, .. }
            | Self::Tell { member, .. }
            | Self::Flush { member, .. }
            | Self::LeaseCheck { member, .. }
            | Self::Request { member, .. } => Some(*member),
            Self::Arrive { message, .. } => Some(message.to),
            Self::SnapshotSent { from, .. } => Some(*from),
            Self::Connected { at, .. } | Self::Gone { at, .. } => Some(*at),
            _ => None,
        }
    }

    pub(super) fn mark(&self) -> u64 {
        let numbers = match self {
            Self::Tick { member, life } => [1, *member, *life],
            Self::Round { member, life } => [2, *member, *life],
            Self::Apply { member, life } => [3, *member, *life],
            Self::Tell { member, life } => [4, *member, *life],
            Self::Flush { member, life } => [5, *member, *life],
            Self::LeaseCheck { member, life } => [6, *member, *life],
            Self::Arrive { message, .. } => {
                let m = message.as_ref();
                [
                    7 + ((m.msg_type as u64) << 8) + (m.from << 16) + (m.to << 24),
                    m.term ^ (m.index << 20),
                    m.commit ^ (m.entries.len() as u64) << 32,
                ]
            }
            Self::SnapshotSent { from, to, arrived, .. } => [8, *from << 8 | *to, u64::from(*arrived)],
            Self::Connected { at, to } => [9, *at, *to],
            Self::Gone { at, member } => [10, *at, *member],
            Self::Ask { client } => [11, *client as u64, 0],
            Self::Request { member, operation } => [12, *member, *operation as u64],
            Self::Answered { operation, .. } => [13, *operation as u64, 0],
            Self::GiveUp { operation } => [14, *operation as u64, 0],
            Self::WatchStep { watcher } => [15, *watcher as u64, 0],
            Self::Fault { number } => [16, *number as u64, 0],
            Self::FaultEnds { number, member } => [17, *number as u64, *member],
            Self::Restart { member } => [18, *member, 0],
            Self::Calm => [19, 0, 0],
            Self::LastWrite { attempt } => [20, *attempt, 0],
        };
        numbers.into_iter().fold(0, |hash, number| mix(hash ^ number))
    }
}

/// Something that will happen.
pub(super) struct Scheduled {
    pub(super) at: u64,
    pub(super) order: u64,
    pub(super) happening: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Order {
        // The heap gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
