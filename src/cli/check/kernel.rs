//! Whether the kernel is one that will do, and has its modules loaded.

use super::Finding;
use super::node::Node;
use super::speed::version;

/// Reservations can be left to us from here on.
const LEAST: (u32, u32) = (5, 9);
/// Initiators that share a backstore can be told apart from here on.
const TAP: (u32, u32) = (6, 0);

pub(super) fn look(node: &Node) -> Vec<Finding> {
    vec![
        release(node),
        user_module(node),
        iscsi_module(node),
        configfs(node),
    ]
}

fn release(node: &Node) -> Finding {
    let release = node.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let what = "the kernel is new enough";
    match version(release) {
        Some(version) if version >= TAP => Finding::ok(what),
        Some(version) if version >= LEAST => Finding::note(
            what,
            format!(
                "this is Linux {release}: the nexus tap takes 6.0, and without it each initiator needs a backstore of its own"
            ),
        ),
        _ => Finding::problem(
            what,
            format!("this is Linux {release}, and that takes 5.9: boot a newer kernel"),
        ),
    }
}

fn user_module(node: &Node) -> Finding {
    let what = "target_core_user is loaded";
    if node.has("/sys/module/target_core_user") {
        return Finding::ok(what);
    }
    Finding::problem(
        what,
        "it is not: modprobe target_core_user; if there is none, boot the kernel that is installed, or one that has it \
         (Debian's all have; Ubuntu's have it in linux-modules-extra)"
            .to_owned(),
    )
}

fn iscsi_module(node: &Node) -> Finding {
    let what = "iscsi_target_mod is loaded";
    if node.has("/sys/module/iscsi_target_mod") {
        return Finding::ok(what);
    }
    Finding::note(
        what,
        "it is not, and it takes iSCSI targets: modprobe iscsi_target_mod, before tcmu-pr starts"
            .to_owned(),
    )
}

fn configfs(node: &Node) -> Finding {
    let what = "the target configuration is there";
    if node.has("/sys/kernel/config/target/core") {
        return Finding::ok(what);
    }
    Finding::problem(
        what,
        "there is no /sys/kernel/config/target: mount -t configfs configfs /sys/kernel/config; modprobe target_core_mod"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    #[test]
    fn a_good_kernel_is_told_by_its_release_and_its_modules() {
        let tree = Tree::new();
        tree.file("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
            .file("sys/module/target_core_user/refcnt", "0\n")
            .file("sys/module/iscsi_target_mod/refcnt", "0\n")
            .file("sys/kernel/config/target/core/alua/x", "");
        let node = Node::new(tree.root());
        let expected = [
            "ok       the kernel is new enough",
            "ok       target_core_user is loaded",
            "ok       iscsi_target_mod is loaded",
            "ok       the target configuration is there",
        ];
        assert_eq!(found(&look(&node)), expected);
        tree.file("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n");
        let expected = "note     the kernel is new enough: this is Linux 5.10.0-28-amd64: the nexus tap takes 6.0, and \
                        without it each initiator needs a backstore of its own";
        assert_eq!(found(&look(&node))[0], expected);
        tree.file("proc/sys/kernel/osrelease", "5.8.3\n");
        let expected = "problem  the kernel is new enough: this is Linux 5.8.3, and that takes 5.9: boot a newer kernel";
        assert_eq!(found(&look(&node))[0], expected);
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let tree = Tree::new();
        let expected = [
            "problem  target_core_user is loaded: it is not: modprobe target_core_user; if there is none, boot the kernel that \
             is installed, or one that has it (Debian's all have; Ubuntu's have it in linux-modules-extra)",
            "note     iscsi_target_mod is loaded: it is not, and it takes iSCSI targets: modprobe iscsi_target_mod, before \
             tcmu-pr starts",
            "problem  the target configuration is there: there is no /sys/kernel/config/target: mount -t configfs configfs \
             /sys/kernel/config; modprobe target_core_mod",
        ];
        assert_eq!(found(&look(&Node::new(tree.root())))[1..], expected);
    }
}
