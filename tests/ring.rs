//! The command ring against a stand-in for the kernel, honest and hostile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "sim/kernel.rs"]
mod kernel;

use kernel::{Buffer, Kernel, RING_OFFSET};
use proptest::prelude::*;
use tcmu_pr::tcmu::Device;
use tcmu_pr::tcmu::ring::{
    Broken, Command, Completion, Entry, Function, Interrupted, OpenError, Ring, TaskManagement,
};

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const GOOD: Completion<'static> = Completion {
    status: 0,
    data_in_length: None,
    sense: &[],
};

fn take(device: &mut Device) -> Command {
    match device.ring.pop().unwrap() {
        Some(Entry::Command(command)) => command,
        other => panic!("a command was expected, not {other:?}"),
    }
}

fn answer(device: &mut Device, command: &Command, status: u8) {
    device
        .ring
        .complete(command.id, &Completion { status, ..GOOD });
}

#[test]
fn a_command_comes_out_whole() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.scatter = true;
    let data: Vec<u8> = (0..5000u32).map(|byte| byte.to_le_bytes()[0]).collect();
    let cdb = [0x2a, 0x08, 0, 0, 0, 7, 0, 0, 9, 0];
    let id = kernel.submit(&cdb, Buffer::Out(&data)).unwrap();

    let command = take(&mut device);
    assert_eq!(command.id.id, id);
    assert_eq!(command.cdb[..10], cdb);
    assert_eq!(command.cdb[10..], [0; 22]);
    assert!(!command.bidirectional);
    let mut copy = vec![0; 5000];
    assert_eq!(command.data.len(), 5000);
    command.data.read_at(0, &mut copy);
    assert_eq!(copy, data);
    assert!(device.ring.pop().unwrap().is_none());
}

#[test]
fn answers_are_seen_only_when_published_and_one_doorbell_serves_many() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    (0..3).for_each(|_| assert!(kernel.submit(&TEST_UNIT_READY, Buffer::None).is_some()));
    for _ in 0..3 {
        let command = take(&mut device);
        answer(&mut device, &command, 0);
    }
    assert!(kernel.process().is_empty());
    assert!(device.ring.publish().unwrap());
    device.kick().unwrap();
    assert_eq!(kernel.doorbells(), 1);
    assert_eq!(kernel.process().len(), 3);
    assert!(kernel.idle());
    assert!(!device.ring.publish().unwrap(), "nothing new to tell");
}

#[test]
fn answers_in_any_order_reach_their_own_commands() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    let ids: Vec<u16> = (0..4)
        .map(|_| kernel.submit(&TEST_UNIT_READY, Buffer::In(8)).unwrap())
        .collect();
    let commands: Vec<Command> = (0..4).map(|_| take(&mut device)).collect();
    for (index, mark) in [(2, b'c'), (0, b'a'), (3, b'd'), (1, b'b')] {
        commands[index].data.write_at(0, &[mark; 8]);
        answer(&mut device, &commands[index], 0);
    }
    device.ring.publish().unwrap();
    let mut answers = kernel.process();
    let order: Vec<u16> = answers.iter().map(|answer| answer.id).collect();
    assert_eq!(order, [ids[2], ids[0], ids[3], ids[1]]);
    answers.sort_by_key(|answer| answer.id);
    let data: Vec<u8> = answers.iter().map(|answer| answer.data_in[0]).collect();
    assert_eq!(data, b"abcd");
}

#[test]
fn a_later_entry_is_intact_after_an_earlier_slot_was_answered_for_another_command() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel
        .submit(&[0x12, 0, 0, 0, 1, 0], Buffer::In(1))
        .unwrap();
    kernel
        .submit(&[0x12, 0, 0, 0, 2, 0], Buffer::In(2))
        .unwrap();
    let first = take(&mut device);
    let second = take(&mut device);
    answer(&mut device, &second, 0x08);
    device.ring.publish().unwrap();
    assert_eq!(first.cdb[4], 1, "the first command's CDB is a copy");
    assert_eq!(kernel.process()[0].id, second.id.id);
    answer(&mut device, &first, 0x18);
    device.ring.publish().unwrap();
    let last = kernel.process();
    assert_eq!((last[0].id, last[0].status), (first.id.id, 0x18));
    assert!(kernel.idle());
}

#[test]
fn the_ring_wraps_with_pads_many_times() {
    // 1,000 is no multiple of an entry's 120 bytes: pads of every length come up.
    let (mut kernel, mut device) = Kernel::new(1000, 8);
    let cdbs: [&[u8]; 3] = [&[0; 6], &[0x28; 10], &[0x88; 16]];
    for round in 0..500usize {
        let cdb = cdbs[round % 3];
        let id = kernel.submit(cdb, Buffer::None).unwrap();
        let command = take(&mut device);
        assert_eq!(command.id.id, id);
        assert_eq!(command.cdb[..cdb.len()], *cdb);
        answer(&mut device, &command, 0);
        device.ring.publish().unwrap();
        assert_eq!(kernel.process().len(), 1);
        assert!(kernel.idle(), "round {round}");
    }
}

#[test]
fn a_full_ring_is_drained_and_filled_again() {
    let (mut kernel, mut device) = Kernel::new(1000, 8);
    for _ in 0..20 {
        let mut queued = 0;
        while kernel.submit(&TEST_UNIT_READY, Buffer::None).is_some() {
            queued += 1;
        }
        assert!((6..=8).contains(&queued), "{queued}");
        let mut commands: Vec<Command> = (0..queued).map(|_| take(&mut device)).collect();
        assert!(device.ring.pop().unwrap().is_none());
        commands.reverse();
        commands
            .iter()
            .for_each(|command| answer(&mut device, command, 0));
        device.ring.publish().unwrap();
        assert_eq!(kernel.process().len(), queued);
        assert!(kernel.idle());
    }
}

#[test]
fn task_management_needs_no_answer_and_the_tail_steps_over_it() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    let id = kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    kernel.task_management(5, &[id, 300]);
    kernel.task_management(1, &[]);
    let command = take(&mut device);
    let mut functions = Vec::new();
    while let Some(Entry::TaskManagement(function)) = device.ring.pop().unwrap() {
        functions.push(function);
    }
    let expected = [
        TaskManagement {
            function: Function::LogicalUnitReset,
            commands: vec![id, 300],
        },
        TaskManagement {
            function: Function::AbortTask,
            commands: vec![],
        },
    ];
    assert_eq!(functions, expected);
    assert!(
        !device.ring.publish().unwrap(),
        "the tail waits for the command before them"
    );
    answer(&mut device, &command, 0);
    assert!(device.ring.publish().unwrap());
    assert_eq!(kernel.process().len(), 1);
    assert!(kernel.idle());
}

#[test]
fn an_unknown_opcode_is_answered_with_the_flag_for_it() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    let id = kernel.unknown_op(5);
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let command = take(&mut device);
    device.ring.publish().unwrap();
    let answers = kernel.process();
    assert_eq!((answers[0].id, answers[0].unknown_op), (id, true));
    answer(&mut device, &command, 0);
    device.ring.publish().unwrap();
    assert!(!kernel.process()[0].unknown_op);
    assert!(kernel.idle());
}

#[test]
fn an_unknown_opcode_behind_a_running_command_takes_that_commands_slot() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    let running = kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let unknown = kernel.unknown_op(3);
    let command = take(&mut device);
    assert!(device.ring.pop().unwrap().is_none());
    device.ring.publish().unwrap();
    assert_eq!(kernel.process()[0].id, unknown);
    answer(&mut device, &command, 0);
    device.ring.publish().unwrap();
    assert_eq!(kernel.process()[0].id, running);
}

#[test]
fn a_data_in_length_hides_the_rest_of_the_buffer() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::In(512)).unwrap();
    let command = take(&mut device);
    command.data.write_at(0, b"abc");
    device.ring.complete(
        command.id,
        &Completion {
            data_in_length: Some(3),
            ..GOOD
        },
    );
    device.ring.publish().unwrap();
    assert_eq!(kernel.process()[0].data_in, b"abc");
}

#[test]
fn sense_reaches_the_kernel_and_old_request_bytes_do_not() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel
        .submit(&TEST_UNIT_READY, Buffer::Out(&[1; 4096]))
        .unwrap();
    let command = take(&mut device);
    let sense = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0];
    device.ring.complete(
        command.id,
        &Completion {
            status: 2,
            data_in_length: None,
            sense: &sense,
        },
    );
    device.ring.publish().unwrap();
    let answer = &kernel.process()[0];
    assert_eq!(answer.status, 2);
    assert_eq!(answer.sense[..14], sense);
    assert_eq!(answer.sense[14..], [0; 82]);
}

#[test]
fn a_reset_by_the_administrator_forgets_what_was_taken() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let answered = take(&mut device);
    answer(&mut device, &answered, 0);
    device.ring.publish().unwrap();
    kernel.process();
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let lost = take(&mut device);
    kernel.reset();
    assert_eq!(device.ring.pop().unwrap_err(), Interrupted::Reset);
    device.ring.restart();
    assert_eq!(device.ring.unanswered(), 0);

    let id = kernel.submit(&[0x12, 0, 0, 0, 9, 0], Buffer::None).unwrap();
    let command = take(&mut device);
    assert_eq!((command.id.id, command.cdb[4]), (id, 9));
    assert_eq!(lost.id.id, id, "the kernel reuses the id");
    answer(&mut device, &lost, 0x02);
    assert!(
        !device.ring.publish().unwrap(),
        "the answer to the lost command goes nowhere"
    );
    answer(&mut device, &command, 0x08);
    device.ring.publish().unwrap();
    assert_eq!(kernel.process()[0].status, 0x08);
}

#[test]
fn a_reset_is_noticed_before_a_tail_from_before_it_is_published() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let answered = take(&mut device);
    answer(&mut device, &answered, 0);
    device.ring.publish().unwrap();
    kernel.process();
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let lost = take(&mut device);
    answer(&mut device, &lost, 0);
    kernel.reset();
    assert_eq!(device.ring.publish().unwrap_err(), Interrupted::Reset);
    assert!(kernel.process().is_empty());
}

#[test]
fn a_reset_is_noticed_when_nothing_had_been_answered_before() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let _lost = take(&mut device);
    kernel.reset();
    assert_eq!(device.ring.pop().unwrap_err(), Interrupted::Reset);
}

#[test]
fn an_answer_from_before_a_reset_never_ends_the_command_that_took_its_place() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let lost = take(&mut device);
    kernel.reset();
    // The same id in the same place of the ring, and head and tail as if nothing had happened.
    let id = kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    assert_eq!(id, lost.id.id);
    answer(&mut device, &lost, 0);
    assert_eq!(device.ring.publish().unwrap_err(), Interrupted::Reset);
    assert!(kernel.process().is_empty());
    device.ring.restart();
    let command = take(&mut device);
    answer(&mut device, &command, 0x08);
    device.ring.publish().unwrap();
    assert_eq!(kernel.process()[0].status, 0x08);
}

#[test]
fn a_mailbox_of_another_version_or_of_an_old_kernel_is_refused() {
    let open = |offset: u64, value: u16| {
        let (kernel, _device) = Kernel::new(1 << 12, 8);
        kernel.region.write(offset, &value).unwrap();
        Ring::open(kernel.region.into()).unwrap_err()
    };
    assert!(matches!(open(0, 3), OpenError::Version(3)));
    assert!(
        matches!(open(2, 0x0b), OpenError::Flags(0x0b)),
        "no task management entries"
    );
    assert!(
        matches!(open(4, 64), OpenError::Layout { .. }),
        "the ring overlaps the mailbox"
    );
    assert!(
        matches!(open(10, 0xffff), OpenError::Layout { .. }),
        "the ring ends past the mapping"
    );
    assert!(
        matches!(open(64, 4097), OpenError::Layout { .. }),
        "the tail lies outside the ring"
    );
}

/// One command entry, then one field of it overwritten.
fn spoiled(offset: u64, value: u32) -> Interrupted {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::In(8)).unwrap();
    kernel.region.write(RING_OFFSET + offset, &value).unwrap();
    device.ring.pop().unwrap_err()
}

#[test]
fn an_entry_that_no_kernel_writes_stops_the_ring() {
    let broken = |error: Interrupted| match error {
        Interrupted::Broken(broken) => broken,
        Interrupted::Reset => panic!("not a reset"),
    };
    assert!(matches!(
        broken(spoiled(0, 1)),
        Broken::Entry { length: 0, .. }
    ));
    assert!(matches!(
        broken(spoiled(0, 104 | 1)),
        Broken::Entry { length: 104, .. }
    ));
    assert!(matches!(
        broken(spoiled(0, 4096 | 1)),
        Broken::Entry { length: 4096, .. }
    ));
    assert!(matches!(broken(spoiled(8, 1 << 30)), Broken::List { .. }));
    assert!(matches!(broken(spoiled(12, u32::MAX)), Broken::List { .. }));
    assert!(matches!(broken(spoiled(24, 0)), Broken::Cdb { .. }));
    assert!(matches!(broken(spoiled(24, 128 + 120)), Broken::Cdb { .. }));
    assert!(
        matches!(broken(spoiled(48, 0)), Broken::Data { .. }),
        "data in the mailbox"
    );
    assert!(matches!(broken(spoiled(56, u32::MAX)), Broken::Data { .. }));
}

#[test]
fn a_head_that_no_kernel_writes_stops_the_ring() {
    for head in [7, 4096, u32::MAX] {
        let (kernel, mut device) = Kernel::new(1 << 12, 8);
        kernel.region.store_release(12, head).unwrap();
        let error = device.ring.pop().unwrap_err();
        assert!(
            matches!(error, Interrupted::Broken(Broken::Head { .. })),
            "{head}"
        );
    }
}

#[test]
fn a_head_behind_what_was_taken_stops_the_ring() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    let _first = take(&mut device);
    let _second = take(&mut device);
    kernel.region.store_release(12, 120).unwrap();
    let error = device.ring.pop().unwrap_err();
    assert!(matches!(
        error,
        Interrupted::Broken(Broken::Head { head: 120, .. })
    ));
}

#[test]
fn an_id_that_is_still_unanswered_stops_the_ring() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    let id = kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    kernel.region.write(RING_OFFSET + 120 + 4, &id).unwrap();
    take(&mut device);
    let error = device.ring.pop().unwrap_err();
    assert_eq!(
        error,
        Interrupted::Broken(Broken::RepeatedId { at: 120, id })
    );
}

#[test]
fn a_bidirectional_command_says_so() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    kernel.submit(&TEST_UNIT_READY, Buffer::In(8)).unwrap();
    kernel.region.write(RING_OFFSET + 12, &1u32).unwrap();
    assert!(take(&mut device).bidirectional);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever stands in the ring: no panic, no endless loop, and not one byte is written by us that is not a
    /// response in a slot we took.
    #[test]
    fn garbage_in_the_ring_is_survived(
        words in prop::collection::vec(
            prop_oneof![any::<u64>(), 0u64..512, (0u64..600).prop_map(|n| n * 8 + 1)], 64),
        head in (0u32..64).prop_map(|n| n * 8),
    ) {
        let (kernel, mut device) = Kernel::new(512, 4);
        for (index, word) in words.iter().enumerate() {
            kernel.region.write(RING_OFFSET + 8 * index as u64, word).unwrap();
        }
        kernel.region.store_release(12, head).unwrap();
        let mut taken = 0u32;
        while let Ok(Some(entry)) = device.ring.pop() {
            if let Entry::Command(command) = entry {
                answer(&mut device, &command, 0);
            }
            taken += 1;
            prop_assert!(taken <= 64);
        }
        device.ring.publish().unwrap();
        let tail = kernel.region.load_acquire(64).unwrap();
        prop_assert!(tail <= head);
        let from = u64::from(tail).div_ceil(8);
        for index in from..64 {
            let word: u64 = kernel.region.read(RING_OFFSET + 8 * index).unwrap();
            prop_assert_eq!(word, words[usize::try_from(index).unwrap()], "at or past the tail");
        }
    }

    /// Any interleaving of queueing, taking and answering keeps every answer with its command.
    #[test]
    fn every_interleaving_answers_every_command_once(
        steps in prop::collection::vec((0u8..3, any::<prop::sample::Index>()), 1..300),
    ) {
        let (mut kernel, mut device) = Kernel::new(1208, 16);
        kernel.scatter = true;
        let mut taken: Vec<Command> = Vec::new();
        let mut queued = 0;
        let mut answered = 0;
        for (step, choice) in steps {
            match step {
                0 => {
                    let length = choice.index(9000);
                    queued += usize::from(kernel.submit(&[0x28; 10], Buffer::In(length)).is_some());
                }
                1 => if let Some(Entry::Command(command)) = device.ring.pop().unwrap() {
                    taken.push(command);
                },
                _ => if !taken.is_empty() {
                    let command = taken.swap_remove(choice.index(taken.len()));
                    let mark = command.id.id.to_be_bytes()[1];
                    command.data.write_at(0, &vec![mark; usize::try_from(command.data.len()).unwrap()]);
                    answer(&mut device, &command, 0);
                    device.ring.publish().unwrap();
                    let done = kernel.process();
                    prop_assert_eq!(done.len(), 1);
                    prop_assert_eq!(done[0].id, command.id.id);
                    prop_assert!(done[0].data_in.iter().all(|&byte| byte == mark));
                    answered += 1;
                },
            }
            prop_assert_eq!(device.ring.unanswered(), taken.len());
        }
        prop_assert!(answered + taken.len() <= queued);
    }
}
