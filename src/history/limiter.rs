//! How much may be told of whom: those who do much are told of in sums.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How much is told at once, and then how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So much at once, when nothing has been told for long.
    pub burst: u32,
    /// And one more each time that this has passed.
    pub interval: Duration,
}

/// What may be told, as a number that grows with time.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    rate: Rate,
    left: u32,
    /// When the last was added, or all were there.
    since: Instant,
}

impl Allowance {
    fn full(rate: Rate, now: Instant) -> Allowance {
        Allowance {
            rate,
            left: rate.burst,
            since: now,
        }
    }

    fn grow(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let added = passed.as_nanos() / self.rate.interval.as_nanos();
        let missing = self.rate.burst - self.left;
        match u32::try_from(added).ok().filter(|&added| added < missing) {
            Some(added) => {
                self.left += added;
                self.since += self.rate.interval * added;
            }
            None => *self = Allowance::full(self.rate, now),
        }
    }

    /// When there is something again, if there is nothing.
    fn due(&self) -> Instant {
        if self.left > 0 {
            self.since
        } else {
            self.since + self.rate.interval
        }
    }
}

#[derive(Debug)]
struct Account {
    allowance: Allowance,
    withheld: u64,
}

/// What was withheld and may be told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld<K> {
    /// Of whom; `None`: of those who were too many to be told apart.
    pub of: Option<K>,
    /// How much.
    pub count: u64,
}

/// Limits what is told, of each and of all. It knows of no more than a fixed number at a time.
#[derive(Debug)]
pub struct Limiter<K> {
    each: Rate,
    all: Allowance,
    accounts: HashMap<K, Account>,
    accounts_max: usize,
    /// Withheld of those for whom there was no account.
    others: u64,
    /// Nothing that was withheld may be told before that; `None` if nothing is withheld.
    due: Option<Instant>,
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    /// A limit of each, of all together, and of how many are told apart.
    pub fn new(each: Rate, all: Rate, accounts_max: usize, now: Instant) -> Limiter<K> {
        Limiter {
            each,
            all: Allowance::full(all, now),
            accounts: HashMap::new(),
            accounts_max,
            others: 0,
            due: None,
        }
    }

    /// Whether something of this one may be told now. If not, it is withheld, and counts as so much.
    pub fn admits(&mut self, key: &K, count: u64, now: Instant) -> bool {
        self.all.grow(now);
        let each = self.each;
        if !self.accounts.contains_key(key) {
            if self.accounts.len() >= self.accounts_max {
                self.forget_idle(now);
            }
            if self.accounts.len() >= self.accounts_max {
                self.others += count;
                self.expect(self.all.due());
                return false;
            }
            let allowance = Allowance::full(each, now);
            let account = Account {
                allowance,
                withheld: 0,
            };
            self.accounts.insert(key.clone(), account);
        }
        let account = self.accounts.get_mut(key).expect("it was put there");
        account.allowance.grow(now);
        // What was withheld is told first.
        if account.withheld == 0 && account.allowance.left > 0 && self.all.left > 0 {
            account.allowance.left -= 1;
            self.all.left -= 1;
            return true;
        }
        account.withheld += count;
        let due = account.allowance.due().max(self.all.due());
        self.expect(due);
        false
    }

    /// Something that was withheld and may be told now. To be called until there is nothing.
    pub fn overdue(&mut self, now: Instant) -> Option<Withheld<K>> {
        if self.due? > now {
            return None;
        }
        self.all.grow(now);
        let found = self.take(now);
        self.due = self.next_due();
        found
    }

    /// All that is withheld, whether it may be told or not: nobody asks any more.
    pub fn rest(&mut self) -> Vec<Withheld<K>> {
        self.due = None;
        let others = std::mem::take(&mut self.others);
        let others = (others > 0).then_some(Withheld {
            of: None,
            count: others,
        });
        let accounts = self.accounts.drain();
        let withheld = accounts.filter(|(_, account)| account.withheld > 0);
        let withheld = withheld.map(|(key, account)| Withheld {
            of: Some(key),
            count: account.withheld,
        });
        withheld.chain(others).collect()
    }

    /// When [`Limiter::overdue`] is worth a call; `None` if nothing is withheld.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    fn expect(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    fn take(&mut self, now: Instant) -> Option<Withheld<K>> {
        if self.all.left == 0 {
            return None;
        }
        for (key, account) in &mut self.accounts {
            account.allowance.grow(now);
            if account.withheld > 0 && account.allowance.left > 0 {
                account.allowance.left -= 1;
                self.all.left -= 1;
                return Some(Withheld {
                    of: Some(key.clone()),
                    count: std::mem::take(&mut account.withheld),
                });
            }
        }
        if self.others == 0 {
            return None;
        }
        self.all.left -= 1;
        Some(Withheld {
            of: None,
            count: std::mem::take(&mut self.others),
        })
    }

    fn next_due(&self) -> Option<Instant> {
        let accounts = self.accounts.values();
        let withheld = accounts.filter(|account| account.withheld > 0);
        let each = withheld.map(|account| account.allowance.due()).min();
        let others = (self.others > 0).then(|| self.all.due());
        let first = each.into_iter().chain(others).min()?;
        Some(first.max(self.all.due()))
    }

    /// Forgets those of whom nothing was told for so long that it makes no difference.
    fn forget_idle(&mut self, now: Instant) {
        self.accounts.retain(|_, account| {
            account.allowance.grow(now);
            account.withheld > 0 || account.allowance.left < account.allowance.rate.burst
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// One a minute of each, three at once and one a second of all, and four that are told apart.
    fn limiter(now: Instant) -> Limiter<char> {
        let each = Rate {
            burst: 1,
            interval: MINUTE,
        };
        let all = Rate {
            burst: 3,
            interval: Duration::from_secs(1),
        };
        Limiter::new(each, all, 4, now)
    }

    fn withheld(of: char, count: u64) -> Option<Withheld<char>> {
        let of = Some(of);
        Some(Withheld { of, count })
    }

    #[test]
    fn the_first_is_told_at_once_and_then_how_many_there_were_each_minute() {
        let start = Instant::now();
        let mut limiter = limiter(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(limiter.admits(&'a', 1, at(0)));
        assert_eq!(limiter.due(), None);
        for second in 1..60 {
            assert!(!limiter.admits(&'a', 10, at(second)), "{second}");
            assert_eq!(limiter.overdue(at(second)), None);
        }
        assert_eq!(limiter.due(), Some(at(60)));
        assert_eq!(limiter.overdue(at(60)), withheld('a', 590));
        assert_eq!(limiter.overdue(at(60)), None);
        assert_eq!(limiter.due(), None);
        assert!(!limiter.admits(&'a', 1, at(61)));
        assert_eq!(limiter.overdue(at(119)), None);
        assert_eq!(limiter.overdue(at(120)), withheld('a', 1));
        assert!(limiter.admits(&'a', 1, at(180)), "a minute of silence");
    }

    #[test]
    fn one_is_told_although_another_is_not() {
        let start = Instant::now();
        let mut limiter = limiter(start);
        assert!(limiter.admits(&'a', 1, start));
        assert!(!limiter.admits(&'a', 1, start));
        assert!(limiter.admits(&'b', 1, start));
    }

    #[test]
    fn no_more_than_so_much_is_told_of_all() {
        let start = Instant::now();
        let mut limiter = limiter(start);
        for key in ['a', 'b', 'c'] {
            assert!(limiter.admits(&key, 1, start));
        }
        assert!(!limiter.admits(&'d', 1, start));
        let next = start + Duration::from_secs(1);
        assert_eq!(limiter.due(), Some(next));
        assert_eq!(limiter.overdue(next), withheld('d', 1));
    }

    #[test]
    fn those_who_are_too_many_are_counted_together_and_forgotten_in_time() {
        let start = Instant::now();
        let mut limiter = limiter(start);
        for key in 'a'..'e' {
            limiter.admits(&key, 1, start);
        }
        for key in 'e'..'k' {
            assert!(!limiter.admits(&key, 1, start));
        }
        assert_eq!(limiter.accounts.len(), 4);
        let later = start + 2 * MINUTE;
        assert_eq!(limiter.overdue(later), withheld('d', 1));
        assert_eq!(
            limiter.overdue(later),
            Some(Withheld { of: None, count: 6 })
        );
        assert_eq!(limiter.overdue(later), None);
        assert!(limiter.admits(&'e', 1, later));
        assert!(limiter.accounts.len() <= 2, "{limiter:?}");
    }

    #[test]
    fn a_burst_grows_again_by_one_at_a_time() {
        let start = Instant::now();
        let rate = Rate {
            burst: 3,
            interval: MINUTE,
        };
        let mut limiter = Limiter::new(rate, Rate { burst: 99, ..rate }, 4, start);
        let told = |limiter: &mut Limiter<char>, at| {
            (0..9).filter(|_| limiter.admits(&'a', 1, at)).count()
        };
        assert_eq!(told(&mut limiter, start), 3);
        assert_eq!(limiter.overdue(start + MINUTE), withheld('a', 6));
        assert_eq!(told(&mut limiter, start + 3 * MINUTE), 2);
        assert_eq!(limiter.rest(), [withheld('a', 7).unwrap()]);
        assert!(limiter.rest().is_empty());
    }
}
