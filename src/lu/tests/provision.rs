//! WRITE SAME, UNMAP and GET LBA STATUS.

use super::*;
use crate::store::space::{Extent, Figures};
use crate::store::{Content, Spare};

/// Blocks that are given back read as zeros.
const THIN: Provisioning = Provisioning::Thin {
    zeroes: true,
    granularity: 4096,
    alignment: 0,
    figures: true,
    soft_threshold: None,
};
/// Blocks that are given back read as anything.
const DISCARDING: Provisioning = Provisioning::Thin {
    zeroes: false,
    granularity: 4096,
    alignment: 0,
    figures: true,
    soft_threshold: None,
};

const UNMAP: [u8; 10] = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
/// From LBA 7 on, one descriptor.
const GET_LBA_STATUS: [u8; 16] = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 24, 0, 0];

fn bench(provisioning: Provisioning) -> Bench {
    Bench::new(Setup {
        provisioning,
        ..setup()
    })
}

fn check(sense: Sense) -> Response {
    Response::Check(sense)
}

/// WRITE SAME(10) of two blocks at LBA 7, with these flags in byte 1.
fn write_same_10(flags: u8) -> [u8; 10] {
    [0x41, flags, 0, 0, 0, 7, 0, 0, 2, 0]
}

fn write_same_16(flags: u8) -> [u8; 16] {
    [0x93, flags, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0]
}

/// UNMAP of those blocks, sent with a data buffer that holds its list and no more.
fn unmap(bench: &mut Bench, from: usize, descriptors: &[(u64, u32)]) -> Step {
    let length = 16 * u16::try_from(descriptors.len()).unwrap();
    let data = bench.data(u64::from(length) + 8);
    data.zero_from(0);
    data.write_at(0, &(length + 6).to_be_bytes());
    data.write_at(2, &length.to_be_bytes());
    for (place, (lba, count)) in (8..).step_by(16).zip(descriptors) {
        data.write_at(place, &lba.to_be_bytes());
        data.write_at(place + 8, &count.to_be_bytes());
    }
    let [high, low] = (length + 8).to_be_bytes();
    let task = bench.task(from, &[0x42, 0, 0, 0, 0, 0, 0, high, low, 0], data);
    bench.unit.begin(task)
}

fn unmap_io(bench: &mut Bench, from: usize, descriptors: &[(u64, u32)]) -> (Request, Pending) {
    match unmap(bench, from, descriptors) {
        Step::Io(request, pending) => (request, pending),
        other => panic!("{other:?} where I/O was expected"),
    }
}

fn unmap_answer(bench: &mut Bench, from: usize, descriptors: &[(u64, u32)]) -> Response {
    match unmap(bench, from, descriptors) {
        Step::Answer(answer) => settle(answer),
        other => panic!("{other:?} where an answer was expected"),
    }
}

#[test]
fn write_same_fills_with_its_block_or_zeros_and_gives_back_only_if_asked() {
    let mut bench = bench(THIN);
    let block = Content::Block(512);
    for (cdb, length, content, spare) in [
        (write_same_10(0).as_slice(), 512, block, Spare::Keep),
        (&write_same_10(0x08), 512, block, Spare::GiveBack), // UNMAP
        (&write_same_16(0), 512, block, Spare::Keep),
        (&write_same_16(0x08), 512, block, Spare::GiveBack),
        (&write_same_16(0x01), 0, Content::Zeros, Spare::Keep), // NDOB
        (&write_same_16(0x09), 0, Content::Zeros, Spare::GiveBack),
        (&write_same_16(0x09), 512, Content::Zeros, Spare::GiveBack), // what is not asked for
    ] {
        let expected = Operation::WriteSame {
            offset: 3584,
            length: 1024,
            content,
            spare,
            durability: Durability::Later,
        };
        let io = bench.io(A, cdb, length);
        assert_eq!(io.0.operation, expected, "{cdb:02x?}");
        assert_eq!(bench.end(io), Response::Good);
    }
}

#[test]
fn write_same_and_unmap_are_durable_where_the_cache_is_off() {
    let mut bench = Bench::new(Setup {
        write_back: false,
        ..setup()
    });
    let io = bench.io(A, &write_same_10(0), 512);
    let Operation::WriteSame { durability, .. } = io.0.operation else {
        panic!("WRITE SAME")
    };
    assert_eq!(durability, Durability::Now);
    bench.end(io);
    let mut bench = Bench::new(Setup {
        provisioning: THIN,
        write_back: false,
        ..setup()
    });
    let io = unmap_io(&mut bench, A, &[(0, 1)]);
    let Operation::Unmap { durability, .. } = io.0.operation else {
        panic!("UNMAP")
    };
    assert_eq!(durability, Durability::Now);
    bench.end(io);
}

#[test]
fn write_same_takes_one_block_of_data_and_no_more() {
    let mut bench = bench(THIN);
    let wrong = check(Sense::invalid_field_in_command_information_unit());
    for length in [0, 511, 513, 1024] {
        for flags in [0x00, 0x08] {
            assert_eq!(bench.answer(A, &write_same_10(flags), length), wrong);
            assert_eq!(bench.answer(A, &write_same_16(flags), length), wrong);
        }
    }
}

#[test]
fn write_same_is_judged_field_by_field() {
    let mut bench = bench(THIN);
    let at = |byte, bit| check(Sense::invalid_field_in_cdb(Field::cdb_bit(byte, bit)));
    for (flags, bit) in [(0xe0, 7), (0x10, 4), (0x18, 4), (0x04, 2), (0x02, 1)] {
        assert_eq!(bench.answer(A, &write_same_10(flags), 512), at(1, bit));
        assert_eq!(bench.answer(A, &write_same_16(flags), 512), at(1, bit));
    }
    // No blocks, or more than 8000h.
    let length = |byte| check(Sense::invalid_field_in_cdb(Field::cdb(byte)));
    for blocks in [[0x00, 0x00], [0x80, 0x01]] {
        let cdb = [0x41, 0, 0, 0, 0, 0, 0, blocks[0], blocks[1], 0];
        assert_eq!(bench.answer(A, &cdb, 512), length(7));
        let mut cdb = write_same_16(0);
        cdb[12..14].copy_from_slice(&blocks);
        assert_eq!(bench.answer(A, &cdb, 512), length(10));
    }
    // Two blocks from the last on, whatever the data is.
    let past_the_end = [0x41, 0, 0, 0, 0x03, 0xe7, 0, 0, 2, 0];
    let out_of_range = check(Sense::logical_block_address_out_of_range());
    assert_eq!(bench.answer(A, &past_the_end, 0), out_of_range);
}

#[test]
fn write_same_does_not_unmap_where_what_is_given_back_may_read_as_anything() {
    let refused = check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 3)));
    for provisioning in [Provisioning::Full, DISCARDING] {
        let mut bench = bench(provisioning);
        assert_eq!(bench.answer(A, &write_same_10(0x08), 512), refused);
        assert_eq!(bench.answer(A, &write_same_16(0x09), 0), refused);
        let io = bench.io(A, &write_same_16(0x01), 0);
        assert_eq!(bench.end(io), Response::Good);
    }
}

#[test]
fn unmap_gives_back_each_of_its_ranges() {
    for provisioning in [THIN, DISCARDING] {
        let mut bench = bench(provisioning);
        let io = unmap_io(&mut bench, A, &[(7, 2), (3, 0), (999, 1)]);
        let expected = Operation::Unmap {
            ranges: vec![3584..4608, 511_488..512_000],
            durability: Durability::Later,
        };
        assert_eq!(io.0.operation, expected);
        assert_eq!(bench.end(io), Response::Good);
    }
}

#[test]
fn unmap_of_nothing_is_good() {
    let mut bench = bench(THIN);
    assert_eq!(unmap_answer(&mut bench, A, &[]), Response::Good);
    let end = [(1000, 0)];
    assert_eq!(unmap_answer(&mut bench, A, &end), Response::Good);
    let no_list = [0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bench.answer(A, &no_list, 0), Response::Good);
}

#[test]
fn unmap_is_judged_whole_before_anything_is_given_back() {
    let mut bench = bench(THIN);
    let anchor = check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 0)));
    assert_eq!(
        bench.answer(A, &[0x42, 0x01, 0, 0, 0, 0, 0, 0, 0, 0], 0),
        anchor
    );
    let too_short = check(Sense::parameter_list_length_error());
    assert_eq!(bench.answer(A, &UNMAP, 23), too_short);
    let out_of_range = check(Sense::logical_block_address_out_of_range());
    let ranges = [(0, 1), (999, 2)];
    assert_eq!(unmap_answer(&mut bench, A, &ranges), out_of_range);
    let too_many = check(Sense::invalid_field_in_parameter_list(Field::parameter(2)));
    assert_eq!(unmap_answer(&mut bench, A, &[(0, 1); 257]), too_many);
}

#[test]
fn unmap_is_not_known_to_a_unit_that_gives_nothing_back() {
    let mut bench = bench(Provisioning::Full);
    let unknown = check(Sense::invalid_command_operation_code());
    assert_eq!(unmap_answer(&mut bench, A, &[(0, 1)]), unknown);
}

#[test]
fn all_that_tells_of_unmap_tells_the_same() {
    for (provisioning, is_thin, zeroes) in [
        (Provisioning::Full, false, false),
        (DISCARDING, true, false),
        (THIN, true, true),
    ] {
        let mut bench = bench(provisioning);
        let mut bytes = |cdb: &[u8]| match bench.answer(A, cdb, 96) {
            Response::DataIn(bytes) => bytes,
            other => panic!("{other:?} where data was expected"),
        };
        let page = bytes(&[0x12, 0x01, 0xb2, 0, 96, 0]);
        let lbpu = if is_thin { 0x80 } else { 0 };
        let lbpws = if zeroes { 0x64 } else { 0 }; // LBPWS, LBPWS10, LBPRZ
        assert_eq!(page[5], lbpu | lbpws);
        assert_eq!(page[6], if is_thin { 2 } else { 0 }, "PROVISIONING TYPE");
        let limits = bytes(&[0x12, 0x01, 0xb0, 0, 96, 0]);
        let has_limits = limits[20..28].iter().any(|&byte| byte != 0);
        assert_eq!(has_limits, is_thin, "MAXIMUM UNMAP LBA COUNT");
        let capacity = bytes(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);
        let lbpme = if is_thin { 0x80 } else { 0 };
        assert_eq!(capacity[14], lbpme | if zeroes { 0x40 } else { 0 });
        // REPORT SUPPORTED OPERATION CODES of UNMAP, and of WRITE SAME(16).
        let mut supported = |opcode| bytes(&[0xa3, 0x0c, 0x01, opcode, 0, 0, 0, 0, 0, 96, 0, 0]);
        assert_eq!(supported(0x42)[1], if is_thin { 3 } else { 1 });
        assert_eq!(supported(0x93)[5], if zeroes { 0x09 } else { 0x01 });
    }
}

#[test]
fn write_same_and_unmap_are_refused_where_writes_are_protected() {
    let mut bench = bench(THIN);
    bench.nexuses[A] = bench.unit.attach(Some(nexus(A)), Mapping::ReadOnly);
    bench.answer(A, &TEST_UNIT_READY, 0);
    let protected = check(Sense::write_protected());
    // Before the length of the data, and the list, are looked at.
    assert_eq!(bench.answer(A, &write_same_10(0x08), 0), protected);
    assert_eq!(bench.answer(A, &write_same_16(0), 0), protected);
    assert_eq!(bench.answer(A, &UNMAP, 0), protected);
}

#[test]
fn losers_of_a_reservation_neither_write_same_nor_unmap() {
    let mut bench = Bench::new(Setup {
        provisioning: THIN,
        ..setup()
    });
    bench.change(A, REGISTER, [0, KEY_A]);
    let write_same = bench.io(C, &write_same_10(0), 512);
    let unmap = unmap_io(&mut bench, C, &[(0, 1)]);
    assert_eq!(
        bench.change(A, RESERVE, [KEY_A, 0]),
        None,
        "they are waited for"
    );
    // What is wrong with the fields does not count.
    assert_eq!(bench.answer(C, &write_same_10(0xff), 0), CONFLICT);
    assert_eq!(unmap_answer(&mut bench, C, &[(u64::MAX, 1)]), CONFLICT);
    bench.end(write_same);
    assert_eq!(bench.released(), None);
    bench.end(unmap);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn no_space_left_is_told_whichever_command_finds_it() {
    let mut bench = bench(THIN);
    let full = check(Sense::space_allocation_failed_write_protect());
    for code in [libc::ENOSPC, libc::EDQUOT] {
        let write = bench.io(A, &WRITE, 512);
        let write_same = bench.io(A, &write_same_10(0), 512);
        let unmap = unmap_io(&mut bench, A, &[(0, 1)]);
        for io in [write, write_same, unmap] {
            assert_eq!(bench.fail(io, errno(code)), full);
        }
    }
    // DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT
    let (bytes, _) = Sense::space_allocation_failed_write_protect().encode(Format::Fixed);
    assert_eq!((bytes[2], bytes[12], bytes[13]), (0x07, 0x27, 0x07));
}

#[test]
fn an_aborted_write_same_or_unmap_is_told_to_stop() {
    let mut bench = bench(THIN);
    let aborted = Response::Status(Status::TaskAborted);
    let stop = |bench: &mut Bench, io: (Request, Pending)| {
        assert!(!io.0.cancellation.is_cancelled());
        bench.unit.abort_task(|tag| tag.port == A);
        assert!(io.0.cancellation.is_cancelled());
        assert_eq!(bench.fail(io, Failure::Cancelled), aborted);
    };
    let io = bench.io(A, &write_same_10(0), 512);
    stop(&mut bench, io);
    let io = unmap_io(&mut bench, A, &[(0, 1)]);
    stop(&mut bench, io);
}

#[test]
fn get_lba_status_tells_from_the_block_asked_for_on() {
    let mut bench = bench(THIN);
    let (request, pending) = bench.io(A, &GET_LBA_STATUS, 64);
    let expected = Operation::Extents {
        offset: 3584,
        length: 508_416,
        block: 512,
        most: 1,
    };
    assert_eq!(request.operation, expected);
    let extents = vec![Extent {
        range: 3584..5120,
        is_allocated: false,
    }];
    let found = Ok(Outcome::Extents(extents));
    let answer = bench.end_with((request, pending), found);
    let expected = [
        0x00, 0x00, 0x00, 0x14, 0, 0, 0, 0, // PARAMETER DATA LENGTH
        0, 0, 0, 0, 0, 0, 0, 7, // LBA
        0, 0, 0, 3, // NUMBER OF LOGICAL BLOCKS
        0x01, 0, 0, 0, // deallocated
    ];
    assert_eq!(answer, Response::DataIn(expected.to_vec()));
}

#[test]
fn get_lba_status_is_cut_where_the_allocation_length_ends() {
    let mut bench = bench(Provisioning::Full);
    let mut cdb = GET_LBA_STATUS;
    cdb[13] = 9;
    let (request, pending) = bench.io(A, &cdb, 64);
    let extents = vec![Extent {
        range: 3584..4096,
        is_allocated: true,
    }];
    let found = Ok(Outcome::Extents(extents));
    let answer = bench.end_with((request, pending), found);
    assert_eq!(answer, Response::DataIn(vec![0, 0, 0, 0x14, 0, 0, 0, 0, 0]));
}

#[test]
fn get_lba_status_begins_within_the_unit_and_tells_of_errors() {
    let mut bench = bench(THIN);
    let out_of_range = check(Sense::logical_block_address_out_of_range());
    for lba in [1000, 1 << 63, u64::MAX] {
        let mut cdb = GET_LBA_STATUS;
        cdb[2..10].copy_from_slice(&u64::to_be_bytes(lba));
        assert_eq!(bench.answer(A, &cdb, 24), out_of_range);
    }
    let mut cdb = GET_LBA_STATUS;
    cdb[14] = 0x02;
    let report_type = check(Sense::invalid_field_in_cdb(Field::cdb_bit(14, 7)));
    assert_eq!(bench.answer(A, &cdb, 24), report_type);
    let io = bench.io(A, &GET_LBA_STATUS, 24);
    let failed = check(Sense::internal_target_failure());
    assert_eq!(bench.fail(io, errno(libc::EIO)), failed);
}

const LOG_SENSE: [u8; 10] = [0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0];

#[test]
fn log_sense_tells_how_much_space_there_is() {
    let mut bench = bench(THIN);
    let (request, pending) = bench.io(A, &LOG_SENSE, 255);
    assert_eq!(request.operation, Operation::Figures);
    let figures = Figures {
        total: 5 << 30,
        available: 3 << 30,
        used: 7 << 20,
    };
    let found = Ok(Outcome::Figures(figures));
    let answer = bench.end_with((request, pending), found);
    let expected = [
        0x8c, 0x00, 0x00, 0x18, // DS=1, 24 more bytes
        0x00, 0x01, 0x03, 0x08, // available
        0x00, 0x00, 0x0c, 0x00, // 3,072 sets of 1 MiB
        0x02, 0, 0, 0, // shared
        0x00, 0x02, 0x03, 0x08, // used
        0x00, 0x00, 0x00, 0x07, // 7 sets
        0x01, 0, 0, 0, // of this unit
    ];
    assert_eq!(answer, Response::DataIn(expected.to_vec()));
    let supported = Response::DataIn(vec![0x00, 0x00, 0x00, 0x02, 0x00, 0x0c]);
    let pages = [0x4d, 0, 0x40, 0, 0, 0, 0, 0, 255, 0];
    assert_eq!(bench.answer(A, &pages, 255), supported);
}

#[test]
fn log_sense_is_cut_and_begins_where_it_is_asked_to() {
    let mut bench = bench(THIN);
    let mut cdb = LOG_SENSE;
    cdb[6] = 2;
    cdb[8] = 9;
    let (request, pending) = bench.io(A, &cdb, 255);
    let figures = Figures {
        total: 1 << 30,
        available: 1 << 20,
        used: 2 << 20,
    };
    let found = Ok(Outcome::Figures(figures));
    let answer = bench.end_with((request, pending), found);
    let expected = vec![0x8c, 0x00, 0x00, 0x0c, 0x00, 0x02, 0x03, 0x08, 0x00];
    assert_eq!(answer, Response::DataIn(expected));
}

#[test]
fn log_sense_passes_every_reservation_and_is_judged_field_by_field() {
    let mut bench = bench(THIN);
    bench.kind = 3;
    bench.change(A, REGISTER, [0, KEY_A]);
    bench.change(A, RESERVE, [KEY_A, 0]);
    let io = bench.io(C, &LOG_SENSE, 255);
    bench.end(io);
    let mut refused = |byte: usize, value, field| {
        let mut cdb = LOG_SENSE;
        cdb[byte] = value;
        let expected = check(Sense::invalid_field_in_cdb(field));
        assert_eq!(bench.answer(C, &cdb, 255), expected);
    };
    refused(1, 0x01, Field::cdb_bit(1, 0)); // SP
    refused(2, 0x4d, Field::cdb(2)); // the Temperature log page
    refused(3, 0x01, Field::cdb(3));
    refused(5, 0x01, Field::cdb(5));
}

#[test]
fn log_sense_is_not_known_where_there_is_nothing_to_tell() {
    let mut bench = bench(Provisioning::Full);
    let unknown = check(Sense::invalid_command_operation_code());
    assert_eq!(bench.answer(A, &LOG_SENSE, 255), unknown);
}

#[test]
fn everybody_is_told_once_that_little_space_is_left() {
    let mut bench = bench(THIN);
    bench.unit.soft_threshold_reached();
    bench.unit.soft_threshold_reached();
    for from in [A, B, C] {
        let Response::Check(sense) = bench.answer(from, &TEST_UNIT_READY, 0) else {
            panic!("CHECK CONDITION")
        };
        let (bytes, _) = sense.encode(Format::Fixed);
        let expected = [
            0xf0, 0, 0x06, // current, VALID, UNIT ATTENTION
            0, 0, 0, 16, // INFORMATION: byte 16 of the Logical Block Provisioning mode page
            0x0a, 0, 0, 0, 0, 0x38, 0x07, // THIN PROVISIONING SOFT THRESHOLD REACHED
        ];
        assert_eq!(bytes[..14], expected);
        assert_eq!(bench.answer(from, &TEST_UNIT_READY, 0), Response::Good);
    }
}
