use super::*;
use crate::scsi::sense::SENSE_LENGTH;
use crate::sys::region::Data;
use crate::tcmu::ring::CommandId;

const READ: u8 = 0x28;
const WRITE: u8 = 0x8a;
const FLUSH: u8 = 0x35;
const INQUIRY: u8 = 0x12;

/// A unit with one port, and a clock of its own.
struct Unit {
    measure: Measure,
    port: InFlight,
    start: Instant,
}

impl Unit {
    fn new() -> Unit {
        let measure = Measure::new(Instant::now);
        Unit {
            start: measure.window_end - WINDOW,
            measure,
            port: InFlight::default(),
        }
    }

    fn at_us(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    fn take(&mut self, us: u64, id: u16, operation_code: u8) {
        let now = self.at_us(us);
        self.measure.begin_turn(now);
        let mut cdb = [0; 32];
        cdb[0] = operation_code;
        let command = Command {
            id: CommandId { id, epoch: 0 },
            cdb,
            data: Data::none(),
            bidirectional: false,
        };
        self.measure.taken(&mut self.port, &command);
        self.measure.turn = None;
    }

    /// The operation code of a command in flight.
    fn code_of(&self, id: u16) -> u8 {
        let taken = self.port.taken.get(usize::from(id)).copied().flatten();
        taken.map_or(READ, |taken| taken.cdb[0])
    }

    fn answer_in(&mut self, us: u64, id: u16, epoch: u32, status: Status) {
        let delivery = Delivery {
            tag: Tag {
                port: 0,
                command: id,
                epoch,
            },
            status: status as u8,
            // What a GOOD without data-in says.
            data_in_length: (self.code_of(id) != READ).then_some(1),
            sense: [0; SENSE_LENGTH],
        };
        self.measure.answered(&mut self.port, &delivery, 4096);
        self.measure.record(self.at_us(us));
    }

    fn answer(&mut self, us: u64, id: u16, status: Status) {
        self.answer_in(us, id, 0, status);
    }

    /// A command that takes so long.
    fn serve(&mut self, from_us: u64, took_us: u64, operation_code: u8) {
        self.take(from_us, 1, operation_code);
        self.answer(from_us + took_us, 1, Status::Good);
    }

    fn report(&mut self, us: u64) -> Report {
        let now = self.at_us(us);
        self.measure.report_at(now, std::iter::once(&self.port))
    }

    /// What is logged.
    fn look(&mut self, s: u64) -> Option<String> {
        let now = self.at_us(s * SECOND);
        let waiting = self.port.iter().filter_map(|taken| {
            let age = now.saturating_duration_since(taken.at);
            (age > SLOW).then_some((taken.cdb, age))
        });
        self.measure.spell.look(now, waiting)
    }
}

const SECOND: u64 = 1_000_000;

fn flow(report: &Report, kind: Kind) -> Flow {
    report.window.expect("a window is over").flows[kind as usize]
}

#[test]
fn percentiles_of_known_samples() {
    let mut unit = Unit::new();
    // 1 to 1000 microseconds: the percentiles are known, and true to one in a hundred.
    for us in 1..=1000 {
        unit.serve(us * 2000, us, READ);
    }
    let report = unit.report(10 * SECOND);
    let Flow {
        commands,
        bytes,
        p50_us,
        p99_us,
        p999_us,
        max_us,
    } = flow(&report, Kind::Read);
    assert_eq!((commands, bytes, max_us), (1000, 4_096_000, 1000));
    assert!((500..=505).contains(&p50_us), "{p50_us}");
    assert!((990..=1000).contains(&p99_us), "{p99_us}");
    assert!((999..=1000).contains(&p999_us), "{p999_us}");
    assert_eq!(flow(&report, Kind::Write), Flow::default());
}

#[test]
fn kinds_are_told_apart() {
    let mut unit = Unit::new();
    for (operation_code, us) in [
        (READ, 5),
        (WRITE, 30),
        (FLUSH, 4_000),
        (INQUIRY, 40_000_000),
    ] {
        unit.serve(0, us, operation_code);
    }
    let report = unit.report(40 * SECOND);
    let totals = report.totals;
    assert_eq!(totals.map(|total| total.commands), [1, 1, 1, 1]);
    // Only what moves blocks has bytes.
    assert_eq!(totals.map(|total| total.bytes), [4096, 4096, 0, 0]);
    assert_eq!(
        totals.map(|total| total.latency_sum_us),
        [5, 30, 4_000, 40_000_000]
    );
    // Up to 10 us, 50 us, 5 ms, and longer than 30 s.
    let places = totals.map(|total| total.latencies.iter().position(|&count| count == 1));
    assert_eq!(places, [Some(0), Some(2), Some(8), Some(20)]);
}

#[test]
fn a_bound_belongs_to_what_is_up_to_it() {
    let mut unit = Unit::new();
    unit.serve(0, 10, READ);
    unit.serve(0, 11, READ);
    let total = unit.report(SECOND).totals[Kind::Read as usize];
    assert_eq!(total.latencies[..3], [1, 1, 0]);
}

#[test]
fn windows_follow_each_other_whether_anything_happens_or_not() {
    let mut unit = Unit::new();
    unit.serve(SECOND, 100, READ);
    assert_eq!(unit.report(10 * SECOND - 1).window, None);
    assert_eq!(flow(&unit.report(10 * SECOND), Kind::Read).commands, 1);
    unit.serve(12 * SECOND, 100, READ);
    unit.serve(13 * SECOND, 100, READ);
    assert_eq!(flow(&unit.report(15 * SECOND), Kind::Read).commands, 1);
    assert_eq!(flow(&unit.report(29 * SECOND), Kind::Read).commands, 2);
    // Nobody has come in the next, nor asked.
    assert_eq!(flow(&unit.report(30 * SECOND), Kind::Read).commands, 0);
    // What begins late in one is told with the next.
    unit.serve(119 * SECOND, 2 * SECOND, WRITE);
    let write = flow(&unit.report(130 * SECOND), Kind::Write);
    assert_eq!((write.commands, write.max_us), (1, 2 * SECOND));
    assert_eq!(
        flow(&unit.report(500 * SECOND), Kind::Write),
        Flow::default()
    );
}

#[test]
fn the_depth_is_that_of_commands_without_an_answer() {
    let mut unit = Unit::new();
    (0..5).for_each(|id| unit.take(SECOND, id, READ));
    (0..3).for_each(|id| unit.answer(2 * SECOND, id, Status::Good));
    let report = unit.report(3 * SECOND);
    assert_eq!((report.depth, report.oldest), (2, Duration::from_secs(2)));
    let depth_max = |report: Report| report.window.unwrap().depth_max;
    assert_eq!(depth_max(unit.report(10 * SECOND)), 5);
    // The two are still there.
    assert_eq!(depth_max(unit.report(20 * SECOND)), 2);
    assert_eq!(depth_max(unit.report(90 * SECOND)), 2);
    let (measure, port) = (&mut unit.measure, &mut unit.port);
    measure.forget(port);
    let report = unit.report(100 * SECOND);
    assert_eq!((report.depth, report.oldest), (0, Duration::ZERO));
}

#[test]
fn what_was_not_begun_has_no_latency() {
    let mut unit = Unit::new();
    for status in [
        Status::Busy,
        Status::ReservationConflict,
        Status::CheckCondition,
    ] {
        unit.take(0, 1, READ);
        unit.answer(7, 1, status);
    }
    let report = unit.report(10 * SECOND);
    let total = report.totals[Kind::Read as usize];
    assert_eq!((total.commands, total.bytes, report.busy), (3, 0, 1));
    assert_eq!(total.latencies.iter().sum::<u64>(), 1);
    assert_eq!(flow(&report, Kind::Read).commands, 1);
}

#[test]
fn an_answer_from_before_a_reset_of_the_ring_is_nobodys() {
    let mut unit = Unit::new();
    unit.take(0, 1, READ);
    unit.answer_in(5, 1, 7, Status::Good);
    let report = unit.report(6);
    assert_eq!((report.depth, report.totals[0].commands), (1, 0));
    unit.answer(7, 1, Status::Good);
    assert_eq!(unit.report(8).totals[0].commands, 1);
}

#[test]
fn what_takes_longer_than_all_is_counted_too() {
    let mut unit = Unit::new();
    unit.serve(0, 3_600 * SECOND, READ);
    let read = flow(&unit.report(3_610 * SECOND), Kind::Read);
    assert_eq!(read.max_us, 3_600 * SECOND);
    assert!(read.p50_us >= LATENCY_MAX_US, "{}", read.p50_us);
}

#[test]
fn a_slow_spell_is_told_once_and_its_end_too() {
    let mut unit = Unit::new();
    unit.take(0, 1, WRITE);
    unit.take(SECOND, 2, FLUSH);
    assert_eq!(unit.look(10), None);
    assert_eq!(
        unit.look(12).unwrap(),
        "slow I/O: 2 commands have waited longer than 10 s for their answer, the oldest, WRITE(16), for 12 s: is the \
         backing store slow?"
    );
    assert_eq!(unit.look(13), None);
    unit.answer(20 * SECOND, 1, Status::Good);
    unit.answer(25 * SECOND, 2, Status::Good);
    assert_eq!(unit.report(25 * SECOND).slow, 2);
    assert_eq!(unit.look(34), None, "it is not long enough ago");
    assert!(unit.measure.needs_looks());
    assert_eq!(
        unit.look(35).unwrap(),
        "slow I/O has ended: 2 commands took longer than 10 s, the longest 24 s"
    );
    assert!(!unit.measure.needs_looks());
    assert_eq!(unit.look(36), None);
    // The next is another.
    unit.serve(100 * SECOND, 11 * SECOND, READ);
    assert_eq!(
        unit.look(112).unwrap(),
        "slow I/O: 1 commands took longer than 10 s, the longest 11 s: is the backing store slow?"
    );
    assert_eq!(
        unit.look(121).unwrap(),
        "slow I/O has ended: 1 commands took longer than 10 s, the longest 11 s"
    );
    assert_eq!(unit.report(121 * SECOND).slow, 3);
}
