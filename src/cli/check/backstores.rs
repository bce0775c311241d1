//! Whether our backstores are set as reservations need it, will be there after a boot, and lie on something that will do.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::Finding;
use super::node::Node;
use super::storage;
use crate::tcmu::config::Options;
use crate::tcmu::configfs::{self, Backstore, Error};

/// Where targetcli saves the targets: in Debian, and elsewhere.
const SAVED: [&str; 2] = [
    "/etc/rtslib-fb-target/saveconfig.json",
    "/etc/target/saveconfig.json",
];

pub(super) fn look(node: &Node) -> Vec<Finding> {
    let ours = match ours(&node.at(configfs::ROOT)) {
        Ok(ours) => ours,
        Err(error) => return vec![Finding::new("the backstores can be looked at", Err(error))],
    };
    let mut findings: Vec<Finding> = ours.iter().map(attributes).collect();
    findings.extend(saved(node, &ours));
    findings.extend(restored(node, &ours));
    let mut seen = BTreeSet::new();
    for backstore in &ours {
        let options = backstore
            .config()
            .ok()
            .and_then(|config| Options::parse_config(&config).ok());
        if let Some(options) = options.filter(|options| seen.insert(options.path.clone())) {
            findings.extend(storage::look(node, &options));
        }
    }
    findings
}

fn ours(root: &Path) -> Result<Vec<Backstore>, Error> {
    let mut ours = Vec::new();
    for backstore in configfs::enabled(root)? {
        if backstore.is_ours()? {
            ours.push(backstore);
        }
    }
    Ok(ours)
}

/// The attributes that the daemon sets, and how.
fn attributes(backstore: &Backstore) -> Finding {
    let name = backstore.name();
    let what = format!("the attributes of {name} let reservations fence");
    if let Err(error) = backstore.verify() {
        return Finding::new(&what, Err(error));
    }
    let value = |attribute| backstore.attribute(attribute).unwrap_or_default();
    for (attribute, needed) in [("alua_support", "0"), ("qfull_time_out", "5")] {
        let found = value(attribute);
        if found != needed {
            let why = format!(
                "{attribute} is {found}, and tcmu-pr needs {needed}: when it runs, it sets that itself"
            );
            return Finding::problem(&what, why);
        }
    }
    let time_out = value("cmd_time_out");
    if time_out != "0" {
        let why = format!(
            "cmd_time_out is {time_out}: so many seconds after it was sent, the kernel fails a command that may still be \
             done; take its LUNs away, set attribute cmd_time_out=0, and export it again"
        );
        return Finding::problem(&what, why);
    }
    match backstore.reply_supported() {
        Ok(number) if number < 0 => Finding::note(
            &what,
            format!(
                "nl_reply_supported is {number}: who changes it is not told what tcmu-pr refuses; tcmu-pr status is"
            ),
        ),
        _ => Finding::ok(&what),
    }
}

/// Whether all of them are in the configuration that a boot restores.
fn saved(node: &Node, ours: &[Backstore]) -> Option<Finding> {
    if ours.is_empty() {
        return None;
    }
    let what = "our backstores are in the saved configuration";
    let path = node.first_of(&SAVED).unwrap_or(SAVED[0]);
    let saved = saved_names(&node.text(path).unwrap_or_default());
    let missing: Vec<&str> = ours
        .iter()
        .map(|backstore| backstore.name().name.as_str())
        .filter(|name| !saved.contains(*name))
        .collect();
    if missing.is_empty() {
        return Some(Finding::ok(what));
    }
    let why = format!(
        "{path} does not have {}, which a boot forgets then: targetcli saveconfig",
        missing.join(", ")
    );
    Some(Finding::problem(what, why))
}

/// Whether all that a boot should have restored is there.
fn restored(node: &Node, ours: &[Backstore]) -> Option<Finding> {
    let path = node.first_of(&SAVED)?;
    let mut missing = saved_names(&node.text(path)?);
    if missing.is_empty() {
        return None;
    }
    for backstore in ours {
        missing.remove(&backstore.name().name);
    }
    let what = "the saved backstores of ours are there";
    if missing.is_empty() {
        return Some(Finding::ok(what));
    }
    let missing: Vec<String> = missing.into_iter().collect();
    let why = format!(
        "{path} has {}, and the kernel does not: if nobody has removed that, its device or file system came late at \
         boot; save nothing before it is back: docs/troubleshooting.md, \"A disk is gone after a boot\"",
        missing.join(", ")
    );
    Some(Finding::problem(what, why))
}

/// The names of the backstores of ours in a saved configuration.
fn saved_names(text: &str) -> BTreeSet<String> {
    let configuration: Value = serde_json::from_str(text).unwrap_or_default();
    let objects = configuration["storage_objects"].as_array();
    let ours = objects.into_iter().flatten().filter(|object| {
        let config = object["config"].as_str().unwrap_or_default();
        object["plugin"] == "user" && config.starts_with("pr/")
    });
    ours.filter_map(|object| Some(object["name"].as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    /// A node with a backstore as the daemon has set it, whose disk is elsewhere.
    fn node() -> (Tree, Backstore) {
        let (tree, target) = (Tree::new(), Tree::new());
        let backstore = target.backstore("user_0", "lun0");
        backstore.prepare().expect("it can be written");
        target.file("core/user_0/lun0/attrib/nl_reply_supported", "1\n");
        tree.file("sys/kernel/config/x", "");
        std::fs::rename(target.root(), tree.root().join("sys/kernel/config/target")).unwrap();
        let root = tree.root().join("sys/kernel/config/target");
        let backstore = Backstore::new(&root, backstore.name().clone()).unwrap();
        tree.file(
            &SAVED[0][1..],
            r#"{"storage_objects": [{"plugin": "user", "name": "lun0", "config": "pr//srv/lun0.img"},
                {"plugin": "fileio", "name": "other"}]}"#,
        );
        (tree, backstore)
    }

    fn set(tree: &Tree, attribute: &str, value: &str) {
        let path = format!("sys/kernel/config/target/core/user_0/lun0/attrib/{attribute}");
        tree.file(&path, value);
    }

    fn all(tree: &Tree) -> Vec<String> {
        found(&look(&Node::new(tree.root())))
    }

    const WHAT: &str = "the attributes of user_0/lun0 let reservations fence";

    #[test]
    fn what_the_daemon_has_set_and_targetcli_saved_is_well() {
        let (tree, _) = node();
        let expected = [
            format!("ok       {WHAT}"),
            "ok       our backstores are in the saved configuration".to_owned(),
            "ok       the saved backstores of ours are there".to_owned(),
        ];
        assert_eq!(all(&tree)[..3], expected);
    }

    #[test]
    fn each_attribute_that_is_not_as_it_must_be_is_told() {
        for (attribute, value, expected) in [
            (
                "emulate_pr",
                "0\n",
                "must be 1 for reservations to fence: write 1 to it",
            ),
            (
                "pgr_support",
                "1\n",
                "must be 0 for reservations to fence: write 0 to it",
            ),
            (
                "tmr_notification",
                "0\n",
                "must be 1 for reservations to fence: write 1 to it",
            ),
            (
                "alua_support",
                "1\n",
                ": alua_support is 1, and tcmu-pr needs 0: when it runs, it sets that itself",
            ),
            (
                "cmd_time_out",
                "30\n",
                ": cmd_time_out is 30: so many seconds after it was sent, the kernel fails a command that may still be done; \
                 take its LUNs away, set attribute cmd_time_out=0, and export it again",
            ),
        ] {
            let (tree, _) = node();
            set(&tree, attribute, value);
            let line = all(&tree).remove(0);
            assert!(line.starts_with(&format!("problem  {WHAT}: ")), "{line}");
            assert!(line.ends_with(expected), "{line}");
        }
        let (tree, _) = node();
        set(&tree, "nl_reply_supported", "-1\n");
        let expected = format!(
            "note     {WHAT}: nl_reply_supported is -1: who changes it is not told what tcmu-pr refuses; tcmu-pr status is"
        );
        assert_eq!(all(&tree)[0], expected);
    }

    #[test]
    fn a_saved_backstore_that_did_not_come_back_is_told() {
        let (tree, _) = node();
        let saved = r#"{"storage_objects": [{"plugin": "user", "name": "lun0", "config": "pr//srv/lun0.img"},
            {"plugin": "user", "name": "late", "config": "pr//mnt/late.img"},
            {"plugin": "user", "name": "image", "config": "rbd/pool/image"}]}"#;
        tree.file(&SAVED[0][1..], saved);
        let expected = "problem  the saved backstores of ours are there: /etc/rtslib-fb-target/saveconfig.json has late, and \
                        the kernel does not: if nobody has removed that, its device or file system came late at boot; save \
                        nothing before it is back: docs/troubleshooting.md, \"A disk is gone after a boot\"";
        assert_eq!(all(&tree)[2], expected);
        std::fs::remove_dir_all(tree.root().join("sys/kernel/config/target/core")).unwrap();
        let expected = expected.replace("has late", "has late, lun0");
        assert_eq!(all(&tree), [expected]);
    }

    #[test]
    fn a_backstore_that_is_not_saved_is_told() {
        let (tree, _) = node();
        let expected = "problem  our backstores are in the saved configuration: /etc/target/saveconfig.json does not have \
                        lun0, which a boot forgets then: targetcli saveconfig";
        tree.remove(&SAVED[0][1..]);
        tree.file(&SAVED[1][1..], r#"{"storage_objects": []}"#);
        assert_eq!(all(&tree)[1], expected);
        for damaged in ["{", "[]", r#"{"storage_objects": 1}"#] {
            tree.file(&SAVED[1][1..], damaged);
            assert_eq!(all(&tree)[1], expected);
        }
    }
}
