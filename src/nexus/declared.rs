//! The I_T nexus of a backstore whose config string declares one: `;nexus=<label>`.
//!
//! Such a backstore stands for one I_T nexus, and all of its commands are that nexus's. This is only as true
//! as its exports: it must be one LUN, mapped to one initiator, on a port group that lets no others in, and
//! the initiator must have no second way through the same port to the same logical unit. [`resolve`] checks
//! all that; whatever it cannot see or understand is a reason not to serve.

use serde::{Deserialize, Serialize};

use super::fabric::{Fabric, Transport, made_up_port};
use crate::scsi::nexus::{ItNexus, TargetPort, TransportId};
use crate::tcmu::config::Label;
use crate::tcmu::configfs::{Acl, BackstoreName, Lun, MappedLun, PortGroup, Session};

/// A backstore and the nexus label of its config string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The backstore.
    pub backstore: BackstoreName,
    /// Its label.
    pub label: Label,
}

/// Whom a backstore serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The I_T nexus of all commands of the backstore.
    pub nexus: ItNexus,
    /// Whether its initiator may not write: the kernel asks this of commands with data only.
    pub write_protect: bool,
}

/// Why a backstore cannot be served now, and what to change.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unresolved {
    /// It is no LUN.
    #[error("it is not exported: make it a LUN of a target")]
    NotExported,
    /// It is several LUNs.
    #[error(
        "it is exported more than once, as {0}: keep one, and make a backstore of its own for each other path"
    )]
    ManyLuns(String),
    /// The fabric's rules are not known.
    #[error(
        "it is exported over {0:?}, which tcmu-pr does not know: use iSCSI, Fibre Channel, SRP, vhost or loopback"
    )]
    UnknownFabric(String),
    /// Anybody can log in.
    #[error(
        "{0} lets in initiators that have no ACL: set its attributes generate_node_acls=0 and cache_dynamic_acls=0, log out whom it has let in, and make an ACL for \
         each initiator"
    )]
    OpenToAll(String),
    /// Somebody has.
    #[error(
        "initiators without an ACL are logged in to {group}: {initiators}; make ACLs for them, or log them out"
    )]
    DynamicSessions {
        /// The port group.
        group: String,
        /// Who.
        initiators: String,
    },
    /// No initiator sees it.
    #[error("no ACL of {group} maps its lun_{lun}: map it to the one initiator that it is for")]
    NoAcl {
        /// The port group.
        group: String,
        /// The LUN.
        lun: u64,
    },
    /// Several initiators see it.
    #[error(
        "lun_{lun} of {group} is mapped more than once, to {initiators}: keep one mapping, and make a backstore of \
         its own for each other initiator (in targetcli, add_mapped_luns=false keeps it from mapping all LUNs)"
    )]
    ManyAcls {
        /// The port group.
        group: String,
        /// The LUN.
        lun: u64,
        /// Whose ACLs.
        initiators: String,
    },
    /// The port group has no initiator port yet.
    #[error("{0} has no nexus: write the name of its initiator port to its file \"nexus\"")]
    NoNexus(String),
    /// The initiator's name cannot be reported to others.
    #[error("the initiator name \"{name}\" is no {expected}: give its ACL the right name")]
    InitiatorName {
        /// The name, escaped.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The target's name cannot be reported to others.
    #[error(
        "the target name \"{0}\" has characters that a SCSI port name cannot have: make the target anew"
    )]
    TargetName(String),
    /// Two backstores have one label.
    #[error(
        "{other} has the same nexus label \"{label}\": make one of the two anew with a label of its own"
    )]
    LabelTwice {
        /// The other backstore.
        other: BackstoreName,
        /// The label.
        label: Label,
    },
    /// The initiator has a second way in.
    #[error(
        "{initiator} reaches the same file through {other} on the same target port: \
         unmap one of the two, since together they are one I_T nexus"
    )]
    SecondWay {
        /// The initiator port.
        initiator: TransportId,
        /// The other backstore.
        other: BackstoreName,
    },
}

/// Finds whom a backstore serves.
///
/// `groups` is the walk of all fabrics; `unit` are the backstores of the same logical unit, with or without
/// this one.
pub fn resolve(
    groups: &[PortGroup],
    declared: &Declared,
    unit: &[Declared],
) -> Result<Resolved, Unresolved> {
    let others = || {
        unit.iter()
            .filter(|other| other.backstore != declared.backstore)
    };
    if let Some(other) = others().find(|other| other.label == declared.label) {
        return Err(Unresolved::LabelTwice {
            other: other.backstore.clone(),
            label: declared.label.clone(),
        });
    }
    let (group, lun) = one_lun(groups, &declared.backstore)?;
    let fabric = fabric_of(group)?;
    let target_port = target_port(group, fabric)?;
    let (initiator_port, write_protect) = match fabric {
        Fabric::OneInitiator if group.nexus.is_none() => {
            return Err(Unresolved::NoNexus(group.to_string()));
        }
        Fabric::OneInitiator => (made_up_port(declared.label.as_str()), false),
        Fabric::WithAcls(transport) => {
            let (acl, mapped) = one_acl(group, lun, transport)?;
            (
                initiator_port(transport, &acl.initiator)?,
                mapped.write_protect,
            )
        }
    };
    for other in others() {
        if reaches(groups, &other.backstore, &initiator_port, &target_port) {
            return Err(Unresolved::SecondWay {
                initiator: initiator_port,
                other: other.backstore.clone(),
            });
        }
    }
    Ok(Resolved {
        nexus: ItNexus {
            initiator_port,
            target_port,
        },
        write_protect,
    })
}

/// The target ports through which a backstore can be reached that any number of initiators share.
pub fn exports(
    groups: &[PortGroup],
    backstore: &BackstoreName,
) -> Result<Vec<TargetPort>, Unresolved> {
    let luns = luns_of(groups, backstore);
    let ports: Vec<TargetPort> = luns
        .map(|(group, _)| target_port(group, fabric_of(group)?))
        .collect::<Result<_, _>>()?;
    if ports.is_empty() {
        return Err(Unresolved::NotExported);
    }
    Ok(ports)
}

/// Finds whether the initiator that a backstore stands for is logged in. Where no initiator can reach the backstore,
/// none is.
///
/// The initiator port of a fabric with one for each port group is taken to be there as long as the port group has
/// it: when a guest or this node itself starts anew, the kernel shows nothing.
pub fn session(groups: &[PortGroup], backstore: &BackstoreName) -> Session {
    let ways = luns_of(groups, backstore).flat_map(|(group, lun)| match fabric_of(group) {
        Ok(Fabric::WithAcls(_)) => mappings(group, lun).map(|(acl, _)| acl.session).collect(),
        Ok(Fabric::OneInitiator) if group.nexus.is_none() => Vec::new(),
        Ok(Fabric::OneInitiator) | Err(_) => vec![Session::Unknown],
    });
    let mut sessions = ways.filter(|session| *session != Session::None);
    match (sessions.next(), sessions.next()) {
        (None, _) => Session::None,
        (Some(session), None) => session,
        _ => Session::Unknown,
    }
}

fn luns_of<'a>(
    groups: &'a [PortGroup],
    backstore: &'a BackstoreName,
) -> impl Iterator<Item = (&'a PortGroup, &'a Lun)> {
    let luns = groups
        .iter()
        .flat_map(|group| group.luns.iter().map(move |lun| (group, lun)));
    luns.filter(move |(_, lun)| lun.backstore == *backstore)
}

fn one_lun<'a>(
    groups: &'a [PortGroup],
    backstore: &'a BackstoreName,
) -> Result<(&'a PortGroup, &'a Lun), Unresolved> {
    let luns: Vec<_> = luns_of(groups, backstore).collect();
    match luns[..] {
        [] => Err(Unresolved::NotExported),
        [one] => Ok(one),
        _ => {
            let names = luns
                .iter()
                .map(|(group, lun)| format!("{group}/lun_{}", lun.number));
            Err(Unresolved::ManyLuns(names.collect::<Vec<_>>().join(", ")))
        }
    }
}

/// The mappings of a LUN, each with the ACL that it belongs to.
fn mappings<'a>(
    group: &'a PortGroup,
    lun: &'a Lun,
) -> impl Iterator<Item = (&'a Acl, &'a MappedLun)> {
    let acls = group.acls.iter();
    let mapped = acls.flat_map(|acl| acl.luns.iter().map(move |mapped| (acl, mapped)));
    mapped.filter(|(_, mapped)| mapped.lun == lun.number)
}

fn one_acl<'a>(
    group: &'a PortGroup,
    lun: &'a Lun,
    transport: Transport,
) -> Result<(&'a Acl, &'a MappedLun), Unresolved> {
    match group.generate_node_acls {
        Some(false) => {}
        None if !transport.can_generate_acls() => {}
        _ => return Err(Unresolved::OpenToAll(group.to_string())),
    }
    if !group.dynamic_sessions.is_empty() {
        return Err(Unresolved::DynamicSessions {
            group: group.to_string(),
            initiators: list(group.dynamic_sessions.iter().map(String::as_str)),
        });
    }
    let mappings: Vec<_> = mappings(group, lun).collect();
    match mappings[..] {
        [] => Err(Unresolved::NoAcl {
            group: group.to_string(),
            lun: lun.number,
        }),
        [one] => Ok(one),
        _ => Err(Unresolved::ManyAcls {
            group: group.to_string(),
            lun: lun.number,
            initiators: list(mappings.iter().map(|&(acl, _)| acl.initiator.as_str())),
        }),
    }
}

/// Whether an initiator port reaches a backstore through a target port, be that backstore well exported or
/// not.
fn reaches(
    groups: &[PortGroup],
    backstore: &BackstoreName,
    initiator_port: &TransportId,
    through: &TargetPort,
) -> bool {
    luns_of(groups, backstore).any(|(group, lun)| {
        let Ok(fabric) = fabric_of(group) else {
            return false;
        };
        let same_port = target_port(group, fabric).is_ok_and(|port| port == *through);
        same_port
            && match fabric {
                Fabric::OneInitiator => true,
                Fabric::WithAcls(transport) => mappings(group, lun).any(|(acl, _)| {
                    transport.initiator_port(&acl.initiator, None).as_ref() == Some(initiator_port)
                }),
            }
    })
}

fn fabric_of(group: &PortGroup) -> Result<Fabric, Unresolved> {
    Fabric::parse(&group.fabric).ok_or_else(|| Unresolved::UnknownFabric(group.fabric.clone()))
}

fn target_port(group: &PortGroup, fabric: Fabric) -> Result<TargetPort, Unresolved> {
    let port = fabric.target_port(&group.target, group.tag);
    port.ok_or_else(|| Unresolved::TargetName(group.target.escape_debug().to_string()))
}

fn initiator_port(transport: Transport, name: &str) -> Result<TransportId, Unresolved> {
    let port = transport.initiator_port(name, None);
    port.ok_or_else(|| Unresolved::InitiatorName {
        name: name.escape_debug().to_string(),
        expected: transport.spelling(),
    })
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| name.escape_debug().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::nexus::IscsiName;
    use crate::tcmu::configfs::port_groups;
    use crate::tcmu::configfs::tests::{Tree, backstore_name};

    const T: &str = "iqn.2026-11.example:t";
    const A: &str = "iqn.2026-11.example:a";
    const B: &str = "iqn.2026-11.example:b";

    fn declared(name: &str, label: &str) -> Declared {
        Declared {
            backstore: backstore_name("user_0", name),
            label: label.parse().expect("the label is good"),
        }
    }

    fn unit() -> [Declared; 2] {
        [declared("lun0-a", "node-a"), declared("lun0-b", "node-b")]
    }

    /// Two initiators on one target, each with a backstore of its own.
    fn two_nodes() -> (Tree, String) {
        let tree = Tree::new();
        let group = tree.iscsi(T, 1);
        tree.lun(&group, 0, "user_0/lun0-a")
            .lun(&group, 1, "user_0/lun0-b");
        tree.acl(&group, A, 0, 0).acl(&group, B, 0, 1);
        (tree, group)
    }

    fn resolve_first(tree: &Tree) -> Result<Resolved, Unresolved> {
        let groups = port_groups(tree.root()).expect("the tree is good");
        let [first, _] = unit();
        resolve(&groups, &first, &unit())
    }

    fn iscsi(name: &str) -> TransportId {
        TransportId::Iscsi {
            name: IscsiName::parse(name).unwrap(),
            isid: None,
        }
    }

    #[test]
    fn an_iscsi_backstore_serves_the_initiator_of_its_acl() {
        let (tree, _) = two_nodes();
        let resolved = resolve_first(&tree).expect("all is well");
        assert_eq!(resolved.nexus.initiator_port, iscsi(A));
        assert_eq!(
            &*resolved.nexus.target_port.name,
            "iqn.2026-11.example:t,t,0x0001"
        );
        assert!(!resolved.write_protect);
    }

    #[test]
    fn names_are_compared_and_reported_in_lower_case() {
        let tree = Tree::new();
        let group = tree.iscsi(T, 0x1a);
        tree.lun(&group, 0, "user_0/lun0-a")
            .acl(&group, "iqn.2026-11.example:Node-A", 0, 0);
        let resolved = resolve_first(&tree).expect("all is well");
        assert_eq!(
            resolved.nexus.initiator_port,
            iscsi("iqn.2026-11.example:node-a")
        );
        assert_eq!(
            &*resolved.nexus.target_port.name,
            "iqn.2026-11.example:t,t,0x001a"
        );
        // The same initiator in another spelling, on the unit's other backstore.
        tree.lun(&group, 1, "user_0/lun0-b")
            .acl(&group, "iqn.2026-11.example:node-a", 0, 1);
        assert!(matches!(
            resolve_first(&tree),
            Err(Unresolved::SecondWay { .. })
        ));
    }

    #[test]
    fn a_read_only_mapping_is_told() {
        let (tree, group) = two_nodes();
        tree.file(&format!("{group}/acls/{A}/lun_0/write_protect"), "1\n");
        assert!(resolve_first(&tree).expect("all is well").write_protect);
    }

    #[test]
    fn each_doubt_is_a_reason_not_to_serve() {
        type Spoil = fn(&Tree, &str);
        type Check = fn(&Unresolved) -> bool;
        let table: [(&str, Spoil, Check); 12] = [
            (
                "no LUN",
                |tree, group| tree.remove(&format!("{group}/lun/lun_0")),
                |error| *error == Unresolved::NotExported,
            ),
            (
                "two LUNs",
                |tree, group| _ = tree.lun(group, 7, "user_0/lun0-a"),
                |error| matches!(error, Unresolved::ManyLuns(_)),
            ),
            (
                "a LUN of another target too",
                |tree, _| {
                    let other = tree.iscsi("iqn.2026-11.example:other", 1);
                    tree.lun(&other, 0, "user_0/lun0-a");
                },
                |error| matches!(error, Unresolved::ManyLuns(_)),
            ),
            (
                "no ACL",
                |tree, group| tree.remove(&format!("{group}/acls/{A}")),
                |error| matches!(error, Unresolved::NoAcl { lun: 0, .. }),
            ),
            (
                "two ACLs",
                |tree, group| _ = tree.acl(group, B, 5, 0),
                |error| matches!(error, Unresolved::ManyAcls { .. }),
            ),
            (
                "two mappings of one ACL",
                |tree, group| _ = tree.acl(group, A, 5, 0),
                |error| matches!(error, Unresolved::ManyAcls { .. }),
            ),
            (
                "everybody is let in",
                |tree, group| {
                    tree.file(&format!("{group}/attrib/generate_node_acls"), "1\n");
                },
                |error| matches!(error, Unresolved::OpenToAll(_)),
            ),
            (
                "nobody knows whether everybody is let in",
                |tree, group| tree.remove(&format!("{group}/attrib/generate_node_acls")),
                |error| matches!(error, Unresolved::OpenToAll(_)),
            ),
            (
                "somebody is logged in without an ACL",
                |tree, group| {
                    tree.file(&format!("{group}/dynamic_sessions"), "iqn.x:y\n");
                },
                |error| matches!(error, Unresolved::DynamicSessions { .. }),
            ),
            (
                "a second way to the same unit",
                |tree, group| _ = tree.acl(group, A, 5, 1),
                |error| {
                    let other = backstore_name("user_0", "lun0-b");
                    matches!(error, Unresolved::SecondWay { other: o, .. } if *o == other)
                },
            ),
            (
                "a name that is none",
                |tree, group| {
                    tree.remove(&format!("{group}/acls/{A}"));
                    tree.acl(group, "node-a", 0, 0);
                },
                |error| matches!(error, Unresolved::InitiatorName { .. }),
            ),
            (
                "a fabric that is not known",
                |tree, group| {
                    tree.remove(&format!("{group}/lun/lun_0"));
                    tree.lun("usb_gadget/naa.5/tpgt_1", 0, "user_0/lun0-a");
                },
                |error| *error == Unresolved::UnknownFabric("usb_gadget".into()),
            ),
        ];
        for (what, spoil, check) in table {
            let (tree, group) = two_nodes();
            resolve_first(&tree).expect("all is well before");
            spoil(&tree, &group);
            let error = resolve_first(&tree).expect_err(what);
            assert!(check(&error), "{what}: {error}");
        }
    }

    #[test]
    fn the_same_initiator_on_two_target_ports_is_two_nexuses() {
        let (tree, _) = two_nodes();
        let second = tree.iscsi(T, 2);
        tree.remove(&format!("iscsi/{T}/tpgt_1/lun/lun_1"));
        tree.remove(&format!("iscsi/{T}/tpgt_1/acls/{B}"));
        tree.lun(&second, 0, "user_0/lun0-b").acl(&second, A, 0, 0);
        let groups = port_groups(tree.root()).expect("the tree is good");
        let [first, other] = unit();
        let first = resolve(&groups, &first, &unit()).expect("all is well");
        let other = resolve(&groups, &other, &unit()).expect("all is well");
        assert_eq!(first.nexus.initiator_port, other.nexus.initiator_port);
        assert_ne!(first.nexus.target_port, other.nexus.target_port);
    }

    #[test]
    fn a_backstore_of_another_unit_is_no_second_way() {
        let (tree, group) = two_nodes();
        tree.lun(&group, 9, "user_0/another-unit")
            .acl(&group, A, 9, 9);
        assert!(resolve_first(&tree).is_ok());
    }

    #[test]
    fn one_label_is_one_nexus() {
        let (tree, _) = two_nodes();
        let groups = port_groups(tree.root()).expect("the tree is good");
        let [first, _] = unit();
        let unit = [first.clone(), declared("lun0-b", "node-a")];
        let error = resolve(&groups, &first, &unit).expect_err("the label is there twice");
        assert!(error.to_string().contains("user_0/lun0-b"), "{error}");
    }

    #[test]
    fn a_loopback_initiator_port_is_named_after_the_label() {
        let tree = Tree::new();
        let group = "loopback/naa.5001405AA/tpgt_1";
        tree.lun(group, 0, "user_0/lun0-a");
        assert_eq!(resolve_first(&tree), Err(Unresolved::NoNexus(group.into())));
        tree.file(&format!("{group}/nexus"), "naa.6001405bb\n");
        let resolved = resolve_first(&tree).expect("all is well");
        // printf node-a | sha256sum: 66570ff05a207404...; NAA 3h instead of its first digit
        assert_eq!(
            resolved.nexus.initiator_port,
            TransportId::Sas(0x3657_0ff0_5a20_7404)
        );
        assert_eq!(&*resolved.nexus.target_port.name, "naa.5001405aa");
        // Another random name of the initiator port changes nothing.
        tree.file(&format!("{group}/nexus"), "naa.6001405cc\n");
        assert_eq!(resolve_first(&tree), Ok(resolved));
        // All LUNs of the port group are its initiator's.
        tree.lun(group, 1, "user_0/lun0-b");
        assert!(matches!(
            resolve_first(&tree),
            Err(Unresolved::SecondWay { .. })
        ));
    }

    #[test]
    fn fibre_channel_and_srp_names_are_read_as_the_fabric_spells_them() {
        let tree = Tree::new();
        let group = "fc/50:01:43:80:12:34:56:78/tpgt_1";
        tree.lun(group, 0, "user_0/lun0-a")
            .acl(group, "21:00:00:24:FF:31:4c:48", 0, 0);
        let resolved = resolve_first(&tree).expect("all is well");
        let initiator = TransportId::FibreChannel(0x2100_0024_ff31_4c48);
        assert_eq!(resolved.nexus.initiator_port, initiator);
        assert_eq!(&*resolved.nexus.target_port.name, "50:01:43:80:12:34:56:78");

        let tree = Tree::new();
        let group = "srpt/0xfe800000000000000002c903000e8acd/tpgt_1";
        tree.lun(group, 0, "user_0/lun0-a")
            .acl(group, "0x0002c903000e8acd", 0, 0);
        let resolved = resolve_first(&tree).expect("all is well");
        let port = [
            0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x02, 0xc9, 0x03, 0x00, 0x0e, 0x8a, 0xcd,
        ];
        assert_eq!(resolved.nexus.initiator_port, TransportId::Srp(port));
    }

    #[test]
    fn qla2xxx_must_say_that_it_lets_in_nobody_else() {
        let tree = Tree::new();
        let group = "qla2xxx/50:01:43:80:12:34:56:78/tpgt_1";
        tree.lun(group, 0, "user_0/lun0-a")
            .acl(group, "21:00:00:24:ff:31:4c:48", 0, 0);
        assert!(matches!(
            resolve_first(&tree),
            Err(Unresolved::OpenToAll(_))
        ));
        tree.file(&format!("{group}/attrib/generate_node_acls"), "0\n");
        assert!(resolve_first(&tree).is_ok());
    }

    #[test]
    fn odd_names_are_refused_and_shown_escaped() {
        let long = format!("iqn.{}", "x".repeat(220));
        for name in [
            "iqn.x:\u{1b}[2J",
            "iqn.x:a,i,0x1",
            "iqn.x:\u{fffd}",
            "iqn.a b",
            &long,
            "",
            "x",
        ] {
            let error = initiator_port(Transport::Iscsi, name)
                .expect_err(name)
                .to_string();
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn a_target_with_an_odd_name_is_not_served() {
        let tree = Tree::new();
        let group = tree.iscsi("iqn.x:a,t", 1);
        tree.lun(&group, 0, "user_0/lun0-a").acl(&group, A, 0, 0);
        assert!(matches!(
            resolve_first(&tree),
            Err(Unresolved::TargetName(_))
        ));
    }

    fn session_of(tree: &Tree, name: &str) -> Session {
        let groups = port_groups(tree.root()).expect("it is good");
        session(&groups, &backstore_name("user_0", name))
    }

    #[test]
    fn the_session_of_a_backstore_is_that_of_its_one_acl() {
        let (tree, group) = two_nodes();
        let info = "LIO Session ID: 5   ISID: 0\nSession State: TARG_SESS_STATE_LOGGED_IN\n\
                    CID: 0  Connection State: TARG_CONN_STATE_LOGGED_IN\n";
        tree.file(&format!("{group}/acls/{A}/info"), info);
        let counted = format!("iscsi/{T}/fabric_statistics/iscsi_instance/sessions");
        tree.file(&counted, "1\n");
        assert_eq!(session_of(&tree, "lun0-a"), Session::Only(5));
        assert_eq!(session_of(&tree, "lun0-b"), Session::None);
    }

    #[test]
    fn where_no_initiator_can_come_there_is_no_session() {
        let (tree, group) = two_nodes();
        tree.file(&format!("{group}/acls/{A}/info"), "?\n");
        assert_eq!(session_of(&tree, "lun0-a"), Session::Unknown);
        tree.remove(&format!("{group}/acls/{A}"));
        assert_eq!(session_of(&tree, "lun0-a"), Session::None);
        assert_eq!(session_of(&tree, "lun0-c"), Session::None, "no export");
    }

    #[test]
    fn an_initiator_port_of_a_fabric_with_one_is_there_as_long_as_its_port_group_has_it() {
        let tree = Tree::new();
        tree.backstore("user_0", "lun0-a");
        tree.lun("loopback/naa.1/tpgt_1", 0, "user_0/lun0-a");
        assert_eq!(session_of(&tree, "lun0-a"), Session::None);
        tree.file("loopback/naa.1/tpgt_1/nexus", "naa.2\n");
        assert_eq!(session_of(&tree, "lun0-a"), Session::Unknown);
    }
}
