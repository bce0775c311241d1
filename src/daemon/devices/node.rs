//! What holds for the whole node, and what is to be told of it: the settings of the file, and who else answers the kernel.

use nix::errno::Errno;

use super::Devices;
use crate::daemon::chain;
use crate::daemon::configuration::Node;
use crate::tcmu::configfs::{self, Backstore, BackstoreName};
use crate::tcmu::netlink::{Answer, Request};

impl Devices {
    /// Other settings of the node hold from now on, for units that are started from now on.
    pub(in crate::daemon) fn configure(&mut self, node: Node) {
        self.node = node;
    }

    /// What is wrong with the node's file, if anything, as long as that is so.
    pub(in crate::daemon) fn warn_of_file(&mut self, warning: Option<String>) {
        self.warnings.file = warning;
    }

    /// Answers the kernel, and gives whether it has waited for that.
    pub(super) fn reply(
        &mut self,
        name: &BackstoreName,
        request: Request,
        outcome: Result<(), Errno>,
    ) -> bool {
        let removal = request.is_of_removal();
        match self.replier.reply(request, outcome) {
            Ok(Answer::Taken) => return true,
            Ok(Answer::NotWaitedFor) => self.not_waited_for(name, removal),
            Err(error) => {
                log::error!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: {}", chain(&error))
            }
        }
        false
    }

    fn not_waited_for(&mut self, name: &BackstoreName, removal: bool) {
        // A backstore that goes is not looked at: whoever removes another may hold what that takes, and wait for us.
        let supported = (!removal).then(|| Backstore::new(configfs::ROOT.as_ref(), name.clone()));
        match supported.map(|backstore| backstore.and_then(|found| found.reply_supported())) {
            None if self.warnings.neighbour().is_none() => {
                log::debug!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: nobody has waited for us to let it go");
            }
            Some(Ok(number @ ..=0)) => log::info!(
                TCMU_PR_BACKSTORE:% = name;
                "backstore {name}: the kernel waits for no answer about it, as its nl_reply_supported is {number}: whoever \
                 changes it is not told what we refuse, but `tcmu-pr status` tells"
            ),
            _ => {
                let who = self.warnings.answered_by_another();
                log::warn!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: the kernel did not wait for our answer: {who}");
            }
        }
    }
}
