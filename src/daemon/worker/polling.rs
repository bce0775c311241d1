//! How long a worker looks at its rings again before it sleeps.
//!
//! To be woken takes longer than many a command. So who looks again for a while after work answers sooner, and burns a
//! processor meanwhile. Adaptive polling lasts as long as the last sleeps show that it would be of use: after a long sleep,
//! half as long as before, and soon not at all. So an idle unit does not poll.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that adaptive polling lasts.
const LONGEST: Duration = Duration::from_micros(50);

/// Adaptive polling that would last shorter is left out.
const SHORTEST: Duration = Duration::from_micros(2);

/// How often to look before looking at the clock.
const LOOKS: usize = 32;

/// How many workers poll now.
static POLLING: AtomicUsize = AtomicUsize::new(0);

/// Whether to look at the rings again before sleeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Poll {
    /// Sleep at once.
    Off,
    /// As long as it helps.
    #[default]
    Adaptive,
    /// So long after each turn.
    Fixed(Duration),
}

/// The polling of one worker.
#[derive(Debug)]
pub(super) struct Polling {
    poll: Poll,
    /// How long it lasts now.
    time: Duration,
    /// How many workers may poll at the same time: others need processors too.
    most: usize,
}

impl Polling {
    pub(super) fn new(poll: Poll) -> Polling {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Polling {
            poll,
            time: match poll {
                Poll::Fixed(time) => time,
                Poll::Off | Poll::Adaptive => Duration::ZERO,
            },
            most: match poll {
                Poll::Off => 0,
                // Whoever sends, and the kernel, need processors more.
                Poll::Adaptive => processors / 4,
                Poll::Fixed(_) => processors - 1,
            },
        }
    }

    /// Whether it would look at all.
    pub(super) fn is_on(&self) -> bool {
        !self.time.is_zero() && self.most > 0
    }

    /// Looks until there is something, for as long as it is worth. Tells whether there is.
    pub(super) fn look(&self, mut is_there: impl FnMut() -> bool) -> bool {
        if !self.is_on() {
            return false;
        }
        let others = POLLING.fetch_add(1, Ordering::Relaxed);
        let found = others < self.most && self.look_for_a_while(&mut is_there);
        POLLING.fetch_sub(1, Ordering::Relaxed);
        found
    }

    fn look_for_a_while(&self, is_there: &mut impl FnMut() -> bool) -> bool {
        let begun = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if is_there() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if begun.elapsed() >= self.time {
                return false;
            }
        }
    }

    /// Sleeps, and learns from it.
    pub(super) fn sleep(&mut self, sleep: impl FnOnce()) {
        // Without a second processor, whoever is waited for can't go on meanwhile.
        if self.poll != Poll::Adaptive || self.most == 0 {
            return sleep();
        }
        let begun = Instant::now();
        sleep();
        self.learn(begun.elapsed());
    }

    fn learn(&mut self, slept: Duration) {
        self.time = if slept <= LONGEST {
            // Not all are as short as this one.
            self.time.max(2 * slept).clamp(SHORTEST, LONGEST)
        } else {
            self.time / 2
        };
        if self.time < SHORTEST {
            self.time = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polling(poll: Poll, most: usize) -> Polling {
        Polling {
            most,
            ..Polling::new(poll)
        }
    }

    fn micros(time: u64) -> Duration {
        Duration::from_micros(time)
    }

    #[test]
    fn adaptive_polling_lasts_as_long_as_the_sleeps_are_short() {
        let mut polling = polling(Poll::Adaptive, 1);
        for (slept, expected) in [
            (1_000_000, 0),
            (10, 20),
            (1, 20),
            (20, 40),
            (50, 50),
            (3, 50),
            (51, 25),
            (5, 25),
            (1000, 12),
            (1000, 6),
            (1000, 3),
            (1000, 0),
            (1000, 0),
            (0, 2),
        ] {
            polling.learn(micros(slept));
            let time = polling.time.as_micros();
            assert_eq!(time, expected, "after a sleep of {slept} us");
        }
    }

    #[test]
    fn what_is_there_ends_the_look_and_time_does() {
        let polling = polling(Poll::Fixed(micros(100)), usize::MAX);
        let mut looks = 0;
        assert!(polling.look(|| {
            looks += 1;
            looks == 3
        }));
        assert_eq!(looks, 3);
        let begun = Instant::now();
        assert!(!polling.look(|| false));
        assert!(begun.elapsed() >= micros(100));
    }

    #[test]
    fn nobody_looks_who_should_not() {
        for polling in [
            polling(Poll::Off, 1),
            polling(Poll::Adaptive, 1),
            polling(Poll::Fixed(micros(100)), 0),
        ] {
            assert!(!polling.look(|| panic!("{polling:?}")));
        }
    }

    #[test]
    fn alone_on_a_processor_nothing_is_learnt() {
        let mut polling = polling(Poll::Adaptive, 0);
        polling.sleep(|| ());
        assert_eq!(polling.time, Duration::ZERO);
    }
}
