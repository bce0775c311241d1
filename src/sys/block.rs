//! What a block device tells of itself, and what it does besides reading and writing (`linux/fs.h`).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

mod ioctl {
    /// The group of the block layer's ioctls.
    const BLOCK: u8 = 0x12;

    nix::ioctl_read_bad!(
        /// BLKROGET
        read_only, nix::request_code_none!(BLOCK, 94), libc::c_int);
    nix::ioctl_read_bad!(
        /// BLKSSZGET
        logical_block_size, nix::request_code_none!(BLOCK, 104), libc::c_int);
    nix::ioctl_write_ptr_bad!(
        /// BLKDISCARD, of a beginning and a length
        discard, nix::request_code_none!(BLOCK, 119), [u64; 2]);
    nix::ioctl_read!(
        /// BLKGETSIZE64, whose number was made from `size_t`
        size, BLOCK, 114, u64);
    nix::ioctl_read_bad!(
        /// BLKALIGNOFF
        alignment_offset, nix::request_code_none!(BLOCK, 122), libc::c_int);
    nix::ioctl_read_bad!(
        /// BLKPBSZGET
        physical_block_size, nix::request_code_none!(BLOCK, 123), libc::c_uint);
    nix::ioctl_read_bad!(
        /// BLKROTATIONAL
        rotational, nix::request_code_none!(BLOCK, 126), libc::c_ushort);
}

/// Its size in bytes.
pub fn size(device: &File) -> io::Result<u64> {
    // SAFETY: this ioctl writes a u64, for which `ask` has room.
    ask(device, |fd, size| unsafe { ioctl::size(fd, size) })
}

/// How many bytes its smallest transfer has.
pub fn logical_block_size(device: &File) -> io::Result<u32> {
    // SAFETY: this ioctl writes an int, for which `ask` has room.
    ask(device, |fd, size| unsafe {
        ioctl::logical_block_size(fd, size)
    })
    .map(unsigned)
}

/// How many bytes it writes at once: less than that, it has to read first.
pub fn physical_block_size(device: &File) -> io::Result<u32> {
    // SAFETY: this ioctl writes an unsigned int, for which `ask` has room.
    ask(device, |fd, size| unsafe {
        ioctl::physical_block_size(fd, size)
    })
}

/// Where its first physical block begins, in bytes; `None` if no logical block begins there.
pub fn alignment_offset(device: &File) -> io::Result<Option<u32>> {
    // SAFETY: this ioctl writes an int, for which `ask` has room.
    let offset = ask(device, |fd, offset| unsafe {
        ioctl::alignment_offset(fd, offset)
    })?;
    Ok(u32::try_from(offset).ok())
}

/// Whether its medium rotates.
pub fn is_rotational(device: &File) -> io::Result<bool> {
    // SAFETY: this ioctl writes an unsigned short, for which `ask` has room.
    let rotational = ask(device, |fd, is| unsafe { ioctl::rotational(fd, is) })?;
    Ok(rotational != 0)
}

/// Whether it can't be written.
pub fn is_read_only(device: &File) -> io::Result<bool> {
    // SAFETY: this ioctl writes an int, for which `ask` has room.
    let read_only = ask(device, |fd, is| unsafe { ioctl::read_only(fd, is) })?;
    Ok(read_only != 0)
}

/// Tells it that these bytes are not needed any more. They read as anything from then on.
pub fn discard(device: &File, part: &Range<u64>) -> io::Result<()> {
    let beginning_and_length = [part.start, part.end - part.start];
    // SAFETY: this ioctl reads two u64, which live until it returns.
    unsafe { ioctl::discard(device.as_raw_fd(), &raw const beginning_and_length) }?;
    Ok(())
}

fn ask<T: Default>(
    device: &File,
    ioctl: impl FnOnce(RawFd, *mut T) -> nix::Result<libc::c_int>,
) -> io::Result<T> {
    let mut answer = T::default();
    ioctl(device.as_raw_fd(), &raw mut answer)?;
    Ok(answer)
}

fn unsigned(number: libc::c_int) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_block_device_answers_none_of_this() {
        let file = tempfile::tempfile().unwrap();
        let refused = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        refused(size(&file).unwrap_err());
        refused(logical_block_size(&file).unwrap_err());
        refused(physical_block_size(&file).unwrap_err());
        refused(alignment_offset(&file).unwrap_err());
        refused(is_rotational(&file).unwrap_err());
        refused(is_read_only(&file).unwrap_err());
        refused(discard(&file, &(0..512)).unwrap_err());
    }
}
