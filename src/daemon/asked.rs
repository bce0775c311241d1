//! The question how things are with a unit, which its worker is asked one at a time.
//!
//! A worker waits for nothing, but the kernel may hold its thread for as long as it likes, in a disk that is dead. Then one
//! question is left unanswered, and whoever asks after that is told at once that the thread does not answer: nobody waits for
//! it again, and nothing piles up before it.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, bounded};
use log::Level;

use super::unit::Unit;
use super::worker::{Order, Report};
use crate::control::journal::{self, Field, MessageId};

/// How long a worker may take to answer the main thread.
pub(super) const WORKER_PATIENCE: Duration = Duration::from_secs(2);

/// What a worker was asked last.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// When, and where the answer comes; `None` if it has come.
    unanswered: Option<(Instant, Receiver<Report>)>,
    /// The log says that it does not answer.
    told: bool,
}

impl Asked {
    /// Asks with that order, unless an earlier question is not answered yet.
    fn ask(&mut self, now: Instant, give: impl FnOnce(Order)) {
        let earlier = self.unanswered.as_ref();
        // What has come too late for whoever had asked is of then.
        let is_open = |(_, answer): &(Instant, Receiver<Report>)| {
            matches!(answer.try_recv(), Err(TryRecvError::Empty))
        };
        if !earlier.is_some_and(is_open) {
            let (reply, answer) = bounded(1);
            give(Order::Report(reply));
            self.unanswered = Some((now, answer));
        }
    }

    /// The answer, for which it is waited until the worker has had its time since it was asked.
    fn answer(&mut self) -> Option<Report> {
        let (since, answer) = self.unanswered.as_ref()?;
        match answer.recv_deadline(*since + WORKER_PATIENCE) {
            Err(RecvTimeoutError::Timeout) => None,
            told => {
                self.unanswered = None;
                told.ok()
            }
        }
    }

    /// For how long it has not answered, if it has had its time.
    fn silence(&self, now: Instant) -> Option<Duration> {
        let (since, answer) = self.unanswered.as_ref()?;
        let silence = now.saturating_duration_since(*since);
        (silence >= WORKER_PATIENCE && answer.is_empty()).then_some(silence)
    }

    /// What the log is to say of that: once when it begins, and once when it has ended.
    fn news(&mut self, now: Instant) -> Option<&'static str> {
        let is_silent = self.silence(now).is_some();
        if std::mem::replace(&mut self.told, is_silent) == is_silent {
            return None;
        }
        Some(if is_silent {
            "its thread does not answer: an I/O hangs below it, in the kernel. Nothing of it is served until that ends"
        } else {
            "its thread answers again"
        })
    }
}

impl Unit {
    /// Asks the worker how things are, unless it has not answered yet what it was asked before.
    pub(super) fn ask(&mut self) {
        self.asked
            .ask(Instant::now(), |order| self.worker.give(order));
    }

    /// What the worker has answered; `None` if it does not.
    pub(super) fn told(&mut self) -> Option<Report> {
        let answer = self.asked.answer();
        if let Some(news) = self.asked.news(Instant::now()) {
            let path = self.backing.path().display().to_string();
            let serial = self.record.serial.as_str();
            let fields = [(Field::Unit, serial), (Field::Path, &path)];
            let text = format_args!("{path}: {news}");
            journal::tell(Level::Warn, MessageId::Slow, &fields, text);
        }
        answer
    }

    /// Whether the administrator can have it changed. A thread that does not answer is given no more orders: it would obey them
    /// when nobody thinks of them any more.
    pub(super) fn takes_orders(&mut self) -> Result<(), String> {
        if let Some(silence) = self.asked.silence(Instant::now()) {
            return Err(format!(
                "{}: its thread has not answered for {} s: an I/O hangs below it, in the kernel. Nothing has changed: try again \
                 when that has ended",
                self.backing.path().display(),
                silence.as_secs()
            ));
        }
        // If it hangs, the next one is told.
        self.ask();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::Sender;

    use super::*;
    use crate::daemon::worker::measure;
    use crate::lu::Counters;
    use crate::lu::task::Waiting;
    use crate::pr::Reservations;
    use crate::scsi::mode::Values;

    /// A worker whose thread the kernel may hold: what it was given waits there.
    #[derive(Default)]
    struct Held {
        orders: Vec<Sender<Report>>,
        asked: Asked,
    }

    impl Held {
        fn ask(&mut self, now: Instant) {
            let orders = &mut self.orders;
            self.asked.ask(now, |order| match order {
                Order::Report(reply) => orders.push(reply),
                other => panic!("{other:?} is no question"),
            });
        }

        /// Comes to what waits, after so many commands.
        fn go_on(&mut self, commands: u64) {
            for reply in self.orders.drain(..) {
                let _ = reply.send(report(commands));
            }
        }

        fn commands(&mut self) -> Option<u64> {
            Some(self.asked.answer()?.counters.commands)
        }
    }

    fn report(commands: u64) -> Report {
        Report {
            reservations: Reservations::default(),
            fenced: false,
            mode: Values::default(),
            flush_failed: false,
            counters: Counters {
                commands,
                ..Counters::default()
            },
            unknown_nexus: 0,
            not_noted: 0,
            noted_late: 0,
            sessions: Vec::new(),
            in_flight: 0,
            waiting: Waiting::default(),
            measured: measure::Report {
                totals: [measure::Total::default(); 4],
                window: None,
                depth: 0,
                oldest: Duration::ZERO,
                busy: 0,
                slow: 0,
            },
        }
    }

    #[test]
    fn a_worker_that_answers_is_asked_each_time() {
        let mut worker = Held::default();
        for commands in 1..4 {
            let now = Instant::now();
            worker.ask(now);
            worker.go_on(commands);
            assert_eq!(worker.commands(), Some(commands));
            assert_eq!(worker.asked.silence(now + WORKER_PATIENCE), None);
            assert_eq!(worker.asked.news(now + WORKER_PATIENCE), None);
        }
    }

    #[test]
    fn a_worker_that_hangs_is_asked_once_and_waited_for_once() {
        let mut worker = Held::default();
        // It has had its time.
        let before = Instant::now() - WORKER_PATIENCE;
        worker.ask(before);
        for _ in 0..100 {
            worker.ask(Instant::now());
            assert_eq!(worker.commands(), None);
        }
        assert_eq!(worker.orders.len(), 1);
        assert!(
            before.elapsed() < 2 * WORKER_PATIENCE,
            "each was waited for"
        );
        let later = before + Duration::from_secs(7);
        assert_eq!(worker.asked.silence(later), Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_answer_that_has_come_too_late_is_not_taken_for_what_is_so_now() {
        let mut worker = Held::default();
        let before = Instant::now() - WORKER_PATIENCE;
        worker.ask(before);
        assert_eq!(worker.commands(), None);
        worker.go_on(1);
        assert_eq!(worker.asked.silence(Instant::now()), None);
        worker.ask(Instant::now());
        worker.go_on(2);
        assert_eq!(worker.commands(), Some(2));
    }

    #[test]
    fn silence_is_told_once_and_its_end_once() {
        let mut worker = Held::default();
        let before = Instant::now();
        worker.ask(before);
        assert_eq!(worker.asked.news(before + WORKER_PATIENCE / 2), None);
        let later = before + WORKER_PATIENCE;
        let told = worker.asked.news(later).unwrap();
        assert!(told.starts_with("its thread does not answer"), "{told}");
        assert_eq!(worker.asked.news(later), None);
        worker.go_on(1);
        assert_eq!(worker.asked.news(later), Some("its thread answers again"));
        assert_eq!(worker.asked.news(later), None);
    }
}
