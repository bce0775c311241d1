use std::os::unix::fs::symlink;

use super::*;

/// A target configuration in a temporary directory.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new() -> Tree {
        Tree(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, path: &str, content: &str) -> &Tree {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("it is new");
        fs::write(path, content).expect("it is writable");
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Tree {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("it is new");
        symlink(target, path).expect("it is new");
        self
    }

    pub(crate) fn content(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).expect("it is there")
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.root().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("it is there");
        } else {
            fs::remove_file(path).expect("it is there");
        }
    }

    /// A backstore as Linux 6.1 makes it.
    pub(crate) fn backstore(&self, hba: &str, name: &str) -> Backstore {
        for (file, content) in [
            ("enable", "1\n"),
            ("attrib/pgr_support", "1\n"),
            ("attrib/emulate_pr", "1\n"),
            ("attrib/alua_support", "1\n"),
            ("attrib/tmr_notification", "0\n"),
            ("attrib/cmd_time_out", "30\n"),
            ("attrib/qfull_time_out", "-1\n"),
            ("attrib/dev_config", "pr//srv/lun0.img;nexus=node-a\n"),
            ("attrib/dev_size", "1073741824\n"),
            ("attrib/hw_block_size", "512\n"),
            ("attrib/max_data_area_mb", "1024\n"),
            ("attrib/emulate_write_cache", "0\n"),
            ("action/block_dev", "unblocked\n"),
            ("action/reset_ring", ""),
            ("pr/res_type", "SPC_PASSTHROUGH\n"),
            ("statistics/scsi_dev/indx", "7\n"),
            (
                "wwn/vpd_unit_serial",
                "T10 VPD Unit Serial Number: 6001405a\n",
            ),
        ] {
            self.file(&format!("core/{hba}/{name}/{file}"), content);
        }
        Backstore::new(self.root(), backstore_name(hba, name)).expect("the name is good")
    }

    /// An iSCSI port group.
    pub(crate) fn iscsi(&self, target: &str, tag: u16) -> String {
        let group = format!("iscsi/{target}/tpgt_{tag}");
        self.file(&format!("{group}/attrib/generate_node_acls"), "0\n");
        self.file(&format!("{group}/dynamic_sessions"), "");
        for directory in ["lun", "acls", "np/0.0.0.0:3260", "auth"] {
            fs::create_dir_all(self.root().join(&group).join(directory)).expect("it is new");
        }
        group
    }

    /// Links `backstore` into `group` as LUN `number`.
    pub(crate) fn lun(&self, group: &str, number: u64, backstore: &str) -> &Tree {
        // Any number will do that is another for each backstore.
        let device = crc32c::crc32c(backstore.as_bytes());
        let indx = format!("core/{backstore}/statistics/scsi_dev/indx");
        self.file(&indx, &format!("{device}\n"));
        let port = format!("{group}/lun/lun_{number}/statistics/scsi_port/dev");
        self.file(&port, &format!("{device}\n"));
        let link = format!("{group}/lun/lun_{number}/5e3e7f1c0b");
        self.link(&link, &format!("../../../../../../target/core/{backstore}"))
    }

    /// Takes the link of LUN `number` away again.
    pub(crate) fn unlink_lun(&self, group: &str, number: u64) {
        self.remove(&format!("{group}/lun/lun_{number}/statistics"));
        self.remove(&format!("{group}/lun/lun_{number}/5e3e7f1c0b"));
    }

    /// Maps LUN `number` of `group` to `initiator`.
    pub(crate) fn acl(&self, group: &str, initiator: &str, mapped: u64, number: u64) -> &Tree {
        let acl = format!("{group}/acls/{initiator}");
        self.file(&format!("{acl}/info"), "No active iSCSI Session\n");
        self.file(&format!("{acl}/attrib/nopin_timeout"), "15\n");
        self.file(&format!("{acl}/lun_{mapped}/write_protect"), "0\n");
        let target = format!("../../../../../../../target/{group}/lun/lun_{number}");
        self.link(&format!("{acl}/lun_{mapped}/a01c2f"), &target)
    }
}

pub(crate) fn backstore_name(hba: &str, name: &str) -> BackstoreName {
    BackstoreName {
        hba: hba.into(),
        name: name.into(),
    }
}

#[test]
fn prepare_sets_what_reservations_need() {
    let tree = Tree::new();
    let backstore = tree.backstore("user_0", "lun0");
    backstore.prepare().expect("all files are there");
    assert_eq!(
        backstore
            .settings()
            .expect("all files are there")
            .command_timeout_s,
        0
    );
    for (attribute, value) in [
        ("pgr_support", "0"),
        ("tmr_notification", "1"),
        ("alua_support", "0"),
        ("qfull_time_out", "5"),
        ("cmd_time_out", "0"),
        ("emulate_pr", "1\n"), // left alone
    ] {
        let path = format!("core/user_0/lun0/attrib/{attribute}");
        assert_eq!(tree.content(&path), value, "{attribute}");
    }
    backstore.verify().expect("all is set");
}

#[test]
fn prepare_writes_only_what_differs() {
    let tree = Tree::new();
    let backstore = tree.backstore("user_0", "lun0");
    tree.file("core/user_0/lun0/attrib/pgr_support", "0\n");
    backstore.prepare().expect("all files are there");
    // Not written: the newline is still there.
    assert_eq!(tree.content("core/user_0/lun0/attrib/pgr_support"), "0\n");
}

#[test]
fn verify_fails_for_each_wrong_setting_and_says_what_to_write() {
    for (file, content, expected) in [
        ("attrib/pgr_support", "1\n", "must be 0"),
        ("attrib/pgr_support", "", "must be 0"),
        ("attrib/emulate_pr", "0\n", "must be 1"),
        ("attrib/tmr_notification", "0\n", "must be 1"),
        (
            "pr/res_type",
            "SPC3_PERSISTENT_RESERVATIONS\n",
            "SPC_PASSTHROUGH",
        ),
        (
            "pr/res_type",
            "SPC_RESERVATIONS_DISABLED\n",
            "SPC_PASSTHROUGH",
        ),
    ] {
        let tree = Tree::new();
        let backstore = tree.backstore("user_0", "lun0");
        backstore.prepare().expect("all files are there");
        tree.file(&format!("core/user_0/lun0/{file}"), content);
        let error = backstore.verify().expect_err(file).to_string();
        assert!(error.contains(expected) && error.contains(file), "{error}");
    }
}

#[test]
fn an_old_kernel_is_named_as_the_reason() {
    let tree = Tree::new();
    let backstore = tree.backstore("user_0", "lun0");
    tree.remove("core/user_0/lun0/attrib/pgr_support");
    let error = backstore
        .prepare()
        .expect_err("a file is missing")
        .to_string();
    assert!(
        error.contains("attrib/pgr_support") && error.contains("5.9"),
        "{error}"
    );
    let there = tree
        .root()
        .join("core/user_0/lun0/attrib/pgr_support")
        .exists();
    assert!(!there, "nothing may be made");
}

#[test]
fn settings_are_read() {
    let tree = Tree::new();
    let backstore = tree.backstore("user_0", "lun0");
    assert!(backstore.is_enabled().expect("it is there"));
    assert_eq!(backstore.device_id().expect("it is there"), 7);
    assert_eq!(backstore.size_bytes().expect("it is there"), 1 << 30);
    assert_eq!(backstore.block_size_bytes().expect("it is there"), 512);
    assert_eq!(backstore.data_area_mib().expect("it is there"), 1024);
    assert!(!backstore.write_cache().expect("it is there"));
    assert_eq!(
        backstore.serial().expect("it is there").as_deref(),
        Some("6001405a")
    );
    let config = backstore.config().expect("it is there");
    assert_eq!(config, "pr//srv/lun0.img;nexus=node-a");
    tree.file(
        "core/user_0/lun0/wwn/vpd_unit_serial",
        "T10 VPD Unit Serial Number: \n",
    );
    assert_eq!(backstore.serial().expect("it is there"), None);
    tree.file("core/user_0/lun0/attrib/dev_size", "-1\n");
    let error = backstore
        .size_bytes()
        .expect_err("it is negative")
        .to_string();
    assert!(error.contains("dev_size says \"-1\""), "{error}");
}

#[test]
fn actions_write_their_files() {
    let tree = Tree::new();
    let backstore = tree.backstore("user_0", "lun0");
    backstore.block().expect("it is there");
    assert_eq!(tree.content("core/user_0/lun0/action/block_dev"), "1");
    backstore.reset_ring().expect("it is there");
    assert_eq!(tree.content("core/user_0/lun0/action/reset_ring"), "1");
    backstore.unblock().expect("it is there");
    assert_eq!(tree.content("core/user_0/lun0/action/block_dev"), "0");
}

#[test]
fn a_backstore_name_cannot_lead_elsewhere() {
    for (hba, name) in [
        ("..", "a"),
        ("user_0", ".."),
        ("user_0", "a/b"),
        ("", "a"),
        ("a", ""),
    ] {
        let backstore = Backstore::new(Path::new("/x"), backstore_name(hba, name));
        assert!(matches!(backstore, Err(Error::Name(_))), "{hba}/{name}");
    }
}

const TARGET: &str = "iqn.2026-11.example:t";

#[test]
fn the_walk_finds_luns_and_acls() {
    let tree = Tree::new();
    tree.backstore("user_0", "lun0-a");
    tree.backstore("user_1", "lun0-b");
    tree.file("version", "Target Engine Core\n")
        .file("dbroot", "/etc/target\n");
    tree.file("iscsi/discovery_auth/userid", "\n");
    let group = tree.iscsi(TARGET, 1);
    tree.lun(&group, 0, "user_0/lun0-a")
        .lun(&group, 11, "user_1/lun0-b");
    tree.lun(&group, 2, "iblock_0/other");
    tree.acl(&group, "iqn.2026-11.example:a", 0, 0)
        .acl(&group, "iqn.2026-11.example:b", 3, 11);
    tree.file(
        &format!("{group}/acls/iqn.2026-11.example:b/lun_3/write_protect"),
        "1\n",
    );
    let expected = PortGroup {
        fabric: "iscsi".into(),
        target: TARGET.into(),
        tag: 1,
        generate_node_acls: Some(false),
        dynamic_sessions: vec![],
        nexus: None,
        luns: vec![
            Lun {
                number: 0,
                backstore: backstore_name("user_0", "lun0-a"),
            },
            Lun {
                number: 11,
                backstore: backstore_name("user_1", "lun0-b"),
            },
        ],
        acls: vec![
            Acl {
                initiator: "iqn.2026-11.example:a".into(),
                session: Session::None,
                luns: vec![MappedLun {
                    number: 0,
                    lun: 0,
                    write_protect: false,
                }],
            },
            Acl {
                initiator: "iqn.2026-11.example:b".into(),
                session: Session::None,
                luns: vec![MappedLun {
                    number: 3,
                    lun: 11,
                    write_protect: true,
                }],
            },
        ],
    };
    assert_eq!(
        port_groups(tree.root()).expect("the tree is good"),
        [expected]
    );
}

#[test]
fn the_walk_finds_who_is_let_in_without_an_acl() {
    let tree = Tree::new();
    let group = tree.iscsi(TARGET, 1);
    tree.lun(&group, 0, "user_0/lun0-a");
    tree.file(&format!("{group}/attrib/generate_node_acls"), "1\n");
    tree.file(&format!("{group}/dynamic_sessions"), "iqn.x:1\0\niqn.x:2\n");
    let groups = port_groups(tree.root()).expect("the tree is good");
    assert_eq!(groups[0].generate_node_acls, Some(true));
    assert_eq!(groups[0].dynamic_sessions, ["iqn.x:1", "iqn.x:2"]);
}

#[test]
fn the_walk_finds_the_nexus_of_a_loopback_port_group() {
    let tree = Tree::new();
    tree.lun("loopback/naa.5001405aa/tpgt_1", 0, "user_0/lun0-a");
    tree.file("loopback/naa.5001405aa/tpgt_1/nexus", "naa.5001405bb\n");
    tree.file(
        "loopback/naa.5001405aa/tpgt_1/attrib/fabric_prot_type",
        "0\n",
    );
    let groups = port_groups(tree.root()).expect("the tree is good");
    assert_eq!(groups[0].fabric, "loopback");
    assert_eq!(groups[0].nexus.as_deref(), Some("naa.5001405bb"));
    assert_eq!(groups[0].generate_node_acls, None);
}

#[test]
fn the_settings_of_our_backstores_are_set_and_no_others() {
    let tree = Tree::new();
    tree.backstore("user_0", "ours");
    tree.backstore("user_1", "theirs");
    tree.file("core/user_1/theirs/attrib/dev_config", "file//srv/x\n");
    tree.backstore("user_2", "broken");
    tree.file("core/user_2/broken/attrib/emulate_pr", "0\n");
    let states = states(tree.root()).expect("the tree is good");
    assert!(matches!(
        states[&backstore_name("user_0", "ours")].prepared,
        Some(Ok(_))
    ));
    assert_eq!(tree.content("core/user_0/ours/attrib/pgr_support"), "0");
    assert!(
        states[&backstore_name("user_1", "theirs")]
            .prepared
            .is_none()
    );
    assert_eq!(tree.content("core/user_1/theirs/attrib/pgr_support"), "1\n");
    assert!(matches!(
        states[&backstore_name("user_2", "broken")].prepared,
        Some(Err(_))
    ));
}

#[test]
fn enabled_backstores_are_found_and_nothing_is_set() {
    let tree = Tree::new();
    tree.backstore("user_0", "ours");
    tree.backstore("user_1", "theirs");
    tree.file("core/user_1/theirs/attrib/dev_config", "file//srv/x\n");
    tree.backstore("user_2", "in_the_making");
    tree.file("core/user_2/in_the_making/enable", "0\n");
    let found = enabled(tree.root()).expect("the tree is good");
    let found: Vec<(String, bool)> = found
        .iter()
        .map(|backstore| {
            let is_ours = backstore.is_ours().expect("it is there");
            (backstore.name().to_string(), is_ours)
        })
        .collect();
    let expected = [
        ("user_0/ours".to_owned(), true),
        ("user_1/theirs".to_owned(), false),
    ];
    assert_eq!(found, expected);
    assert_eq!(tree.content("core/user_0/ours/attrib/pgr_support"), "1\n");
}

#[test]
fn the_command_windows_are_those_of_the_acls_and_of_generated_ones() {
    let tree = Tree::new();
    let group = tree.iscsi(TARGET, 1);
    tree.lun(&group, 0, "user_0/lun0-a")
        .acl(&group, "iqn.x:1", 0, 0)
        .file(&format!("{group}/acls/iqn.x:1/cmdsn_depth"), "16\n")
        .file(&format!("{group}/attrib/default_cmdsn_depth"), "64\n");
    let windows = || {
        let groups = port_groups(tree.root()).expect("the tree is good");
        command_windows(tree.root(), &groups[0]).expect("the tree is good")
    };
    let of_acl = CommandWindow {
        path: tree.root().join(&group).join("acls/iqn.x:1/cmdsn_depth"),
        commands: 16,
    };
    assert_eq!(windows(), std::slice::from_ref(&of_acl));
    tree.file(&format!("{group}/attrib/generate_node_acls"), "1\n");
    let generated = CommandWindow {
        path: tree.root().join(&group).join("attrib/default_cmdsn_depth"),
        commands: 64,
    };
    assert_eq!(windows(), [of_acl, generated]);
}

#[test]
fn a_fabric_without_command_windows_has_none() {
    let tree = Tree::new();
    tree.lun("loopback/naa.5001405aa/tpgt_1", 0, "user_0/lun0-a");
    let groups = port_groups(tree.root()).expect("the tree is good");
    let windows = command_windows(tree.root(), &groups[0]);
    assert_eq!(windows.expect("the tree is good"), []);
}

#[test]
fn an_empty_or_missing_tree_has_no_port_groups() {
    let tree = Tree::new();
    tree.iscsi(TARGET, 1);
    assert_eq!(port_groups(tree.root()).expect("the tree is good"), []);
    let missing = port_groups(&tree.root().join("none"));
    assert_eq!(missing.expect("nothing is exported"), []);
}

#[test]
fn what_cannot_be_understood_is_an_error_and_not_left_out() {
    type Spoil = fn(&Tree, &str);
    let spoil: [(&str, Spoil); 4] = [
        ("another port group", |tree, group| {
            let target = "../../../../../../../target/iscsi/iqn.x:y/tpgt_1/lun/lun_0";
            tree.link(&format!("{group}/acls/iqn.x:1/lun_7/bad"), target);
        }),
        ("no write_protect value", |tree, group| {
            tree.file(
                &format!("{group}/acls/iqn.x:1/lun_0/write_protect"),
                "maybe\n",
            );
        }),
        ("no generate_node_acls value", |tree, group| {
            tree.file(&format!("{group}/attrib/generate_node_acls"), "\n");
        }),
        ("no LUN number", |tree, group| {
            fs::create_dir(tree.root().join(group).join("lun/lun_x")).expect("it is new");
        }),
    ];
    for (what, spoil) in spoil {
        let tree = Tree::new();
        let group = tree.iscsi(TARGET, 1);
        tree.lun(&group, 0, "user_0/lun0-a")
            .acl(&group, "iqn.x:1", 0, 0);
        assert!(port_groups(tree.root()).is_ok());
        spoil(&tree, &group);
        assert!(port_groups(tree.root()).is_err(), "{what}");
    }
}

#[test]
fn a_size_is_set_as_a_number_of_bytes() {
    let tree = Tree::new();
    let backstore = tree.backstore("user_0", "lun0-a");
    backstore.set_size(2 << 30).expect("it is writable");
    assert_eq!(
        tree.content("core/user_0/lun0-a/attrib/dev_size"),
        "2147483648"
    );
    assert_eq!(backstore.size_bytes().expect("it is a number"), 2 << 30);
}
