//! Messages between members: lost, repeated, late, and cut off.

use std::sync::Arc;

use etcd_lite::raft::driver::Input;
use raft::eraftpb::{Message, MessageType};

use super::World;
use super::happening::Happening;
use crate::disk::Snapshot;
use crate::plan::Plan;

impl World {
    pub(super) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(super) fn send(&mut self, message: Message, snapshot: Option<Arc<Snapshot>>) {
        let Plan { lost, repeated, late, .. } = self.plan;
        let (lost, repeated, late) = if self.is_calm { (0, 0, 0) } else { (lost, repeated, late) };
        let lost = if self.storm { 50 } else { lost };
        let kind = message.get_msg_type();
        let (from, to) = (message.from, message.to);
        if to == 0 || to > self.plan.members {
            return;
        }
        let is_lost = self.network.below(100) < lost || self.is_cut(from, to);
        let is_repeated = self.network.below(100) < repeated;
        if is_lost {
            if kind == MessageType::MsgSnapshot {
                let life = self.slot(from).lives;
                let later = self.now + 20;
                self.at(later, Happening::SnapshotSent { from, life, to, arrived: false });
            }
            return;
        }
        // Connections never deliver twice, and a proposal that is forwarded twice is applied twice; all else may come again.
        let copies = if is_repeated && kind != MessageType::MsgPropose { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if self.network.below(100) < late {
                self.network.below(2_500)
            } else {
                self.network.below(20)
            };
            let at = self.now + 1 + delay;
            self.at(at, Happening::Arrive { message: Box::new(message.clone()), snapshot: snapshot.clone() });
        }
    }

    pub(super) fn arrive(&mut self, message: Message, snapshot: Option<Arc<Snapshot>>) {
        let (from, to) = (message.from, message.to);
        let arrives = !self.is_cut(from, to) && self.running(to).is_some();
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let life = self.slot(from).lives;
            let later = self.now + 1 + self.network.below(50);
            self.at(later, Happening::SnapshotSent { from, life, to, arrived: arrives });
            if let Some(snapshot) = snapshot.filter(|_| arrives) {
                self.slot(to).disk.lock().keep_snapshot(snapshot);
            }
        }
        if arrives {
            self.input(to, Input::Step(Box::new(message)));
        }
    }
}
