//! Whether initiators that have an ACL are logged in.
//!
//! The kernel announces neither logins nor logouts, it only shows how things are. iSCSI shows the newest session
//! of an ACL in its file `info`:
//!
//! ```text
//! No active iSCSI Session for Initiator Endpoint: iqn.2026-11.example:a
//! ```
//!
//! or
//!
//! ```text
//! InitiatorName: iqn.2026-11.example:a
//! InitiatorAlias: (none)
//! LIO Session ID: 3   ISID: 0x00 02 3d 00 00 03  TSIH: 3  SessionType: Normal
//! Session State: TARG_SESS_STATE_LOGGED_IN
//! ...
//! CID: 0  Connection State: TARG_CONN_STATE_LOGGED_IN
//! ```
//!
//! The session ID is the next number of the port group, and never that of an earlier session. Older sessions of the
//! same ACL are hidden; only how many the whole target has can be read beside, in `iscsi_instance/sessions`.
//!
//! Of other fabrics with ACLs it can be told whether there is a session, by a statistic that every fabric has, but not
//! whether it is the one that was there before.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Error, PortGroup, directories, read, read_number};

/// Whether an initiator is logged in to a port group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It is not.
    None,
    /// It is leaving: the session that is shown does not work any more, and is still there.
    Ending,
    /// It is, by this session and no other. The port group gives each number once.
    Only(u32),
    /// It may be, with any number of sessions, or it can't be seen.
    Unknown,
}

/// Finds the sessions of a target's port groups. Those that can't be seen stay unknown.
pub(super) fn look(fabric: &str, target: &Path, groups: &mut [PortGroup]) {
    if fabric == "iscsi" {
        look_at_iscsi(target, groups);
        return;
    }
    for group in groups {
        let acls = target.join(format!("tpgt_{}", group.tag)).join("acls");
        for acl in &mut group.acls {
            if let Some(lun) = acl.luns.first() {
                let lun = acls
                    .join(&acl.initiator)
                    .join(format!("lun_{}", lun.number));
                acl.session = by_index(read(&lun.join("statistics/scsi_att_intr_port/indx")));
            }
        }
    }
}

/// The index of the session, which is the same for all of them: there is one, or there is none.
fn by_index(index: Result<String, Error>) -> Session {
    match index {
        Err(Error::Read { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            Session::None
        }
        _ => Session::Unknown,
    }
}

/// What is shown of an initiator's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    None,
    /// The newest.
    Newest {
        number: u32,
        works: bool,
    },
}

/// The sessions that are shown, by port group and initiator; `None` where it makes no sense.
type AllShown = BTreeMap<(String, String), Option<Shown>>;

fn look_at_iscsi(target: &Path, groups: &mut [PortGroup]) {
    let before = all_shown(target);
    let count = read_number::<usize>(&target.join("fabric_statistics/iscsi_instance/sessions"));
    let after = all_shown(target);
    let (Ok(before), Ok(after)) = (before, after) else {
        return;
    };
    let hidden = !count.is_ok_and(|count| all_are_shown(&before, count, &after));
    for group in groups {
        let tag = format!("tpgt_{}", group.tag);
        for acl in &mut group.acls {
            let key = (tag.clone(), acl.initiator.clone());
            acl.session = match after.get(&key).copied().flatten() {
                Some(Shown::None) => Session::None,
                Some(Shown::Newest { works: false, .. }) => Session::Ending,
                Some(Shown::Newest { number, .. }) if !hidden => Session::Only(number),
                _ => Session::Unknown,
            };
        }
    }
}

/// Whether each session is shown, so that none is hidden behind a newer one.
///
/// A session that was shown before the sessions were counted, and afterwards too, is one of those counted.
fn all_are_shown(before: &AllShown, count: usize, after: &AllShown) -> bool {
    let is_session = |shown: &&Option<Shown>| matches!(shown, Some(Shown::Newest { .. }));
    before == after
        && after.values().all(Option::is_some)
        && after.values().filter(is_session).count() == count
}

fn all_shown(target: &Path) -> Result<AllShown, Error> {
    let mut all = AllShown::new();
    for group in directories(target)?.filter(|group| group.name.starts_with("tpgt_")) {
        for acl in directories(&group.path.join("acls"))? {
            let shown = read(&acl.path.join("info")).ok();
            let key = (group.name.clone(), acl.name);
            all.insert(key, shown.and_then(|info| parse(&info)));
        }
    }
    Ok(all)
}

fn parse(info: &str) -> Option<Shown> {
    if info.starts_with("No active iSCSI Session") {
        return Some(Shown::None);
    }
    let after = |words: &'static str| info.lines().filter_map(move |line| line.split_once(words));
    let (_, session) = after("LIO Session ID: ").next()?;
    let (_, state) = after("Session State: ").next()?;
    Some(Shown::Newest {
        number: session.split(' ').next()?.parse().ok()?,
        works: state == "TARG_SESS_STATE_LOGGED_IN"
            && after("Connection State: ").any(|(_, state)| state == "TARG_CONN_STATE_LOGGED_IN"),
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::tcmu::configfs::port_groups;
    use crate::tcmu::configfs::tests::Tree;

    /// As Linux 6.1 shows it.
    const NONE: &str =
        "No active iSCSI Session for Initiator Endpoint: iqn.2025-01.org.tcmu-pr:a\n";
    const LOGGED_IN: &str = "\
InitiatorName: iqn.2025-01.org.tcmu-pr:a
InitiatorAlias: (none)
LIO Session ID: 3   ISID: 0x00 02 3d 00 00 03  TSIH: 3  SessionType: Normal
Session State: TARG_SESS_STATE_LOGGED_IN
---------------------[iSCSI Session Values]-----------------------
  CmdSN/WR  :  CmdSN/WC  :  ExpCmdSN  :  MaxCmdSN  :     ITT    :     TTT
 0x00000040   0x00000040   0x00000025   0x00000064   0x00000025   0x00000023
----------------------[iSCSI Connections]-------------------------
CID: 0  Connection State: TARG_CONN_STATE_LOGGED_IN
   Address 127.0.0.1 TCP  StatSN: 0x0c3007bf
";

    const GROUP: &str = "iscsi/iqn.x:t/tpgt_1";

    /// Two initiators with ACLs, of which `a` has the file `info`, and the second has session 9 if any.
    fn sessions(info: &str, other: bool, count: &str) -> Session {
        let tree = Tree::new();
        tree.backstore("user_0", "lun0");
        let group = tree.iscsi("iqn.x:t", 1);
        tree.lun(&group, 0, "user_0/lun0")
            .acl(&group, "iqn.x:a", 0, 0)
            .acl(&group, "iqn.x:b", 1, 0);
        tree.file(&format!("{GROUP}/acls/iqn.x:a/info"), info);
        if other {
            let info = LOGGED_IN.replace("LIO Session ID: 3", "LIO Session ID: 9");
            tree.file(&format!("{GROUP}/acls/iqn.x:b/info"), &info);
        }
        let statistic = "iscsi/iqn.x:t/fabric_statistics/iscsi_instance/sessions";
        tree.file(statistic, count);
        let groups = port_groups(tree.root()).unwrap();
        groups[0].acls[0].session
    }

    #[test]
    fn who_is_not_logged_in_has_no_session_whatever_others_have() {
        assert_eq!(sessions(NONE, false, "0\n"), Session::None);
        assert_eq!(sessions(NONE, true, "7\n"), Session::None);
    }

    #[test]
    fn a_session_is_the_only_one_if_all_that_are_counted_are_shown() {
        assert_eq!(sessions(LOGGED_IN, false, "1\n"), Session::Only(3));
        assert_eq!(sessions(LOGGED_IN, true, "2\n"), Session::Only(3));
        assert_eq!(sessions(LOGGED_IN, true, "3\n"), Session::Unknown);
        assert_eq!(sessions(LOGGED_IN, true, "1\n"), Session::Unknown);
        assert_eq!(sessions(LOGGED_IN, false, "?\n"), Session::Unknown);
    }

    #[test]
    fn a_session_that_does_not_work_any_more_is_ending() {
        for (word, other) in [
            ("TARG_SESS_STATE_LOGGED_IN", "TARG_SESS_STATE_FAILED"),
            ("TARG_CONN_STATE_LOGGED_IN", "TARG_CONN_STATE_IN_LOGOUT"),
        ] {
            let info = LOGGED_IN.replace(word, other);
            assert_eq!(sessions(&info, false, "1\n"), Session::Ending, "{other}");
        }
    }

    #[test]
    fn words_that_are_not_known_say_nothing() {
        for info in [
            "",
            "Nobody\n",
            &LOGGED_IN.replace("ID: 3 ", "ID: three "),
            &LOGGED_IN.replace("Session State", "State"),
        ] {
            assert_eq!(sessions(info, false, "1\n"), Session::Unknown, "{info}");
        }
    }

    #[test]
    fn a_session_that_changes_while_it_is_looked_at_may_hide_another() {
        let shown = |number| {
            let shown = Shown::Newest {
                number,
                works: true,
            };
            let key = ("tpgt_1".to_owned(), "iqn.x:a".to_owned());
            AllShown::from([(key, Some(shown))])
        };
        assert!(all_are_shown(&shown(3), 1, &shown(3)));
        assert!(!all_are_shown(&shown(3), 1, &shown(4)));
    }

    #[test]
    fn other_fabrics_tell_that_there_is_no_session_by_an_error() {
        let failed = |errno| {
            Err(Error::Read {
                path: PathBuf::from("indx"),
                source: io::Error::from_raw_os_error(errno),
            })
        };
        assert_eq!(by_index(failed(libc::ENODEV)), Session::None);
        assert_eq!(by_index(failed(libc::ENOENT)), Session::Unknown);
        assert_eq!(by_index(Ok("0".into())), Session::Unknown);
    }
}
