//! The kernel's side is written here by hand, byte by byte.

use super::*;

const MINOR: u32 = 3;

struct Bench {
    notes: Notes,
}

/// What stands for a session: its slot's bytes.
struct Slot<'a> {
    generation: u32,
    isid: Option<[u8; 6]>,
    fabric: &'a str,
    target: &'a str,
    group: &'a str,
    initiator: &'a str,
}

const ISCSI: Slot<'static> = Slot {
    generation: 7,
    isid: Some([0x00, 0x02, 0x3d, 0x00, 0x00, 0x0a]),
    fabric: "iscsi",
    target: "iqn.2026-11.example:t",
    group: "tpgt_26",
    initiator: "iqn.2026-11.example:Node-A",
};

impl Bench {
    fn new() -> Bench {
        let region = |length: u64| {
            let length = usize::try_from(length).unwrap();
            Arc::new(Region::anonymous(length).unwrap())
        };
        let [notes, devices, sessions] = [256 * 8192 * 8, 256 * 24, 4096 * 584].map(region);
        let notes = Notes::new(17, notes, devices, sessions);
        Bench {
            notes: notes.unwrap(),
        }
    }

    /// Notes a command: `read_only`, generation, slot and number, as bits 60, 44, 32 and 0.
    fn note(&self, id: u16, word: u64) {
        let offset = (u64::from(MINOR) * 8192 + u64::from(id)) * 8;
        self.notes.notes.write(offset, &word).unwrap();
        let number = u32::try_from(word & 0xffff_ffff).unwrap();
        let of_device = u64::from(MINOR) * 24;
        self.notes.devices.write(of_device, &number).unwrap();
    }

    fn slot(&self, number: u64, slot: &Slot<'_>) {
        let at = number * 584;
        let write = |offset, bytes: &[u8]| self.notes.sessions.copy_in(at + offset, bytes).unwrap();
        write(0, &slot.generation.to_le_bytes());
        write(4, &[u8::from(slot.isid.is_some())]);
        write(5, &slot.isid.unwrap_or_default());
        for (offset, text) in [
            (12, slot.fabric),
            (44, slot.target),
            (300, slot.group),
            (328, slot.initiator),
        ] {
            write(offset, text.as_bytes());
            write(offset + text.len() as u64, &[0]);
        }
    }

    fn device(&self) -> DeviceNotes {
        self.notes.of_device(MINOR).unwrap()
    }
}

fn session(slot: u16, generation: u16) -> SessionId {
    SessionId { slot, generation }
}

#[test]
fn a_note_is_taken_once() {
    let bench = Bench::new();
    let mut device = bench.device();
    assert_eq!(device.take(5), Err(Missing::NotNoted));
    bench.note(5, 0x1abc_d123_0000_0001);
    let note = Note {
        session: session(0x123, 0xabcd),
        read_only: true,
    };
    assert_eq!(device.take(5), Ok(note));
    assert_eq!(device.take(5), Err(Missing::NotNoted), "it was taken");
    // The id comes back for another session.
    bench.note(5, 0x0000_1001_0000_0002);
    let note = Note {
        session: session(1, 1),
        read_only: false,
    };
    assert_eq!(device.take(5), Ok(note));
}

#[test]
fn a_command_that_was_not_noted_is_not_taken_for_the_one_before_it() {
    let bench = Bench::new();
    let mut device = bench.device();
    bench.note(1, 0x0000_0001_0000_0001);
    bench.note(2, 0x0000_0002_0000_0002);
    assert!(device.take(1).is_ok());
    assert!(device.take(2).is_ok());
    // Id 1 again, without a note; then one with.
    assert_eq!(device.take(1), Err(Missing::NotNoted));
    bench.note(3, 0x0000_0003_0000_0003);
    assert!(device.take(3).is_ok());
    assert_eq!(device.take(2), Err(Missing::NotNoted), "an older one");
}

#[test]
fn notes_of_commands_that_never_came_are_stepped_over() {
    let bench = Bench::new();
    let mut device = bench.device();
    bench.note(1, 0x0000_0001_0000_0001);
    bench.note(1, 0x0000_0001_0000_0003);
    assert_eq!(device.take(1), Err(Missing::OutOfStep));
    bench.note(2, 0x0000_0001_0000_0004);
    assert!(device.take(2).is_ok(), "in step again");
    // The ring was emptied: what was noted until then is for nobody.
    bench.note(3, 0x0000_0001_0000_0005);
    device.restart();
    assert_eq!(device.take(3), Err(Missing::NotNoted));
    bench.note(4, 0x0000_0001_0000_0006);
    assert!(device.take(4).is_ok());
}

#[test]
fn what_was_noted_before_a_reset_is_void() {
    let bench = Bench::new();
    let mut device = bench.device();
    bench.note(1, 0x0000_0001_0000_0001);
    bench
        .notes
        .devices
        .write(u64::from(MINOR) * 24 + 4, &1u32)
        .unwrap();
    assert_eq!(device.take(1), Err(Missing::OutOfStep));
    bench.note(1, 0x0000_0001_0000_0002);
    assert!(device.take(1).is_ok(), "in step again");
}

/// Where a daemon leaves off, with the number 1 taken and 2 not.
fn left(bench: &Bench) -> Place {
    let mut device = bench.device();
    bench.note(1, 0x0000_0001_0000_0001);
    assert!(device.take(1).is_ok());
    bench.note(2, 0x0000_0002_0000_0002);
    device.place()
}

#[test]
fn another_goes_on_where_one_has_left_off() {
    let bench = Bench::new();
    let place = left(&bench);
    let expected = Place {
        tap: 17,
        last: 1,
        resets: 0,
    };
    assert_eq!(place, expected);
    bench.note(3, 0x0000_0003_0000_0003);
    let mut device = bench.notes.go_on(MINOR, place).unwrap();
    assert_eq!(device.take(1), Err(Missing::NotNoted), "it was taken");
    assert_eq!(device.take(2).map(|note| note.session.slot()), Ok(2));
    assert_eq!(device.take(3).map(|note| note.session.slot()), Ok(3));
    assert_eq!(device.place(), Place { last: 3, ..place });
}

#[test]
fn what_was_noted_meanwhile_is_in_step_or_nobodys() {
    let bench = Bench::new();
    let place = left(&bench);
    let mut device = bench.notes.go_on(MINOR, place).unwrap();
    bench.note(3, 0x0000_0003_0000_0003);
    assert_eq!(device.take(3), Err(Missing::OutOfStep), "2 never came");
    let mut after = bench.notes.go_on(MINOR, Place { last: 3, ..place });
    let taken = after.as_mut().unwrap().take(3);
    assert_eq!(taken, Err(Missing::NotNoted));
}

#[test]
fn nobody_goes_on_with_another_tap_or_after_a_reset() {
    let bench = Bench::new();
    let place = left(&bench);
    let other_tap = Place { tap: 18, ..place };
    assert!(bench.notes.go_on(MINOR, other_tap).is_none());
    assert!(bench.notes.go_on(256, place).is_none(), "there is no room");
    let resets = u64::from(MINOR) * 24 + 4;
    bench.notes.devices.write(resets, &1u32).unwrap();
    assert!(bench.notes.go_on(MINOR, place).is_none());
    let since = Place { resets: 1, ..place };
    let mut device = bench.notes.go_on(MINOR, since).unwrap();
    bench.notes.devices.write(resets, &2u32).unwrap();
    assert_eq!(device.take(2), Err(Missing::OutOfStep), "reset since");
}

#[test]
fn numbers_go_round() {
    let bench = Bench::new();
    bench.note(1, 0x0000_0001_ffff_ffff);
    let mut device = bench.device();
    assert_eq!(device.take(1), Err(Missing::NotNoted), "noted before");
    bench.note(1, 0x0000_0001_0000_0000);
    assert!(device.take(1).is_ok());
    bench.note(1, 0x0000_0001_0000_0001);
    assert!(device.take(1).is_ok());
}

#[test]
fn an_id_or_a_device_without_room_has_no_notes() {
    let bench = Bench::new();
    let mut device = bench.device();
    assert_eq!(device.take(8192), Err(Missing::NotNoted));
    assert!(bench.notes.of_device(256).is_none());
    let mut last = bench.notes.of_device(255).unwrap();
    assert_eq!(last.take(8191), Err(Missing::NotNoted));
}

#[test]
fn whose_command_could_not_be_made_out_is_told() {
    let bench = Bench::new();
    let mut device = bench.device();
    bench.note(1, 0x0000_0000_0000_0001);
    assert_eq!(device.take(1), Err(Missing::Unidentified));
    bench.note(1, 0x0000_0001_0000_0002);
    assert!(device.take(1).is_ok(), "in step all the same");
}

#[test]
fn a_session_is_read_as_long_as_it_lives() {
    let bench = Bench::new();
    bench.slot(9, &ISCSI);
    let id = session(9, 7);
    let expected = Session {
        fabric: "iscsi".into(),
        target: "iqn.2026-11.example:t".into(),
        group: "tpgt_26".into(),
        initiator: "iqn.2026-11.example:Node-A".into(),
        isid: Some(0x0002_3d00_000a),
    };
    assert_eq!(bench.notes.session(id), Some(expected));
    let other = Slot {
        generation: 8,
        initiator: "iqn.2026-11.example:b",
        ..ISCSI
    };
    bench.slot(9, &other);
    assert_eq!(bench.notes.session(id), None);
    assert!(!bench.notes.is_live(id));
    assert!(bench.notes.is_live(session(9, 8)));
    // A note has room for 16 bits of the generation.
    bench.slot(
        9,
        &Slot {
            generation: 0x0001_0007,
            ..ISCSI
        },
    );
    assert!(bench.notes.is_live(id));
}

#[test]
fn a_text_that_is_none_or_too_long_is_not_taken_for_another() {
    assert_eq!(text(b"ab\0cd"), "ab");
    assert_eq!(text(b"\0"), "\u{fffd}");
    assert_eq!(text(b"\0\0"), "");
    assert_eq!(text(b"abc\0"), "\u{fffd}", "perhaps cut");
    assert_eq!(text(b"abcd"), "\u{fffd}");
    assert_eq!(text(b"\xff\0\0"), "\u{fffd}");
}

fn nexus(slot: &Slot<'_>) -> Result<String, Unidentified> {
    let bench = Bench::new();
    bench.slot(1, slot);
    let generation = u16::try_from(slot.generation).unwrap();
    let session = bench.notes.session(session(1, generation)).unwrap();
    session.nexus().map(|nexus| nexus.to_string())
}

#[test]
fn every_fabric_names_its_ports() {
    let of = |fabric, target, initiator| Slot {
        isid: None,
        fabric,
        target,
        initiator,
        group: "tpgt_1",
        ..ISCSI
    };
    for (slot, expected) in [
        (
            ISCSI,
            "iqn.2026-11.example:node-a,i,0x00023d00000a -> iqn.2026-11.example:t,t,0x001a",
        ),
        (
            of("fc", "50:01:43:80:12:34:56:78", "21:00:00:24:ff:31:4c:48"),
            "naa.21000024ff314c48 -> 50:01:43:80:12:34:56:78",
        ),
        (
            of(
                "srpt",
                "0xfe800000000000000002c903000e8acd",
                "0x0002c903000e8acd",
            ),
            "0x00000000000000000002c903000e8acd -> 0xfe800000000000000002c903000e8acd",
        ),
        // printf loopback/naa.5001405aa/1 | sha256sum: 4041d877d824e8ce...; NAA 3h instead of its first digit
        (
            of("loopback", "naa.5001405AA", "naa.6001405bb"),
            "naa.3041d877d824e8ce -> naa.5001405aa",
        ),
    ] {
        assert_eq!(nexus(&slot).as_deref(), Ok(expected));
    }
}

#[test]
fn another_name_that_was_made_up_is_the_same_port() {
    let vhost = |initiator, group| Slot {
        isid: None,
        fabric: "vhost",
        target: "naa.5001405aa",
        initiator,
        group,
        ..ISCSI
    };
    let before = nexus(&vhost("naa.6001405bb", "tpgt_1"));
    assert_eq!(nexus(&vhost("naa.6001405cc", "tpgt_1")), before);
    assert_ne!(nexus(&vhost("naa.6001405bb", "tpgt_2")), before);
}

#[test]
fn isids_and_port_groups_make_nexuses() {
    let session = nexus(&ISCSI);
    let other_isid = Slot {
        isid: Some([0x00, 0x02, 0x3d, 0x00, 0x00, 0x0b]),
        ..ISCSI
    };
    let other_group = Slot {
        group: "tpgt_2",
        ..ISCSI
    };
    assert_ne!(nexus(&other_isid), session);
    assert_ne!(nexus(&other_group), session);
    let again = Slot {
        generation: 9,
        ..ISCSI
    };
    assert_eq!(nexus(&again), session, "a new login with the same ISID");
}

#[test]
fn who_can_not_be_named_is_nobody() {
    let long = "x".repeat(255);
    type Check = fn(&Unidentified) -> bool;
    let table: [(Slot<'_>, Check); 7] = [
        (
            Slot {
                initiator: "",
                ..ISCSI
            },
            |why| *why == Unidentified::NoInitiator,
        ),
        (
            Slot {
                fabric: "usb_gadget",
                ..ISCSI
            },
            |why| *why == Unidentified::UnknownFabric("usb_gadget".into()),
        ),
        (
            Slot {
                isid: None,
                ..ISCSI
            },
            |why| *why == Unidentified::NoIsid,
        ),
        (
            Slot {
                group: "tpgt_x",
                ..ISCSI
            },
            |why| matches!(why, Unidentified::Group(_)),
        ),
        (
            // The kernel's port group 8.
            Slot {
                group: "tpgt_010",
                ..ISCSI
            },
            |why| matches!(why, Unidentified::Group(_)),
        ),
        (
            Slot {
                target: &long,
                ..ISCSI
            },
            |why| matches!(why, Unidentified::TargetName(_)),
        ),
        (
            Slot {
                initiator: "node a",
                ..ISCSI
            },
            |why| matches!(why, Unidentified::InitiatorName { .. }),
        ),
    ];
    for (slot, check) in table {
        let why = nexus(&slot).unwrap_err();
        assert!(check(&why), "{why}");
    }
}

#[test]
fn who_is_not_in_the_target_configuration_is_not_logged_in() {
    use crate::tcmu::configfs::{Session as LoggedIn, port_groups, tests::Tree};
    let who = |initiator, isid, target: &str, group| {
        let slot = Slot {
            isid: Some([0, 2, 0x3d, 0, 0, isid]),
            target,
            group,
            initiator,
            ..ISCSI
        };
        let bench = Bench::new();
        bench.slot(1, &slot);
        let nexus = bench.notes.session(session(1, 7)).unwrap().nexus();
        nexus.unwrap()
    };
    let tree = Tree::new();
    let target = "iqn.2026-11.example:t";
    let group = tree.iscsi(target, 1);
    tree.lun(&group, 0, "user_0/lun0");
    let logged_in = |initiator, group| {
        let groups = port_groups(tree.root()).unwrap();
        session_of(&groups, &who(initiator, 1, target, group))
    };
    assert_eq!(logged_in("iqn.2026-11.example:a", "tpgt_1"), LoggedIn::None);
    tree.file(
        &format!("{group}/dynamic_sessions"),
        "iqn.2026-11.example:A\n",
    );
    assert_eq!(
        logged_in("iqn.2026-11.example:a", "tpgt_1"),
        LoggedIn::Unknown
    );
    assert_eq!(
        logged_in("iqn.2026-11.example:a", "tpgt_2"),
        LoggedIn::None,
        "another port"
    );
    assert_eq!(logged_in("iqn.2026-11.example:b", "tpgt_1"), LoggedIn::None);
    tree.acl(&group, "iqn.2026-11.example:b", 0, 0);
    tree.file(&format!("{group}/acls/iqn.2026-11.example:b/info"), "?\n");
    assert_eq!(
        logged_in("iqn.2026-11.example:b", "tpgt_1"),
        LoggedIn::Unknown
    );
}
