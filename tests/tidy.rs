//! The house rules, as tests. What fails says what to do.
//!
//! They look at the files as they lie here, whatever git knows of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tcmu_pr::cli::exit;
use tcmu_pr::pr::out::{self, Cdb, Context};
use tcmu_pr::pr::{self, Reservations, Type};
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use tcmu_pr::scsi::{Access, commands};

/// What may stand at the top of the tree, besides dot files and build directories.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "benches",
    "docs",
    "fuzz",
    "scripts",
    "src",
    "systemd",
    "tests",
    "udev",
];
/// A longer file holds more than one thing.
const LINES_MAX: usize = 900;
/// Names that say nothing of what a file holds.
const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];
/// What may not stay in code.
const LEFTOVERS: [(&str, &str); 4] = [
    ("todo!", "do it, or leave it out"),
    ("unimplemented!", "do it, or answer that it is not served"),
    ("dbg!", "take it out, or log it"),
    ("#[ignore", "let the test run, or take it out"),
];

/// A file of the tree.
struct File {
    /// From the top of the tree: `src/lu/mod.rs`.
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> File {
    let text = fs::read_to_string(root().join(path));
    File {
        path: path.to_owned(),
        text: text.unwrap_or_else(|error| panic!("reading {path}: {error}")),
    }
}

/// The paths of all files below a folder, from the top of the tree; none if there is no such folder.
fn paths(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        // Every build directory has this file.
        if !root().join(&folder).is_dir() || root().join(&folder).join("CACHEDIR.TAG").exists() {
            continue;
        }
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// All Rust files below a folder.
fn rust(folder: &str) -> Vec<File> {
    let paths = paths(folder).into_iter();
    paths
        .filter(|path| path.ends_with(".rs"))
        .map(|path| read(&path))
        .collect()
}

fn all_rust() -> Vec<File> {
    let folders = ["src", "tests", "benches", "fuzz"];
    let files: Vec<File> = folders.into_iter().flat_map(rust).collect();
    assert!(files.len() > 50, "the Rust files were not found");
    files
}

/// Everything that a shell or another interpreter runs, and what it reads in.
fn scripts() -> Vec<File> {
    let paths = ["scripts", "tests/lab", ".ci"].into_iter().flat_map(paths);
    let files: Vec<File> = paths.map(|path| read(&path)).collect();
    assert!(files.len() > 5, "the scripts were not found");
    files
}

/// Fails with every complaint, and what to do.
#[track_caller]
fn nothing_of(complaints: Vec<String>, what_to_do: &str) {
    assert!(
        complaints.is_empty(),
        "\n  {}\n{what_to_do}\n",
        complaints.join("\n  ")
    );
}

/// Rust code with its comments taken out and its literals emptied, line by line.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kept, length) = if rest.starts_with("//") {
            ("", rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            ("", rest.find("*/").map_or(rest.len(), |at| at + 2))
        } else if let Some(length) = string(rest, &code) {
            ("\"\"", length)
        } else if let Some(length) = character(rest) {
            ("''", length)
        } else {
            let length = first.len_utf8();
            (&rest[..length], length)
        };
        code.push_str(kept);
        let (taken, after) = rest.split_at(length);
        if kept != taken {
            code.extend(taken.chars().filter(|&c| c == '\n'));
        }
        rest = after;
    }
    code
}

/// The length of the string literal that `text` begins with.
fn string(text: &str, before: &str) -> Option<usize> {
    if let Some(inside) = text.strip_prefix('"') {
        return Some(1 + end_of_literal(inside, '"')?);
    }
    // Not the end of a word, unless the word is the b of a byte string.
    if before
        .strip_suffix('b')
        .unwrap_or(before)
        .ends_with(is_in_word)
    {
        return None;
    }
    let raw = text.strip_prefix('r')?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let inside = raw[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end)?;
    Some(1 + hashes + 1 + length + end.len())
}

/// The length of the character literal that `text` begins with, which may be a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.chars();
    let first = chars.next()?;
    let is_literal = first == '\\' || chars.next() == Some('\'');
    is_literal.then(|| Some(1 + end_of_literal(inside, '\'')?))?
}

/// How long it is up to the quote that ends it, this included.
fn end_of_literal(inside: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    let end = inside.char_indices().find(|&(_, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map(|(at, _)| at + 1)
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in the text as a word of its own.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_in_word) && !text[at + word.len()..].starts_with(is_in_word)
    })
}

/// Code without the items that only tests are built with, and the names of the modules among them that are
/// files of their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut kept, mut modules) = (String::new(), Vec::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("#[cfg(test)]") else {
            kept.push_str(line);
            kept.push('\n');
            continue;
        };
        let end = format!("{indent}}}");
        for (index, line) in lines.by_ref().enumerate() {
            if let (0, Some(item)) = (index, line.strip_suffix(';')) {
                if let Some((_, name)) = item.split_once("mod ") {
                    modules.push(name.to_owned());
                }
                break;
            }
            if line == end {
                break;
            }
        }
    }
    (kept, modules)
}

/// The module that a file below `src` holds: `["lu", "task"]`.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

/// The names that follow `crate::` in the code of a module, or as many `super::` as lead to the same place.
fn from_the_root(code: &str, depth: usize) -> BTreeSet<String> {
    let up = "super::".repeat(depth);
    let starts = ["crate::", &up].into_iter().flat_map(|start| {
        let at = code.match_indices(start);
        let whole = at.filter(|(at, _)| !code[..*at].ends_with(|c| is_in_word(c) || c == ':'));
        whole.map(move |(at, _)| &code[at + start.len()..])
    });
    let word = |text: &str| text.chars().take_while(|&c| is_in_word(c)).collect();
    let mut names = BTreeSet::new();
    for after in starts {
        match after.strip_prefix('{') {
            None => drop(names.insert(word(after))),
            Some(group) => {
                let mut open = 1;
                let mut fresh = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => open += 1,
                        '}' => open -= 1,
                        ',' if open == 1 => fresh = true,
                        c if is_in_word(c) && fresh => {
                            names.insert(word(&group[at..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                    if open == 0 {
                        break;
                    }
                }
            }
        }
    }
    names
}

/// What the map in `src/lib.rs` says: each module, and what it imports, in the order of the map.
fn map() -> Vec<(String, BTreeSet<String>)> {
    let quoted = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let library = read("src/lib.rs");
    let rows = library
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"));
    let map: Vec<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            let [name, _, imports, ""] = cells[..] else {
                panic!("src/lib.rs: this row of the map has not three cells: {row}");
            };
            let name = name.split('`').next().unwrap().to_owned();
            (name, quoted(imports).into_iter().collect())
        })
        .collect();
    assert!(!map.is_empty(), "src/lib.rs has no map any more");
    map
}

/// Which module imports which, and where it does so.
fn imports() -> BTreeMap<(String, String), String> {
    let tops: Vec<String> = map().into_iter().map(|(name, _)| name).collect();
    let files: Vec<_> = rust("src")
        .into_iter()
        .filter(|file| !["src/lib.rs", "src/main.rs"].contains(&file.path.as_str()))
        .map(|file| {
            let (code, tests) = without_tests(&code(&file.text));
            (module(&file.path), file.path, code, tests)
        })
        .collect();
    let tests: Vec<Vec<String>> = files
        .iter()
        .flat_map(|(module, _, _, tests)| {
            tests
                .iter()
                .map(|name| [&module[..], std::slice::from_ref(name)].concat())
        })
        .collect();
    let mut imports = BTreeMap::new();
    for (module, path, code, _) in files {
        if tests.iter().any(|test| module.starts_with(test)) {
            continue;
        }
        for name in from_the_root(&code, module.len()) {
            if name != module[0] && tops.contains(&name) {
                imports.insert((module[0].clone(), name), path.clone());
            }
        }
    }
    assert!(imports.len() > 10, "the imports were not found");
    imports
}

#[test]
fn the_top_level_stays_as_it_is() {
    let mut complaints = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_build_directory = entry.path().join("CACHEDIR.TAG").exists() || name == "target";
        if !name.starts_with('.') && !is_build_directory && !TOP_LEVEL.contains(&name.as_str()) {
            complaints.push(name);
        }
    }
    nothing_of(
        complaints,
        "does not belong at the top of the tree: put it into one of the folders, or remove it",
    );
}

#[test]
fn unsafe_code_lives_in_sys() {
    let manifest = read("Cargo.toml").text;
    assert!(
        manifest.contains("\nunsafe_code = \"deny\"\n"),
        "Cargo.toml must deny unsafe_code in [lints.rust]"
    );
    let files = all_rust().into_iter();
    let complaints = files
        .filter(|file| !file.path.starts_with("src/sys/"))
        .filter(|file| {
            let code = code(&file.text);
            has_word(&code, "unsafe") || has_word(&code, "unsafe_code")
        });
    nothing_of(
        complaints.map(|file| file.path).collect(),
        "has unsafe code, or allows it: give src/sys a safe function for it",
    );
}

#[test]
fn the_fuzz_targets_have_the_same_lints() {
    let lints = |path: &str| -> BTreeSet<String> {
        let manifest = read(path).text;
        let sections = manifest.split("\n[").map(str::trim);
        sections
            .filter(|section| section.starts_with("lints."))
            .map(str::to_owned)
            .collect()
    };
    let ours = lints("Cargo.toml");
    assert!(ours.len() > 1, "Cargo.toml has no lints any more");
    assert_eq!(
        lints("fuzz/Cargo.toml"),
        ours,
        "fuzz/Cargo.toml is no member of our workspace: copy the lints of Cargo.toml"
    );
}

#[test]
fn the_map_names_every_module() {
    let library = code(&read("src/lib.rs").text);
    let modules: BTreeSet<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let map = map();
    let named: BTreeSet<&str> = map.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        modules, named,
        "src/lib.rs: give each module one row in the map, and each row its module"
    );
    assert_eq!(map.len(), named.len(), "src/lib.rs: a row is there twice");
}

#[test]
fn the_map_points_up() {
    let mut above = BTreeSet::new();
    let mut complaints = Vec::new();
    for (name, imports) in map() {
        let down = imports.difference(&above);
        complaints.extend(down.map(|import| format!("{name} -> {import}")));
        above.insert(name);
    }
    nothing_of(
        complaints,
        "src/lib.rs: a module may import what stands above it in the map only: cut the arrow, or move what it needs",
    );
}

#[test]
fn imports_are_those_of_the_map() {
    let map: BTreeSet<(String, String)> = map()
        .into_iter()
        .flat_map(|(name, imports)| {
            imports
                .into_iter()
                .map(move |import| (name.clone(), import))
        })
        .collect();
    let imports = imports();
    let strange = imports.iter().filter(|(arrow, _)| !map.contains(arrow));
    nothing_of(
        strange
            .map(|((from, to), path)| format!("{path}: {from} -> {to}"))
            .collect(),
        "is not in the map of src/lib.rs: import less, or add the arrow there, in a commit of its own that says why",
    );
    let gone = map.iter().filter(|arrow| !imports.contains_key(arrow));
    nothing_of(
        gone.map(|(from, to)| format!("{from} -> {to}")).collect(),
        "is in the map of src/lib.rs and nothing imports it any more: take it out there",
    );
}

#[test]
fn nothing_is_left_over() {
    let mut complaints = Vec::new();
    for file in all_rust() {
        for (number, line) in code(&file.text).lines().enumerate() {
            let found = LEFTOVERS
                .iter()
                .filter(|(leftover, _)| line.contains(leftover));
            complaints.extend(found.map(|(leftover, what_to_do)| {
                format!("{}:{}: {leftover}: {what_to_do}", file.path, number + 1)
            }));
        }
    }
    nothing_of(complaints, "do not leave that in");
}

#[test]
fn no_file_is_too_long() {
    let files = all_rust().into_iter().chain(scripts());
    let complaints = files.filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", file.path))
    });
    nothing_of(
        complaints.collect(),
        &format!("has more than {LINES_MAX} lines: split it by what it holds"),
    );
}

#[test]
fn files_are_named_for_what_they_hold() {
    let folders = ["src", "tests", "benches", "fuzz", "scripts"];
    let complaints = folders.into_iter().flat_map(paths).filter(|path| {
        let mut parts = path.split('/').map(|part| part.split('.').next().unwrap());
        parts.any(|part| EMPTY_NAMES.contains(&part))
    });
    nothing_of(
        complaints.collect(),
        "says nothing of what it holds: name it for that",
    );
}

#[test]
fn scripts_are_executable_and_stop_at_the_first_failure() {
    let mut complaints = Vec::new();
    for File { path, text } in scripts() {
        let mut complain = |what| complaints.push(format!("{path}: {what}"));
        let mode = fs::metadata(root().join(&path)).unwrap();
        let is_executable = mode.permissions().mode() & 0o111 == 0o111;
        let first = text.lines().next().unwrap_or_default();
        let is_script = first.starts_with("#!");
        if is_script && !is_executable {
            complain("begins with #! and is not executable: chmod +x");
        }
        if !is_script && is_executable {
            complain("is executable and does not begin with #!: chmod -x, or say what runs it");
        }
        if first.ends_with("sh") && is_script && !text.lines().any(|l| l == "set -euo pipefail") {
            complain("goes on after a failure: begin with set -euo pipefail");
        }
        let is_for_people = path.starts_with("scripts/") && path.matches('/').count() == 1;
        if is_for_people && !(is_script && text.contains("--help")) {
            complain("is for people to call: make it a script that answers --help");
        }
    }
    nothing_of(complaints, "scripts keep these rules");
}

#[test]
fn the_documents_have_the_table_of_commands() {
    document_has_table(&commands::markdown());
}

#[test]
fn the_documentation_has_the_exit_statuses() {
    let mut table = String::from("| status | meaning |\n|---|---|\n");
    for (status, meaning) in exit::STATUSES {
        table += &format!("| {status} | {meaning} |\n");
    }
    assert!(
        read("docs/commands.md").text.contains(&table),
        "the table in docs/commands.md is not current: put this there\n\n{table}\n"
    );
}

/// What REPORT CAPABILITIES says.
#[test]
fn the_documents_say_what_is_supported_of_reservations() {
    let features = [
        ("Persist Through Power Loss (APTPL)", "PTPL_C", 0x01),
        ("All Target Ports (ALL_TG_PT)", "ATP_C", 0x04),
        ("Specify Initiator Ports (SPEC_I_PT)", "SIP_C", 0x08),
        (
            "RESERVE and RELEASE with compatible reservation handling",
            "CRH",
            0x10,
        ),
        ("REPLACE LOST RESERVATION", "RLR_C", 0x80),
    ];
    let capabilities = pr::read::capabilities(&Reservations::default())[2];
    let mut table = String::from("| feature | bit | supported |\n|---|---|---|\n");
    for (feature, name, bit) in features {
        let supported = if capabilities & bit != 0 { "yes" } else { "no" };
        table += &format!("| {feature} | {name} | {supported} |\n");
    }
    document_has_table(&table);
}

/// What the gate lets through.
#[test]
fn the_documents_say_who_may_do_what_under_each_reservation() {
    let nexus = |number| ItNexus {
        initiator_port: TransportId::Sas(number),
        target_port: TargetPort {
            protocol: Protocol::Sas,
            name: "naa.1".into(),
        },
    };
    let (holder, registrant, stranger) = (nexus(1), nexus(2), nexus(3));
    let out = |state: &Reservations, issuer, service_action, scope_type, keys: [u8; 2]| {
        let cdb = Cdb {
            service_action,
            scope_type,
            parameter_list_length: 24,
        };
        let mut list = [0; 24];
        [list[7], list[15]] = keys;
        let answer = out::answer(state, issuer, cdb, &list, &Context::default());
        answer.unwrap().next
    };
    let (register, reserve) = (0x00, 0x01);
    let mut table = String::from(
        "| type | code | holder | others who are registered | not registered |\n|---|---|---|---|---|\n",
    );
    for kind in Type::ALL {
        let state = out(&Reservations::default(), &holder, register, 0, [0, 1]);
        let state = out(&state, &registrant, register, 0, [0, 2]);
        let state = out(&state, &holder, reserve, kind.code(), [1, 0]);
        let may = |nexus| {
            let allowed = state.allowed(Some(nexus));
            match [Access::Read, Access::Write].map(|access| allowed.contains(access)) {
                [true, true] => "reads, writes",
                [true, false] => "reads",
                [false, true] => "writes",
                [false, false] => "-",
            }
        };
        table += &format!(
            "| {kind} | {:X}h | {} | {} | {} |\n",
            kind.code(),
            may(&holder),
            may(&registrant),
            may(&stranger)
        );
    }
    document_has_table(&table);
}

fn document_has_table(wanted: &str) {
    let document = read("docs/scsi.md").text;
    let title = wanted.lines().next().unwrap();
    let lines = document.lines().skip_while(|line| *line != title);
    let found: String = lines
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(
        found == wanted,
        "a table in docs/scsi.md is not current: put this there\n\n{wanted}\n"
    );
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut complaints = Vec::new();
    let documents = paths("docs").into_iter();
    let documents = documents.filter(|path| path.ends_with(".md"));
    for document in documents.chain(["README.md".into(), ".github/CONTRIBUTING.md".into()]) {
        let text = read(&document).text;
        let is_in_path = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let words = text.split(|c| !is_in_path(c));
        for path in words.map(|word| word.trim_end_matches('.')) {
            let is_ours = path.split_once('/').is_some_and(|(top, _)| {
                TOP_LEVEL.contains(&top) || [".github", ".ci"].contains(&top)
            });
            if is_ours && !root().join(path).exists() {
                complaints.push(format!("{document}: {path}"));
            }
        }
    }
    nothing_of(
        complaints,
        "is not there: write what is, or make what is missing",
    );
}

/// What the rules above look at is what is meant to be looked at.
#[test]
fn code_is_told_from_comments_and_literals() {
    for (text, expected) in [
        ("a // unsafe\nb", "a \nb"),
        ("a /* unsafe\n */ b", "a \n b"),
        (r#"a("unsafe \" unsafe", b"\\", x)"#, r#"a("", b"", x)"#),
        (r###"a(r#"un"safe"#, br"\", r"")"###, r#"a("", b"", "")"#),
        (r#"a('"', '\'', '\\', 'x')"#, "a('', '', '', '')"),
        ("fn a<'a>(b: &'a str)", "fn a<'a>(b: &'a str)"),
        ("for_\"x\"", "for_\"\""),
        ("\"a\nb\" c", "\"\"\n c"),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
}

#[test]
fn imports_are_found_in_every_spelling() {
    let code = "use crate::pr::{self, x};\nuse crate::{lu, scsi::{a, sys}, store as s};\n\
                fn f() { crate::tcmu::g(); super::nexus::h(); super::super::cli::i(); }\n\
                #[cfg(test)]\nmod tests {\n    use crate::daemon;\n}\n#[cfg(test)]\nmod more;\n";
    let (kept, modules) = without_tests(code);
    assert_eq!(modules, ["more"]);
    let names = |depth| Vec::from_iter(from_the_root(&kept, depth));
    assert_eq!(
        names(1),
        ["lu", "nexus", "pr", "scsi", "store", "super", "tcmu"]
    );
    assert_eq!(names(2), ["cli", "lu", "pr", "scsi", "store", "tcmu"]);
}
