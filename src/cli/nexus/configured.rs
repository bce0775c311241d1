//! What is configured already: the kernel's tree, as far as a nexus is concerned.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Error;
use crate::control::UnitStatus;
use crate::tcmu::configfs::{Backstore, BackstoreName, PortGroup, Session};

/// The number of LUNs that targetcli makes at most, of a portal group and of an initiator.
const LUNS_MAX: u64 = 256;

/// A portal group of an iSCSI target.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) target: String,
    pub(super) tag: u16,
    directory: PathBuf,
}

impl Group {
    /// The portal group, if it is there.
    pub(super) fn find(root: &Path, target: &str, tag: u16) -> Result<Group, Error> {
        let of_target = root.join("iscsi").join(target);
        if !of_target.is_dir() {
            return Err(Error::NoTarget(target.to_owned()));
        }
        let group = Group {
            target: target.to_owned(),
            tag,
            directory: of_target.join(format!("tpgt_{tag}")),
        };
        if !group.directory.is_dir() {
            let target = target.to_owned();
            return Err(Error::NoGroup { target, tag });
        }
        Ok(group)
    }

    /// Whether it lets in only who has an ACL.
    pub(super) fn check_closed(&self) -> Result<(), Error> {
        for attribute in ["generate_node_acls", "cache_dynamic_acls"] {
            if self.read(&format!("attrib/{attribute}"))?.as_deref() == Some("1") {
                return Err(Error::OpenToAll {
                    target: self.target.clone(),
                    tag: self.tag,
                });
            }
        }
        Ok(())
    }

    /// The first number that no LUN of the portal group has.
    pub(super) fn free_lun(&self) -> Result<u64, Error> {
        lowest_free(&luns(&self.directory.join("lun"))?)
    }

    /// The initiator's name as its ACL spells it, if it has one.
    pub(super) fn acl(&self, initiator: &str) -> Result<Option<String>, Error> {
        let names = names(&self.directory.join("acls"))?;
        Ok(names
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(initiator)))
    }

    /// As which LUN the initiator with that ACL is to find something: the one that is wanted, if it is free, or the first
    /// that is.
    pub(super) fn lun_for(&self, acl: &str, wanted: Option<u64>) -> Result<u64, Error> {
        let taken = luns(&self.directory.join("acls").join(acl))?;
        match wanted {
            Some(lun) if taken.contains(&lun) => Err(Error::LunTaken {
                initiator: acl.to_owned(),
                lun,
            }),
            Some(lun) => Ok(lun),
            None => lowest_free(&taken),
        }
    }

    /// Whether an ACL is worth nothing once this LUN of its initiator is gone: no other LUN, and no CHAP user.
    pub(super) fn acl_is_spent(&self, acl: &str, lun: u64) -> Result<bool, Error> {
        let luns = luns(&self.directory.join("acls").join(acl))?;
        let user = self.read(&format!("acls/{acl}/auth/userid"))?;
        // The kernel says NULL where none is set.
        let has_user = user.is_some_and(|user| !user.is_empty() && user != "NULL");
        Ok(luns.iter().all(|&other| other == lun) && !has_user)
    }

    /// The portal group's place in targetcli.
    pub(super) fn path(&self) -> String {
        format!("/iscsi/{}/tpg{}", self.target, self.tag)
    }

    fn read(&self, file: &str) -> Result<Option<String>, Error> {
        let path = self.directory.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(unreadable(&path, source)),
        }
    }
}

/// The names of all TCMU backstores, without their `user_<n>`: targetcli wants each to be there once.
pub(super) fn backstore_names(root: &Path) -> Result<Vec<String>, Error> {
    let core = root.join("core");
    let mut found = Vec::new();
    for hba in names(&core)? {
        if hba.starts_with("user_") {
            found.extend(names(&core.join(hba))?);
        }
    }
    Ok(found)
}

/// The directory of a backstore, `user_0/lun0-a`.
pub(super) fn backstore(root: &Path, name: &str) -> Result<Backstore, Error> {
    Backstore::new(root, backstore_name(name)).map_err(Error::Configuration)
}

fn backstore_name(name: &str) -> BackstoreName {
    let (hba, name) = name.split_once('/').unwrap_or(("", name));
    BackstoreName {
        hba: hba.to_owned(),
        name: name.to_owned(),
    }
}

/// A backstore that serves one initiator, and how that reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// `user_0/lun0-a`.
    pub(super) backstore: String,
    pub(super) label: String,
    /// The ways to it: one, where all is well.
    pub(super) ways: Vec<Way>,
    /// How many LUNs it is, of all portal groups.
    pub(super) exports: usize,
}

/// How an initiator reaches a backstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) fabric: String,
    pub(super) target: String,
    pub(super) tag: u16,
    /// The portal group's number of the LUN.
    pub(super) group_lun: u64,
    /// The initiator's ACL, and its number of the LUN; none if it is not mapped to anybody.
    pub(super) mapped: Option<Mapped>,
}

/// To whom a LUN is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) initiator: String,
    pub(super) lun: u64,
    /// Whether the initiator is logged in, as far as can be told: it may be.
    pub(super) logged_in: bool,
}

/// The backstores of a unit that serve one initiator each.
pub(super) fn known(unit: &UnitStatus, groups: &[PortGroup]) -> Vec<Known> {
    let labelled = unit.ports.iter().filter_map(|port| {
        let label = port.label.clone()?;
        let name = backstore_name(&port.backstore);
        let mut ways = Vec::new();
        let mut exports = 0;
        for group in groups {
            for lun in group.luns.iter().filter(|lun| lun.backstore == name) {
                exports += 1;
                ways.extend(ways_through(group, lun.number));
            }
        }
        Some(Known {
            backstore: port.backstore.clone(),
            label,
            ways,
            exports,
        })
    });
    labelled.collect()
}

fn ways_through(group: &PortGroup, group_lun: u64) -> Vec<Way> {
    let way = |mapped| Way {
        fabric: group.fabric.clone(),
        target: group.target.clone(),
        tag: group.tag,
        group_lun,
        mapped,
    };
    let mut ways = Vec::new();
    for acl in &group.acls {
        for lun in acl.luns.iter().filter(|lun| lun.lun == group_lun) {
            ways.push(way(Some(Mapped {
                initiator: acl.initiator.clone(),
                lun: lun.number,
                logged_in: acl.session != Session::None,
            })));
        }
    }
    if ways.is_empty() {
        ways.push(way(None));
    }
    ways
}

fn lowest_free(taken: &BTreeSet<u64>) -> Result<u64, Error> {
    let free = (0..LUNS_MAX).find(|number| !taken.contains(number));
    free.ok_or(Error::NoLunLeft)
}

/// The numbers of the directories `lun_<n>`; none if there is no such place.
fn luns(directory: &Path) -> Result<BTreeSet<u64>, Error> {
    let names = names(directory)?.into_iter();
    let numbers = names.filter_map(|name| name.strip_prefix("lun_")?.parse().ok());
    Ok(numbers.collect())
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(directory, source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| unreadable(directory, source))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::Read {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::example;
    use crate::tcmu::configfs::port_groups;
    use crate::tcmu::configfs::tests::Tree;

    const T: &str = "iqn.2026-11.com.example:t";
    const A: &str = "iqn.2026-11.com.example:a";

    #[test]
    fn a_portal_group_has_to_be_there_and_to_let_in_nobody_else() {
        let tree = Tree::new();
        let find = |tag| Group::find(tree.root(), T, tag);
        assert!(matches!(find(1), Err(Error::NoTarget(_))));
        let group = tree.iscsi(T, 1);
        assert!(matches!(find(2), Err(Error::NoGroup { tag: 2, .. })));
        let found = find(1).expect("it is there");
        assert_eq!(found.path(), format!("/iscsi/{T}/tpg1"));
        assert!(found.check_closed().is_ok());
        tree.file(&format!("{group}/attrib/generate_node_acls"), "1\n");
        let open = found.check_closed();
        assert!(matches!(open, Err(Error::OpenToAll { tag: 1, .. })));
    }

    #[test]
    fn numbers_and_acls_that_are_taken_are_seen() {
        let tree = Tree::new();
        let directory = tree.iscsi(T, 1);
        let group = Group::find(tree.root(), T, 1).expect("it is there");
        assert_eq!(group.free_lun().expect("one is free"), 0);
        assert_eq!(group.acl(A).expect("it can be read"), None);
        assert_eq!(group.lun_for(A, Some(7)).expect("it is free"), 7);
        tree.lun(&directory, 0, "user_0/x")
            .lun(&directory, 2, "user_0/y")
            .acl(&directory, A, 0, 2);
        assert_eq!(group.free_lun().expect("one is free"), 1);
        let spelled = group.acl(&A.to_uppercase()).expect("it can be read");
        assert_eq!(spelled.as_deref(), Some(A));
        assert_eq!(group.lun_for(A, None).expect("one is free"), 1);
        let taken = group.lun_for(A, Some(0));
        assert!(matches!(taken, Err(Error::LunTaken { lun: 0, .. })));
    }

    #[test]
    fn an_acl_that_maps_something_else_or_has_a_user_is_kept() {
        let tree = Tree::new();
        let directory = tree.iscsi(T, 1);
        tree.lun(&directory, 0, "user_0/x").acl(&directory, A, 3, 0);
        let group = Group::find(tree.root(), T, 1).expect("it is there");
        let spent = || group.acl_is_spent(A, 3).expect("it can be read");
        assert!(spent());
        let user = format!("{directory}/acls/{A}/auth/userid");
        for (text, expected) in [("NULL\n", true), ("\n", true), ("node-a\n", false)] {
            tree.file(&user, text);
            assert_eq!(spent(), expected, "{text}");
        }
        tree.remove(&user);
        tree.acl(&directory, A, 4, 0);
        assert!(!spent());
    }

    #[test]
    fn backstores_are_known_with_the_ways_to_them() {
        let tree = Tree::new();
        let directory = tree.iscsi(T, 1);
        tree.lun(&directory, 5, "user_0/lun0-a")
            .lun(&directory, 6, "user_0/lun0-b")
            .acl(&directory, A, 3, 5);
        let groups = port_groups(tree.root()).expect("the tree is good");
        let known = known(&example().units[0], &groups);
        let [a, b, c] = &known[..] else {
            panic!("{known:?}");
        };
        assert_eq!((a.label.as_str(), a.exports), ("node-a", 1));
        let expected = Way {
            fabric: "iscsi".to_owned(),
            target: T.to_owned(),
            tag: 1,
            group_lun: 5,
            mapped: Some(Mapped {
                initiator: A.to_owned(),
                lun: 3,
                logged_in: a.ways[0]
                    .mapped
                    .as_ref()
                    .is_some_and(|mapped| mapped.logged_in),
            }),
        };
        assert_eq!(a.ways, [expected]);
        assert_eq!((b.ways.len(), &b.ways[0].mapped), (1, &None));
        assert_eq!((c.ways.len(), c.exports), (0, 0));
        let mut names = backstore_names(tree.root()).expect("it can be read");
        names.sort();
        assert_eq!(names, ["lun0-a", "lun0-b"]);
    }
}
