use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn said(text: &str) -> String {
    parse(Path::new(PATH), text).expect_err(text).to_string()
}

#[test]
fn an_empty_file_says_nothing() {
    for text in ["", "\n# log-level = \"debug\"\n", "[backstores]\n"] {
        assert_eq!(parse(Path::new(PATH), text).unwrap(), Settings::default());
    }
}

#[test]
fn every_key_is_read() {
    let text = "\
log-level = \"debug\"
engine = \"threads\"
poll = 20

[backstores]
direct = true
thin-threshold = 5
force-aptpl = true
registrations = 0x80
spec-i-pt-known-only = true
";
    let expected = Settings {
        log_level: LevelFilter::Debug,
        engine: Engine::Threads,
        poll: Poll::Fixed(Duration::from_micros(20)),
        backstores: Defaults {
            direct: true,
            thin_threshold: Some(5),
            force_aptpl: true,
            registrations: Some(128),
            spec_i_pt_known_only: true,
        },
    };
    assert_eq!(parse(Path::new(PATH), text).unwrap(), expected);
    let poll = |text| parse(Path::new(PATH), text).unwrap().poll;
    assert_eq!(poll("poll = \"off\""), Poll::Off);
    assert_eq!(poll("poll = \"adaptive\""), Poll::Adaptive);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_with_what_is_allowed() {
    for (text, expected) in [
        (
            "\n\npol = 20\n",
            "/etc/tcmu-pr.toml:3:1: unknown key `pol`; there are log-level, engine, poll and the table [backstores]",
        ),
        (
            "[backstores]\n  read-only = true\n",
            "/etc/tcmu-pr.toml:2:3: unknown key `read-only` in [backstores]; there are direct, thin-threshold, force-aptpl, \
             registrations and spec-i-pt-known-only",
        ),
        (
            "backstores.nexus = \"a\"\n",
            "/etc/tcmu-pr.toml:1:12: unknown key `nexus` in [backstores]; there are direct, thin-threshold, force-aptpl, \
             registrations and spec-i-pt-known-only",
        ),
        (
            "[backstore]\n",
            "/etc/tcmu-pr.toml:1:2: unknown key `backstore`; there are log-level, engine, poll and the table [backstores]",
        ),
        (
            "backstores = 1\n",
            "/etc/tcmu-pr.toml:1:1: backstores is a table: write [backstores], and what it holds below that",
        ),
        (
            "log-level = \"off\"\n",
            "/etc/tcmu-pr.toml:1:13: log-level can't be \"off\": write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        (
            "engine = 'io_uring'\n",
            "/etc/tcmu-pr.toml:1:10: engine can't be 'io_uring': write \"best\" or \"threads\"",
        ),
        (
            "poll = 1001\n",
            "/etc/tcmu-pr.toml:1:8: poll can't be 1001: write \"off\", \"adaptive\", or a number of microseconds from 1 to 1000",
        ),
        (
            "poll = \"20\"\n",
            "/etc/tcmu-pr.toml:1:8: poll can't be \"20\": write \"off\", \"adaptive\", or a number of microseconds from 1 to 1000",
        ),
        (
            "[backstores]\nthin-threshold = 100\n",
            "/etc/tcmu-pr.toml:2:18: thin-threshold can't be 100: write a number of percent from 1 to 99, or 0 for no warning",
        ),
        (
            "[backstores]\nregistrations = -128\n",
            "/etc/tcmu-pr.toml:2:17: registrations can't be -128: write a number from 128 to 8190",
        ),
        (
            "[backstores]\nregistrations = 8191\n",
            "/etc/tcmu-pr.toml:2:17: registrations can't be 8191: write a number from 128 to 8190",
        ),
        (
            "# é\n[backstores]\nforce-aptpl = 1\n",
            "/etc/tcmu-pr.toml:3:15: force-aptpl can't be 1: write true or false",
        ),
        // The first in the file, whatever its name is.
        (
            "poll = 0\nengine = 1\n",
            "/etc/tcmu-pr.toml:1:8: poll can't be 0: write \"off\", \"adaptive\", or a number of microseconds from 1 to 1000",
        ),
        (
            "log-level = \"\"\"\nx\"\"\"",
            "/etc/tcmu-pr.toml:1:13: log-level can't be \"\"\"?x\"\"\": write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        (
            "direct = true\n",
            "/etc/tcmu-pr.toml:1:1: unknown key `direct`; there are log-level, engine, poll and the table [backstores]",
        ),
    ] {
        assert_eq!(said(text), expected);
    }
    for text in [
        "poll",
        "poll = 1\npoll = 2",
        "poll = fast",
        "[backstores",
        "engine = \"\u{1b}]0;x\"",
    ] {
        let error = said(text);
        assert!(!error.contains('\u{1b}'), "{error}");
        assert!(error.starts_with("/etc/tcmu-pr.toml:"), "{error}");
        assert!(error.contains(": this is no TOML: "), "{error}");
    }
}

#[test]
fn all_keys_are_named_where_one_is_not_known() {
    for (keys, names) in [
        (&NODE_KEYS[..], NODE_NAMES),
        (&BACKSTORE_KEYS[..], BACKSTORE_NAMES),
    ] {
        assert!(keys.iter().all(|key| names.contains(key.name)), "{names}");
    }
}

#[test]
fn the_example_says_what_holds_without_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/tcmu-pr.toml");
    let example = fs::read_to_string(path).unwrap();
    let commented = example
        .lines()
        .all(|line| line.is_empty() || line.starts_with('#') || line == "[backstores]");
    assert!(commented, "it changes nothing as it is");
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut expected = Settings::default();
    // What is written out, and what nothing written means.
    expected.backstores.registrations = Some(1024);
    assert_eq!(parse(Path::new(PATH), &uncommented).unwrap(), expected);
    for key in NODE_KEYS.iter().chain(&BACKSTORE_KEYS) {
        assert!(
            example.contains(&format!("\n#{} = ", key.name)),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_documentation_has_every_key_and_what_it_can_be_given() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, file) = text.split_once("\n## The node's file\n").unwrap();
    let (file, _) = file.split_once("\n## ").unwrap();
    let mut documented: Vec<&str> = file
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let keys = NODE_KEYS.iter().chain(&BACKSTORE_KEYS);
    let mut known: Vec<&str> = keys.map(|key| key.name).collect();
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
}

#[test]
fn a_file_that_others_can_write_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tcmu-pr.toml");
    assert_eq!(read(&path).unwrap(), "");
    fs::write(&path, "poll = 1\n").unwrap();
    let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let name = path.display();
    for mode in [0o664, 0o646, 0o666] {
        set(mode);
        let expected = format!(
            "{name} can be written by others than its owner (mode {mode:04o}): chmod go-w {name}"
        );
        assert_eq!(read(&path).unwrap_err().to_string(), expected);
    }
    set(0o644);
    assert_eq!(read(&path).unwrap(), "poll = 1\n");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
        let expected = format!(
            "{name} belongs to the user 1000, and must belong to root: chown root:root {name}"
        );
        assert_eq!(read(&path).unwrap_err().to_string(), expected);
    }
}

#[test]
fn what_is_no_file_of_text_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with(" is no regular file: put one in its place, or nothing"),
        "{error}"
    );
    let path = folder.path().join("tcmu-pr.toml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(
        error.ends_with(" is no regular file: put one in its place, or nothing"),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'#'; LENGTH_MAX]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read(&path).unwrap().len(), LENGTH_MAX);
    fs::write(&path, vec![b'#'; LENGTH_MAX + 1]).unwrap();
    let expected = format!("{} is longer than 65536 bytes: shorten it", path.display());
    assert_eq!(read(&path).unwrap_err().to_string(), expected);
    fs::write(&path, b"# a\n#\xff").unwrap();
    let expected = format!(
        "{}:2:2: this is no UTF-8: write the file in that",
        path.display()
    );
    assert_eq!(read(&path).unwrap_err().to_string(), expected);
}
