//! What a process tells the kernel of itself.

use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability};

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

/// What it takes to load BPF programs that look into the kernel. CAP_SYS_ADMIN, for the types of modules.
const BPF_CAPABILITIES: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
];

/// Gives up, for this thread and those that it starts from now on, what it takes to load BPF programs.
pub fn give_up_bpf() -> Result<(), CapsError> {
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        for capability in BPF_CAPABILITIES {
            caps::drop(None, set, capability)?;
        }
    }
    Ok(())
}

/// Lays it down, for this thread: [`with_bpf`] can take it up again.
pub fn lay_down_bpf() -> Result<(), CapsError> {
    for capability in BPF_CAPABILITIES {
        caps::drop(None, CapSet::Effective, capability)?;
    }
    Ok(())
}

/// Calls `body` with what it takes to load BPF programs, as far as this thread may have it, and lays that down again.
pub fn with_bpf<T>(body: impl FnOnce() -> T) -> Result<T, CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    for capability in BPF_CAPABILITIES {
        if permitted.contains(&capability) {
            caps::raise(None, CapSet::Effective, capability)?;
        }
    }
    let done = body();
    lay_down_bpf()?;
    Ok(done)
}
