use std::os::unix::fs::MetadataExt;

use nix::sys::stat::{major, minor};

use super::*;
use crate::scsi::capacity::Geometry;
use crate::tcmu::configfs::tests::Tree;

/// What a node shows of itself: `target`, `parameters`, `kernel` and `block` of a temporary directory, in which its
/// disks are too.
struct Node {
    tree: Tree,
    target: Tree,
}

/// A kernel that forbids nothing, and no target.
fn node() -> Node {
    let tree = Tree::new();
    tree.file("kernel/osrelease", "6.12.9-amd64\n")
        .file("kernel/io_uring_disabled", "0\n")
        .file("parameters/global_max_data_area_mb", "2048\n");
    Node {
        tree,
        target: Tree::new(),
    }
}

impl Node {
    fn places(&self) -> Places {
        Places {
            target: self.target.root().into(),
            parameters: self.tree.root().join("parameters"),
            kernel: self.tree.root().join("kernel"),
            block_devices: self.tree.root().join("block"),
        }
    }

    /// What is found, a line each, without the line of io_uring.
    fn found(&self) -> Vec<String> {
        self.all().split_off(1)
    }

    fn all(&self) -> Vec<String> {
        let lines = super::super::lines(&look(&self.places()));
        lines.lines().map(str::to_owned).collect()
    }

    /// A backstore of ours with a file of its own below the node's directory.
    fn backstore(&self, name: &str, area_mib: u32) {
        self.target.backstore("user_0", name);
        let path = self.tree.root().join(name);
        fs::write(&path, "").unwrap();
        let attribute = |attribute: &str, value: &str| {
            let path = format!("core/user_0/{name}/attrib/{attribute}");
            self.target.file(&path, value);
        };
        attribute("dev_config", &format!("pr/{}\n", path.display()));
        attribute("max_data_area_mb", &format!("{area_mib}\n"));
    }

    /// Puts the files of backstores onto a device: `block/<numbers>` leads to that directory of it.
    fn lies_on(&self, device: &str) {
        let number = fs::metadata(self.tree.root()).unwrap().dev();
        let numbers = format!("block/{}:{}", major(number), minor(number));
        self.tree.link(&numbers, &format!("../{device}"));
    }

    fn disk(&self, directory: &str, schedulers: &str, rotational: &str) {
        self.tree
            .file(&format!("{directory}/queue/scheduler"), schedulers)
            .file(&format!("{directory}/queue/rotational"), rotational);
    }
}

#[test]
fn a_node_without_targets_has_its_kernel_looked_at() {
    assert_eq!(node().all(), ["ok       io_uring can be used"]);
}

#[test]
fn io_uring_can_be_used_from_linux_6_1_on() {
    let node = node();
    let note = "note     io_uring can be used: this is Linux 5.19.0-1, and that takes 6.1, so helper threads do the I/O, which takes \
                longer; if that is not intended: boot a newer kernel";
    for (release, expected) in [
        ("6.1.0-18-amd64\n", "ok       io_uring can be used"),
        ("6.10.1\n", "ok       io_uring can be used"),
        ("7.0\n", "ok       io_uring can be used"),
        ("5.19.0-1\n", note),
    ] {
        node.tree.file("kernel/osrelease", release);
        assert_eq!(node.all(), [expected], "{release}");
    }
}

#[test]
fn io_uring_can_be_forbidden() {
    let node = node();
    for disabled in [1, 2] {
        node.tree
            .file("kernel/io_uring_disabled", &format!("{disabled}\n"));
        let expected = format!(
            "note     io_uring can be used: kernel.io_uring_disabled is {disabled}, so helper threads do the I/O, which \
             takes longer; if that is not intended: sysctl kernel.io_uring_disabled=0, and a file in /etc/sysctl.d that \
             says the same"
        );
        assert_eq!(node.all(), [expected]);
    }
    // Linux 6.1 can't forbid it so.
    node.tree.remove("kernel/io_uring_disabled");
    assert_eq!(node.all(), ["ok       io_uring can be used"]);
}

#[test]
fn a_command_moves_as_much_as_hosts_are_told() {
    let geometry = Geometry::new(4096, 1 << 20, 0).unwrap();
    let maximum = geometry.maximum_transfer().0 * 4096;
    assert_eq!(maximum, u64::from(COMMAND_MIB) << 20);
}

#[test]
fn a_data_area_has_room_for_32_commands() {
    for (area_mib, expected) in [
        (
            32,
            "ok       the data area of user_0/a has room for what hosts send",
        ),
        (
            31,
            "problem  the data area of user_0/a has room for what hosts send: it has 31 MiB, and of 32 commands of 1 MiB \
             the last wait until the first are answered: create the backstore with control=max_data_area_mb=32 or more, or \
             without that",
        ),
        (
            8,
            "problem  the data area of user_0/a has room for what hosts send: it has 8 MiB, and of 32 commands of 1 MiB \
             the last wait until the first are answered: create the backstore with control=max_data_area_mb=32 or more, or \
             without that",
        ),
        (
            7,
            "problem  the data area of user_0/a has room for what hosts send: it has 7 MiB, and the kernel fails commands \
             that move more; hosts are told that 8 MiB will do: create the backstore with control=max_data_area_mb=32 or \
             more, or without that",
        ),
    ] {
        let node = node();
        node.backstore("a", area_mib);
        let limit = "ok       the data areas of all backstores fit into the kernel's limit";
        assert_eq!(node.found(), [expected, limit]);
    }
}

#[test]
fn the_data_areas_of_other_handlers_count_and_are_not_judged() {
    let node = node();
    node.backstore("a", 1024);
    node.backstore("theirs", 1024);
    let theirs = "core/user_0/theirs/attrib/dev_config";
    node.target.file(theirs, "file//srv/x\n");
    let own = "ok       the data area of user_0/a has room for what hosts send";
    let fits = "ok       the data areas of all backstores fit into the kernel's limit";
    assert_eq!(node.found(), [own, fits]);
    let theirs = "core/user_0/theirs/attrib/max_data_area_mb";
    node.target.file(theirs, "1025\n");
    let exceeds = "note     the data areas of all backstores fit into the kernel's limit: they can have 2049 MiB, and with \
                   more than 2048 MiB in use the kernel takes pages away every 5 seconds, to hand them out anew: if there is \
                   that much memory, write 2049 to /sys/module/target_core_user/parameters/global_max_data_area_mb, and \
                   \"options target_core_user global_max_data_area_mb=2049\" to a file in /etc/modprobe.d; or create the 2 \
                   backstores with control=max_data_area_mb=1024";
    assert_eq!(node.found(), [own, exceeds]);
}

#[test]
fn only_what_tcmu_pr_serves_is_looked_at() {
    let node = node();
    node.backstore("theirs", 4096);
    let theirs = "core/user_0/theirs/attrib/dev_config";
    node.target.file(theirs, "file//srv/x\n");
    let group = node.target.iscsi("iqn.2026-11.example:t", 1);
    node.target
        .lun(&group, 0, "user_0/theirs")
        .acl(&group, "iqn.x:1", 0, 0);
    let depth = format!("{group}/acls/iqn.x:1/cmdsn_depth");
    node.target.file(&depth, "1\n");
    assert!(node.found().is_empty());
}

#[test]
fn initiators_need_32_commands_at_a_time() {
    let node = node();
    node.backstore("a", 1024);
    let group = node.target.iscsi("iqn.2026-11.example:t", 1);
    node.target
        .lun(&group, 0, "user_0/a")
        .acl(&group, "iqn.x:1", 0, 0)
        .acl(&group, "iqn.x:2", 0, 0);
    let depth = |initiator: &str, commands: &str| {
        let path = format!("{group}/acls/{initiator}/cmdsn_depth");
        node.target.file(&path, commands);
    };
    depth("iqn.x:1", "64\n");
    depth("iqn.x:2", "32\n");
    let ok = "ok       the initiators of iscsi/iqn.2026-11.example:t/tpgt_1 may send enough commands at a time";
    assert_eq!(node.found()[2..], [ok]);
    depth("iqn.x:2", "31\n");
    let expected = format!(
        "problem  the initiators of iscsi/iqn.2026-11.example:t/tpgt_1 may send enough commands at a time: \
         {}/iscsi/iqn.2026-11.example:t/tpgt_1/acls/iqn.x:2/cmdsn_depth allows 31 at a time, and hosts send 32: write 64 to \
         it; an initiator that is logged in is logged out by that, and comes back",
        node.target.root().display()
    );
    assert_eq!(node.found()[2..], [expected]);
}

#[test]
fn bfq_is_for_disks_that_rotate() {
    for (schedulers, rotational, expected) in [
        (
            "[none] mq-deadline kyber bfq\n",
            "0\n",
            "ok       the I/O scheduler of sdb costs little",
        ),
        (
            "none\n",
            "0\n",
            "ok       the I/O scheduler of sdb costs little",
        ),
        (
            "none [mq-deadline] bfq\n",
            "0\n",
            "ok       the I/O scheduler of sdb costs little",
        ),
        (
            "none mq-deadline [bfq]\n",
            "1\n",
            "ok       the I/O scheduler of sdb costs little",
        ),
        (
            "none mq-deadline [bfq]\n",
            "0\n",
            "problem  the I/O scheduler of sdb costs little: it is bfq, made for disks that rotate, and sdb does not: write \
             none or mq-deadline to /sys/block/sdb/queue/scheduler, and make a udev rule that does the same",
        ),
    ] {
        let node = node();
        node.backstore("a", 1024);
        node.backstore("b", 1024);
        node.disk("sdb", schedulers, rotational);
        node.lies_on("sdb");
        assert_eq!(node.found()[3..], [expected], "{schedulers}");
    }
}

#[test]
fn the_disks_below_partitions_and_device_mapper_are_found() {
    let node = node();
    node.backstore("a", 1024);
    node.disk("sdb", "[none]\n", "0\n");
    node.disk("nvme0n1", "[none]\n", "0\n");
    node.disk("dm-0", "none\n", "0\n");
    node.tree.file("sdb/sdb1/partition", "1\n");
    fs::create_dir(node.tree.root().join("sdb/slaves")).unwrap();
    node.tree
        .link("dm-0/slaves/sdb1", "../../sdb/sdb1")
        .link("dm-0/slaves/nvme0n1", "../../nvme0n1");
    node.lies_on("dm-0");
    let expected = [
        "ok       the I/O scheduler of nvme0n1 costs little",
        "ok       the I/O scheduler of sdb costs little",
    ];
    assert_eq!(node.found()[2..], expected);
}

#[test]
fn a_disk_in_memory_has_no_scheduler() {
    let node = node();
    node.backstore("a", 1024);
    assert_eq!(node.found().len(), 2);
}

#[test]
fn a_file_that_is_gone_has_none_either() {
    let node = node();
    node.backstore("a", 1024);
    node.disk("sdb", "[none]\n", "0\n");
    node.lies_on("sdb");
    node.tree.remove("a");
    assert_eq!(node.found().len(), 2);
}

#[test]
fn what_cannot_be_read_is_a_problem() {
    let node = node();
    node.backstore("a", 1024);
    let attribute = "core/user_0/a/attrib/max_data_area_mb";
    node.target.file(attribute, "much\n");
    let expected = format!(
        "problem  the target configuration can be read: {}/{attribute} says \"much\", which is no number in range",
        node.target.root().display()
    );
    assert_eq!(node.found(), [expected]);
}
