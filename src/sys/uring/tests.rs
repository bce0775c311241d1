use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{pipe, write};

use super::*;
use crate::sys::region::{Region, Segment};

const SOON: Option<Duration> = Some(Duration::from_secs(20));

fn uring(file: &File) -> Uring<u32> {
    Uring::new(file).expect("tests need io_uring: Linux 6.1 or later, and not forbidden")
}

fn event() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()
}

fn woken(uring: &mut Uring<u32>, timeout: Option<Duration>) -> Vec<u64> {
    let mut woken = Vec::new();
    uring.wait(timeout, &mut woken);
    woken
}

fn run(uring: &mut Uring<u32>, call: &Call, data: Data) -> Ended<u32> {
    uring.start(call, data, 5);
    loop {
        if let Some(ended) = uring.ended() {
            assert_eq!(ended.ticket, 5);
            return ended;
        }
        woken(uring, SOON);
    }
}

#[test]
fn each_event_wakes_although_nothing_is_read() {
    let file = tempfile::tempfile().unwrap();
    let mut uring = uring(&file);
    let (one, other) = (event(), event());
    uring.watch(one.as_fd(), 1).unwrap();
    uring.watch(other.as_fd(), 0xffff_ffff).unwrap();
    assert!(woken(&mut uring, Some(Duration::from_millis(1))).is_empty());
    for _ in 0..3000 {
        one.write(1).unwrap();
        assert_eq!(woken(&mut uring, SOON), [1]);
    }
    other.write(1).unwrap();
    assert_eq!(woken(&mut uring, SOON), [0xffff_ffff]);
    assert!(woken(&mut uring, Some(Duration::ZERO)).is_empty());
}

#[test]
fn what_was_there_before_wakes() {
    let file = tempfile::tempfile().unwrap();
    let mut uring = uring(&file);
    let event = event();
    event.write(1).unwrap();
    uring.watch(event.as_fd(), 3).unwrap();
    assert_eq!(woken(&mut uring, SOON), [3]);
}

#[test]
fn what_is_let_go_is_closed_and_wakes_no_more() {
    let file = tempfile::tempfile().unwrap();
    let mut uring = uring(&file);
    let (reader, writer) = pipe().unwrap();
    uring.watch(reader.as_fd(), 1).unwrap();
    let event = event();
    uring.watch(event.as_fd(), 2).unwrap();
    write(&writer, b"x").unwrap();
    assert_eq!(woken(&mut uring, SOON), [1]);
    write(&writer, b"x").unwrap();
    uring.forget(reader.as_fd(), 1).unwrap();
    uring.forget(reader.as_fd(), 1).unwrap();
    drop(reader);
    // With the last reader gone, a pipe can't be written.
    assert_eq!(write(&writer, b"x"), Err(nix::Error::EPIPE));
    event.write(1).unwrap();
    // What came before it was let go may still be told.
    let keys = woken(&mut uring, SOON);
    assert!(keys.contains(&2), "{keys:?}");
}

#[test]
fn what_is_written_to_a_descriptor_wakes_nobody() {
    let file = tempfile::tempfile().unwrap();
    let mut uring = uring(&file);
    let event = event();
    const ONE: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0];
    uring.write(event.as_fd(), ONE);
    let begun = Instant::now();
    let time = Duration::from_millis(10);
    assert!(woken(&mut uring, Some(time)).is_empty());
    assert!(begun.elapsed() >= time);
    assert_eq!(event.read().unwrap(), 1);
    // What is let go was told before.
    uring.write(event.as_fd(), ONE);
    uring.forget(event.as_fd(), 1).unwrap();
    assert_eq!(event.read().unwrap(), 1);
}

#[test]
fn what_cannot_be_watched_wakes_once_and_can_be_let_go() {
    let file = tempfile::tempfile().unwrap();
    let mut uring = uring(&file);
    // A number that nobody else gets meanwhile.
    let number = fcntl(event().as_fd(), FcntlArg::F_DUPFD_CLOEXEC(1000)).unwrap();
    // SAFETY: it is new, and nobody else knows it.
    let closed = unsafe { OwnedFd::from_raw_fd(number) };
    uring.watch(closed.as_fd(), 1).unwrap();
    drop(closed);
    assert_eq!(woken(&mut uring, SOON), [1]);
    assert!(woken(&mut uring, Some(Duration::from_millis(1))).is_empty());
    uring.forget(event().as_fd(), 1).unwrap();
}

#[test]
fn calls_end_with_what_the_system_says() {
    let file = tempfile::tempfile().unwrap();
    let mut uring = uring(&file);
    let region = Arc::new(Region::anonymous(16_384).unwrap());
    let data = |pieces: &[(u64, u64)]| {
        let segments = pieces.iter();
        let segments = segments.map(|&(offset, length)| Segment { offset, length });
        Data::new(&region, segments.collect(), 0..16_384).unwrap()
    };
    let buffer = data(&[(8192, 100), (0, 28)]);
    buffer.write_at(0, &[1; 128]);
    let call = Call::Write {
        offset: 10,
        range: 64..128,
    };
    assert_eq!(run(&mut uring, &call, buffer).result.unwrap(), 64);
    let call = Call::Read {
        offset: 9,
        range: 1..100,
    };
    let ended = run(&mut uring, &call, data(&[(4096, 101)]));
    assert_eq!(ended.result.unwrap(), 65, "to the end of the file");
    let mut found = [7; 101];
    ended.data.read_at(0, &mut found);
    let expected = [&[0; 2][..], &[1; 64], &[0; 35]].concat();
    assert_eq!(found[..], expected);

    let ended = run(&mut uring, &Call::SyncData, Data::none());
    assert_eq!(ended.result.unwrap(), 0);
    let call = Call::Fallocate {
        mode: FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
        part: 0..0,
    };
    let ended = run(&mut uring, &call, Data::none());
    assert_eq!(ended.result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn more_can_be_going_on_than_the_kernel_is_told_of_at_a_time() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let mut uring = uring(&file);
    let region = Arc::new(Region::anonymous(4096).unwrap());
    for ticket in 0..5000 {
        let segments = vec![Segment {
            offset: u64::from(ticket % 4096),
            length: 1,
        }];
        let data = Data::new(&region, segments, 0..4096).unwrap();
        let call = Call::Read {
            offset: 0,
            range: 0..1,
        };
        uring.start(&call, data, ticket);
    }
    let mut tickets = Vec::new();
    while tickets.len() < 5000 {
        match uring.ended() {
            Some(ended) => {
                assert_eq!(ended.result.unwrap(), 1);
                tickets.push(ended.ticket);
            }
            None => drop(woken(&mut uring, SOON)),
        }
    }
    tickets.sort_unstable();
    assert_eq!(tickets, (0..5000).collect::<Vec<u32>>());
    assert_eq!(uring.going(), 0);
}

#[test]
fn it_can_be_made_on_another_thread_and_need_not_be_used() {
    let file = tempfile::tempfile().unwrap();
    drop(uring(&file));
    let mut one = uring(&file);
    let event = event();
    one.watch(event.as_fd(), 1).unwrap();
    let thread = std::thread::spawn(move || {
        event.write(1).unwrap();
        assert_eq!(woken(&mut one, SOON), [1]);
    });
    thread.join().unwrap();
}
