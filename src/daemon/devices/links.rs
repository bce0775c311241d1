//! Whose commands come through each port.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{Devices, Port};
use crate::daemon::chain;
use crate::daemon::unit::know_port;
use crate::daemon::worker::{Identity, Order, PortId};
use crate::lu::Mapping;
use crate::nexus::declared::{self, Declared, Resolved};
use crate::scsi::nexus::TargetPort;
use crate::store::backing::BackingId;

/// How old the last look at the target configuration may be before nobody is served by it.
const WALK_AGE_MAX: Duration = Duration::from_secs(60);

/// Whose commands come through a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Link {
    /// One I_T nexus's.
    One(Resolved),
    /// Those of whoever reaches it through one of these; the tap tells who does.
    Shared(Vec<TargetPort>),
}

impl Link {
    /// The target ports through which commands come.
    fn through(&self) -> &[TargetPort] {
        match self {
            Link::One(resolved) => std::slice::from_ref(&resolved.nexus.target_port),
            Link::Shared(through) => through,
        }
    }
}

impl Port {
    fn declared(&self) -> Option<Declared> {
        Some(Declared {
            backstore: self.backstore.name().clone(),
            label: self.label.clone()?,
        })
    }
}

impl Devices {
    /// Finds out anew whose commands come through each port, and tells the workers what has changed.
    pub(super) fn resolve(&mut self) {
        let ids: Vec<PortId> = self.ports.keys().copied().collect();
        for id in ids {
            let link = self.link(id);
            self.relink(id, link);
        }
        self.tell_ports();
    }

    /// Tells each worker through which target ports its unit is reached, if that is known of all its backstores.
    fn tell_ports(&mut self) {
        let mut ports: HashMap<BackingId, Option<BTreeSet<&TargetPort>>> = HashMap::new();
        for port in self.ports.values() {
            let of_unit = ports.entry(port.unit).or_insert(Some(BTreeSet::new()));
            match (&port.link, &mut *of_unit) {
                (Ok(link), Some(known)) => known.extend(link.through()),
                _ => *of_unit = None,
            }
        }
        for (id, ports) in ports {
            let (Some(ports), Some(unit)) = (ports, self.units.get_mut(&id)) else {
                continue;
            };
            let known = &unit.record.target_ports;
            let ports = ports.into_iter();
            let mut ports: Vec<_> = ports
                .filter_map(|port| Some((known.relative(port)?, port.clone())))
                .collect();
            ports.sort();
            if unit.served_ports.as_ref() != Some(&ports) {
                unit.served_ports = Some(ports.clone());
                unit.worker.give(Order::ServedPorts(ports));
            }
        }
    }

    /// Whose commands come through a port, as far as the last walk tells. Never looks for itself: the kernel may hold
    /// what it would look at until the main thread has answered.
    fn link(&self, id: PortId) -> Result<Link, String> {
        let port = &self.ports[&id];
        if let Some(reason) = &port.failed {
            return Err(reason.clone());
        }
        // An older walk may have seen another backstore of this name.
        let Some(walk) = self.walk.as_ref().filter(|walk| walk.began >= port.since) else {
            return Err("its links have not been looked at yet".to_owned());
        };
        if walk.began.elapsed() > WALK_AGE_MAX {
            return Err(
                "the target configuration can't be looked at: something holds a part of it"
                    .to_owned(),
            );
        }
        let backstores = walk.backstores.as_ref().map_err(|error| chain(error))?;
        match backstores
            .get(port.backstore.name())
            .map(|state| &state.prepared)
        {
            Some(Some(Ok(_))) => {}
            Some(Some(Err(error))) => return Err(chain(error)),
            _ => return Err("its settings can't be read".to_owned()),
        }
        let groups = walk.groups.as_ref().map_err(|error| chain(error))?;
        let Some(declared) = port.declared() else {
            if let Err(why) = &self.tap {
                return Err(format!(
                    "nobody can tell who sends, without the nexus tap: {why}"
                ));
            }
            let exports = declared::exports(groups, port.backstore.name());
            return exports.map(Link::Shared).map_err(|error| chain(&error));
        };
        let siblings: Vec<Declared> = self
            .ports
            .values()
            .filter(|other| other.unit == port.unit)
            .filter_map(Port::declared)
            .collect();
        let resolved = declared::resolve(groups, &declared, &siblings);
        resolved.map(Link::One).map_err(|error| chain(&error))
    }

    fn relink(&mut self, id: PortId, link: Result<Link, String>) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        if port.link == link {
            return;
        }
        let Some(unit) = self.units.get_mut(&port.unit) else {
            return;
        };
        // What waits in the kernel may still be from the one before: a backstore serves one I_T nexus for its life.
        let link = link.and_then(|link| match (&port.served, &link) {
            (Some(served), Link::One(resolved)) if *served != resolved.nexus => Err(format!(
                "it has served {served}, and can't serve {} now: delete the backstore and create it again",
                resolved.nexus
            )),
            _ => Ok(link),
        });
        if port.link == link {
            return;
        }
        let link = link.and_then(|link| {
            let mut through = link.through().iter();
            through.try_for_each(|through| know_port(&self.records, &mut unit.record, through))?;
            Ok(link)
        });
        let name = port.backstore.name();
        let target_ports = unit.record.target_ports.clone();
        let identify = |identity| Order::Identify {
            port: id,
            identity,
            target_ports: target_ports.clone(),
        };
        let order = match &link {
            Ok(Link::One(resolved)) => {
                log::info!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: {}", resolved.nexus);
                port.served = Some(resolved.nexus.clone());
                identify(Some(Identity {
                    nexus: Some(resolved.nexus.clone()),
                    mapping: Mapping::new(resolved.write_protect),
                }))
            }
            Ok(Link::Shared(through)) => {
                let through = through.iter().map(ToString::to_string);
                let through = through.collect::<Vec<_>>().join(" ");
                log::info!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: all initiators of {through}");
                Order::Share {
                    port: id,
                    target_ports: target_ports.clone(),
                }
            }
            Err(reason) => {
                log::info!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: {reason}");
                identify(None)
            }
        };
        unit.worker.give(order);
        port.link = link;
    }
}
