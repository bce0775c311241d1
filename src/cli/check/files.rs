//! Whether what tcmu-pr reads and keeps is as it should be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use super::node::Node;
use crate::control::file;

/// Where records are kept.
const RECORDS: [&str; 2] = ["/run/tcmu-pr", "/var/lib/tcmu-pr"];

pub(super) fn look(node: &Node, configuration: &Path) -> Vec<Finding> {
    let mut findings = vec![configured(configuration)];
    findings.extend(
        RECORDS
            .iter()
            .filter_map(|directory| records(node, directory)),
    );
    findings
}

fn configured(path: &Path) -> Finding {
    let what = format!("{} is good", path.display());
    let read = file::read(path).and_then(|text| file::parse(path, &text));
    Finding::new(&what, read.map(drop))
}

/// Whether nobody but root can look at the records in a directory. Nothing where there are none yet.
fn records(node: &Node, directory: &str) -> Option<Finding> {
    let metadata = fs::metadata(node.at(directory)).ok()?;
    let what = format!("{directory} is root's alone");
    // Where tests run, root may be somebody else.
    let root = nix::unistd::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    Some(if owner != 0 && owner != root {
        Finding::problem(
            &what,
            format!("it belongs to the user {owner}: chown root:root {directory}"),
        )
    } else if mode & 0o077 != 0 {
        Finding::problem(
            &what,
            format!("its mode is {mode:04o}: chmod 0700 {directory}"),
        )
    } else {
        Finding::ok(&what)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::found;
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    #[test]
    fn a_bad_file_is_told_with_its_place() {
        let tree = Tree::new();
        let path = tree.root().join("etc/tcmu-pr.toml");
        let all = || found(&look(&Node::new(tree.root()), &path));
        let name = path.display();
        assert_eq!(all(), [format!("ok       {name} is good")]);
        tree.file("etc/tcmu-pr.toml", "pol = 1\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let expected = format!(
            "problem  {name} is good: {name}:1:1: unknown key `pol`; there are log-level, engine, poll and the table [backstores]"
        );
        assert_eq!(all(), [expected]);
    }

    #[test]
    fn records_are_for_root_only() {
        let tree = Tree::new();
        tree.file("run/tcmu-pr/x", "").file("var/lib/tcmu-pr/x", "");
        let mode = |directory, mode| {
            let path = tree.root().join(directory);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("run/tcmu-pr", 0o700);
        mode("var/lib/tcmu-pr", 0o755);
        let expected = [
            "ok       /run/tcmu-pr is root's alone",
            "problem  /var/lib/tcmu-pr is root's alone: its mode is 0755: chmod 0700 /var/lib/tcmu-pr",
        ];
        let none = tree.root().join("none");
        assert_eq!(found(&look(&Node::new(tree.root()), &none))[1..], expected);
    }
}
