//! The other handler of TCMU devices that there is: tcmu-runner. It answers the kernel's messages about all devices, ours
//! included, so it must not run beside us.

use std::fs;
use std::path::Path;

/// Its name.
pub const PROGRAM: &str = "tcmu-runner";

/// What to do about it.
pub const REMEDY: &str = "Stop it, and keep targetcli from starting it again: systemctl disable --now tcmu-runner; \
                          systemctl mask tcmu-runner";

/// Its process, if it runs. `processes` is `/proc`.
pub fn running(processes: &Path) -> Option<u32> {
    let entries = fs::read_dir(processes).ok()?;
    entries.flatten().find_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let program = fs::read_to_string(entry.path().join("comm")).ok()?;
        (program.trim_end() == PROGRAM).then_some(process)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    #[test]
    fn it_is_found_by_its_name() {
        let processes = Tree::new();
        processes
            .file("1/comm", "systemd\n")
            .file("811/comm", "tcmu-runner-x\n")
            .file("self/comm", "tcmu-runner\n");
        assert_eq!(running(processes.root()), None);
        processes.file("812/comm", "tcmu-runner\n");
        assert_eq!(running(processes.root()), Some(812));
    }
}
