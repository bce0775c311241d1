//! Whether tcmu-runner can come between us and the kernel.

use std::fs;

use super::Finding;
use super::node::Node;
use crate::tcmu::neighbour::{self, REMEDY};

const PROGRAMS: [&str; 2] = ["/usr/bin/tcmu-runner", "/usr/sbin/tcmu-runner"];
const UNITS: [&str; 2] = [
    "/usr/lib/systemd/system/tcmu-runner.service",
    "/lib/systemd/system/tcmu-runner.service",
];
/// By which the bus starts it when targetcli asks for a handler.
const ACTIVATION: &str = "/usr/share/dbus-1/system-services/org.kernel.TCMUService1.service";

pub(super) fn look(node: &Node) -> Vec<Finding> {
    let what = "no other handler of TCMU devices is in the way";
    if let Some(process) = neighbour::running(&node.at("/proc")) {
        let why = format!(
            "tcmu-runner runs (process {process}), and answers the kernel in our place. {REMEDY}"
        );
        return vec![Finding::problem(what, why)];
    }
    let installed = node.first_of(&PROGRAMS).or(node.first_of(&UNITS));
    let activation = node.text(ACTIVATION);
    if installed.is_none() && activation.is_none() {
        return vec![Finding::ok(what)];
    }
    // A bus that has systemd start it does not, where that may not.
    let by_systemd =
        activation.is_none_or(|text| text.contains("SystemdService=tcmu-runner.service"));
    if !by_systemd {
        let why = format!(
            "{ACTIVATION} has the bus start another handler as soon as targetcli asks for one and tcmu-pr is not there: remove it"
        );
        return vec![Finding::problem(what, why)];
    }
    if masked(node) {
        return vec![Finding::ok(what)];
    }
    let why = "tcmu-runner is installed, and targetcli starts it when tcmu-pr is not there: systemctl disable --now \
               tcmu-runner; systemctl mask tcmu-runner; or remove it";
    vec![Finding::problem(what, why.to_owned())]
}

fn masked(node: &Node) -> bool {
    let unit = node.at("/etc/systemd/system/tcmu-runner.service");
    fs::read_link(unit).is_ok_and(|target| target.to_str() == Some("/dev/null"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    const WHAT: &str = "no other handler of TCMU devices is in the way";

    fn all(tree: &Tree) -> Vec<String> {
        found(&look(&Node::new(tree.root())))
    }

    #[test]
    fn where_it_is_not_all_is_well() {
        assert_eq!(all(&Tree::new()), [format!("ok       {WHAT}")]);
    }

    #[test]
    fn one_that_is_installed_must_be_masked() {
        let tree = Tree::new();
        tree.file(&PROGRAMS[0][1..], "").file(
            &ACTIVATION[1..],
            "[D-BUS Service]\nExec=/bin/false\nSystemdService=tcmu-runner.service\n",
        );
        let expected = format!(
            "problem  {WHAT}: tcmu-runner is installed, and targetcli starts it when tcmu-pr is not there: systemctl disable \
             --now tcmu-runner; systemctl mask tcmu-runner; or remove it"
        );
        assert_eq!(all(&tree), [expected]);
        tree.link("etc/systemd/system/tcmu-runner.service", "/dev/null");
        assert_eq!(all(&tree), [format!("ok       {WHAT}")]);
        tree.file(
            &ACTIVATION[1..],
            "[D-BUS Service]\nExec=/usr/bin/tcmu-runner\n",
        );
        let expected = format!(
            "problem  {WHAT}: {ACTIVATION} has the bus start another handler as soon as targetcli asks for one and tcmu-pr is \
             not there: remove it"
        );
        assert_eq!(all(&tree), [expected]);
    }

    #[test]
    fn one_that_runs_is_told_of_whatever_is_masked() {
        let tree = Tree::new();
        tree.file("proc/812/comm", "tcmu-runner\n")
            .link("etc/systemd/system/tcmu-runner.service", "/dev/null");
        let expected = format!(
            "problem  {WHAT}: tcmu-runner runs (process 812), and answers the kernel in our place. Stop it, and keep targetcli \
             from starting it again: systemctl disable --now tcmu-runner; systemctl mask tcmu-runner"
        );
        assert_eq!(all(&tree), [expected]);
    }
}
