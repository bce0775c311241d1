//! A store that does nothing, at once: what is left is what the daemon costs.

use std::collections::VecDeque;

use tcmu_pr::lu::task::Pending;
use tcmu_pr::store::{Done, Outcome, Request, Store};
use tcmu_pr::sys::wait::{EpollWait, Wait};

pub(crate) struct Null {
    done: VecDeque<Done<Pending>>,
    wait: EpollWait,
}

impl Null {
    pub(crate) fn new() -> Null {
        Null {
            done: VecDeque::new(),
            wait: EpollWait::new().unwrap(),
        }
    }
}

impl Store<Pending> for Null {
    fn submit(&mut self, request: Request, ticket: Pending) {
        self.done.push_back(Done {
            ticket,
            data: request.data,
            result: Ok(Outcome::Done),
        });
    }

    fn reap(&mut self) -> Option<Done<Pending>> {
        self.done.pop_front()
    }

    fn waits(&mut self) -> &mut dyn Wait {
        &mut self.wait
    }
}
