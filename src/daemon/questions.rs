//! Questions to file systems, which may never answer: their server is away, or their device hangs. Each is asked on a
//! thread of its own, and whoever needs the answer waits for as long as he can.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

/// Questions of one kind, one for each path at a time: a thread that waits for one file system is enough. `Q` is what
/// was asked of the path, `A` the answer.
pub(super) struct Questions<Q, A> {
    asked: Arc<Asked<Q, A>>,
    tell: Sender<()>,
}

struct Asked<Q, A> {
    questions: Mutex<BTreeMap<PathBuf, Question<Q, A>>>,
    answered: Condvar,
}

struct Question<Q, A> {
    question: Q,
    since: Instant,
    answer: Option<A>,
    /// Somebody has waited for it in vain.
    is_late: bool,
    /// Nobody waits for the answer any more: whatever it holds is let go on the thread that brings it.
    is_unwanted: bool,
}

impl<Q: PartialEq + Send + 'static, A: Send + 'static> Questions<Q, A> {
    /// Whenever an answer comes that somebody has waited for in vain, that is told.
    pub(super) fn new(tell: Sender<()>) -> Questions<Q, A> {
        Questions {
            asked: Arc::new(Asked {
                questions: Mutex::default(),
                answered: Condvar::new(),
            }),
            tell,
        }
    }

    /// Asks, unless a question about the path is not answered yet, or this one is.
    pub(super) fn ask(&self, path: &Path, question: Q, look: impl FnOnce() -> A + Send + 'static) {
        let mut questions = self.asked.lock();
        let earlier = match questions.get_mut(path) {
            Some(earlier) if earlier.question == question => {
                earlier.is_unwanted = false;
                return;
            }
            Some(earlier) if earlier.answer.is_none() => return,
            Some(_) => questions.remove(path),
            None => None,
        };
        let (asked, tell, own) = (Arc::clone(&self.asked), self.tell.clone(), path.to_owned());
        let body = move || {
            // It may hold what is to be opened now.
            drop(earlier);
            if asked.answer(&own, look()) {
                // Nobody is there to be told if we have stopped already.
                let _ = tell.send(());
            }
        };
        match thread::Builder::new().name("disk".into()).spawn(body) {
            Ok(_) => {
                let question = Question {
                    question,
                    since: Instant::now(),
                    answer: None,
                    is_late: false,
                    is_unwanted: false,
                };
                questions.insert(path.to_owned(), question);
            }
            Err(error) => log::error!("starting a thread: {error}"),
        }
    }

    /// Takes the answer, if it comes within this time from when the question was asked.
    pub(super) fn take(&self, path: &Path, question: &Q, patience: Duration) -> Option<A> {
        let mut questions = self.asked.lock();
        loop {
            let asked = questions.get_mut(path)?;
            let is_ours = asked.question == *question;
            if is_ours && asked.answer.is_some() {
                return questions.remove(path)?.answer;
            }
            let left = patience.checked_sub(asked.since.elapsed());
            let Some(left) = left.filter(|_| is_ours) else {
                asked.is_late = true;
                return None;
            };
            let waited = self.asked.answered.wait_timeout(questions, left);
            questions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether there is such a question that was not taken back, and whose answer was not taken.
    pub(super) fn any(&self, such: impl Fn(&Path, &Q) -> bool) -> bool {
        let questions = self.asked.lock();
        let mut wanted = questions.iter().filter(|(_, asked)| !asked.is_unwanted);
        wanted.any(|(path, asked)| such(path, &asked.question))
    }

    /// Takes back the questions about other paths than these.
    pub(super) fn keep(&self, wanted: impl Fn(&Path) -> bool) {
        let mut questions = self.asked.lock();
        let others: Vec<PathBuf> = questions
            .keys()
            .filter(|path| !wanted(path))
            .cloned()
            .collect();
        let mut unwanted = Vec::new();
        for path in others {
            match questions.get_mut(&path) {
                Some(asked) if asked.answer.is_none() => asked.is_unwanted = true,
                _ => unwanted.extend(questions.remove(&path)),
            }
        }
        if !unwanted.is_empty() {
            // To close a file is to ask its file system, too.
            let body = move || drop(unwanted);
            if let Err(error) = thread::Builder::new().name("close".into()).spawn(body) {
                log::error!("starting a thread: {error}");
            }
        }
    }
}

impl<Q, A> Asked<Q, A> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Question<Q, A>>> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the answer where it is taken from, or lets it go if nobody wants it. Tells whether it comes late.
    fn answer(&self, path: &Path, answer: A) -> bool {
        let mut questions = self.lock();
        if let Some(asked) = questions.get_mut(path).filter(|asked| !asked.is_unwanted) {
            asked.answer = Some(answer);
            self.answered.notify_all();
            return asked.is_late;
        }
        let unwanted = questions.remove(path);
        drop(questions);
        drop(answer);
        unwanted.is_some_and(|asked| asked.is_late)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::RecvTimeoutError::Disconnected;
    use crossbeam_channel::{Receiver, bounded, unbounded};

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(20);

    struct Bench {
        questions: Questions<u32, u32>,
        told: Receiver<()>,
    }

    fn bench() -> Bench {
        let (tell, told) = unbounded();
        Bench {
            questions: Questions::new(tell),
            told,
        }
    }

    fn path(name: &str) -> PathBuf {
        Path::new("/srv").join(name)
    }

    impl Bench {
        /// A question that is not answered until something is sent.
        fn ask_one_that_hangs(&self, name: &str, question: u32) -> Sender<u32> {
            let (answer, to_come) = bounded(1);
            let look = move || to_come.recv().unwrap_or(0);
            self.questions.ask(&path(name), question, look);
            answer
        }

        fn take(&self, name: &str, question: u32, patience: Duration) -> Option<u32> {
            self.questions.take(&path(name), &question, patience)
        }
    }

    #[test]
    fn one_that_hangs_keeps_no_other_waiting_and_is_answered_later() {
        let bench = bench();
        let hung = bench.ask_one_that_hangs("a", 1);
        bench.questions.ask(&path("b"), 1, || 7);
        assert_eq!(bench.take("a", 1, Duration::ZERO), None);
        assert_eq!(bench.take("b", 1, LONG), Some(7));
        assert_eq!(bench.take("b", 1, LONG), None, "it was taken");
        assert!(bench.told.is_empty(), "it has come in time");
        hung.send(8).unwrap();
        assert_eq!(bench.take("a", 1, LONG), Some(8));
        bench.told.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn patience_begins_with_the_question() {
        let bench = bench();
        let _hung = bench.ask_one_that_hangs("a", 1);
        let patience = Duration::from_millis(50);
        assert_eq!(bench.take("a", 1, patience), None);
        let again = Instant::now();
        assert_eq!(bench.take("a", 1, patience), None);
        assert!(again.elapsed() < patience);
    }

    #[test]
    fn no_path_is_asked_twice_at_a_time() {
        let bench = bench();
        let hung = bench.ask_one_that_hangs("a", 1);
        for question in [1, 2] {
            let look = || panic!("it is asked");
            bench.questions.ask(&path("a"), question, look);
        }
        assert_eq!(bench.take("a", 2, Duration::ZERO), None);
        hung.send(8).unwrap();
        bench.told.recv_timeout(LONG).unwrap();
        let answer = bench.take("a", 2, Duration::ZERO);
        assert_eq!(answer, None, "that was not asked");
        bench.questions.ask(&path("a"), 2, || 9);
        assert_eq!(bench.take("a", 2, LONG), Some(9));
    }

    /// A question whose answer holds something.
    struct Holding {
        questions: Questions<u32, Sender<()>>,
        told: Receiver<()>,
        /// It is not answered until something is sent there.
        go_on: Sender<()>,
        /// Disconnected when the answer was let go.
        let_go: Receiver<()>,
    }

    fn one_that_holds_something() -> Holding {
        let (tell, told) = unbounded();
        let questions = Questions::new(tell);
        let (held, let_go) = bounded(0);
        let (go_on, hangs) = bounded::<()>(1);
        let look = move || {
            let _ = hangs.recv();
            held
        };
        questions.ask(&path("a"), 1, look);
        Holding {
            questions,
            told,
            go_on,
            let_go,
        }
    }

    #[test]
    fn what_nobody_wants_any_more_is_let_go_by_the_thread_that_brings_it() {
        let Holding {
            questions,
            go_on,
            let_go,
            ..
        } = one_that_holds_something();
        questions.keep(|path| path != Path::new("/srv/a"));
        assert!(!questions.any(|_, _| true));
        go_on.send(()).unwrap();
        assert_eq!(let_go.recv_timeout(LONG), Err(Disconnected));
        assert!(questions.take(&path("a"), &1, LONG).is_none());
    }

    #[test]
    fn what_is_wanted_again_in_time_is_not_let_go() {
        let bench = bench();
        let hung = bench.ask_one_that_hangs("a", 1);
        bench.questions.keep(|_| false);
        drop(bench.ask_one_that_hangs("a", 1));
        hung.send(8).unwrap();
        assert_eq!(bench.take("a", 1, LONG), Some(8));
    }

    #[test]
    fn an_answer_that_was_not_taken_is_let_go() {
        let Holding {
            questions,
            told,
            go_on,
            let_go,
        } = one_that_holds_something();
        assert!(questions.take(&path("a"), &1, Duration::ZERO).is_none());
        go_on.send(()).unwrap();
        told.recv_timeout(LONG).unwrap();
        assert!(questions.any(|_, _| true));
        questions.keep(|_| false);
        assert_eq!(let_go.recv_timeout(LONG), Err(Disconnected));
    }
}
