//! Whether only root can be the handler of TCMU devices, ask the daemon, and open the rings.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::Finding;
use super::node::Node;
use crate::tcmu::UioPaths;
use crate::tcmu::config::Name;

const OWN_POLICY: &str = include_str!("../../../systemd/tcmu-pr-dbus.conf");
const POLICIES: [&str; 2] = [
    "/etc/dbus-1/system.d/tcmu-pr-dbus.conf",
    "/usr/share/dbus-1/system.d/tcmu-pr-dbus.conf",
];
const OWN_RULE: &str = include_str!("../../../udev/60-tcmu-pr.rules");
const RULES: [&str; 3] = [
    "/etc/udev/rules.d/60-tcmu-pr.rules",
    "/usr/lib/udev/rules.d/60-tcmu-pr.rules",
    "/lib/udev/rules.d/60-tcmu-pr.rules",
];

pub(super) fn look(node: &Node) -> Vec<Finding> {
    let mut findings = vec![policy(node), rule(node)];
    findings.extend(rings(node));
    findings
}

/// The bus lets nobody have our names whom no policy lets: so one that has them is in force.
fn policy(node: &Node) -> Finding {
    let what = "the bus lets root serve and ask, and nobody else";
    let there: Vec<&str> = POLICIES.into_iter().filter(|path| node.has(path)).collect();
    let strange = there
        .iter()
        .find(|path| node.text(path).as_deref() != Some(OWN_POLICY));
    let why = match (there.first(), strange) {
        (None, _) => format!(
            "there is no {}: install the package, then systemctl reload dbus",
            POLICIES[1]
        ),
        (_, Some(path)) => format!(
            "{path} is not the one of this version, and may let others in: replace it, or remove it if there is another"
        ),
        (Some(_), None) => return Finding::ok(what),
    };
    Finding::problem(what, why)
}

fn rule(node: &Node) -> Finding {
    let what = "a udev rule keeps the rings for root";
    match node.first_of(&RULES) {
        Some(path) if node.text(path).as_deref() == Some(OWN_RULE) => Finding::ok(what),
        Some(path) => Finding::note(what, format!("{path} is not the one of this version")),
        None => Finding::note(
            what,
            format!(
                "there is no {}: the kernel keeps them for root too, unless another rule says otherwise",
                RULES[1]
            ),
        ),
    }
}

/// Whether nobody else can open the rings of backstores there are.
fn rings(node: &Node) -> Vec<Finding> {
    let paths = UioPaths {
        class: node.at("/sys/class/uio"),
        nodes: node.at("/dev"),
    };
    // Without the module there are none, which is told elsewhere.
    let uios = paths.scan().unwrap_or_default().into_iter();
    let ours = uios.filter(|uio| Name::parse(&uio.name).is_some_and(|name| name.is_ours()));
    ours.filter_map(|uio| {
        let path = format!("/dev/uio{}", uio.minor);
        let metadata = fs::metadata(node.at(&path)).ok()?;
        let root = nix::unistd::geteuid().as_raw();
        let mode = metadata.mode() & 0o7777;
        let open = (metadata.uid() != 0 && metadata.uid() != root) || mode & 0o077 != 0;
        let why = format!(
            "it belongs to the user {} with the mode {mode:04o}, and who opens a ring is past all reservations: chown \
             root:root {path}; chmod 0600 {path}; and look for the udev rule that did this",
            metadata.uid()
        );
        let what = format!("only root can open {path}");
        Some(if open { Finding::problem(&what, why) } else { Finding::ok(&what) })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::found;
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    fn all(tree: &Tree) -> Vec<String> {
        found(&look(&Node::new(tree.root())))
    }

    #[test]
    fn the_files_of_this_version_are_well() {
        let tree = Tree::new();
        tree.file(&POLICIES[1][1..], OWN_POLICY)
            .file(&RULES[1][1..], OWN_RULE);
        let expected = [
            "ok       the bus lets root serve and ask, and nobody else",
            "ok       a udev rule keeps the rings for root",
        ];
        assert_eq!(all(&tree), expected);
        tree.file(&POLICIES[0][1..], "<busconfig/>");
        let expected = "problem  the bus lets root serve and ask, and nobody else: \
                        /etc/dbus-1/system.d/tcmu-pr-dbus.conf is not the one of this version, and may let others in: replace \
                        it, or remove it if there is another";
        assert_eq!(all(&tree)[0], expected);
    }

    #[test]
    fn missing_files_are_told() {
        let expected = [
            "problem  the bus lets root serve and ask, and nobody else: there is no \
             /usr/share/dbus-1/system.d/tcmu-pr-dbus.conf: install the package, then systemctl reload dbus",
            "note     a udev rule keeps the rings for root: there is no /usr/lib/udev/rules.d/60-tcmu-pr.rules: the kernel \
             keeps them for root too, unless another rule says otherwise",
        ];
        assert_eq!(all(&Tree::new()), expected);
    }

    #[test]
    fn a_ring_that_others_can_open_is_told() {
        let tree = Tree::new();
        tree.file("sys/class/uio/uio3/name", "tcm-user/0/lun0/pr//srv/a\n")
            .file("sys/class/uio/uio4/name", "tcm-user/0/lun0/file//srv/a\n")
            .file("dev/uio3", "")
            .file("dev/uio4", "");
        let path = tree.root().join("dev/uio3");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(all(&tree)[2..], ["ok       only root can open /dev/uio3"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        let owner = fs::metadata(&path).unwrap().uid();
        let expected = format!(
            "problem  only root can open /dev/uio3: it belongs to the user {owner} with the mode 0660, and who opens a ring is \
             past all reservations: chown root:root /dev/uio3; chmod 0600 /dev/uio3; and look for the udev rule that did this"
        );
        assert_eq!(all(&tree)[2..], [expected]);
    }
}
