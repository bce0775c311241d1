//! The record of the reservations: bytes that a disk gives back.

use std::error;

use tcmu_pr::pr::image::{ATTENTIONS_MAX, Error, Image};

/// The unit whose record is looked for. One of another unit is read as that unit's.
const UNIT: &str = "lun0";
const VERSION: &str = "version = 1\n";

/// Takes `data` for a record as it is, and once more with the checksum that it should have: else nothing
/// that comes after the checksum is ever reached.
pub fn run(data: &[u8]) {
    check_record(data);
    if let Ok(text) = std::str::from_utf8(data) {
        check_record(repaired(text).as_bytes());
    }
}

/// The record with first lines that are right, whatever it has there.
fn repaired(record: &str) -> String {
    let mut rest = record;
    for name in ["version = ", "checksum = "] {
        if let Some((line, after)) = rest.split_once('\n') {
            if line.starts_with(name) {
                rest = after;
            }
        }
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(VERSION.as_bytes()), rest.as_bytes());
    format!("{VERSION}checksum = \"{checksum:08x}\"\n{rest}")
}

fn check_record(record: &[u8]) {
    let (unit, read) = match Image::parse(record, UNIT) {
        Err(Error::OtherUnit { found, expected }) => {
            assert_eq!(expected, UNIT);
            let read = Image::parse(record, &found);
            (found, read)
        }
        read => (UNIT.to_owned(), read),
    };
    match read {
        Ok(image) => check_image(&image, &unit),
        Err(Error::OtherUnit { .. }) => panic!("the record is not even {unit:?}'s own"),
        Err(error) => check_error(&error),
    }
}

fn check_image(image: &Image, unit: &str) {
    assert_eq!(image.unit, unit);
    assert_eq!(image.reservations.check(), Ok(()));
    assert!(image.attentions.len() <= ATTENTIONS_MAX);
    let record = image.encode();
    let read = |record: &[u8]| Image::parse(record, unit).ok();
    assert_eq!(read(record.as_bytes()).as_ref(), Some(image));
    let other = format!("{unit}-other");
    assert!(matches!(
        Image::parse(record.as_bytes(), &other),
        Err(Error::OtherUnit { .. })
    ));
    // Torn, or with one bit changed: each record somewhere else.
    let place = crc32c::crc32c(record.as_bytes()) as usize;
    let mut record = record.into_bytes();
    let at = place % record.len();
    assert_eq!(read(&record[..at]), None);
    record[at] ^= 1 << (place % 7);
    // A digit of the checksum in upper case is the same digit.
    assert!(read(&record).is_none_or(|read| read == *image));
}

/// An error says what is wrong, whatever the record has in the place.
fn check_error(error: &Error) {
    let mut next: Option<&dyn error::Error> = Some(error);
    while let Some(error) = next {
        assert!(!error.to_string().is_empty());
        next = error.source();
    }
}
