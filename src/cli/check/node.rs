//! The files of a node, as they are looked at.

use std::fs;
use std::path::{Path, PathBuf};

/// A node by its root directory, which is another in tests.
#[derive(Debug)]
pub(super) struct Node(PathBuf);

impl Node {
    pub(super) fn new(root: &Path) -> Node {
        Node(root.to_owned())
    }

    /// Where a file of that name is.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// The content of a file; nothing if it is not there, or can't be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    /// The first of these that is there.
    pub(super) fn first_of(&self, paths: &[&'static str]) -> Option<&'static str> {
        paths.iter().copied().find(|path| self.has(path))
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}
