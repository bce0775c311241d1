use super::*;
use crate::lu::UnitState;
use crate::pr::out::{self, Cdb, Context};
use crate::scsi::mode::Values;
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};

pub(super) const BOOT: &str = "11111111-1111-1111-1111-111111111111";
pub(super) const NEXT_BOOT: &str = "22222222-2222-2222-2222-222222222222";
const SERIAL: &str = "0123456789abcdef0123456789abcdef";

pub(super) struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    pub(super) fn new() -> Node {
        Node {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The records as a daemon finds them that starts under this boot.
    pub(super) fn records(&self, boot_id: &str) -> Records {
        let folder = self.folder.path();
        let records = Records::open(&folder.join("run"), &folder.join("state")).unwrap();
        Records {
            boot_id: boot_id.to_owned(),
            ..records
        }
    }

    fn run_record(&self) -> PathBuf {
        self.folder
            .path()
            .join("run")
            .join(SERIAL)
            .with_extension("pr")
    }

    fn state_record(&self) -> PathBuf {
        self.folder
            .path()
            .join("state")
            .join(SERIAL)
            .with_extension("pr")
    }
}

/// One registrant, as REGISTER makes it.
fn registered(aptpl: bool) -> Reservations {
    let issuer = ItNexus {
        initiator_port: TransportId::Sas(0x3000_0000_0000_0001),
        target_port: TargetPort {
            protocol: Protocol::Sas,
            name: "naa.1".into(),
        },
    };
    let mut list = [0; 24];
    list[15] = 0xa;
    list[20] = u8::from(aptpl);
    let cdb = Cdb {
        service_action: 0,
        scope_type: 0,
        parameter_list_length: 24,
    };
    let none = Reservations::default();
    out::answer(&none, &issuer, cdb, &list, &Context::default())
        .unwrap()
        .next
}

fn to_store(next: &Reservations, save: Save) -> ToStore {
    ToStore {
        next: next.clone(),
        save,
        attentions: Vec::new(),
        state: None,
        set_aside: false,
        cause: None,
    }
}

#[test]
fn a_unit_keeps_its_serial_number_and_its_target_ports() {
    let node = Node::new();
    let path = Path::new("/srv/lun0.img");
    let mut unit = node.records(BOOT).unit(path).unwrap();
    assert_eq!(unit.serial.len(), 32);
    assert!(unit.serial.bytes().all(|digit| digit.is_ascii_hexdigit()));
    unit.target_ports.add(&TargetPort {
        protocol: Protocol::Iscsi,
        name: "iqn.x,t,0x0001".into(),
    });
    node.records(BOOT).save_unit(&unit).unwrap();
    assert_eq!(node.records(NEXT_BOOT).unit(path).unwrap(), unit);
    let other = node.records(BOOT).unit(Path::new("/srv/lun1.img")).unwrap();
    assert_ne!(other.serial, unit.serial);
}

#[test]
fn a_damaged_unit_record_is_an_error_and_not_a_new_unit() {
    let node = Node::new();
    let path = Path::new("/srv/lun0.img");
    let records = node.records(BOOT);
    records.unit(path).unwrap();
    let file = records.unit_path(path);
    for damage in [
        "",
        "version = 2\n",
        "version = 1\npath = \"/srv/lun0.img\"\n",
        "\u{0}",
    ] {
        fs::write(&file, damage).unwrap();
        let error = records.unit(path).unwrap_err();
        assert!(
            error.to_string().contains(&file.display().to_string()),
            "{error}"
        );
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            damage,
            "it is left as it is"
        );
    }
}

#[test]
fn without_a_record_there_was_a_power_on_and_nobody_is_registered() {
    let kept = Node::new().records(BOOT).reservations(SERIAL).unwrap();
    assert_eq!(kept.reservations, Reservations::default());
    assert!(kept.power_on);
}

#[test]
fn a_restart_of_the_daemon_loses_nothing() {
    for aptpl in [false, true] {
        let node = Node::new();
        let reservations = registered(aptpl);
        let save = if aptpl { Save::Durable } else { Save::Runtime };
        node.records(BOOT)
            .keeper(SERIAL)
            .save(&to_store(&reservations, save))
            .unwrap();
        let kept = node.records(BOOT).reservations(SERIAL).unwrap();
        assert_eq!(kept.reservations, reservations);
        assert!(!kept.power_on);
    }
}

#[test]
fn a_loss_of_power_loses_what_aptpl_did_not_keep() {
    let node = Node::new();
    node.records(BOOT)
        .keeper(SERIAL)
        .save(&to_store(&registered(false), Save::Runtime))
        .unwrap();
    let kept = node.records(NEXT_BOOT).reservations(SERIAL).unwrap();
    assert_eq!(kept.reservations, Reservations::default());
    assert!(kept.power_on);
}

#[test]
fn a_loss_of_power_loses_nothing_that_aptpl_kept_but_the_generation() {
    let node = Node::new();
    let reservations = registered(true);
    node.records(BOOT)
        .keeper(SERIAL)
        .save(&to_store(&reservations, Save::Durable))
        .unwrap();
    fs::remove_file(node.run_record()).unwrap();
    let kept = node.records(NEXT_BOOT).reservations(SERIAL).unwrap();
    assert_eq!(kept.reservations.registrants(), reservations.registrants());
    assert_eq!(kept.reservations.generation(), 0);
    assert!(kept.power_on);
}

#[test]
fn switching_aptpl_off_erases_what_was_kept() {
    let node = Node::new();
    let mut keeper = node.records(BOOT).keeper(SERIAL);
    keeper
        .save(&to_store(&registered(true), Save::Durable))
        .unwrap();
    assert!(node.state_record().exists());
    keeper
        .save(&to_store(&registered(false), Save::Durable))
        .unwrap();
    assert!(!node.state_record().exists());
    let kept = node.records(NEXT_BOOT).reservations(SERIAL).unwrap();
    assert_eq!(kept.reservations, Reservations::default());
}

#[test]
fn a_change_that_cannot_be_made_durable_is_not_found_by_a_restart() {
    let node = Node::new();
    let mut keeper = node.records(BOOT).keeper(SERIAL);
    keeper
        .save(&to_store(&registered(false), Save::Runtime))
        .unwrap();
    // A folder where the new record would be written.
    fs::create_dir(node.state_record().with_extension("pr.new")).unwrap();
    keeper
        .save(&to_store(&registered(true), Save::Durable))
        .unwrap_err();
    let kept = node.records(BOOT).reservations(SERIAL).unwrap();
    assert_eq!(kept.reservations, registered(false));
}

impl Node {
    /// No new record can be written to the disk.
    fn fill_disk(&self) {
        fs::create_dir(self.state_record().with_extension("pr.new")).unwrap();
    }
}

#[test]
fn a_change_for_which_there_is_no_space_keeps_no_other_from_being_stored() {
    let node = Node::new();
    let mut keeper = node.records(BOOT).keeper(SERIAL);
    keeper
        .save(&to_store(&registered(true), Save::Durable))
        .unwrap();
    node.fill_disk();
    keeper
        .save(&to_store(&registered(true), Save::Durable))
        .unwrap_err();
    keeper
        .save(&to_store(&registered(true), Save::Runtime))
        .expect("this one needs no space there");
}

#[test]
fn a_unit_is_served_on_a_full_disk_if_a_loss_of_power_finds_the_same() {
    for aptpl in [false, true] {
        let node = Node::new();
        let records = node.records(BOOT);
        let stored = to_store(&registered(aptpl), Save::Durable);
        records.keeper(SERIAL).save(&stored).unwrap();
        node.fill_disk();
        for boot in [BOOT, NEXT_BOOT, NEXT_BOOT] {
            let records = node.records(boot);
            let kept = records.reservations(SERIAL).unwrap();
            records.begin(SERIAL, &kept).unwrap();
            let again = records.reservations(SERIAL).unwrap();
            assert!(!again.power_on);
            assert_eq!(again.reservations, kept.reservations);
        }
        let found = node.records(BOOT).reservations(SERIAL).unwrap();
        assert_eq!(found.reservations.registrants().len(), usize::from(aptpl));
    }
}

#[test]
fn a_unit_is_not_served_on_a_full_disk_if_a_loss_of_power_found_what_is_not_so() {
    let node = Node::new();
    let records = node.records(BOOT);
    // As a crash between the two leaves it: APTPL was to be switched off, or on.
    for (lasts, rules) in [(true, false), (false, true)] {
        let of = |aptpl, save| to_store(&registered(aptpl), save);
        let mut keeper = records.keeper(SERIAL);
        keeper.save(&of(lasts, Save::Durable)).unwrap();
        keeper.save(&of(rules, Save::Runtime)).unwrap();
        let kept = records.reservations(SERIAL).unwrap();
        if rules {
            node.fill_disk();
            records.begin(SERIAL, &kept).unwrap_err();
        } else {
            records.begin(SERIAL, &kept).unwrap();
            assert!(!node.state_record().exists());
        }
    }
}

#[test]
fn a_damaged_record_is_an_error_that_names_it_and_is_left_alone() {
    for durable in [false, true] {
        let node = Node::new();
        node.records(BOOT)
            .keeper(SERIAL)
            .save(&to_store(&registered(true), Save::Durable))
            .unwrap();
        let (file, boot) = match durable {
            false => (node.run_record(), BOOT),
            true => {
                fs::remove_file(node.run_record()).unwrap();
                (node.state_record(), NEXT_BOOT)
            }
        };
        let mut text = fs::read_to_string(&file).unwrap();
        text.truncate(text.len() / 2);
        fs::write(&file, &text).unwrap();
        let error = node.records(boot).reservations(SERIAL).unwrap_err();
        assert!(
            error.to_string().contains(&file.display().to_string()),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn a_record_of_another_unit_is_refused() {
    let node = Node::new();
    node.records(BOOT)
        .keeper(SERIAL)
        .save(&to_store(&registered(true), Save::Durable))
        .unwrap();
    let other = node.run_record().with_file_name("other.pr");
    fs::copy(node.run_record(), other).unwrap();
    node.records(BOOT).reservations("other").unwrap_err();
}

#[test]
fn a_removed_unit_keeps_what_aptpl_keeps() {
    let node = Node::new();
    let records = node.records(BOOT);
    records
        .keeper(SERIAL)
        .save(&to_store(&registered(true), Save::Durable))
        .unwrap();
    records.power_off(SERIAL).unwrap();
    let kept = records.reservations(SERIAL).unwrap();
    assert_eq!(kept.reservations.registrants().len(), 1);
    assert!(kept.power_on);
}

#[test]
fn unit_attentions_outlive_the_daemon_and_no_loss_of_power() {
    let node = Node::new();
    let nexus = registered(true)
        .registrants()
        .iter()
        .next()
        .unwrap()
        .nexus
        .clone();
    let attentions = vec![(nexus, Sense::registrations_preempted())];
    let to_store = ToStore {
        attentions: attentions.clone(),
        ..to_store(&registered(true), Save::Durable)
    };
    node.records(BOOT).keeper(SERIAL).save(&to_store).unwrap();
    let kept = node.records(BOOT).reservations(SERIAL).unwrap();
    assert_eq!(kept.attentions, attentions);
    let kept = node.records(NEXT_BOOT).reservations(SERIAL).unwrap();
    assert!(kept.attentions.is_empty());
    assert_eq!(kept.reservations.registrants().len(), 1);
}

#[test]
fn records_that_cannot_be_read_are_set_aside_and_others_take_their_place() {
    let node = Node::new();
    let mut keeper = node.records(BOOT).keeper(SERIAL);
    fs::write(node.run_record(), "torn").unwrap();
    fs::write(node.state_record(), "torn, too").unwrap();
    let to_store = ToStore {
        state: None,
        set_aside: true,
        cause: None,
        ..to_store(&Reservations::default(), Save::Durable)
    };
    keeper.save(&to_store).unwrap();
    for (record, content) in [
        (node.run_record(), "torn"),
        (node.state_record(), "torn, too"),
    ] {
        let aside = record.with_extension("pr.unreadable-1");
        assert_eq!(fs::read_to_string(aside).unwrap(), content);
    }
    let kept = node.records(BOOT).reservations(SERIAL).unwrap();
    assert_eq!(kept.reservations, Reservations::default());
    assert!(!kept.power_on);
}

fn state_to_store(state: UnitState) -> ToStore {
    ToStore {
        state: Some(state),
        ..to_store(&Reservations::default(), Save::Runtime)
    }
}

#[test]
fn what_a_unit_keeps_besides_is_text_with_a_checksum() {
    let node = Node::new();
    let values = Values {
        write_cache_enabled: true,
        software_write_protect: false,
    };
    let state = UnitState {
        selected: Some(values),
        saved: Some(Values {
            software_write_protect: true,
            ..values
        }),
        flush_failed: true,
    };
    let records = node.records(BOOT);
    assert_eq!(records.state(SERIAL).unwrap(), UnitState::default());
    records.keeper(SERIAL).save(&state_to_store(state)).unwrap();
    assert_eq!(records.state(SERIAL).unwrap(), state);
    let run = fs::read_to_string(node.run_record().with_extension("mode")).unwrap();
    let (first, rest) = run.split_once("unit = ").unwrap();
    assert_eq!(first.len(), "version = 1\nchecksum = \"00000000\"\n".len());
    assert!(first.starts_with("version = 1\nchecksum = \""), "{first}");
    let expected = format!(
        "\"{SERIAL}\"\nboot_id = \"{BOOT}\"\nflush_failed = true\n\n[values]\nwrite_cache_enabled = true\n\
         software_write_protect = false\n"
    );
    assert_eq!(rest, expected);
    records.power_off(SERIAL).unwrap();
    let after = UnitState {
        saved: state.saved,
        ..UnitState::default()
    };
    assert_eq!(records.state(SERIAL).unwrap(), after);
}

#[test]
fn a_damaged_record_of_a_state_is_an_error_wherever_it_is() {
    let node = Node::new();
    let records = node.records(BOOT);
    let state = UnitState {
        selected: Some(Values::default()),
        saved: Some(Values::default()),
        flush_failed: true,
    };
    records.keeper(SERIAL).save(&state_to_store(state)).unwrap();
    for path in [node.run_record(), node.state_record()] {
        let path = path.with_extension("mode");
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            String::new(),
            text.replacen("protect = false", "protect = true", 1),
            text[..text.len() - 1].to_owned(),
            text.replace("version = 1", "version = 2"),
        ] {
            fs::write(&path, damaged).unwrap();
            let error = records.state(SERIAL).unwrap_err();
            assert!(matches!(error, Error::State { .. }), "{error}");
        }
        fs::write(&path, text).unwrap();
        assert_eq!(records.state(SERIAL).unwrap(), state);
    }
    let other = "fedcba9876543210fedcba9876543210";
    fs::rename(
        node.run_record().with_extension("mode"),
        node.folder
            .path()
            .join("run")
            .join(other)
            .with_extension("mode"),
    )
    .unwrap();
    assert!(records.state(other).is_err(), "another unit's");
}
