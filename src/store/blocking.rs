//! A store of helper threads that read and write with `preadv2` and `pwritev2`.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Backing, Done, Durability, Failure, Flush, Operation, Request, Store};
use crate::sys::vectored;
use crate::sys::wake::Waker;

/// How many operations run at the same time.
const THREADS: usize = 4;

/// A store whose operations run on helper threads. Dropping it waits for the threads to finish what they have:
/// nothing touches the backing object afterwards.
#[derive(Debug)]
pub struct Blocking<T> {
    /// `None` only while it is dropped.
    jobs: Option<Sender<(Request, T)>>,
    done: Receiver<Done<T>>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Blocking<T> {
    /// A store on `backing` that calls `waker` when an operation is done.
    pub fn new(backing: &Arc<Backing>, waker: &Waker) -> io::Result<Blocking<T>> {
        let (jobs, to_do) = unbounded::<(Request, T)>();
        let (finished, done) = unbounded();
        let mut threads = Vec::new();
        for index in 0..THREADS {
            let (to_do, finished) = (to_do.clone(), finished.clone());
            let (backing, waker) = (Arc::clone(backing), waker.clone());
            let thread = thread::Builder::new().name(format!("store-{index}"));
            threads.push(thread.spawn(move || {
                for (request, ticket) in to_do {
                    let result = perform(&backing, &request);
                    let done = Done {
                        ticket,
                        data: request.data,
                        result,
                    };
                    if finished.send(done).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?);
        }
        Ok(Blocking {
            jobs: Some(jobs),
            done,
            threads,
        })
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
        let sent = self.jobs.as_ref().map(|jobs| jobs.send((request, ticket)));
        assert!(
            matches!(sent, Some(Ok(()))),
            "the helper threads live as long as the store"
        );
    }

    fn reap(&mut self) -> Option<Done<T>> {
        self.done.try_recv().ok()
    }
}

fn perform(backing: &Backing, request: &Request) -> Result<(), Failure> {
    let (file, data) = (backing.file(), &request.data);
    let sync = || backing.flush().map_err(Failure::Flush);
    match request.operation {
        Operation::Read {
            offset,
            length,
            flush,
        } => {
            if flush == Flush::First {
                sync()?;
            }
            whole(length, |range| {
                vectored::read(file, offset + range.start, data, range)
            })
        }
        Operation::Write {
            offset,
            length,
            durability,
        } => {
            whole(length, |range| {
                vectored::write(file, offset + range.start, data, range)
            })?;
            match durability {
                Durability::Later => Ok(()),
                // Not RWF_DSYNC, whose error does not tell a full file system from a lost write.
                Durability::Now => sync(),
            }
        }
        Operation::Flush => sync(),
    }
}

/// Repeats a call that may do less than it is asked for until all is done.
fn whole(length: u64, mut call: impl FnMut(Range<u64>) -> io::Result<u64>) -> Result<(), Failure> {
    let mut done = 0;
    while done < length {
        match call(done..length) {
            Ok(0) => return Err(Failure::Truncated),
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Io(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
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
            self.store.submit(Request { operation, data }, 7);
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
        let Err(Failure::Io(error)) = result else {
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
}
