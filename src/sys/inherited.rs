//! File descriptors that were open when this process was started.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes what systemd has left open for this process (`LISTEN_FDS`), with the names that it goes by. Each is there once:
/// from the second call on, nothing is.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let descriptors = sd_notify::listen_fds_with_names(false)?;
    let owned = descriptors.map(|(descriptor, name)| {
        // SAFETY: it was open before the process began, by what the environment says, and is handed out here only, once.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        (name, owned)
    });
    Ok(owned.collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    const THIS: &str = "sys::inherited::tests::what_was_left_open_is_taken_once";

    /// Runs itself again, as systemd would start it.
    #[test]
    fn what_was_left_open_is_taken_once() {
        if std::env::var_os("LISTEN_FDNAMES").is_some() {
            let taken = take().expect("the environment is right");
            let taken: Vec<_> = taken
                .iter()
                .map(|(name, owned)| (name.as_str(), owned.as_raw_fd()))
                .collect();
            assert_eq!(taken, [("tap", 3), ("other", 4)]);
            assert!(take().is_ok_and(|taken| taken.is_empty()));
            return;
        }
        let exec = "export LISTEN_PID=$$; exec 3</dev/null 4</dev/zero; exec \"$0\" --exact \"$1\"";
        let output = Command::new("sh")
            .args(["-c", exec])
            .arg(std::env::current_exe().expect("we run"))
            .arg(THIS)
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", "tap:other")
            .output()
            .expect("it can be run");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}
