//! Bringing the tap into the kernel, and seeing that it stays there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use libbpf_rs::{
    ErrorKind, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel,
    RingBuffer, RingBufferBuilder,
};
use zerocopy::{Immutable, IntoBytes};

use super::kept::{Build, Links};
use super::{DEVICES_LENGTH, NOTES_LENGTH, Notes, SESSIONS, SESSIONS_LENGTH};
use crate::sys::process;
use crate::sys::region::Region;

/// The programs, as the build has compiled them.
pub(super) static PROGRAMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tap.bpf.o"));

/// The functions of the kernel that the tap is attached to and can't do without, and their modules.
const FUNCTIONS: [(&str, &str); 4] = [
    ("queue_cmd_ring", "target_core_user"),
    ("tcmu_reset_ring_store", "target_core_user"),
    ("__transport_register_session", "target_core_mod"),
    ("transport_deregister_session", "target_core_mod"),
];
/// The one that lets notes be made before entries can be seen. Without it they are made right after.
const EARLY_FUNCTION: &str = "ring_insert_padding";
pub(super) const EARLY_PROGRAM: &str = "command_has_id";

/// How often the functions of the kernel are read at most, while modules come and go.
const READINGS: usize = 20;

/// Why there is no tap, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No BPF at all.
    #[error("this kernel has no BPF (CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT): it needs another kernel")]
    NoBpf,
    /// The kernel does not describe itself.
    #[error(
        "this kernel does not describe its types: there is no /sys/kernel/btf/{0} (CONFIG_DEBUG_INFO_BTF and \
         CONFIG_DEBUG_INFO_BTF_MODULES)"
    )]
    NoBtf(String),
    /// Nobody may look into the kernel.
    #[error(
        "the kernel is locked down for confidentiality, so that nobody may look into it (see \
         /sys/kernel/security/lockdown); only the boot parameter lockdown= or the kernel's configuration can change that"
    )]
    LockedDown,
    /// The kernel calls nobody.
    #[error(
        "the tracing of functions is switched off, by which the kernel calls the tap: switch it on again (sysctl \
         kernel.ftrace_enabled=1)"
    )]
    SwitchedOff,
    /// It was there.
    #[error("something has taken it out of the kernel; it is attached again")]
    TakenOut,
    /// We may not.
    #[error(
        "tcmu-pr may not load BPF programs: it needs the capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN when it \
         starts (run it as root; in a unit file, see CapabilityBoundingSet=)"
    )]
    NotAllowed,
    /// The kernel's target is not what it was.
    #[error(
        "this kernel ({kernel}) has no function {function} in {module}: is the module loaded? If it is, this version of \
         tcmu-pr does not know this kernel"
    )]
    NoFunction {
        /// The kernel's release.
        kernel: String,
        /// What is missing.
        function: &'static str,
        /// Where it should be.
        module: &'static str,
    },
    /// The kernel does not take the programs.
    #[error(
        "this kernel ({kernel}) does not take the programs of the tap, so this version of tcmu-pr does not know it \
         (--log-level debug says more)"
    )]
    Refused {
        /// The kernel's release.
        kernel: String,
        /// Why.
        #[source]
        source: libbpf_rs::Error,
    },
    /// Something else went wrong.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Faults of the tap, for tests: its constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Faults {
    /// Notes are made only after the entry can be seen, and this many steps of a loop later. 0: in earnest.
    pub late: u32,
    /// About one of so many notes is left out. 0: none.
    pub every: u32,
}

/// The tap, attached. Dropping it takes it out of the kernel, unless its links are kept.
pub struct Tap {
    links: Arc<Links>,
    ended: RingBuffer<'static>,
    notes: Notes,
    build: Build,
    _maps: Vec<MapHandle>,
}

impl Tap {
    /// Loads and attaches the tap. Uses the capabilities that that takes, and lays them down again.
    pub fn attach(faults: Faults) -> Result<Tap, Unavailable> {
        lets_look()?;
        if !has_btf("vmlinux") {
            return Err(Unavailable::NoBtf("vmlinux".to_owned()));
        }
        let (functions, build) = Tap::possible(faults)?;
        has_functions(&functions)?;
        describes_types(&functions)?;
        let mut open = open(faults)?;
        for mut program in open.progs_mut() {
            if program.name() == EARLY_PROGRAM {
                program.set_autoload(build.early);
            }
        }
        let (links, maps) = process::with_bpf(|| -> Result<_, libbpf_rs::Error> {
            let object = open.load()?;
            let mut links = Vec::new();
            for program in object.progs_mut().filter(|program| program.autoload()) {
                let link = program.attach()?;
                let program = link.info()?.prog_id;
                links.push((program, link.as_fd().try_clone_to_owned()?));
            }
            // Who was never there is in no slot.
            let slots = slots(&object)?;
            for slot in 1..u32::from(SESSIONS) {
                slots.update(&[], slot.as_bytes(), MapFlags::ANY)?;
            }
            let maps = object.maps().map(|map| MapHandle::try_from(&map));
            let maps = maps.collect::<Result<Vec<_>, _>>()?;
            Ok((links, maps))
        })
        .map_err(|source| Unavailable::System {
            what: "taking up the capabilities to load BPF programs",
            source: io::Error::other(source),
        })?
        .map_err(refused)?;
        Tap::of(build, links, maps)
    }

    /// The functions of the kernel, and what a tap would be made of that is attached now.
    pub(super) fn possible(faults: Faults) -> Result<(String, Build), Unavailable> {
        let functions = functions()?;
        let build = Build {
            early: faults.late == 0 && place(&functions, EARLY_FUNCTION).is_some(),
            iscsi: Tap::could_know_iscsi(),
            faults,
        };
        Ok((functions, build))
    }

    /// A tap whose programs are attached by these links, and work on these maps.
    pub(super) fn of(
        build: Build,
        links: Vec<(u32, OwnedFd)>,
        maps: Vec<MapHandle>,
    ) -> Result<Tap, Unavailable> {
        let notes = notes(&maps)?;
        let ended = map(&maps, "ended").and_then(|ended| {
            let mut builder = RingBufferBuilder::new();
            builder.add(ended, |_| 0)?;
            builder.build()
        });
        Ok(Tap {
            links: Arc::new(Links::new(build, links)),
            ended: ended.map_err(refused)?,
            notes,
            build,
            _maps: maps,
        })
    }

    /// What keeps it in the kernel.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// What it notes.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Whether notes are made before the entry can be seen.
    pub fn is_early(&self) -> bool {
        self.build.early
    }

    /// Whether it can read the ISIDs of iSCSI sessions. If not, it has to be attached anew when the iSCSI target's module
    /// is loaded.
    pub fn knows_iscsi(&self) -> bool {
        self.build.iscsi
    }

    /// Whether a tap that is attached now can read them.
    pub fn could_know_iscsi() -> bool {
        has_btf("iscsi_target_mod")
    }

    /// Why the kernel does not call every program any more, if it does not.
    pub fn lost(&self) -> Option<Unavailable> {
        if is_switched_off() {
            return Some(Unavailable::SwitchedOff);
        }
        (!self.links.are_attached()).then_some(Unavailable::TakenOut)
    }

    /// Waits until sessions have ended, but not longer than that; tells whether any have.
    pub fn wait(&self, patience: Duration) -> bool {
        self.ended.poll_raw(patience) > 0
    }
}

/// Whether a module, or the kernel itself, describes its types.
fn has_btf(module: &str) -> bool {
    Path::new("/sys/kernel/btf").join(module).exists()
}

/// What the kernel must have for the tap, one after the other: for `tcmu-pr check`.
pub fn requirements() -> Vec<(&'static str, Result<(), Unavailable>)> {
    let mut found = vec![("the kernel allows BPF to read it (lockdown)", lets_look())];
    match functions() {
        Ok(functions) => found.extend([
            (
                "this version knows this kernel's target modules",
                has_functions(&functions),
            ),
            (
                "the kernel describes its types",
                describes_types(&functions),
            ),
        ]),
        Err(why) => found.push(("the kernel's functions can be listed", Err(why))),
    }
    found
}

pub(super) fn lets_look() -> Result<(), Unavailable> {
    // [none] integrity confidentiality
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return Err(Unavailable::LockedDown);
    }
    if is_switched_off() {
        return Err(Unavailable::SwitchedOff);
    }
    Ok(())
}

/// Whether the kernel calls nobody who is attached to its functions, and tells nobody of that.
fn is_switched_off() -> bool {
    let switch = fs::read_to_string("/proc/sys/kernel/ftrace_enabled");
    switch.is_ok_and(|switch| switch.trim() == "0")
}

/// The functions of the kernel. While modules come or go, as they do at boot, it may leave some out: then it is asked
/// again if one is missing that we look for.
fn functions() -> Result<String, Unavailable> {
    let modules = || fs::read_to_string("/proc/modules").unwrap_or_default();
    let functions = || fs::read_to_string("/proc/kallsyms");
    read_whole(modules, functions, has_all).map_err(|source| Unavailable::System {
        what: "reading /proc/kallsyms",
        source,
    })
}

/// Reads the functions until they are whole, or no module has come or gone meanwhile; but not forever.
fn read_whole(
    mut modules: impl FnMut() -> String,
    mut functions: impl FnMut() -> io::Result<String>,
    is_whole: impl Fn(&str) -> bool,
) -> io::Result<String> {
    let mut before = modules();
    for _ in 1..READINGS {
        let found = functions()?;
        let after = modules();
        if states(&before).eq(states(&after)) || is_whole(&found) {
            return Ok(found);
        }
        before = after;
    }
    functions()
}

/// Whether all functions are there that the tap can make use of.
fn has_all(functions: &str) -> bool {
    let needed = FUNCTIONS.iter().map(|(function, _)| *function);
    let mut used = needed.chain([EARLY_FUNCTION]);
    used.all(|function| place(functions, function).is_some())
}

/// The modules (`/proc/modules`) and what is being done with each: the first word of a line, and the fifth.
fn states(modules: &str) -> impl Iterator<Item = (Option<&str>, Option<&str>)> {
    modules.lines().map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next(), words.nth(3))
    })
}

fn has_functions(functions: &str) -> Result<(), Unavailable> {
    let mut needed = FUNCTIONS.iter();
    match needed.find(|(function, _)| place(functions, function).is_none()) {
        Some((function, module)) => Err(Unavailable::NoFunction {
            kernel: kernel(),
            function,
            module,
        }),
        None => Ok(()),
    }
}

fn describes_types(functions: &str) -> Result<(), Unavailable> {
    let modules = FUNCTIONS.iter();
    let modules = modules.filter_map(|(function, _)| place(functions, function)?);
    let mut needed = std::iter::once("vmlinux").chain(modules);
    match needed.find(|module| !has_btf(module)) {
        Some(module) => Err(Unavailable::NoBtf(module.to_owned())),
        None => Ok(()),
    }
}

/// Finds a function among the kernel's (`/proc/kallsyms`), and its module if it is in one.
fn place<'a>(functions: &'a str, function: &str) -> Option<Option<&'a str>> {
    functions.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, name, module) = (words.next()?, words.next()?, words.next());
        let found = name == function && kind.eq_ignore_ascii_case("t");
        let module = module.and_then(|module| module.strip_prefix('[')?.strip_suffix(']'));
        found.then_some(module)
    })
}

fn open(faults: Faults) -> Result<OpenObject, Unavailable> {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, line| {
        let line = line.trim_end();
        match level {
            PrintLevel::Debug => log::trace!("libbpf: {line}"),
            PrintLevel::Info | PrintLevel::Warn => log::debug!("libbpf: {line}"),
        }
    })));
    let mut open = ObjectBuilder::default()
        .name("tcmu_pr")
        .and_then(|builder| builder.open_memory(PROGRAMS))
        .map_err(refused)?;
    for mut map in open.maps_mut() {
        if map.name().to_string_lossy().ends_with(".rodata") {
            map.set_initial_value(faults.as_bytes()).map_err(refused)?;
        }
    }
    Ok(open)
}

fn slots(object: &Object) -> Result<libbpf_rs::Map<'_>, libbpf_rs::Error> {
    let found = object.maps().find(|map| map.name() == "slots");
    found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
}

/// The one map of this name.
fn map<'a>(maps: &'a [MapHandle], name: &str) -> Result<&'a MapHandle, libbpf_rs::Error> {
    let mut found = maps.iter().filter(|map| map.name() == name);
    match (found.next(), found.next()) {
        (Some(map), None) => Ok(map),
        _ => Err(io::Error::from(io::ErrorKind::NotFound).into()),
    }
}

fn notes(maps: &[MapHandle]) -> Result<Notes, Unavailable> {
    let region = |name, length| -> io::Result<Arc<Region>> {
        let map = map(maps, name).map_err(io::Error::other)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        Ok(Arc::new(Region::map(map, length)?))
    };
    let all = || -> io::Result<Notes> {
        let id = map(maps, "notes").and_then(MapCore::info);
        Notes::new(
            id.map_err(io::Error::other)?.info.id,
            region("notes", NOTES_LENGTH)?,
            region("devices", DEVICES_LENGTH)?,
            region("sessions", SESSIONS_LENGTH)?,
        )
        .map_err(io::Error::other)
    };
    all().map_err(|source| Unavailable::System {
        what: "mapping the notes of the tap",
        source,
    })
}

fn refused(source: libbpf_rs::Error) -> Unavailable {
    match source.kind() {
        ErrorKind::PermissionDenied => Unavailable::NotAllowed,
        ErrorKind::Unsupported => Unavailable::NoBpf,
        _ => Unavailable::Refused {
            kernel: kernel(),
            source,
        },
    }
}

fn kernel() -> String {
    let release = nix::sys::utsname::uname();
    release.map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_with_their_modules() {
        let functions = "0000000000000000 T transport_init_session\n\
                         0000000000000000 t queue_cmd_ring\t[target_core_user]\n\
                         0000000000000000 t ring_insert_padding.isra.0\t[target_core_user]\n\
                         0000000000000000 r __transport_register_session\t[target_core_mod]\n";
        assert_eq!(place(functions, "transport_init_session"), Some(None));
        assert_eq!(
            place(functions, "queue_cmd_ring"),
            Some(Some("target_core_user"))
        );
        assert_eq!(place(functions, "ring_insert_padding"), None, "dissolved");
        assert_eq!(
            place(functions, "__transport_register_session"),
            None,
            "data"
        );
    }

    /// Which reading is taken if the modules are these, one after the other, and the functions are whole in one.
    fn reading_taken(modules: &[&str], whole: usize) -> String {
        let (mut modules, mut readings) = (modules.iter().cycle(), 0);
        read_whole(
            || (*modules.next().expect("there are some")).to_owned(),
            || {
                readings += 1;
                Ok(readings.to_string())
            },
            |found| found == whole.to_string(),
        )
        .expect("they can be read")
    }

    #[test]
    fn functions_are_read_until_they_are_whole_or_the_modules_stay() {
        let loading = "sg 45056 1 - Loading 0x0000000000000000\n";
        let live = "sg 45056 0 - Live 0x0000000000000000\n";
        let used = "sg 45056 7 - Live 0x0000000000000000\n";
        assert_eq!(reading_taken(&[live, used], 0), "1", "all stay");
        assert_eq!(reading_taken(&["", loading, live, live], 0), "3");
        assert_eq!(reading_taken(&["", live], 2), "2", "it is whole");
        assert_eq!(reading_taken(&["", live], 0), "20", "not forever");
    }
}
