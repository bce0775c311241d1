//! Who asks on the bus: only root is answered, whatever the policy of the bus lets through.
//!
//! The policy that comes with us says the same. But policies add up: the file of another handler that lets everybody
//! send to `org.kernel.TCMUService1` (tcmu-runner's does, and stays in `/etc` when its package is removed) lets them send
//! to our connection, by any of its names.

use nix::unistd::geteuid;
use zbus::Connection;
use zbus::fdo::{DBusProxy, Error, Result};
use zbus::message::Header;

/// Refuses a call that is not from root, nor from whoever the daemon runs as.
pub(super) async fn check(bus: &Connection, header: &Header<'_>) -> Result<()> {
    let Some(sender) = header.sender() else {
        return Err(refused("a call without a sender"));
    };
    let asked = DBusProxy::new(bus).await?;
    let user = asked.get_connection_unix_user(sender.to_owned().into());
    match user.await {
        Ok(user) if may_ask(user, geteuid().as_raw()) => Ok(()),
        Ok(user) => Err(refused(&format!("the user with the number {user}"))),
        // It has gone already, or the bus does not know.
        Err(_) => Err(refused("somebody unknown")),
    }
}

fn may_ask(user: u32, own: u32) -> bool {
    user == 0 || user == own
}

fn refused(whom: &str) -> Error {
    Error::AccessDenied(format!("only root may ask tcmu-pr, not {whom}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_we_ourselves_may_ask_and_nobody_else() {
        assert!(may_ask(0, 0));
        assert!(may_ask(0, 1000));
        assert!(may_ask(1000, 1000));
        assert!(!may_ask(65534, 0));
        assert!(!may_ask(1001, 1000));
    }
}
