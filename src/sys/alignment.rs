//! What direct I/O asks of offsets, lengths and memory (`statx`).

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
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
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a string that ends with a NUL, and `answer` has room for what is written.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and zeros are good numbers.
    let answer = unsafe { answer.assume_init() };
    Ok(
        match (answer.stx_dio_offset_align, answer.stx_dio_mem_align) {
            _ if answer.stx_mask & libc::STATX_DIOALIGN == 0 => DirectIo::Unknown,
            (0, _) | (_, 0) => DirectIo::Missing,
            (offset, memory) => DirectIo::Aligned { offset, memory },
        },
    )
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
}
