//! Names: which are taken, and what is made up where none is given.
//!
//! All that goes to targetcli is made of letters, digits and a few signs that its parser, rtslib and the kernel take for
//! nothing but parts of a name.

use std::path::Path;

use crate::tcmu::config::Label;

/// How much of a file's name goes into that of a backstore.
const STEM_MAX: usize = 32;
/// The longest iSCSI name (RFC 7143).
const ISCSI_NAME_MAX: usize = 223;

/// An iSCSI name that targetcli and the kernel take.
pub(super) fn iscsi(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    if let Some(c) = text.chars().find(|&c| !allowed(c)) {
        return Err(format!(
            "an iSCSI name has no {c:?}: only letters, digits, \".\", \"-\" and \":\""
        ));
    }
    if text.len() > ISCSI_NAME_MAX {
        let length = text.len();
        return Err(format!(
            "an iSCSI name has at most {ISCSI_NAME_MAX} characters, and this has {length}"
        ));
    }
    let hexadecimal = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let good = match text.split_once('.') {
        Some(("iqn", rest)) => is_dated_domain(rest),
        Some(("eui", digits)) => digits.len() == 16 && hexadecimal(digits),
        Some(("naa", digits)) => digits.len() == 16 && hexadecimal(digits),
        _ => false,
    };
    if good {
        Ok(text.to_owned())
    } else {
        Err("an iSCSI name is like iqn.2026-11.com.example:node-a, with at least two parts in the domain".to_owned())
    }
}

/// `2026-11.com.example:node-a`.
fn is_dated_domain(text: &str) -> bool {
    let (date, domain) = text.split_once('.').unwrap_or((text, ""));
    let domain = domain.split(':').next().unwrap_or_default();
    let is_date = date.len() == 7
        && date.char_indices().all(|(at, c)| match at {
            4 => c == '-',
            _ => c.is_ascii_digit(),
        });
    is_date && domain.contains('.') && !domain.split('.').any(str::is_empty)
}

/// A label for an initiator that no other backstore of the disk has: the end of its name, and a number if need be.
pub(super) fn label(initiator: &str, taken: &[String]) -> Label {
    let end = match initiator.rsplit_once(':') {
        Some((_, end)) if !end.is_empty() => end,
        _ => initiator,
    };
    let base = legal(end, Label::LENGTH_MAX - 4);
    free(&base, taken)
        .parse()
        .expect("it has some of the characters of labels, and not too many")
}

/// A name for a backstore that no other has: its file's name and its label, and a number if need be.
pub(super) fn backstore(path: &Path, label: &Label, taken: &[String]) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    free(&format!("{}-{label}", legal(&stem, STEM_MAX)), taken)
}

/// As much of a text as is said, without what neither labels nor names of backstores may have.
fn legal(text: &str, length_max: usize) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let characters = text.chars().map(|c| if allowed(c) { c } else { '-' });
    characters.take(length_max).collect()
}

/// The name, with the first number behind it, from 2, that makes it none of those that are taken.
fn free(base: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    std::iter::once(base.to_owned())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .expect("there are more numbers than names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iscsi_name_is_one_that_targetcli_takes() {
        for name in [
            "iqn.2026-11.com.example:node-a",
            "iqn.2026-11.com.example",
            "iqn.1993-08.org.debian:01:6a9e7d",
            "eui.02004567A425678D",
            "naa.52004567ba64678d",
        ] {
            assert_eq!(iscsi(name), Ok(name.to_owned()));
        }
        for name in [
            "",
            "a",
            "iqn",
            "iqn.",
            "iqn.2026-11",
            "iqn.2026-11.example:a",
            "iqn.2026-11..example:a",
            "iqn.26-11.com.example:a",
            "IQN.2026-11.com.example:a",
            "iqn.2026-11.com.example:a b",
            "iqn.2026-11.com.example:a/../b",
            "iqn.2026-11.com.example:a\nsaveconfig",
            "iqn.2026-11.com.example:a;reboot",
            "iqn.2026-11.com.example:$(reboot)",
            "iqn.2026-11.com.example:ä",
            "eui.0200",
            "naa.x2004567ba64678d",
        ] {
            assert!(iscsi(name).is_err(), "{name}");
        }
        let long = format!("iqn.2026-11.com.example:{}", "x".repeat(200));
        let error = iscsi(&long).expect_err("it is too long");
        assert!(error.contains("at most 223 characters"), "{error}");
    }

    #[test]
    fn a_label_is_the_end_of_the_initiators_name() {
        for (initiator, expected) in [
            ("iqn.2026-11.com.example:node-a", "node-a"),
            ("iqn.1993-08.org.debian:01:6a9e7d", "6a9e7d"),
            ("iqn.2026-11.com.example", "iqn.2026-11.com.example"),
            ("iqn.2026-11.com.example:", "iqn.2026-11.com.example-"),
            ("eui.02004567A425678D", "eui.02004567A425678D"),
        ] {
            assert_eq!(label(initiator, &[]).as_str(), expected);
        }
        let taken = ["node-a", "node-a-2"].map(str::to_owned);
        let next = label("iqn.2026-11.com.example:node-a", &taken);
        assert_eq!(next.as_str(), "node-a-3");
        let long = format!("iqn.2026-11.com.example:{}", "x".repeat(199));
        assert_eq!(label(&long, &[]).as_str(), "x".repeat(60));
    }

    #[test]
    fn a_backstore_is_called_by_its_file_and_its_label() {
        let name = |path: &str, taken: &[String]| {
            let label = "node-a".parse().expect("it is a label");
            backstore(Path::new(path), &label, taken)
        };
        for (path, expected) in [
            ("/srv/lun0.img", "lun0-node-a"),
            ("/dev/mapper/vg-lun0", "vg-lun0-node-a"),
            ("/srv/a=b+(c)@d.img", "a-b--c--d-node-a"),
            ("/srv/.lun", ".lun-node-a"),
        ] {
            assert_eq!(name(path, &[]), expected);
        }
        let taken = ["lun0-node-a".to_owned()];
        assert_eq!(name("/srv/lun0.img", &taken), "lun0-node-a-2");
        let long = format!("/srv/{}.img", "x".repeat(200));
        assert_eq!(name(&long, &[]), format!("{}-node-a", "x".repeat(32)));
    }
}
