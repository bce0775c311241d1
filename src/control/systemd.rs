//! What systemd is told: that we are ready, that we stop, that we are alive.
//!
//! Without systemd, when `NOTIFY_SOCKET` is not set, nothing is said and nothing fails.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon serves; `status` is shown by `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon goes on, and `systemctl status` shows another text.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The daemon reads its configuration anew; [`ready`] ends that.
pub fn reloading() {
    let mut state = vec![NotifyState::Reloading];
    // From systemd 253 on, this tells which reload it is.
    state.extend(NotifyState::monotonic_usec_now());
    tell(&state);
}

/// The daemon begins to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The daemon's main loop turns.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often to say [`alive`]: twice in the time after which systemd kills us. `None` if it never does.
pub fn alive_interval() -> Option<Duration> {
    let mut limit_us = 0;
    sd_notify::watchdog_enabled(false, &mut limit_us).then(|| Duration::from_micros(limit_us / 2))
}

/// Has systemd keep open, under a name, what the next daemon is to find again. It closes them if it does not start one.
pub fn keep(name: &str, descriptors: &[BorrowedFd<'_>]) {
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        // It is not to wait for anything that comes of them.
        NotifyState::Custom("FDPOLL=0"),
    ];
    if let Err(error) = sd_notify::notify_with_fds(false, &state, descriptors) {
        log::warn!("systemd can't be asked to keep {name}: {error}");
    }
}

/// Has systemd keep no longer what it keeps under a name.
pub fn keep_no_longer(name: &str) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        log::warn!("cannot tell systemd how we are: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const SYSTEMD_HEARS: &str = "control::systemd::tests::systemd_hears_all_of_it";
    const NOTHING_SAID: &str = "control::systemd::tests::without_systemd_nothing_is_said";

    /// The environment of a process cannot be changed safely once it has threads, so these tests run
    /// themselves again, as systemd would start them or without it.
    fn run_again(test: &str, notify_socket: Option<&Path>) {
        let mut command = Command::new("sh");
        let exec = "export WATCHDOG_PID=$$; exec \"$0\" --exact \"$1\"";
        command
            .args(["-c", exec])
            .arg(std::env::current_exe().expect("we run"))
            .arg(test);
        command.env("TCMU_PR_TEST", test);
        match notify_socket {
            Some(path) => command
                .env("NOTIFY_SOCKET", path)
                .env("WATCHDOG_USEC", "30000000"),
            None => command
                .env_remove("NOTIFY_SOCKET")
                .env_remove("WATCHDOG_USEC"),
        };
        let output = command.output().expect("it can be run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }

    fn is_run_again() -> bool {
        std::env::var_os("TCMU_PR_TEST").is_some()
    }

    #[test]
    fn systemd_hears_all_of_it() {
        if is_run_again() {
            ready("serving 2 units");
            status("serving 3 units");
            alive();
            reloading();
            stopping();
            keep("tap", &[std::io::stdin().as_fd()]);
            keep_no_longer("tap");
            assert_eq!(alive_interval(), Some(Duration::from_secs(15)));
            return;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the directory is new");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("it is not zero");
        run_again(SYSTEMD_HEARS, Some(&path));
        for expected in [
            "READY=1\nSTATUS=serving 2 units\n",
            "STATUS=serving 3 units\n",
            "WATCHDOG=1\n",
            "RELOADING=1\nMONOTONIC_USEC=",
            "STOPPING=1\n",
            "FDSTORE=1\nFDNAME=tap\nFDPOLL=0\n",
            "FDSTOREREMOVE=1\nFDNAME=tap\n",
        ] {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).expect("there is a message");
            let heard = String::from_utf8_lossy(&buffer[..length]);
            // What time it is, nobody knows.
            let known = heard.split_inclusive("MONOTONIC_USEC=").next();
            assert_eq!(known, Some(expected));
        }
    }

    #[test]
    fn without_systemd_nothing_is_said() {
        if is_run_again() {
            assert!(sd_notify::notify(false, &[NotifyState::Ready]).is_ok());
            assert_eq!(alive_interval(), None);
            return;
        }
        run_again(NOTHING_SAID, None);
    }
}
