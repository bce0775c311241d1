//! Files on a disk that can fail, and on a node that can stop, at every single operation.
//!
//! Two folders: `/run`, which a loss of power empties, and `/state`, a disk with a cache. Of what the disk was not told to
//! sync, a loss of power leaves some: of the names in a folder the changes up to any one of them, of the content of a
//! file nothing, a part, or all.

#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tcmu_pr::store::saved::Files;

pub(crate) const RUN: &str = "/run";
pub(crate) const STATE: &str = "/state";

/// What goes wrong, by the number of the operation counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// This one fails, with this errno.
    Once(usize, i32),
    /// This one and all that follow fail.
    From(usize, i32),
    /// The process stops before this one.
    Stop(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inode {
    content: Vec<u8>,
    /// What was synced last.
    synced: Vec<u8>,
}

type Names = BTreeMap<PathBuf, usize>;

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: Names,
    /// The names on the medium, and what they were after each change since.
    synced_names: Names,
    changes: Vec<Names>,
    trouble: Trouble,
    done: usize,
}

/// A node's files. Clones are the same files.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimFiles(Arc<Mutex<State>>);

impl State {
    fn step(&mut self) -> io::Result<()> {
        let number = self.done;
        self.done += 1;
        match self.trouble {
            Trouble::Once(at, errno) if number == at => Err(io::Error::from_raw_os_error(errno)),
            Trouble::From(at, errno) if number >= at => Err(io::Error::from_raw_os_error(errno)),
            Trouble::Stop(at) if number >= at => Err(ErrorKind::Interrupted.into()),
            _ => Ok(()),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names);
        self.changes.push(self.names.clone());
    }
}

impl SimFiles {
    /// From now on.
    pub(crate) fn trouble(&self, trouble: Trouble) {
        let mut state = self.0.lock().unwrap();
        state.trouble = trouble;
        state.done = 0;
    }

    /// How many operations there were since the last [`SimFiles::trouble`].
    pub(crate) fn done(&self) -> usize {
        self.0.lock().unwrap().done
    }

    /// What the next process finds if this one is killed.
    pub(crate) fn after_kill(&self) -> SimFiles {
        let mut state = self.0.lock().unwrap().clone();
        state.trouble = Trouble::None;
        SimFiles(Arc::new(Mutex::new(state)))
    }

    /// Everything that the next boot can find if the node loses power now.
    pub(crate) fn after_power_loss(&self) -> Vec<SimFiles> {
        let state = self.0.lock().unwrap();
        let mut outcomes = Vec::new();
        let names = std::iter::once(&state.synced_names).chain(&state.changes);
        for names in names {
            for part in [0, 1, 2] {
                let on_disk = names.iter().filter(|(path, _)| path.starts_with(STATE));
                let names: Names = on_disk
                    .map(|(path, &inode)| (path.clone(), inode))
                    .collect();
                let mut inodes = state.inodes.clone();
                for inode in &mut inodes {
                    if inode.content != inode.synced {
                        let half = inode.content.len() / 2;
                        inode.content = match part {
                            0 => inode.synced.clone(),
                            1 => inode.content[..half].to_vec(),
                            _ => inode.content.clone(),
                        };
                        inode.synced = inode.content.clone();
                    }
                }
                outcomes.push(SimFiles(Arc::new(Mutex::new(State {
                    inodes,
                    synced_names: names.clone(),
                    names,
                    ..State::default()
                }))));
            }
        }
        outcomes
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }
}

impl Files for SimFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock().unwrap();
        // What was read once is in the cache: only a process that has stopped can't read.
        if matches!(state.trouble, Trouble::Stop(_)) {
            state.step()?;
        }
        let inode = state.inode(path)?;
        Ok(state.inodes[inode].content.clone())
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        // Opening makes or empties the file.
        state.step()?;
        let inode = match state.inode(path) {
            Ok(inode) => inode,
            Err(_) => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.change_names(|names| {
                    names.insert(path.to_owned(), inode);
                });
                inode
            }
        };
        state.inodes[inode].content.clear();
        // A failure may come in the middle.
        let half = content.len() / 2;
        state.inodes[inode].content.extend(&content[..half]);
        state.step()?;
        state.inodes[inode].content.extend(&content[half..]);
        state.step()?;
        state.inodes[inode].synced = content.to_vec();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        let inode = state.inode(from)?;
        state.change_names(|names| {
            names.remove(from);
            names.insert(to.to_owned(), inode);
        });
        Ok(())
    }

    fn link(&self, path: &Path, name: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        let inode = state.inode(path)?;
        if state.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.change_names(|names| {
            names.insert(name.to_owned(), inode);
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        state.inode(path)?;
        state.change_names(|names| {
            names.remove(path);
        });
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        // Names under /run do not last, whatever is synced.
        assert!([RUN, STATE].map(Path::new).contains(&folder));
        state.synced_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }
}
