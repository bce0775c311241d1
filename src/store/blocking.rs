//! A store of helper threads that read and write with `preadv2` and `pwritev2`.
//!
//! An operation that hangs in the backing object holds its thread until it ends. So the threads are as many as there are
//! operations that run, and each lane may have a few that run and no more: whatever hangs in one, there is a thread
//! for the others. All the bookkeeping is the owner's, in [`Store::submit`] and [`Store::reap`].

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::fcntl::PosixFadviseAdvice;

use super::copy::copy;
use super::medium::Medium;
use super::verify::verify;
use super::{
    Backing, Done, Durability, Failure, Flush, Lane, Operation, Outcome, Request, Store, exclusive,
    space, whole,
};
use crate::sys::wait::{EpollWait, Wait};
use crate::sys::wake::Waker;

/// How many operations of one lane run at the same time.
const LANE_MAX: usize = 4;

/// How many operations run at the same time, and so how many threads there are at most. With more lanes that hang than
/// these serve, all share what is left: a backing object that so many hang in serves nobody anyway.
const THREADS_MAX: usize = 64;

/// A store whose operations run on helper threads. Dropping it waits for the threads to finish what they have been
/// handed: nothing touches the backing object afterwards. What still waits in its lane is dropped, never begun.
pub struct Blocking<T> {
    /// Those that have operations.
    lanes: HashMap<Lane, Operations<T>>,
    /// How many operations have been handed to the threads and not been reaped.
    handed_out: usize,
    /// `None` only while it is dropped.
    jobs: Option<Sender<(Request, T)>>,
    done: Receiver<(Lane, Done<T>)>,
    helper: Arc<Helper<T>>,
    threads: Vec<JoinHandle<()>>,
    /// A thread could not be started, and it has been logged.
    short_of_threads: bool,
    wait: EpollWait,
}

/// The operations of a lane.
struct Operations<T> {
    /// How many of them have been handed to the threads and not been reaped: at least one.
    running: usize,
    waiting: VecDeque<(Request, T)>,
}

/// How an operation is done.
type Perform = dyn Fn(&Request) -> Result<Outcome, Failure> + Send + Sync;

/// What every helper thread does.
struct Helper<T> {
    to_do: Receiver<(Request, T)>,
    finished: Sender<(Lane, Done<T>)>,
    waker: Waker,
    perform: Box<Perform>,
}

impl<T> Helper<T> {
    fn run(&self) {
        for (request, ticket) in &self.to_do {
            let result = (self.perform)(&request);
            let Request {
                lane,
                operation,
                data,
                ..
            } = request;
            // What was lent for it is given back before anybody can know that it is done.
            drop(operation);
            let done = Done {
                ticket,
                data,
                result,
            };
            if self.finished.send((lane, done)).is_err() {
                return;
            }
            self.waker.wake();
        }
    }
}

impl<T: Send + 'static> Blocking<T> {
    /// A store on `backing` that calls `waker` when an operation is done.
    pub fn new(backing: &Arc<Backing>, waker: &Waker) -> io::Result<Blocking<T>> {
        let backing = Arc::clone(backing);
        Blocking::start(move |request| perform(&*backing, request), waker)
    }

    fn start(
        perform: impl Fn(&Request) -> Result<Outcome, Failure> + Send + Sync + 'static,
        waker: &Waker,
    ) -> io::Result<Blocking<T>> {
        let (jobs, to_do) = unbounded();
        let (finished, done) = unbounded();
        let mut store = Blocking {
            lanes: HashMap::new(),
            handed_out: 0,
            jobs: Some(jobs),
            done,
            helper: Arc::new(Helper {
                to_do,
                finished,
                waker: waker.clone(),
                perform: Box::new(perform),
            }),
            threads: Vec::new(),
            short_of_threads: false,
            wait: EpollWait::new()?,
        };
        // One there must be. That more can't be started is no reason not to serve.
        store.start_thread()?;
        Ok(store)
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let helper = Arc::clone(&self.helper);
        let thread = thread::Builder::new().name(format!("store-{}", self.threads.len()));
        self.threads.push(thread.spawn(move || helper.run())?);
        Ok(())
    }

    /// Hands an operation to the threads, of which there is one for each if there can be.
    fn hand_out(&mut self, request: Request, ticket: T) {
        self.handed_out += 1;
        if self.handed_out > self.threads.len() && self.threads.len() < THREADS_MAX {
            let started = self.start_thread();
            if let Err(error) = &started {
                if !self.short_of_threads {
                    log::warn!(
                        "no thread can be started: I/O goes on with {}: {error}",
                        self.threads.len()
                    );
                }
            }
            self.short_of_threads = started.is_err();
        }
        let jobs = self.jobs.as_ref();
        let sent = jobs.is_some_and(|jobs| jobs.send((request, ticket)).is_ok());
        assert!(sent, "the store itself keeps the other end");
    }

    /// Takes note of the end of an operation, and hands out the next of its lane.
    fn end(&mut self, lane: Lane) {
        self.handed_out -= 1;
        let Entry::Occupied(mut entry) = self.lanes.entry(lane) else {
            unreachable!("a lane with a running operation is known");
        };
        let operations = entry.get_mut();
        if let Some((request, ticket)) = operations.waiting.pop_front() {
            return self.hand_out(request, ticket);
        }
        operations.running -= 1;
        if operations.running == 0 {
            entry.remove();
        }
    }
}

impl<T> fmt::Debug for Blocking<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Blocking");
        shown.field("handed_out", &self.handed_out).finish()
    }
}

impl<T> Drop for Blocking<T> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a helper thread of the store had panicked");
            }
        }
    }
}

impl<T: Send + 'static> Store<T> for Blocking<T> {
    fn submit(&mut self, request: Request, ticket: T) {
        let operations = self.lanes.entry(request.lane).or_insert(Operations {
            running: 0,
            waiting: VecDeque::new(),
        });
        if operations.running == LANE_MAX {
            operations.waiting.push_back((request, ticket));
        } else {
            operations.running += 1;
            self.hand_out(request, ticket);
        }
    }

    fn reap(&mut self) -> Option<Done<T>> {
        let (lane, done) = self.done.try_recv().ok()?;
        self.end(lane);
        Some(done)
    }

    fn waits(&mut self) -> &mut dyn Wait {
        &mut self.wait
    }
}

/// Does an operation, on the thread that calls.
pub fn perform(medium: &dyn Medium, request: &Request) -> Result<Outcome, Failure> {
    let (data, cancellation) = (&request.data, &request.cancellation);
    let is_cancelled = || cancellation.is_cancelled();
    let verify = |offset, length, against| {
        let part = offset..offset + length;
        verify(medium, part, data, against, is_cancelled)
    };
    let durable_on = |medium: &dyn Medium, durability| match durability {
        Durability::Later => Ok(()),
        // Not RWF_DSYNC, whose error does not tell a full file system from a lost write.
        Durability::Now => medium.flush().map_err(Failure::Flush),
    };
    let durable = |durability| durable_on(medium, durability);
    let sync = || durable(Durability::Now);
    let done = match request.operation {
        Operation::Read {
            offset,
            length,
            flush,
        } => {
            if flush == Flush::First {
                sync()?;
            }
            whole::read(medium, offset..offset.saturating_add(length), data)
        }
        Operation::Write {
            offset,
            length,
            durability,
        } => {
            whole::write(medium, offset, data, 0..length)?;
            durable(durability)
        }
        Operation::Flush => sync(),
        Operation::WriteAndVerify {
            offset,
            length,
            against,
        } => {
            whole::write(medium, offset, data, 0..length)?;
            sync()?;
            verify(offset, length, against)
        }
        Operation::Verify {
            offset,
            length,
            against,
        } => {
            sync()?;
            verify(offset, length, against)
        }
        Operation::CompareAndWrite {
            offset,
            length,
            durability,
        } => {
            exclusive::compare_and_write(medium, offset, length, data, cancellation)?;
            durable(durability)
        }
        Operation::OrWrite {
            offset,
            length,
            durability,
        } => {
            exclusive::or_write(medium, offset, length, data, cancellation)?;
            durable(durability)
        }
        Operation::WriteAtomic {
            offset,
            length,
            durability,
        } => {
            whole::write_atomic(medium, offset, data, length)?;
            durable(durability)
        }
        Operation::Copy {
            ref from,
            ref to,
            length,
            durability,
        } => {
            let (source, destination) = (from.medium(medium), to.medium(medium));
            copy((source, from.offset), (destination, to.offset), length)?;
            durable_on(destination, durability)
        }
        Operation::PreFetch { offset, length } => {
            medium.advise(offset, length, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
            Ok(())
        }
        Operation::Examine => match medium.actual_size() {
            Ok(size) if size < medium.size() => Err(Failure::Truncated),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Io(error)),
        },
        Operation::Unmap {
            ref ranges,
            durability,
        } => {
            space::unmap(medium, ranges, is_cancelled)?;
            durable(durability)
        }
        Operation::WriteSame {
            offset,
            length,
            content,
            spare,
            durability,
        } => {
            let range = offset..offset + length;
            space::write_same(medium, &range, data, content, spare, is_cancelled)?;
            durable(durability)
        }
        Operation::Extents {
            offset,
            length,
            block,
            most,
        } => {
            let extents = space::extents(
                |at, sought| medium.seek(at, sought),
                &(offset..offset + length),
                block,
                most,
            );
            return extents.map(Outcome::Extents).map_err(Failure::Io);
        }
        Operation::Figures => {
            let figures = medium.figures();
            return figures.map(Outcome::Figures).map_err(Failure::Io);
        }
    };
    done.map(|()| Outcome::Done)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::store::space::Extent;
    use crate::store::{Against, Cancellation, Content, Spare};
    use crate::sys::region::{Data, Region, Segment};

    struct Bench {
        store: Blocking<u32>,
        waker: Waker,
        backing: Arc<Backing>,
        region: Arc<Region>,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("lun0.img");
            let backing = Arc::new(Backing::open(&path, 1 << 20, 512).unwrap());
            let waker = Waker::new().unwrap();
            let store = Blocking::new(&backing, &waker).unwrap();
            let region = Arc::new(Region::anonymous(1 << 16).unwrap());
            Bench {
                store,
                waker,
                backing,
                region,
                _folder: folder,
            }
        }

        fn data(&self, offset: u64, length: u64) -> Data {
            Data::new(&self.region, vec![Segment { offset, length }], 0..1 << 16).unwrap()
        }

        fn run(&mut self, operation: Operation, data: Data) -> Done<u32> {
            self.run_until(operation, data, Cancellation::default())
        }

        fn run_until(
            &mut self,
            operation: Operation,
            data: Data,
            cancellation: Cancellation,
        ) -> Done<u32> {
            let lane = Lane(0);
            self.store.submit(
                Request {
                    lane,
                    operation,
                    data,
                    cancellation,
                },
                7,
            );
            loop {
                let mut fds = [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut fds, PollTimeout::from(20_000u16)).unwrap(), 1);
                self.waker.acknowledge();
                if let Some(done) = self.store.reap() {
                    return done;
                }
            }
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut bench = Bench::new();
        let data = bench.data(0, 4096);
        data.write_at(0, &[0x5a; 4096]);
        let write = Operation::Write {
            offset: 1024,
            length: 4096,
            durability: Durability::Now,
        };
        let done = bench.run(write, data);
        assert!(done.result.is_ok());
        assert_eq!(done.ticket, 7);

        let read = Operation::Read {
            offset: 1023,
            length: 3,
            flush: Flush::First,
        };
        let data = bench.data(8192, 4);
        data.write_at(0, &[0xff; 4]);
        let done = bench.run(read, data);
        assert!(done.result.is_ok());
        let mut bytes = [0; 4];
        done.data.read_at(0, &mut bytes);
        assert_eq!(bytes, [0, 0x5a, 0x5a, 0xff], "three bytes were asked for");
    }

    #[test]
    fn a_write_takes_no_more_of_the_buffer_than_it_is_told() {
        let mut bench = Bench::new();
        let data = bench.data(0, 4096);
        data.write_at(0, &[0x5a; 4096]);
        let write = Operation::Write {
            offset: 0,
            length: 512,
            durability: Durability::Later,
        };
        assert!(bench.run(write, data).result.is_ok());
        let mut bytes = [0xff; 513];
        bench.backing.file().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes[..512], [0x5a; 512]);
        assert_eq!(bytes[512], 0);
    }

    #[test]
    fn a_file_that_was_made_shorter_is_an_error_and_not_zeros() {
        let mut bench = Bench::new();
        bench.backing.file().set_len(2048).unwrap();
        let data = bench.data(0, 4096);
        let read = Operation::Read {
            offset: 0,
            length: 4096,
            flush: Flush::No,
        };
        assert!(matches!(
            bench.run(read, data).result,
            Err(Failure::Truncated)
        ));
    }

    #[test]
    fn a_failed_write_tells_the_errno() {
        let mut bench = Bench::new();
        let data = bench.data(0, 512);
        let write = Operation::Write {
            offset: u64::MAX,
            length: 512,
            durability: Durability::Later,
        };
        let result = bench.run(write, data).result;
        let Err(Failure::Write { error, .. }) = result else {
            panic!("{result:?}")
        };
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    }

    #[test]
    fn a_flush_ends_well() {
        let mut bench = Bench::new();
        let data = bench.data(0, 0);
        assert!(bench.run(Operation::Flush, data).result.is_ok());
    }

    #[test]
    fn a_verification_finds_what_differs_and_leaves_the_buffer_alone() {
        let mut bench = Bench::new();
        bench.backing.file().write_all_at(&[1, 2, 3], 512).unwrap();
        for (byte, is_equal) in [(3, true), (4, false)] {
            let data = bench.data(0, 3);
            data.write_at(0, &[1, 2, byte]);
            let verify = Operation::Verify {
                offset: 512,
                length: 3,
                against: Against::Data,
            };
            let done = bench.run(verify, data);
            assert_eq!(done.result.is_ok(), is_equal);
            assert_eq!(
                matches!(done.result, Err(Failure::Miscompare { .. })),
                !is_equal
            );
            let mut bytes = [0; 3];
            done.data.read_at(0, &mut bytes);
            assert_eq!(bytes, [1, 2, byte]);
        }
    }

    #[test]
    fn what_is_written_and_verified_is_in_the_file() {
        for against in [Against::Nothing, Against::Data] {
            let mut bench = Bench::new();
            let data = bench.data(0, 4096);
            data.write_at(0, &[0x5a; 4096]);
            let operation = Operation::WriteAndVerify {
                offset: 512,
                length: 1024,
                against,
            };
            assert!(bench.run(operation, data).result.is_ok());
            let mut bytes = [0xff; 2048];
            bench.backing.file().read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes[..512], [0; 512]);
            assert_eq!(bytes[512..1536], [0x5a; 1024]);
            assert_eq!(bytes[1536..], [0; 512]);
        }
    }

    #[test]
    fn what_cannot_be_written_is_not_verified() {
        let mut bench = Bench::new();
        let data = bench.data(0, 512);
        let operation = Operation::WriteAndVerify {
            offset: u64::MAX - 512,
            length: 512,
            against: Against::Data,
        };
        let result = bench.run(operation, data).result;
        assert!(matches!(result, Err(Failure::Write { .. })), "{result:?}");
    }

    #[test]
    fn a_pre_fetch_leaves_the_buffer_alone_and_is_no_failure_wherever_it_is() {
        let mut bench = Bench::new();
        for offset in [0, 513, 1 << 20, u64::MAX] {
            let data = bench.data(0, 1);
            data.write_at(0, &[0x5a]);
            let pre_fetch = Operation::PreFetch {
                offset,
                length: 1 << 19,
            };
            let done = bench.run(pre_fetch, data);
            assert!(done.result.is_ok(), "{offset}");
            let mut bytes = [0];
            done.data.read_at(0, &mut bytes);
            assert_eq!(bytes, [0x5a]);
        }
    }

    #[test]
    fn what_is_given_back_and_filled_reads_as_such_and_takes_up_space_accordingly() {
        let mut bench = Bench::new();
        let fill = |offset, content| Operation::WriteSame {
            offset,
            length: 65_536,
            content,
            spare: Spare::GiveBack,
            durability: Durability::Now,
        };
        let data = bench.data(0, 512);
        data.write_at(0, &[0x5a; 512]);
        let done = bench.run(fill(65_536, Content::Block(512)), data);
        assert_eq!(done.result.unwrap(), Outcome::Done);
        let data = bench.data(0, 0);
        let unmap = Operation::Unmap {
            ranges: vec![65_536..69_632, 73_728..131_072],
            durability: Durability::Later,
        };
        assert_eq!(bench.run(unmap, data).result.unwrap(), Outcome::Done);
        let mut bytes = [0xff; 65_536];
        let file = bench.backing.file();
        file.read_exact_at(&mut bytes, 65_536).unwrap();
        assert_eq!(bytes[..4096], [0; 4096]);
        assert_eq!(bytes[4096..8192], [0x5a; 4096]);
        assert_eq!(bytes[8192..], [0; 57_344]);

        let extent = |range, is_allocated| Extent {
            range,
            is_allocated,
        };
        let expected = vec![
            extent(65_536..69_632, false),
            extent(69_632..73_728, true),
            extent(73_728..131_072, false),
        ];
        let extents = Operation::Extents {
            offset: 65_536,
            length: 65_536,
            block: 512,
            most: 10,
        };
        let data = bench.data(0, 0);
        let found = bench.run(extents, data).result.unwrap();
        assert_eq!(found, Outcome::Extents(expected));

        let data = bench.data(0, 0);
        let Outcome::Figures(figures) = bench.run(Operation::Figures, data).result.unwrap() else {
            panic!("figures")
        };
        assert_eq!(figures.used, 4096);
    }

    #[test]
    fn what_is_cancelled_is_not_filled() {
        let mut bench = Bench::new();
        let cancellation = Cancellation::possible();
        cancellation.cancel();
        for operation in [
            Operation::WriteSame {
                offset: 0,
                length: 4096,
                content: Content::Block(512),
                spare: Spare::Keep,
                durability: Durability::Now,
            },
            Operation::Unmap {
                ranges: vec![4096..8192, 0..4096],
                durability: Durability::Now,
            },
        ] {
            let data = bench.data(0, 512);
            data.write_at(0, &[0x5a; 512]);
            bench.backing.file().write_all_at(&[1; 8192], 0).unwrap();
            let done = bench.run_until(operation, data, cancellation.clone());
            assert!(matches!(done.result, Err(Failure::Cancelled)));
            let mut bytes = [0; 8192];
            bench.backing.file().read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, [1; 8192]);
        }
    }

    #[test]
    fn an_examination_finds_a_file_that_was_made_shorter() {
        let mut bench = Bench::new();
        let data = bench.data(0, 0);
        assert!(bench.run(Operation::Examine, data).result.is_ok());
        bench.backing.file().set_len((1 << 20) - 1).unwrap();
        let data = bench.data(0, 0);
        assert!(matches!(
            bench.run(Operation::Examine, data).result,
            Err(Failure::Truncated)
        ));
    }

    /// A store whose operations hang until they are let go, each known by its length.
    struct Hanging {
        /// Lets one go. First, so that all are let go before the store waits for them.
        go: Sender<()>,
        store: Blocking<u64>,
        waker: Waker,
        region: Arc<Region>,
        /// Which have begun.
        begun: Receiver<u64>,
        /// Which have ended.
        ended: Receiver<u64>,
    }

    /// The lane whose operations do not hang.
    const SWIFT: Lane = Lane(1000);

    impl Hanging {
        fn new() -> Hanging {
            let (begin, begun) = unbounded();
            let (go, gate) = unbounded();
            let (end, ended) = unbounded();
            let waker = Waker::new().unwrap();
            let perform = move |request: &Request| {
                let Operation::Read { length, .. } = request.operation else {
                    unreachable!("it was submitted below");
                };
                if request.lane != SWIFT {
                    begin.send(length).unwrap();
                    // That nobody lets go any more lets all go.
                    let _ = gate.recv();
                }
                // Nobody may be left to hear of it.
                let _ = end.send(length);
                Ok(Outcome::Done)
            };
            Hanging {
                store: Blocking::start(perform, &waker).unwrap(),
                waker,
                region: Arc::new(Region::anonymous(4096).unwrap()),
                begun,
                go,
                ended,
            }
        }

        fn submit(&mut self, lane: Lane, length: u64) {
            let operation = Operation::Read {
                offset: 0,
                length,
                flush: Flush::No,
            };
            let data = Data::new(&self.region, Vec::new(), 0..4096).unwrap();
            let request = Request {
                lane,
                operation,
                data,
                cancellation: Cancellation::default(),
            };
            self.store.submit(request, length);
        }

        /// The next that is done.
        fn done(&mut self) -> u64 {
            loop {
                if let Some(done) = self.store.reap() {
                    return done.ticket;
                }
                let mut fds = [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
                let ready = poll(&mut fds, PollTimeout::from(20_000u16)).unwrap();
                assert_eq!(ready, 1, "nothing is done");
                self.waker.acknowledge();
            }
        }

        /// The next `count` that begin.
        fn begun(&self, count: usize) -> Vec<u64> {
            let soon = std::time::Duration::from_secs(20);
            let next = || self.begun.recv_timeout(soon).expect("one more begins");
            let mut begun: Vec<u64> = (0..count).map(|_| next()).collect();
            // They begin in order, on threads of which any may be the first to say so.
            begun.sort_unstable();
            begun
        }
    }

    #[test]
    fn a_lane_that_hangs_does_not_hold_up_another() {
        let mut hanging = Hanging::new();
        for length in 0..32 {
            hanging.submit(Lane(7), length);
        }
        for length in 100..132 {
            hanging.submit(SWIFT, length);
        }
        let mut done: Vec<u64> = (0..32).map(|_| hanging.done()).collect();
        done.sort_unstable();
        assert_eq!(done, (100..132).collect::<Vec<u64>>());
    }

    #[test]
    fn a_few_of_a_lane_run_and_the_others_follow_in_order_as_they_end() {
        let mut hanging = Hanging::new();
        for length in 0..7 {
            hanging.submit(Lane(0), length);
        }
        assert_eq!(hanging.begun(4), [0, 1, 2, 3]);
        assert_eq!(hanging.store.handed_out, 4);
        for next in 4..7 {
            hanging.go.send(()).unwrap();
            hanging.done();
            assert_eq!(hanging.begun(1), [next], "without another submission");
        }
        assert_eq!(hanging.store.handed_out, 4);
        assert_eq!(hanging.store.threads.len(), 4);
    }

    #[test]
    fn a_lane_without_operations_is_forgotten() {
        let mut hanging = Hanging::new();
        for length in 0..10 {
            hanging.submit(Lane(3), length);
            hanging.go.send(()).unwrap();
        }
        for _ in 0..10 {
            assert_eq!(hanging.store.lanes.len(), 1);
            hanging.done();
        }
        assert!(hanging.store.lanes.is_empty());
        assert_eq!(hanging.store.handed_out, 0);
    }

    #[test]
    fn threads_are_started_when_they_are_needed() {
        let mut hanging = Hanging::new();
        for length in 0..10 {
            hanging.submit(SWIFT, length);
            hanging.done();
        }
        assert_eq!(hanging.store.threads.len(), 1);
    }

    #[test]
    fn when_there_are_no_more_threads_the_lanes_share_those_there_are() {
        let mut hanging = Hanging::new();
        let lanes = THREADS_MAX / LANE_MAX + 1;
        for lane in 0..lanes {
            for _ in 0..LANE_MAX {
                hanging.submit(Lane(lane), 0);
            }
        }
        hanging.submit(SWIFT, 1);
        hanging.begun(THREADS_MAX);
        assert_eq!(hanging.store.threads.len(), THREADS_MAX);
        let all = lanes * LANE_MAX + 1;
        assert_eq!(hanging.store.handed_out, all);
        (1..all).for_each(|_| hanging.go.send(()).unwrap());
        let done: Vec<u64> = (0..all).map(|_| hanging.done()).collect();
        assert_eq!(
            done.iter().sum::<u64>(),
            1,
            "the last lane has had its turn"
        );
        assert!(hanging.store.lanes.is_empty());
    }

    #[test]
    fn dropping_waits_for_what_has_begun_and_begins_nothing_more() {
        let mut hanging = Hanging::new();
        for length in 0..10 {
            hanging.submit(Lane(0), length);
        }
        assert_eq!(hanging.begun(4), [0, 1, 2, 3]);
        let Hanging {
            store,
            begun,
            go,
            ended,
            ..
        } = hanging;
        drop(go);
        drop(store);
        // The threads are gone, and their ends of the channels with them.
        let mut all: Vec<u64> = ended.iter().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        assert_eq!(begun.iter().next(), None);
    }
}
