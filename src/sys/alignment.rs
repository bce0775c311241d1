//! What direct I/O asks of offsets, lengths and memory, and which writes are atomic (`statx`).

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;

/// What the kernel says of direct I/O on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectIo {
    /// It needs offsets and lengths, and memory, that are multiples of these.
    Aligned {
        /// Of offsets and lengths, in bytes.
        offset: u32,
        /// Of memory, in bytes.
        memory: u32,
    },
    /// There is none.
    Missing,
    /// It does not say: a file system or a kernel that knows nothing of it, as before Linux 6.1.
    Unknown,
}

/// Asks for it.
pub fn direct_io(file: &File) -> io::Result<DirectIo> {
    let answer = ask(file, libc::STATX_DIOALIGN)?;
    Ok(
        match (answer.stx_dio_offset_align, answer.stx_dio_mem_align) {
            _ if answer.stx_mask & libc::STATX_DIOALIGN == 0 => DirectIo::Unknown,
            (0, _) | (_, 0) => DirectIo::Missing,
            (offset, memory) => DirectIo::Aligned { offset, memory },
        },
    )
}

/// How many bytes direct I/O on a file writes atomically: every power of two among these, at a multiple of itself. None
/// where the kernel says of none, as before Linux 6.11 for block devices, and 6.13 for files.
pub fn atomic_writes(file: &File) -> io::Result<Option<RangeInclusive<u32>>> {
    let answer = ask(file, libc::STATX_WRITE_ATOMIC)?;
    let (least, most) = (
        answer.stx_atomic_write_unit_min,
        answer.stx_atomic_write_unit_max,
    );
    let is_told = answer.stx_mask & libc::STATX_WRITE_ATOMIC != 0 && least > 0;
    // All comes from one place in memory.
    let is_possible = is_told && answer.stx_atomic_write_segments_max > 0;
    Ok(is_possible.then_some(least..=most))
}

fn ask(file: &File, what: libc::c_uint) -> io::Result<libc::statx> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a string that ends with a NUL, and `answer` has room for what is written.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            what,
            answer.as_mut_ptr(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and zeros are good numbers.
    Ok(unsafe { answer.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignments_are_powers_of_two() {
        let file = tempfile::tempfile().unwrap();
        if let DirectIo::Aligned { offset, memory } = direct_io(&file).unwrap() {
            assert!(offset.is_power_of_two() && memory.is_power_of_two());
        }
    }

    #[test]
    fn what_is_written_atomically_is_between_powers_of_two() {
        let file = tempfile::tempfile().unwrap();
        if let Some(lengths) = atomic_writes(&file).unwrap() {
            assert!(lengths.start().is_power_of_two() && lengths.end().is_power_of_two());
            assert!(!lengths.is_empty());
        }
    }
}
