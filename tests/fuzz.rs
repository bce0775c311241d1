//! The fuzz targets without a fuzzer: all that `fuzz/corpus` keeps, and what a few changed bytes make of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "../fuzz/src/lib.rs"]
pub mod targets;

/// How many changed inputs each target gets.
const CHANGED: u32 = 3_000;
/// The corpus of a target is kept small, or nobody looks at it any more.
const CORPUS_FILES_MAX: usize = 64;
const CORPUS_FILE_LENGTH_MAX: usize = 2_048;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(path)
}

fn files(path: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder(path)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    FlipBit(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    /// From here on as another input.
    Splice(Index, Vec<u8>),
}

fn some_edit(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        4 => (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Edit::FlipBit(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        2 => any::<Index>().prop_map(Edit::Remove),
        1 => any::<Index>().prop_map(Edit::Cut),
        1 => (any::<Index>(), select(corpus)).prop_map(|(at, other)| Edit::Splice(at, other)),
    ]
}

impl Edit {
    fn apply(self, input: &mut Vec<u8>) {
        if input.is_empty() {
            return;
        }
        let length = input.len();
        match self {
            Edit::Set(at, byte) => input[at.index(length)] = byte,
            Edit::FlipBit(at, bit) => input[at.index(length)] ^= 1 << bit,
            Edit::Insert(at, byte) => input.insert(at.index(length), byte),
            Edit::Remove(at) => drop(input.remove(at.index(length))),
            Edit::Cut(at) => input.truncate(at.index(length)),
            Edit::Splice(at, other) => {
                let at = at.index(length);
                input.truncate(at);
                input.extend(other.get(at..).unwrap_or_default());
            }
        }
    }
}

/// Gives the target its corpus, and changed inputs, always the same.
fn replay(target: &str, run: fn(&[u8])) {
    let mut corpus = Vec::new();
    for path in files(&format!("corpus/{target}")) {
        // Seen only if the test fails: the last one is to blame.
        eprintln!("{}", path.display());
        let input = fs::read(&path).unwrap();
        run(&input);
        corpus.push(input);
    }
    eprintln!("changed inputs");
    let config = Config {
        cases: CHANGED,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let edits = vec(some_edit(corpus.clone()), 1..8);
    let changed = (select(corpus), edits).prop_map(|(mut input, edits)| {
        edits.into_iter().for_each(|edit| edit.apply(&mut input));
        input
    });
    TestRunner::new_with_rng(config, rng)
        .run(&changed, |input| {
            run(&input);
            Ok(())
        })
        .unwrap();
}

#[test]
fn image() {
    replay("image", targets::image::run);
}

#[test]
fn lu() {
    replay("lu", targets::lu::run);
}

#[test]
fn pr_out() {
    replay("pr_out", targets::pr_out::run);
}

#[test]
fn transport_id() {
    replay("transport_id", targets::transport_id::run);
}

#[test]
fn every_target_is_replayed_and_has_a_small_corpus() {
    let names = |path| -> BTreeSet<String> {
        let stems = files(path).into_iter();
        stems
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    let replayed = ["image", "lu", "pr_out", "transport_id"].map(str::to_owned);
    assert_eq!(names("fuzz_targets"), BTreeSet::from(replayed.clone()));
    assert_eq!(names("corpus"), BTreeSet::from(replayed.clone()));
    for target in replayed {
        let files = files(&format!("corpus/{target}"));
        assert!((1..=CORPUS_FILES_MAX).contains(&files.len()), "{target}");
        for path in files {
            let length = fs::read(&path).unwrap().len();
            assert!(length <= CORPUS_FILE_LENGTH_MAX, "{}", path.display());
        }
    }
}
