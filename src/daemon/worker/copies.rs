//! Copies from one logical unit to another: how their threads come to terms.
//!
//! The thread of the unit that was sent EXTENDED COPY asks the others for what it needs, chunk by chunk, and never
//! looks into what they own: a unit lends its medium, or does not, and keeps in mind that it has. The store of the
//! asker copies; when it has, the loan is dropped, which tells the lender.
//!
//! # Nobody waits for ever
//!
//! - A question is answered by its own drop if by nothing else. So a unit that has gone, or goes while the question
//!   waits for it, or has never been there, lends nothing, and the copy ends.
//! - A loan is given back by its own drop. So it comes back however the operation ends, and with whatever it is dropped.
//!   A unit that is told to end waits for it like for an operation of its own, which it is: somebody writes to its medium.
//! - A lender answers in the turn of its loop in which it is asked: it never waits for anything first. While a chunk
//!   is being copied nothing is asked. So what waits with something lent to it waits for a thread that does not block, or
//!   for the medium, and two units that copy to each other can't wait for each other.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Order, Orders, Worker};
use crate::daemon::recorder::Record;
use crate::lu::task::Pending;
use crate::lu::{Asking, Lent, LoanId, Wish};
use crate::scsi::inquiry::Naa;
use crate::store::{Loan, Store};

/// A unit that others may copy from and to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The size of its blocks in bytes.
    pub block_size: u32,
    /// Its worker.
    pub orders: Orders,
}

/// The units of a copy domain, by name.
pub type Peers = HashMap<Naa, Peer>;

/// The duty to answer a question. Dropped, it says that nothing is lent.
#[derive(Debug)]
pub struct Question {
    ticket: u64,
    /// `None` once it is answered.
    asker: Option<Orders>,
}

impl Question {
    fn answer(mut self, lent: Lent) {
        if let Some(asker) = self.asker.take() {
            asker.give(Order::Lent(self.ticket, Some(lent)));
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(asker) = self.asker.take() {
            asker.give(Order::Lent(self.ticket, None));
        }
    }
}

/// What tells the lender, when it is dropped, that a loan is given back.
#[derive(Debug)]
struct Receipt {
    /// `None` once it is given back.
    loan: Option<LoanId>,
    lender: Orders,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(loan) = self.loan.take() {
            self.lender.give(Order::GivenBack(loan));
        }
    }
}

/// The copies of a worker that have asked others.
#[derive(Debug, Default)]
pub(super) struct Copies {
    peers: Arc<Peers>,
    asking: HashMap<u64, Asking>,
    next_ticket: u64,
}

impl<S: Store<Pending>, R: Record> Worker<S, R> {
    pub(super) fn set_peers(&mut self, peers: Arc<Peers>) {
        let block_sizes = peers.iter().map(|(&name, peer)| (name, peer.block_size));
        self.parts.unit.set_peers(block_sizes.collect());
        self.copies.peers = peers;
    }

    pub(super) fn ask(&mut self, name: Naa, wish: Wish, asking: Asking) {
        let copies = &mut self.copies;
        let ticket = copies.next_ticket;
        copies.next_ticket += 1;
        copies.asking.insert(ticket, asking);
        let question = Question {
            ticket,
            asker: Some(self.to_self.clone()),
        };
        if let Some(peer) = copies.peers.get(&name) {
            peer.orders.give(Order::Lend(wish, question));
        }
    }

    pub(super) fn lend(&mut self, wish: &Wish, question: Question) {
        let Some(medium) = self.parts.medium.clone() else {
            return;
        };
        if let Some((loan, durability)) = self.parts.unit.lend(wish) {
            let receipt = Receipt {
                loan: Some(loan),
                lender: self.to_self.clone(),
            };
            question.answer(Lent {
                loan: Loan::new(medium, receipt),
                durability,
            });
        }
    }

    pub(super) fn lent(&mut self, ticket: u64, lent: Option<Lent>) {
        if let Some(asking) = self.copies.asking.remove(&ticket) {
            let step = self.parts.unit.asked(asking, lent);
            self.perform(step);
        }
    }
}
