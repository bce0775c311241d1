//! The options of a config string in words: for the manual page, and for docs/configuration.md.

use super::{
    COPY_DOMAIN, DIRECT, FORCE_APTPL, NEXUS, PHYSICAL_BLOCK_SIZE, READ_ONLY, REGISTRATIONS,
    SPEC_I_PT_KNOWN_ONLY, THIN_THRESHOLD,
};

/// An option of a config string. Its texts are Markdown.
#[derive(Debug)]
pub struct Words {
    /// What stands before the `=`.
    pub name: &'static str,
    /// What stands behind it: a value, or what it is in `<>`.
    pub value: &'static str,
    /// What it does.
    pub what: &'static str,
    /// What holds without it.
    pub default: &'static str,
}

/// All options.
pub const OPTIONS: [Words; 9] = [
    Words {
        name: NEXUS,
        value: "<label>",
        what: "the backstore is for one I_T nexus, and this is your name for it: up to 64 letters, digits, `.`, `_` and `-`",
        default: "all initiators share it",
    },
    Words {
        name: COPY_DOMAIN,
        value: "<name>",
        what: "EXTENDED COPY may copy between the disks with the same name here, as far as the reservations of both let the \
               initiator; not where backstores have `nexus=`",
        default: "copies within the disk only",
    },
    Words {
        name: READ_ONLY,
        value: "1",
        what: "nobody writes the disk. What can't be written is not served without it",
        default: "0",
    },
    Words {
        name: DIRECT,
        value: "1",
        what: "reads and writes go past the page cache, where the file system can",
        default: "the node's file, or 0",
    },
    Words {
        name: PHYSICAL_BLOCK_SIZE,
        value: "<bytes>",
        what: "what initiators are told: a power of two from the block size to 65536",
        default: "the device's or the file system's, at most 4096",
    },
    Words {
        name: THIN_THRESHOLD,
        value: "<percent>",
        what: "initiators are warned when less than so many percent (1 to 99) of the file system that holds the disk are \
               left; 0 for never. Not for block devices",
        default: "the node's file, or 0",
    },
    Words {
        name: FORCE_APTPL,
        value: "1",
        what: "every registration outlives a loss of power, whether the host asks for it (APTPL) or not",
        default: "the node's file, or 0",
    },
    Words {
        name: REGISTRATIONS,
        value: "<number>",
        what: "how many I_T nexuses can be registered: 128 to 8190. One more gets INSUFFICIENT REGISTRATION RESOURCES",
        default: "the node's file, or 1024",
    },
    Words {
        name: SPEC_I_PT_KNOWN_ONLY,
        value: "1",
        what: "SPEC_I_PT registers only initiators that an ACL of the disk names",
        default: "the node's file, or 0",
    },
];

/// The options in a sentence: `nexus=<label>, read_only=1 and direct=1`.
pub(super) fn list() -> String {
    let all = OPTIONS.map(|option| format!("{}={}", option.name, option.value));
    let (last, others) = all.split_last().expect("there are some");
    format!("{} and {last}", others.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::KNOWN;
    use super::*;

    #[test]
    fn every_option_has_words() {
        assert_eq!(OPTIONS.map(|option| option.name), KNOWN);
    }

    #[test]
    fn the_documentation_has_the_same_words() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows = OPTIONS.map(|option| {
            let Words {
                name,
                value,
                what,
                default,
            } = option;
            format!("| `{name}={value}` | {what} | {default} |\n")
        });
        let table = rows.concat();
        assert!(
            text.contains(&table),
            "docs/configuration.md has another table than this:\n{table}"
        );
    }
}
