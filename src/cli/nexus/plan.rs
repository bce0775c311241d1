//! What is made for a nexus, step by step, and removed again if a step fails.

use std::path::Path;

use super::configured::Group;
use super::targetcli::Configure;
use super::{CliError, Error};
use crate::tcmu::config::Label;

/// What is to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The backstore's name in targetcli.
    pub(super) backstore: String,
    pub(super) label: Label,
    /// The initiator, as its ACL spells it.
    pub(super) initiator: String,
    /// The initiator's number of the LUN.
    pub(super) lun: u64,
    steps: Vec<Step>,
}

/// A command of targetcli's, and the one that undoes it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    make: String,
    undo: Option<String>,
}

/// What a backstore is made of.
#[derive(Debug)]
pub(super) struct Making<'a> {
    pub(super) name: String,
    pub(super) label: Label,
    pub(super) size_bytes: u64,
    /// The config string, the nexus included, without the subtype.
    pub(super) config: &'a str,
    /// As the other backstores of the disk have it, if there are any.
    pub(super) like: Option<Like>,
}

/// What all backstores of a disk have in common, besides what their config strings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Like {
    pub(super) block_size_bytes: u32,
    pub(super) data_area_mib: u32,
    pub(super) write_cache: bool,
}

impl Plan {
    /// What it takes to let an initiator reach a backstore that is to be made. `has_acl`: whether it has an ACL already.
    pub(super) fn new(
        making: Making<'_>,
        group: &Group,
        group_lun: u64,
        (initiator, has_acl): (&str, bool),
        lun: u64,
    ) -> Plan {
        let Making {
            name,
            label,
            size_bytes,
            config,
            like,
        } = making;
        let step = |make: String, undo: String| Step {
            make,
            undo: Some(undo),
        };
        let store = format!("/backstores/user:pr/{name}");
        let control = like.map_or(String::new(), |like| {
            let (block, area) = (like.block_size_bytes, like.data_area_mib);
            format!(" control=hw_block_size={block},max_data_area_mb={area}")
        });
        let mut steps = vec![step(
            format!(
                "/backstores/user:pr create name={name} size={size_bytes}B cfgstring={config}{control}"
            ),
            format!("/backstores/user:pr delete name={name}"),
        )];
        if like.is_some_and(|like| like.write_cache) {
            steps.push(Step {
                make: format!("{store} set attribute emulate_write_cache=1"),
                undo: None,
            });
        }
        let group = group.path();
        steps.push(step(
            format!(
                "{group}/luns create storage_object={store} lun={group_lun} add_mapped_luns=false"
            ),
            format!("{group}/luns delete lun={group_lun}"),
        ));
        if !has_acl {
            steps.push(step(
                format!("{group}/acls create wwn={initiator} add_mapped_luns=false"),
                format!("{group}/acls delete wwn={initiator}"),
            ));
        }
        steps.push(step(
            format!("{group}/acls/{initiator} create mapped_lun={lun} tpg_lun_or_backstore=lun{group_lun}"),
            format!("{group}/acls/{initiator} delete mapped_lun={lun}"),
        ));
        Plan {
            backstore: name,
            label,
            initiator: initiator.to_owned(),
            lun,
            steps,
        }
    }

    /// Makes it, and asks `judge` whether it is good. If anything fails, what was made is removed again.
    pub(super) fn carry_out<T>(
        &self,
        targetcli: &mut impl Configure,
        judge: impl FnOnce() -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        for (done, step) in self.steps.iter().enumerate() {
            if let Err(error) = targetcli.run(&step.make) {
                return Err(self.rolled_back(done, targetcli, error.into()));
            }
        }
        judge().map_err(|error| self.rolled_back(self.steps.len(), targetcli, error))
    }

    /// Undoes so many steps, the last one first.
    fn rolled_back(
        &self,
        done: usize,
        targetcli: &mut impl Configure,
        cause: CliError,
    ) -> CliError {
        let undo = self.steps[..done].iter().rev();
        let left: Vec<String> = undo
            .filter_map(|step| step.undo.as_ref())
            .filter(|undo| targetcli.run(undo).is_err())
            .map(|undo| format!("targetcli {undo}"))
            .collect();
        let whole = left.is_empty();
        let outcome = if !whole {
            let left = left.join("`, `");
            format!("it failed, and not all that was made could be removed again; run `{left}`")
        } else if done > 0 {
            "it failed, and what was made is removed again".to_owned()
        } else {
            "it failed, and nothing was made".to_owned()
        };
        Error::RolledBack {
            outcome,
            whole,
            cause: Box::new(cause),
        }
        .into()
    }
}

/// The config string of a disk's next backstore: that of another one, for another initiator.
pub(super) fn config_for(base: &str, label: &Label) -> String {
    let parts = base.trim_end().split(';');
    let kept: Vec<&str> = parts.filter(|part| !part.starts_with("nexus=")).collect();
    format!("{};nexus={label}", kept.join(";"))
}

/// The config string of a disk's first backstore.
pub(super) fn first_config(path: &Path, options: &[String]) -> String {
    let mut config = path.display().to_string();
    for option in options {
        config += &format!(";{option}");
    }
    config
}

#[cfg(test)]
mod tests {
    use super::super::targetcli::tests::Noted;
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    const T: &str = "iqn.2026-11.com.example:t";
    const A: &str = "iqn.2026-11.com.example:a";

    fn plan(like: Option<Like>, has_acl: bool) -> Plan {
        let tree = Tree::new();
        tree.iscsi(T, 2);
        let group = Group::find(tree.root(), T, 2).expect("it is there");
        let making = Making {
            name: "lun0-a".to_owned(),
            label: "a".parse().expect("it is a label"),
            size_bytes: 1 << 20,
            config: "/srv/lun0.img;direct=1;nexus=a",
            like,
        };
        Plan::new(making, &group, 4, (A, has_acl), 7)
    }

    /// The steps of a nexus for an initiator that has no ACL, by hand.
    const MAKE: [&str; 4] = [
        "/backstores/user:pr create name=lun0-a size=1048576B cfgstring=/srv/lun0.img;direct=1;nexus=a",
        "/iscsi/iqn.2026-11.com.example:t/tpg2/luns create storage_object=/backstores/user:pr/lun0-a lun=4 add_mapped_luns=false",
        "/iscsi/iqn.2026-11.com.example:t/tpg2/acls create wwn=iqn.2026-11.com.example:a add_mapped_luns=false",
        "/iscsi/iqn.2026-11.com.example:t/tpg2/acls/iqn.2026-11.com.example:a create mapped_lun=7 tpg_lun_or_backstore=lun4",
    ];
    const UNDO: [&str; 4] = [
        "/backstores/user:pr delete name=lun0-a",
        "/iscsi/iqn.2026-11.com.example:t/tpg2/luns delete lun=4",
        "/iscsi/iqn.2026-11.com.example:t/tpg2/acls delete wwn=iqn.2026-11.com.example:a",
        "/iscsi/iqn.2026-11.com.example:t/tpg2/acls/iqn.2026-11.com.example:a delete mapped_lun=7",
    ];

    #[test]
    fn everything_is_made_in_its_order() {
        let mut targetcli = Noted::default();
        let made = plan(None, false).carry_out(&mut targetcli, || Ok(()));
        made.expect("nothing is refused");
        assert_eq!(targetcli.commands, MAKE);
    }

    #[test]
    fn a_further_backstore_is_like_the_first_and_an_acl_is_kept() {
        let like = Like {
            block_size_bytes: 4096,
            data_area_mib: 64,
            write_cache: true,
        };
        let mut targetcli = Noted::default();
        let made = plan(Some(like), true).carry_out(&mut targetcli, || Ok(()));
        made.expect("nothing is refused");
        let first = format!("{} control=hw_block_size=4096,max_data_area_mb=64", MAKE[0]);
        let cache = "/backstores/user:pr/lun0-a set attribute emulate_write_cache=1";
        assert_eq!(targetcli.commands, [&first, cache, MAKE[1], MAKE[3]]);
    }

    #[test]
    fn what_was_made_before_a_failure_is_removed_again() {
        for (failing, refused) in [
            "user:pr create",
            "luns create",
            "acls create",
            "create mapped_lun",
        ]
        .into_iter()
        .enumerate()
        {
            let mut targetcli = Noted {
                refused: vec![refused],
                ..Noted::default()
            };
            let error = plan(None, false)
                .carry_out(&mut targetcli, || Ok(()))
                .expect_err(refused);
            let undone = UNDO[..failing].iter().rev();
            let expected: Vec<&str> = MAKE[..=failing].iter().chain(undone).copied().collect();
            assert_eq!(targetcli.commands, expected);
            let outcome = if failing == 0 {
                "it failed, and nothing was made"
            } else {
                "it failed, and what was made is removed again"
            };
            assert_eq!(error.to_string(), outcome);
            assert_eq!(error.exit_status(), 5);
        }
    }

    #[test]
    fn what_serves_nobody_is_removed_and_what_can_not_be_is_told() {
        let mut targetcli = Noted {
            refused: vec!["luns delete"],
            ..Noted::default()
        };
        let useless = || -> Result<(), CliError> {
            Err(Error::NotServed {
                backstore: "user_0/lun0-a".to_owned(),
                reason: "odd".to_owned(),
            }
            .into())
        };
        let error = plan(None, false).carry_out(&mut targetcli, useless);
        let all: Vec<&str> = MAKE.iter().chain(UNDO.iter().rev()).copied().collect();
        assert_eq!(targetcli.commands, all);
        assert_eq!(
            error.expect_err("it is no good").to_string(),
            "it failed, and not all that was made could be removed again; run `targetcli \
             /iscsi/iqn.2026-11.com.example:t/tpg2/luns delete lun=4`"
        );
    }

    #[test]
    fn config_strings_of_a_disk_differ_in_the_label_only() {
        let label: Label = "node-b".parse().expect("it is a label");
        for (base, expected) in [
            ("/srv/x", "/srv/x;nexus=node-b"),
            ("/srv/x;nexus=node-a\n", "/srv/x;nexus=node-b"),
            (
                "/srv/x;nexus=node-a;direct=1",
                "/srv/x;direct=1;nexus=node-b",
            ),
        ] {
            assert_eq!(config_for(base, &label), expected);
        }
        let options = ["direct=1", "force_aptpl=1"].map(str::to_owned);
        assert_eq!(
            first_config(Path::new("/srv/x"), &options),
            "/srv/x;direct=1;force_aptpl=1"
        );
    }
}
