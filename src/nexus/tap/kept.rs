//! A tap that stays in the kernel while no daemon runs.
//!
//! The programs are attached for as long as somebody has their links open. Systemd keeps those over a restart, so that
//! commands are noted while nobody runs. The next daemon goes on with them only if they are what it would attach itself:
//! the name under which they are kept says what they are made of, and the kernel which programs they are. From those it
//! finds the arrays.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::MapHandle;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo, ProgInfoIter, ProgInfoQueryOptions, ProgramInfo};
use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

use super::attach::{EARLY_PROGRAM, Faults, PROGRAMS, Tap, Unavailable, lets_look};
use crate::sys::process;

/// The programs of the tap.
const PROGRAM_NAMES: [&str; 6] = [
    "session_begins",
    "session_ends",
    "command_comes",
    EARLY_PROGRAM,
    "command_is_queued",
    "ring_is_reset",
];

/// How much of a name the kernel knows: `BPF_OBJ_NAME_LEN`, without the 0 at its end.
const NAME_LENGTH: usize = 15;

/// What a tap is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Build {
    /// Notes are made before entries can be seen.
    pub(super) early: bool,
    /// It can read the ISIDs of iSCSI sessions.
    pub(super) iscsi: bool,
    pub(super) faults: Faults,
}

impl Build {
    /// The name under which its links are kept. Whatever differs in anything has another.
    pub(super) fn name(self) -> String {
        self.name_with(PROGRAMS)
    }

    fn name_with(self, programs: &[u8]) -> String {
        let mut digest = Sha256::new();
        digest.update([u8::from(self.early), u8::from(self.iscsi)]);
        digest.update(self.faults.as_bytes());
        digest.update(programs);
        let digest = digest.finalize();
        let digits = digest[..16].iter().map(|byte| format!("{byte:02x}"));
        format!("nexus-tap-{}", digits.collect::<String>())
    }

    /// The names of its programs, as the kernel knows them.
    fn programs(self) -> BTreeSet<&'static OsStr> {
        let names = PROGRAM_NAMES.into_iter();
        let names = names.filter(|&name| self.early || name != EARLY_PROGRAM);
        names
            .map(|name| OsStr::new(&name[..name.len().min(NAME_LENGTH)]))
            .collect()
    }
}

/// Why a tap that was kept is not gone on with.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Some of what was kept is not of a tap as it would be attached now.
    #[error("it is of another version of tcmu-pr, or could note more by now, or less")]
    Other,
    /// The kernel calls some program no more, or twice.
    #[error("its programs are not all there, once each")]
    Programs,
    /// The kernel can't be asked.
    #[error("what it is made of can't be found")]
    Unknown(#[source] libbpf_rs::Error),
    /// Nobody may look, or the arrays are not as they should be.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What keeps a tap in the kernel: the programs, by id, and their links.
#[derive(Debug)]
pub struct Links {
    name: String,
    links: Vec<(u32, OwnedFd)>,
}

impl Links {
    pub(super) fn new(build: Build, links: Vec<(u32, OwnedFd)>) -> Links {
        Links {
            name: build.name(),
            links,
        }
    }

    /// The name under which they are to be kept.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is to be kept open.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.links.iter().map(|(_, link)| link.as_fd()).collect()
    }

    /// Whether the kernel still calls every program.
    pub(super) fn are_attached(&self) -> bool {
        let mut links = self.links.iter();
        links.all(|(program, link)| attached_program(link).is_ok_and(|id| id == Some(*program)))
    }
}

/// The id of the program that a link attaches to a function; `None` if it does not, or not any more.
fn attached_program(link: &OwnedFd) -> Result<Option<u32>, libbpf_rs::Error> {
    let info = LinkInfo::from_fd(link.as_fd())?;
    Ok(matches!(info.info, LinkTypeInfo::Tracing(_)).then_some(info.prog_id))
}

impl Tap {
    /// Goes on with a tap that another daemon has attached, whose links were kept under these names.
    pub fn go_on(faults: Faults, kept: Vec<(String, OwnedFd)>) -> Result<Tap, Unfit> {
        lets_look()?;
        let (_, build) = Tap::possible(faults)?;
        let name = build.name();
        if kept.iter().any(|(kept, _)| *kept != name) {
            return Err(Unfit::Other);
        }
        let links = kept.into_iter().map(|(_, link)| link).collect();
        let (links, maps) =
            process::with_bpf(|| find_parts(build, links)).map_err(|source| {
                Unavailable::System {
                    what: "taking up the capabilities to look for BPF programs",
                    source: io::Error::other(source),
                }
            })??;
        let tap = Tap::of(build, links, maps)?;
        match tap.lost() {
            Some(why) => Err(why.into()),
            None => Ok(tap),
        }
    }
}

type Parts = (Vec<(u32, OwnedFd)>, Vec<MapHandle>);

/// Finds out which programs links belong to, and the maps of those.
fn find_parts(build: Build, links: Vec<OwnedFd>) -> Result<Parts, Unfit> {
    let mut found = Vec::new();
    for link in links {
        let program = attached_program(&link).map_err(Unfit::Unknown)?;
        found.push((program.ok_or(Unfit::Programs)?, link));
    }
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let programs = ProgInfoIter::with_query_opts(options);
    let is_linked = |program: &ProgramInfo| found.iter().any(|(id, _)| *id == program.id);
    let programs: Vec<ProgramInfo> = programs.filter(is_linked).collect();
    let names = programs.iter().map(|program| program.name.as_os_str());
    if !are_whole(build, found.len(), names) {
        return Err(Unfit::Programs);
    }
    // One array for each name is all that there may be: whoever mixes two taps has more.
    let maps: BTreeSet<u32> = programs.into_iter().flat_map(|it| it.map_ids).collect();
    let maps = maps.into_iter().map(MapHandle::from_map_id);
    let maps = maps.collect::<Result<_, _>>().map_err(Unfit::Unknown)?;
    Ok((found, maps))
}

/// Whether so many links and the programs of these names are a whole tap.
fn are_whole<'a>(build: Build, links: usize, names: impl Iterator<Item = &'a OsStr>) -> bool {
    let names: Vec<&OsStr> = names.collect();
    let expected = build.programs();
    let count = expected.len();
    links == count && names.len() == count && BTreeSet::from_iter(names) == expected
}

#[cfg(test)]
mod tests {
    use libbpf_rs::ObjectBuilder;

    use super::*;

    const BUILD: Build = Build {
        early: true,
        iscsi: true,
        faults: Faults { late: 0, every: 0 },
    };

    fn whole(build: Build, links: usize, names: &[&str]) -> bool {
        are_whole(build, links, names.iter().map(OsStr::new))
    }

    #[test]
    fn the_programs_are_those_that_the_build_has_compiled() {
        let open = ObjectBuilder::default().open_memory(PROGRAMS).unwrap();
        let names = open.progs().map(|program| program.name().to_owned());
        let expected = PROGRAM_NAMES.map(|name| OsStr::new(name).to_owned());
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_differs_in_anything_has_another_name() {
        let name = BUILD.name();
        assert_eq!(name, BUILD.name());
        assert_eq!(name.len(), "nexus-tap-".len() + 32);
        for other in [
            Build {
                early: false,
                ..BUILD
            },
            Build {
                iscsi: false,
                ..BUILD
            },
            Build {
                faults: Faults { late: 1, every: 0 },
                ..BUILD
            },
            Build {
                faults: Faults { late: 0, every: 1 },
                ..BUILD
            },
        ] {
            assert_ne!(name, other.name(), "{other:?}");
        }
        let mut programs = PROGRAMS.to_vec();
        *programs.last_mut().unwrap() ^= 1;
        assert_ne!(name, BUILD.name_with(&programs));
    }

    #[test]
    fn a_tap_is_whole_if_each_of_its_programs_is_there_once() {
        let early = [
            "session_begins",
            "session_ends",
            "command_comes",
            "command_has_id",
            "command_is_queu",
            "ring_is_reset",
        ];
        let late = [early[0], early[1], early[2], early[4], early[5]];
        let late_build = Build {
            early: false,
            ..BUILD
        };
        assert!(whole(BUILD, 6, &early));
        assert!(whole(late_build, 5, &late));
        assert!(!whole(BUILD, 5, &late), "one is missing");
        assert!(!whole(late_build, 6, &early), "there is one too many");
        assert!(!whole(BUILD, 7, &early), "one is linked twice");
        assert!(!whole(BUILD, 0, &[]), "nothing was kept");
        let mut other = early;
        other[5] = "command_comes";
        assert!(!whole(BUILD, 6, &other), "one is there twice");
    }
}
