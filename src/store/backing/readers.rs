//! Who on this node serves an object that is only read. Such objects are locked against nobody who reads them as well: so each
//! of us who does has a lock on a byte where no data is, which ends with the last I/O.

use std::fs::{self, File};
use std::io;

use nix::fcntl::{FcntlArg, fcntl};

/// No object has data from there on.
const BEYOND: i64 = 1 << 62;

/// Where the kernel tells which boot this is. Other nodes that serve the same object have a byte of their own.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Marks an open object, until nothing has it open any more.
pub(super) fn mark(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK)?))?;
    Ok(())
}

/// Whether somebody else has marked it.
pub(super) fn is_marked(file: &File) -> io::Result<bool> {
    let mut lock = lock(libc::F_WRLCK)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn lock(kind: i32) -> io::Result<libc::flock> {
    let fits = "a small constant";
    Ok(libc::flock {
        l_type: kind.try_into().expect(fits),
        l_whence: libc::SEEK_SET.try_into().expect(fits),
        l_start: byte(&fs::read_to_string(BOOT_ID)?),
        l_len: 1,
        l_pid: 0,
    })
}

/// The byte of a boot: by the first digits of its number, which is random.
fn byte(boot_id: &str) -> i64 {
    let digits = boot_id.chars().filter(char::is_ascii_hexdigit).take(15);
    let number = i64::from_str_radix(&digits.collect::<String>(), 16);
    BEYOND + number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_boot_has_a_byte_of_its_own() {
        for (boot_id, expected) in [
            (
                "0b7f1c2d-3e4f-4a6b-8c7d-9e0f1a2b3c4d\n",
                0x40b7_f1c2_d3e4_f4a6,
            ),
            (
                "ffffffff-ffff-4fff-bfff-ffffffffffff\n",
                0x4fff_ffff_ffff_f4ff,
            ),
            ("", 0x4000_0000_0000_0000),
        ] {
            assert_eq!(byte(boot_id), expected, "{boot_id}");
        }
    }
}
