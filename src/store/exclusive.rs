//! What reads, and writes what depends on that: COMPARE AND WRITE and its like. Whoever hands them out sees to it that
//! nothing comes in between.

use super::medium::Medium;
use super::verify::first_difference;
use super::{Cancellation, Failure, whole};
use crate::sys::region::Data;

/// Compares the first `length` bytes of the buffer with what stands at `offset`, and writes the next `length` bytes
/// there if it is the same.
pub(super) fn compare_and_write(
    medium: &dyn Medium,
    offset: u64,
    length: u64,
    data: &Data,
    cancellation: &Cancellation,
) -> Result<(), Failure> {
    let found = content(medium, offset, length)?;
    let mut expected = vec![0; found.len()];
    data.read_at(0, &mut expected);
    if let Some(at) = first_difference(&found, &expected) {
        return Err(Failure::Miscompare { at });
    }
    go_on(cancellation)?;
    whole::write(medium, offset, data, length..2 * length)
}

/// Sets every bit of what stands at `offset` that is set in the first `length` bytes of the buffer.
pub(super) fn or_write(
    medium: &dyn Medium,
    offset: u64,
    length: u64,
    data: &Data,
    cancellation: &Cancellation,
) -> Result<(), Failure> {
    let mut content = content(medium, offset, length)?;
    let mut bits = vec![0; content.len()];
    data.read_at(0, &mut bits);
    for (byte, bits) in content.iter_mut().zip(bits) {
        *byte |= bits;
    }
    go_on(cancellation)?;
    whole::write_all(medium, &content, offset)
}

fn content(medium: &dyn Medium, offset: u64, length: u64) -> Result<Vec<u8>, Failure> {
    let mut content = vec![0; usize::try_from(length).expect("it fits in the data area")];
    whole::read_exact(medium, &mut content, offset)?;
    Ok(content)
}

/// The last moment at which nothing has been written.
fn go_on(cancellation: &Cancellation) -> Result<(), Failure> {
    if cancellation.is_cancelled() {
        return Err(Failure::Cancelled);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::*;
    use crate::store::Backing;
    use crate::sys::region::{Region, Segment};

    struct Bench {
        backing: Backing,
        data: Data,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        /// A backing object in which bytes 512 to 1535 are 1, and a buffer.
        fn new(buffer: &[u8]) -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let backing = Backing::open(&folder.path().join("lun0.img"), 1 << 20, 512).unwrap();
            backing.file().write_all_at(&[1; 1024], 512).unwrap();
            let region = Arc::new(Region::anonymous(1 << 16).unwrap());
            let length = buffer.len() as u64;
            let segment = Segment { offset: 0, length };
            let data = Data::new(&region, vec![segment], 0..1 << 16).unwrap();
            data.write_at(0, buffer);
            Bench {
                backing,
                data,
                _folder: folder,
            }
        }

        /// Bytes 0 to 2047.
        fn content(&self) -> Vec<u8> {
            let mut bytes = vec![0xff; 2048];
            self.backing.file().read_exact_at(&mut bytes, 0).unwrap();
            bytes
        }
    }

    #[test]
    fn what_compares_equal_is_replaced_by_the_second_half() {
        let bench = Bench::new(&[[1; 512], [2; 512]].concat());
        let none = Cancellation::default();
        compare_and_write(&bench.backing, 1024, 512, &bench.data, &none).unwrap();
        let expected = [[0; 512], [1; 512], [2; 512], [0; 512]].concat();
        assert_eq!(bench.content(), expected);
    }

    #[test]
    fn what_differs_stays_and_the_first_difference_is_told() {
        for at in [0, 511, 700, 1023] {
            let mut expected = vec![1; 1024];
            expected[usize::try_from(at).unwrap()] = 3;
            expected[1023] = 3;
            let bench = Bench::new(&[expected, vec![2; 1024]].concat());
            let before = bench.content();
            let none = Cancellation::default();
            let ended = compare_and_write(&bench.backing, 512, 1024, &bench.data, &none);
            let found = matches!(ended, Err(Failure::Miscompare { at: found }) if found == at);
            assert!(found, "{at}: {ended:?}");
            assert_eq!(bench.content(), before);
        }
    }

    #[test]
    fn bits_are_set_and_none_is_cleared() {
        let bench = Bench::new(&[0x82; 1024]);
        let none = Cancellation::default();
        or_write(&bench.backing, 1024, 1024, &bench.data, &none).unwrap();
        let expected = [[0; 512], [1; 512], [0x83; 512], [0x82; 512]].concat();
        assert_eq!(bench.content(), expected);
    }

    #[test]
    fn what_was_cancelled_writes_nothing() {
        let bench = Bench::new(&[1; 1024]);
        let before = bench.content();
        let cancelled = Cancellation::possible();
        cancelled.cancel();
        let backing = &bench.backing;
        for ended in [
            compare_and_write(backing, 512, 512, &bench.data, &cancelled),
            or_write(backing, 0, 512, &bench.data, &cancelled),
        ] {
            assert!(matches!(ended, Err(Failure::Cancelled)), "{ended:?}");
        }
        assert_eq!(bench.content(), before);
    }
}
