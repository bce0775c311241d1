//! Examples of the commands, for `--help` and the manual pages. A line says what is wanted, the next how it is done.

/// Of `tcmu-pr status`.
pub(super) const STATUS: &str = "\
Examples:
  Which disks are served, and by which engine:
    tcmu-pr status --json | jq --raw-output '.units[] | \"\\(.path) \\(.engine)\"'";

/// Of `tcmu-pr show`.
pub(super) const SHOW: &str = "\
Examples:
  Who is registered with a disk:
    tcmu-pr show /srv/lun0.img
  Only the keys:
    tcmu-pr show /srv/lun0.img --json | jq --raw-output '.reservations.registrants[].key'";

/// Of `tcmu-pr clear`.
pub(super) const CLEAR: &str = "\
Examples:
  Before a disk that was used by a cluster is given to others:
    tcmu-pr clear /srv/lun0.img";

/// Of `tcmu-pr preempt`.
pub(super) const PREEMPT: &str = "\
Examples:
  A host is gone for good, and its registration is in the way:
    tcmu-pr preempt /srv/lun0.img 0x00000000000000a1";

/// Of `tcmu-pr resize`.
pub(super) const RESIZE: &str = "\
Examples:
  A file becomes larger:
    tcmu-pr resize /srv/lun0.img 20G
  A block device was made larger:
    tcmu-pr resize /dev/mapper/vg-lun0";

/// Of `tcmu-pr nexus add`.
pub(super) const NEXUS_ADD: &str = "\
Examples:
  A new disk of 10 GiB for the first of two nodes, then for the second, and both after a boot too:
    tcmu-pr nexus add /srv/lun0.img --size 10G --target iqn.2026-11.com.example:t --initiator iqn.2026-11.com.example:a
    tcmu-pr nexus add /srv/lun0.img --target iqn.2026-11.com.example:t --initiator iqn.2026-11.com.example:b --save";

/// Of `tcmu-pr nexus remove`.
pub(super) const NEXUS_REMOVE: &str = "\
Examples:
  A node does not use the disk any more:
    tcmu-pr nexus remove /srv/lun0.img iqn.2026-11.com.example:b --save";

/// Of `tcmu-pr commands`.
pub(super) const COMMANDS: &str = "\
Examples:
  What a reservation that shuts out writing refuses:
    tcmu-pr commands --json | jq --raw-output '.[] | select(.reservation_class == \"write\") | .name'";
