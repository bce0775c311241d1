//! What a process tells the kernel of itself.

use std::io;

/// `PR_SET_IO_FLUSHER` of `linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Says that this thread, and those that it starts from now on, serve I/O that memory may wait for
/// (`PR_SET_IO_FLUSHER`): the kernel then frees no memory on their behalf by I/O that may come back to them.
pub fn become_io_flusher() -> io::Result<()> {
    // SAFETY: this option takes a number and zeros, and no memory.
    match unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
