//! The history and the log of a unit, without a kernel.

use tempfile::TempDir;

use super::*;
use crate::lu::Attempt;
use crate::pr::Save;
use crate::pr::event::{Act, Cause};
use crate::pr::out::{Action, Context, Request, decide};
use crate::scsi::nexus::{Protocol, TargetPort, TransportId};

const SERIAL: &str = "6001405a";
const SOON: Duration = Duration::from_secs(20);

struct Unit {
    folder: TempDir,
    reservations: Reservations,
    history: History,
    now: Instant,
}

fn nexus(name: &str) -> Arc<ItNexus> {
    let name = format!("iqn.2026-11.example:{name}");
    Arc::new(ItNexus {
        initiator_port: TransportId::iscsi(&name, None).unwrap(),
        target_port: TargetPort {
            protocol: Protocol::Iscsi,
            name: "iqn.2026-11.example:t,t,0x0001".into(),
        },
    })
}

fn begin(folder: &TempDir, reservations: &Reservations, beginning: Beginning) -> History {
    History::begin(
        history::path(folder.path(), SERIAL),
        "/srv/lun0.img".to_owned(),
        SERIAL.to_owned(),
        State::from(reservations),
        beginning,
    )
}

impl Unit {
    fn new() -> Unit {
        let folder = tempfile::tempdir().unwrap();
        let reservations = Reservations::default();
        let history = begin(&folder, &reservations, Beginning::Known);
        Unit {
            folder,
            reservations,
            history,
            now: Instant::now(),
        }
    }

    /// The daemon ends, and the next one begins.
    fn restart(&mut self, beginning: Beginning) {
        self.history = begin(&self.folder, &self.reservations, beginning);
    }

    /// Changes the reservations, and takes note of it.
    fn change(&mut self, by: &Arc<ItNexus>, act: Act, keys: [u64; 2]) {
        let action = match act {
            Act::Register => Action::Register {
                listed: None,
                all_tg_pt: false,
                aptpl: false,
            },
            Act::Reserve => Action::Reserve {
                kind: Ok(crate::pr::Type::WriteExclusiveRegistrantsOnly),
            },
            Act::Preempt => Action::Preempt {
                kind: Ok(crate::pr::Type::WriteExclusiveRegistrantsOnly),
            },
            _ => panic!("{act} is not used here"),
        };
        let request = Request {
            reservation_key: keys[0],
            service_action_key: keys[1],
            misplaced_spec_i_pt: false,
            action,
        };
        let before = self.reservations.clone();
        let change = decide(&before, by, &request, &Context::default()).unwrap();
        self.reservations = change.next.clone();
        let to_store = ToStore {
            next: change.next,
            save: Save::Runtime,
            attentions: Vec::new(),
            state: None,
            set_aside: false,
            cause: Some(Cause {
                act,
                by: Some(Arc::clone(by)),
                before,
            }),
        };
        self.note(Note::InForce(Box::new(to_store)));
    }

    fn refuse(&mut self, whose: &Arc<ItNexus>, attempt: Option<Attempt>) {
        let refused = RefusedCommands {
            nexus: Arc::clone(whose),
            operation: "WRITE(10)",
            attempt,
            count: 1,
        };
        self.note(Note::Refused(refused));
    }

    fn note(&mut self, note: Note) {
        self.history.take_note(note, self.now);
    }

    /// What, and what else is said of it.
    fn told(&self) -> Vec<(String, String)> {
        let found = history::read(&history::path(self.folder.path(), SERIAL)).unwrap();
        assert_eq!(found.unreadable, 0);
        let entries = found.entries.iter();
        entries
            .map(|entry| (entry.kind.to_string(), entry.to_string()))
            .collect()
    }

    fn kinds(&self) -> Vec<String> {
        self.told().into_iter().map(|(kind, _)| kind).collect()
    }
}

#[test]
fn a_fencing_is_told_from_the_registration_to_the_first_refusal() {
    let mut unit = Unit::new();
    let (a, b) = (nexus("a"), nexus("b"));
    unit.refuse(&a, None);
    unit.change(&a, Act::Register, [0, 0xa1]);
    unit.change(&b, Act::Register, [0, 0xb2]);
    unit.change(&a, Act::Reserve, [0xa1, 0]);
    unit.change(&b, Act::Preempt, [0xb2, 0xa1]);
    unit.refuse(&a, None);
    unit.note(Note::MoreRefused(Withheld {
        of: Some((Arc::clone(&a), false)),
        count: 41,
    }));
    let name_a = "iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001";
    let name_b = "iqn.2026-11.example:b -> iqn.2026-11.example:t,t,0x0001";
    let held = "Write Exclusive, Registrants Only, held by";
    let expected = [
        ("started", "0 registered, generation 0".to_owned()),
        (
            "REGISTER",
            "key 0x00000000000000a1 registered; 1 registered, generation 1".to_owned(),
        ),
        (
            "REGISTER",
            "key 0x00000000000000b2 registered; 2 registered, generation 2".to_owned(),
        ),
        (
            "RESERVE",
            format!("{held} {name_a}; 2 registered, generation 2"),
        ),
        (
            "PREEMPT",
            format!(
                "key 0x00000000000000a1 of {name_a} removed; {held} {name_b}; 1 registered, generation 3"
            ),
        ),
        ("refused", "WRITE(10)".to_owned()),
        ("refused", "41 more commands".to_owned()),
    ];
    let expected = expected.map(|(kind, text)| (kind.to_owned(), text));
    assert_eq!(unit.told(), expected);
}

#[test]
fn a_persistent_reserve_out_that_is_refused_is_told_and_other_commands_of_strangers_are_not() {
    let mut unit = Unit::new();
    unit.refuse(&nexus("a"), None);
    let attempt = Attempt {
        act: Some(Act::Preempt),
        key: 0xdead,
    };
    unit.refuse(&nexus("a"), Some(attempt));
    let said = "PREEMPT with key 0x000000000000dead";
    let expected = [("started", "0 registered, generation 0"), ("refused", said)];
    let expected = expected.map(|(kind, text)| (kind.to_owned(), text.to_owned()));
    assert_eq!(unit.told(), expected);
}

#[test]
fn the_history_goes_on_after_a_restart() {
    let mut unit = Unit::new();
    unit.change(&nexus("a"), Act::Register, [0, 0xa1]);
    unit.restart(Beginning::Known);
    unit.change(&nexus("b"), Act::Register, [0, 0xb2]);
    assert_eq!(unit.kinds(), ["started", "REGISTER", "started", "REGISTER"]);
}

#[test]
fn what_the_last_daemon_could_not_note_is_a_gap() {
    let mut unit = Unit::new();
    let mut killed = Unit::new();
    killed.change(&nexus("a"), Act::Register, [0, 0xa1]);
    unit.reservations = killed.reservations;
    unit.restart(Beginning::Known);
    assert_eq!(unit.kinds(), ["started", "gap", "started"]);
}

#[test]
fn a_loss_of_power_tells_what_is_gone() {
    let mut unit = Unit::new();
    unit.change(&nexus("a"), Act::Register, [0, 0xa1]);
    unit.change(&nexus("a"), Act::Reserve, [0xa1, 0]);
    unit.reservations = unit.reservations.after_power_loss();
    unit.restart(Beginning::AfterPowerLoss);
    let (kind, text) = unit.told().pop().unwrap();
    assert_eq!(kind, "started after a loss of power");
    assert_eq!(
        text,
        "Write Exclusive, Registrants Only, held by iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001: released; \
         1 registrations are gone; 0 registered, generation 0"
    );
}

#[test]
fn who_changes_much_is_told_of_in_sums_but_not_when_it_fences() {
    let mut unit = Unit::new();
    let (a, b) = (nexus("a"), nexus("b"));
    unit.change(&b, Act::Register, [0, 0xb2]);
    unit.change(&a, Act::Register, [0, 0xa1]);
    for _ in 0..250 {
        unit.change(&a, Act::Register, [0xa1, 0xa1]);
    }
    unit.change(&a, Act::Preempt, [0xa1, 0xb2]);
    let kinds = unit.kinds();
    assert_eq!(kinds.len(), 1 + 1 + 100 + 1, "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "PREEMPT");
    unit.history.tell_due(unit.now);
    assert_eq!(unit.kinds().len(), kinds.len(), "it is not due");
    unit.history.tell_due(unit.now + EACH.interval);
    let (kind, text) = unit.told().pop().unwrap();
    assert_eq!(kind, "more changes");
    assert_eq!(
        text,
        "151 of them; changes of registrations and reservations; 1 registered, generation 253"
    );
}

#[test]
fn what_cannot_be_written_is_counted_and_told_where_it_goes_on() {
    let mut unit = Unit::new();
    let file = history::path(unit.folder.path(), SERIAL);
    std::fs::rename(&file, unit.folder.path().join("kept")).unwrap();
    std::fs::create_dir(&file).unwrap();
    unit.restart(Beginning::Known);
    unit.change(&nexus("a"), Act::Register, [0, 0xa1]);
    unit.change(&nexus("b"), Act::Register, [0, 0xb2]);
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(unit.folder.path().join("kept"), &file).unwrap();
    unit.change(&nexus("c"), Act::Register, [0, 0xc3]);
    assert_eq!(unit.kinds(), ["started", "gap", "REGISTER"]);
    let (_, text) = unit.told().swap_remove(1);
    assert!(text.starts_with("3 entries are missing; since 2"), "{text}");
    assert!(text.contains("Is a directory"), "{text}");
}

#[test]
fn what_cannot_be_written_is_tried_again_though_nothing_happens() {
    let mut unit = Unit::new();
    assert_eq!(unit.history.due(), None);
    let file = history::path(unit.folder.path(), SERIAL);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    unit.restart(Beginning::Known);
    let again = unit.history.due().expect("it is tried again");
    unit.history.tell_due(again);
    assert_eq!(unit.history.due(), Some(again + TRY_AGAIN));
    std::fs::remove_dir(&file).unwrap();
    unit.history.tell_due(again + TRY_AGAIN / 2);
    assert!(!file.exists(), "it is not time yet");
    unit.history.tell_due(again + TRY_AGAIN);
    assert_eq!(unit.kinds(), ["gap"]);
    let (_, text) = unit.told().swap_remove(0);
    assert!(text.starts_with("1 entries are missing; since 2"), "{text}");
    assert_eq!(unit.history.due(), None);
}

#[test]
fn a_history_that_hangs_holds_up_nobody_and_tells_what_it_has_missed() {
    let folder = tempfile::tempdir().unwrap();
    let (go, wait) = bounded::<()>(0);
    let reservations = Reservations::default();
    let begun = begin(&folder, &reservations, Beginning::Known);
    let writer = Writer::start(move || {
        let _ = wait.recv();
        begun
    })
    .unwrap();
    let too_many = 3;
    for _ in 0..NOTES_MAX + too_many {
        writer.give(Note::NotStored("the disk is full".to_owned()));
    }
    assert_eq!(writer.lost.load(Ordering::Relaxed), too_many as u64);
    drop(go);
    let ended = writer.ended.clone();
    drop(writer);
    assert!(ended.recv().is_err());
    let entries = history::read(&history::path(folder.path(), SERIAL))
        .unwrap()
        .entries;
    let gap = entries.last().unwrap();
    assert_eq!(gap.kind, Kind::Other(Other::Gap));
    assert_eq!(gap.count, Some(3));
}

#[test]
fn no_more_wait_for_a_disk_that_hangs_than_there_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(&folder.path().join("run"), &folder.path().join("state")).unwrap();
    // To open it hangs until somebody writes.
    let file = records.history(SERIAL);
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let readers = Readers::default();
    let ask = || {
        let (reply, answer) = bounded(1);
        readers.answer(&records, SERIAL.to_owned(), reply);
        answer
    };
    let waiting: Vec<_> = (0..READERS_MAX).map(|_| ask()).collect();
    let refused = ask().recv_timeout(SOON).unwrap().unwrap_err();
    assert!(refused.starts_with("16 others wait"), "{refused}");
    assert!(waiting.iter().all(Receiver::is_empty));
    // It hangs no more: whoever waits is answered, and others can ask again.
    let end = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file);
    std::fs::rename(&file, folder.path().join("pipe")).unwrap();
    for answer in waiting {
        let _ = answer.recv_timeout(SOON).unwrap();
    }
    drop(end.unwrap());
    assert_eq!(ask().recv_timeout(SOON).unwrap(), Ok(Found::default()));
}
