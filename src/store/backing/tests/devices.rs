//! Block devices: loop devices, where this process may make some. Where it may not, nothing is tested here;
//! `tests/lab/block-device` has root.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::slice;
use std::sync::Arc;

use nix::sys::stat::{Mode as Permissions, SFlag, mknod};

use super::*;
use crate::store::medium::Medium;
use crate::store::space::{self, Extent, Space};
use crate::store::{Content, Spare, whole};
use crate::sys::region::{Region, Segment};

/// A loop device on a file of its own.
struct Loop {
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Loop {
    /// One of `SIZE` bytes; `None` if that may not be had.
    fn new(options: &[&str]) -> Option<Loop> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("medium");
        File::create(&file).unwrap().set_len(SIZE).unwrap();
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).args(options).arg(&file);
        let output = losetup.output().ok()?;
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        let path = String::from_utf8(output.stdout).unwrap();
        Some(Loop {
            path: PathBuf::from(path.trim()),
            folder,
        })
    }

    fn open(&self) -> Result<Backing, Error> {
        open(&self.path)
    }

    fn resize(&self, size: u64) {
        let file = self.folder.path().join("medium");
        let file = OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(size).unwrap();
        self.losetup("--set-capacity");
    }

    /// How many bytes the file takes up.
    fn used(&self) -> u64 {
        let medium = fs::metadata(self.folder.path().join("medium")).unwrap();
        512 * medium.blocks()
    }

    fn losetup(&self, option: &str) {
        let mut losetup = Command::new("losetup");
        let ended = losetup.arg(option).arg(&self.path).status();
        assert!(ended.unwrap().success(), "losetup {option}");
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.losetup("--detach");
    }
}

#[test]
fn a_device_is_read_and_written_and_nobody_else_claims_it() {
    let Some(device) = Loop::new(&[]) else { return };
    Backing::probe(&device.path, Mode::default()).unwrap();
    let backing = soon(|| device.open());
    backing.file().write_all_at(&[7; 512], SIZE - 512).unwrap();
    backing.flush().unwrap();
    let mut block = [0; 512];
    backing
        .file()
        .read_exact_at(&mut block, SIZE - 512)
        .unwrap();
    assert_eq!(block, [7; 512]);
    assert_eq!(backing.actual_size().unwrap(), SIZE);

    let error = device.open().unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    let error = Backing::probe(&device.path, Mode::default()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(backing);
    soon(|| device.open());
}

#[test]
fn a_device_that_is_locked_is_served_by_another() {
    let Some(device) = Loop::new(&[]) else { return };
    let file = File::open(&device.path).unwrap();
    let _lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    let error = device.open().unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
}

#[test]
fn a_device_of_another_size_is_refused() {
    let Some(device) = Loop::new(&[]) else { return };
    for size in [SIZE - 512, SIZE + 512] {
        let error = Backing::open(&device.path, size, 512)
            .unwrap_err()
            .to_string();
        assert!(error.contains("size=1048576B"), "{error}");
    }
}

#[test]
fn a_device_tells_of_its_blocks_and_of_what_it_discards() {
    let Some(device) = Loop::new(&["--sector-size=4096"]) else {
        return;
    };
    let error = device.open().unwrap_err().to_string();
    assert!(error.contains("control=hw_block_size=4096"), "{error}");
    let backing = soon(|| Backing::open(&device.path, SIZE, 4096));
    assert_eq!(backing.topology().physical_block_size, 4096);
    assert_eq!(backing.topology().first_physical_block, 0);
    let Kind::BlockDevice(discard) = backing.kind() else {
        panic!("{:?}", backing.kind());
    };
    // A loop device discards if the file system below it can.
    assert_eq!(discard.maximum > 0, discard.granularity > 0, "{discard:?}");
}

#[test]
fn a_device_that_cannot_be_written_is_served_if_that_is_asked_for() {
    let Some(device) = Loop::new(&["--read-only"]) else {
        return;
    };
    for error in [
        device.open().unwrap_err(),
        Backing::probe(&device.path, Mode::default()).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("add ;read_only=1"), "{text}");
    }
    Backing::probe(&device.path, READ_ONLY).unwrap();
    soon(|| Backing::open_with(&device.path, SIZE, 512, READ_ONLY));
}

#[test]
fn all_nodes_of_a_device_are_one_object_and_the_name_is_the_one_that_was_given() {
    let Some(device) = Loop::new(&[]) else { return };
    let number = fs::metadata(&device.path).unwrap().rdev();
    let node = device.folder.path().join("node");
    mknod(&node, SFlag::S_IFBLK, Permissions::S_IRWXU, number).unwrap();
    let link = device.folder.path().join("link");
    symlink(&device.path, &link).unwrap();

    let backing = open(&link).unwrap();
    assert_eq!(backing.path(), link);
    for name in [&link, &node, &device.path] {
        let look = Backing::look(name).unwrap();
        assert_eq!(look.id, Some(backing.id()));
        assert_eq!(&look.name, name);
    }
}

#[test]
fn a_device_grows_when_it_has_grown() {
    let Some(device) = Loop::new(&[]) else { return };
    let backing = device.open().unwrap();
    let error = backing.grow(2 * SIZE).unwrap_err();
    assert!(matches!(error, Error::NotGrown { .. }), "{error}");
    assert_eq!(backing.size(), SIZE);
    device.resize(2 * SIZE);
    assert_eq!(backing.size(), SIZE, "nobody has said so");
    backing.grow(2 * SIZE).unwrap();
    assert_eq!(backing.size(), 2 * SIZE);
    backing
        .file()
        .write_all_at(&[7; 512], 2 * SIZE - 512)
        .unwrap();
}

#[test]
fn a_device_of_large_sectors_is_read_and_written_past_the_page_cache() {
    let Some(device) = Loop::new(&["--sector-size=4096"]) else {
        return;
    };
    let direct = Mode {
        direct: true,
        ..Mode::default()
    };
    Backing::probe(&device.path, direct).unwrap();
    let backing = soon(|| Backing::open_with(&device.path, SIZE, 4096, direct));
    let region = Arc::new(Region::anonymous(1 << 16).unwrap());
    // Memory that is aligned, and pieces that are not.
    for (block, pieces) in [
        (1, vec![(4096, 8192)]),
        (9, vec![(8192, 4096), (20_000, 4096)]),
        (20, vec![(513, 5000), (8192, 7288)]),
    ] {
        let segments = pieces
            .iter()
            .map(|&(offset, length)| Segment { offset, length });
        let data = Data::new(&region, segments.collect(), 0..1 << 16).unwrap();
        let content: Vec<u8> = (0..data.len())
            .map(|at| (at % 251).to_le_bytes()[0])
            .collect();
        data.write_at(0, &content);
        whole::write(&backing, block * 4096, &data, 0..data.len()).unwrap();
        data.zero_from(0);
        let part = block * 4096..block * 4096 + data.len();
        whole::read(&backing, part.clone(), &data).unwrap();
        let mut found = vec![0; content.len()];
        data.read_at(0, &mut found);
        assert!(
            found == content,
            "through the buffer of a command: {pieces:?}"
        );
        whole::read_exact(&backing, &mut found, part.start).unwrap();
        assert!(found == content, "through memory: {pieces:?}");
    }
    let misaligned = backing.file().write_at(&[0; 512], 0).unwrap_err();
    assert_eq!(misaligned.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_device_gives_space_back_in_the_way_that_it_has() {
    let Some(device) = Loop::new(&[]) else { return };
    let mut backing = device.open().unwrap();
    let Kind::BlockDevice(discard) = backing.kind() else {
        panic!("{:?}", backing.kind());
    };
    let deallocation = backing.deallocation();
    assert_eq!(deallocation.is_some(), discard.maximum > 0);
    if !deallocation.is_some_and(|deallocation| deallocation.zeroes) {
        // The file system below does not punch holes.
        return;
    }
    for zeroes in [true, false] {
        whole::write_all(&backing, &vec![7; 1 << 20], 0).unwrap();
        backing.flush().unwrap();
        assert_eq!(device.used(), SIZE);
        let discard = Discard { zeroes, ..discard };
        let kind = Kind::BlockDevice(discard);
        backing.space = Space::of(backing.file(), kind, Mode::default()).unwrap();
        let middle = 4096..SIZE - 4096;
        space::unmap(&backing, slice::from_ref(&middle), || false).unwrap();
        backing.flush().unwrap();
        assert_eq!(device.used(), 8192, "zeroes: {zeroes}");
        let mut content = vec![0; 1 << 20];
        whole::read_exact(&backing, &mut content, 0).unwrap();
        let (kept, given_back) = ([7; 4096], vec![0; (1 << 20) - 8192]);
        let expected = [&kept[..], &given_back, &kept].concat();
        assert!(content == expected, "zeroes: {zeroes}");
    }
}

#[test]
fn a_device_is_filled_with_zeros_and_nobody_knows_what_it_takes_up() {
    let Some(device) = Loop::new(&[]) else { return };
    let backing = device.open().unwrap();
    whole::write_all(&backing, &vec![7; 1 << 20], 0).unwrap();
    let region = Arc::new(Region::anonymous(4096).unwrap());
    let nothing = Data::new(&region, Vec::new(), 0..4096).unwrap();
    for spare in [Spare::Keep, Spare::GiveBack] {
        let part = 512..1024;
        space::write_same(&backing, &part, &nothing, Content::Zeros, spare, || false).unwrap();
        let mut content = [0; 1536];
        whole::read_exact(&backing, &mut content, 0).unwrap();
        assert_eq!(content, *[[7; 512], [0; 512], [7; 512]].concat());
    }
    let all = Extent {
        range: 0..SIZE,
        is_allocated: true,
    };
    let seek = |at, sought| backing.seek(at, sought);
    let extents = space::extents(seek, &(0..SIZE), 512, 10).unwrap();
    assert_eq!(extents, [all]);
    let unknown = backing.figures().unwrap_err();
    assert_eq!(unknown.raw_os_error(), Some(libc::EOPNOTSUPP));
}
