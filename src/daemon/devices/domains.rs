//! Copy domains: which units the administrator lets copies be from and to.

use std::sync::Arc;

use super::Devices;
use crate::daemon::worker::{Order, Peer, Peers};
use crate::scsi::inquiry::Identity;
use crate::tcmu::config::Label;

impl Devices {
    /// Makes the units of a domain known to each other, and unknown those that have left it.
    pub(super) fn introduce(&self, domain: Option<&Label>) {
        let units = || {
            let all = self.units.values();
            all.filter(|unit| domain.is_some() && unit.copy_domain.as_ref() == domain)
        };
        let peers: Peers = units()
            .map(|unit| {
                let peer = Peer {
                    block_size: unit.geometry.block_size(),
                    orders: unit.worker.orders(),
                };
                (Identity::new(&unit.record.serial).naa(), peer)
            })
            .collect();
        let peers = Arc::new(peers);
        for unit in units() {
            unit.worker.give(Order::Peers(Arc::clone(&peers)));
        }
    }
}
