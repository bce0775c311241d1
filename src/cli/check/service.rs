//! Whether the service is installed as it should be, will be there at the next boot before the targets, and runs.

use std::fs;

use super::Finding;
use super::node::Node;
use crate::control::Status;
use crate::control::dbus::{self, Bus};

const UNIT: &str = "tcmu-pr.service";
const OWN_UNIT: &str = include_str!("../../../systemd/tcmu-pr.service");
/// Where units are, those first that override the others.
const UNIT_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// What restores the saved targets at boot: Debian's name of it, and others'.
const RESTORERS: [&str; 2] = ["rtslib-fb-targetctl.service", "target.service"];

/// Where somebody can override our list of modules.
const MODULES: &str = "/etc/modules-load.d/tcmu-pr.conf";

/// What the files tell.
pub(super) fn look(node: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    if node.has("/run/systemd/system") {
        findings.extend(units(node));
    } else {
        findings.push(Finding::note(
            "systemd starts tcmu-pr",
            "systemd does not run here: whatever starts tcmu-pr must do so before it restores the targets".to_owned(),
        ));
    }
    findings.extend(modules(node));
    findings
}

fn units(node: &Node) -> Vec<Finding> {
    let installed = "the service is installed";
    let Some((path, text)) = unit(node, UNIT) else {
        return vec![Finding::problem(
            installed,
            "there is no tcmu-pr.service: install the package, or run scripts/install".to_owned(),
        )];
    };
    let mut findings = vec![if text == OWN_UNIT {
        Finding::ok(installed)
    } else if path.starts_with("/etc/") {
        Finding::problem(
            installed,
            format!(
                "{path} overrides the one that is installed, and may be of another version: remove it, then systemctl \
                 daemon-reload; changes of your own belong into a drop-in (systemctl edit tcmu-pr)"
            ),
        )
    } else {
        Finding::note(
            installed,
            format!(
                "{path} is of another version than this program: install both from one package"
            ),
        )
    }];
    let drop_ins = node.names("/etc/systemd/system/tcmu-pr.service.d");
    if !drop_ins.is_empty() {
        findings.push(Finding::note(
            "the service is as it was installed",
            format!(
                "these change it: {}, in /etc/systemd/system/tcmu-pr.service.d",
                drop_ins.join(", ")
            ),
        ));
    }
    findings.push(will_start(node));
    findings.extend(restored(node, &text));
    findings
}

fn will_start(node: &Node) -> Finding {
    let what = "the service starts at boot";
    if enabled(node, UNIT) {
        return Finding::ok(what);
    }
    Finding::problem(
        what,
        "it is not enabled: systemctl enable tcmu-pr".to_owned(),
    )
}

/// Whether the targets come back at boot, and after us.
fn restored(node: &Node, own: &str) -> Vec<Finding> {
    let what = "the saved targets come back at boot";
    let there: Vec<&str> = RESTORERS
        .into_iter()
        .filter(|name| unit(node, name).is_some())
        .collect();
    let Some(first) = there.first() else {
        return vec![Finding::note(
            what,
            "nothing here restores them: install targetcli-fb, and save with targetcli saveconfig"
                .to_owned(),
        )];
    };
    let back = if there.iter().any(|name| enabled(node, name)) {
        Finding::ok(what)
    } else {
        Finding::problem(
            what,
            format!("{first} is not enabled: systemctl enable {first}"),
        )
    };
    let before = |name: &str| {
        let lines = own.lines().filter_map(|line| line.strip_prefix("Before="));
        lines
            .flat_map(str::split_whitespace)
            .any(|unit| unit == name)
    };
    let what = "the service starts before they do";
    let late: Vec<&str> = there.into_iter().filter(|name| !before(name)).collect();
    let order = if late.is_empty() {
        Finding::ok(what)
    } else {
        let why = format!(
            "its unit has no Before={}, and the kernel makes no backstore without us: put it there (systemctl edit tcmu-pr)",
            late.join(" ")
        );
        Finding::problem(what, why)
    };
    vec![back, order]
}

/// The unit of that name that is in force, and its path.
fn unit(node: &Node, name: &str) -> Option<(String, String)> {
    UNIT_DIRECTORIES.iter().find_map(|directory| {
        let path = format!("{directory}/{name}");
        node.text(&path).map(|text| (path, text))
    })
}

fn enabled(node: &Node, name: &str) -> bool {
    node.names("/etc/systemd/system")
        .iter()
        .filter(|directory| directory.ends_with(".wants") || directory.ends_with(".requires"))
        .any(|directory| {
            let link = node.at(&format!("/etc/systemd/system/{directory}/{name}"));
            fs::symlink_metadata(link).is_ok()
        })
}

/// What overrides our list of modules.
fn modules(node: &Node) -> Option<Finding> {
    let why = format!("{MODULES} overrides it: remove that if it is of an older version");
    let found = Finding::note("the list of modules is as it was installed", why);
    node.has(MODULES).then_some(found)
}

/// What the bus and the running daemon say.
pub(super) fn look_at_daemon(bus: &Bus) -> Vec<Finding> {
    let handler = match dbus::handler(bus) {
        Ok(handler) => handler,
        Err(error) => return vec![Finding::new("the system bus can be reached", Err(error))],
    };
    let mut findings: Vec<Finding> = handler.and_then(stranger).into_iter().collect();
    findings.extend(told(dbus::status(bus)));
    findings
}

/// Whoever else is the handler of TCMU devices for targetcli.
fn stranger(handler: String) -> Option<Finding> {
    let what = "targetcli finds tcmu-pr on the bus";
    let why = format!("it finds {handler} there: stop that, and start tcmu-pr");
    (!handler.starts_with("tcmu-pr ")).then(|| Finding::problem(what, why))
}

fn told(status: Result<Status, dbus::Error>) -> Vec<Finding> {
    let runs = "the daemon runs";
    let status = match status {
        Ok(status) => status,
        Err(error) => return vec![Finding::new(runs, Err(error))],
    };
    let own = env!("CARGO_PKG_VERSION");
    let version = "it is of the same version as this program";
    let mut findings = vec![
        Finding::ok(runs),
        if status.version == own {
            Finding::ok(version)
        } else {
            let why = format!(
                "it is {}, and this is {own}: systemctl restart tcmu-pr",
                status.version
            );
            Finding::problem(version, why)
        },
    ];
    let warnings = status.warnings.into_iter();
    findings.extend(
        warnings.map(|warning| Finding::problem("it finds nothing wrong with the node", warning)),
    );
    findings.extend(status.refused.into_iter().map(|refused| {
        Finding::problem(&format!("it serves {}", refused.backstore), refused.reason)
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;
    use crate::control::tests::example;
    use crate::tcmu::configfs::tests::Tree;

    /// A node of Debian's, with systemd and the package.
    fn node() -> Tree {
        let tree = Tree::new();
        tree.file("run/systemd/system/x", "")
            .file("usr/lib/systemd/system/tcmu-pr.service", OWN_UNIT)
            .file("lib/systemd/system/rtslib-fb-targetctl.service", "")
            .link(
                "etc/systemd/system/multi-user.target.wants/tcmu-pr.service",
                "/x",
            )
            .link(
                "etc/systemd/system/multi-user.target.wants/rtslib-fb-targetctl.service",
                "/x",
            );
        tree
    }

    fn all(tree: &Tree) -> Vec<String> {
        found(&look(&Node::new(tree.root())))
    }

    const WELL: [&str; 4] = [
        "ok       the service is installed",
        "ok       the service starts at boot",
        "ok       the saved targets come back at boot",
        "ok       the service starts before they do",
    ];

    #[test]
    fn an_installed_service_is_well() {
        assert_eq!(all(&node()), WELL);
    }

    #[test]
    fn a_service_that_does_not_start_is_told() {
        let tree = node();
        tree.remove("etc/systemd/system/multi-user.target.wants");
        let expected = [
            "problem  the service starts at boot: it is not enabled: systemctl enable tcmu-pr",
            "problem  the saved targets come back at boot: rtslib-fb-targetctl.service is not enabled: systemctl enable \
             rtslib-fb-targetctl.service",
        ];
        assert_eq!(all(&tree)[1..3], expected);
        tree.remove("usr/lib/systemd/system/tcmu-pr.service");
        let expected = "problem  the service is installed: there is no tcmu-pr.service: install the package, or run \
                        scripts/install";
        assert_eq!(all(&tree), [expected]);
        tree.remove("run/systemd/system");
        let expected = "note     systemd starts tcmu-pr: systemd does not run here: whatever starts tcmu-pr must do so before \
                        it restores the targets";
        assert_eq!(all(&tree), [expected]);
    }

    #[test]
    fn what_overrides_ours_is_told() {
        let tree = node();
        tree.file(
            "etc/systemd/system/tcmu-pr.service",
            "[Unit]\nBefore=target.service\n",
        )
        .file("etc/systemd/system/tcmu-pr.service.d/override.conf", "")
        .file("etc/modules-load.d/tcmu-pr.conf", "");
        let expected = [
            "problem  the service is installed: /etc/systemd/system/tcmu-pr.service overrides the one that is installed, and \
             may be of another version: remove it, then systemctl daemon-reload; changes of your own belong into a drop-in \
             (systemctl edit tcmu-pr)",
            "note     the service is as it was installed: these change it: override.conf, in \
             /etc/systemd/system/tcmu-pr.service.d",
            "ok       the service starts at boot",
            "ok       the saved targets come back at boot",
            "problem  the service starts before they do: its unit has no Before=rtslib-fb-targetctl.service, and the kernel \
             makes no backstore without us: put it there (systemctl edit tcmu-pr)",
            "note     the list of modules is as it was installed: /etc/modules-load.d/tcmu-pr.conf overrides it: remove that if \
             it is of an older version",
        ];
        assert_eq!(all(&tree), expected);
    }

    #[test]
    fn another_handler_on_the_bus_is_told() {
        assert_eq!(stranger("tcmu-pr (process 1)".to_owned()), None);
        let found_there = stranger("qemu-handler (process 7)".to_owned());
        let expected = "problem  targetcli finds tcmu-pr on the bus: it finds qemu-handler (process 7) there: stop that, and \
                        start tcmu-pr";
        assert_eq!(found(found_there.as_slice()), [expected]);
    }

    #[test]
    fn what_the_daemon_says_is_told() {
        let mut status = example();
        status.refused.clear();
        let well = [
            "ok       the daemon runs",
            "ok       it is of the same version as this program",
        ];
        assert_eq!(found(&told(Ok(status.clone()))), well);
        status.version = "0.0.9".to_owned();
        status.warnings = vec!["this is wrong: mend it".to_owned()];
        status.refused = example().refused;
        let expected = [
            "ok       the daemon runs",
            "problem  it is of the same version as this program: it is 0.0.9, and this is 0.1.0: systemctl restart tcmu-pr",
            "problem  it finds nothing wrong with the node: this is wrong: mend it",
            "problem  it serves user_7/odd: the config string has no nexus label",
        ];
        assert_eq!(found(&told(Ok(status))), expected);
        let expected = "problem  the daemon runs: tcmu-pr is not running: start it with `systemctl start tcmu-pr`";
        assert_eq!(found(&told(Err(dbus::Error::NotRunning))), [expected]);
    }
}
