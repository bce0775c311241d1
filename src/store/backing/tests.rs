use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{process, thread};

use super::*;
use crate::sys::region::{Region, Segment};

mod devices;

const SIZE: u64 = 1 << 20;

fn open(path: &Path) -> Result<Backing, Error> {
    Backing::open(path, SIZE, 512)
}

/// What was closed can be opened again, soon: a process that another test starts has it open, too, until it runs its program.
fn soon<T>(open: impl Fn() -> Result<T, Error>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match open() {
            Err(Error::InUse { .. } | Error::Locked { .. }) if Instant::now() < until => {
                thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_created_sparse() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    assert_eq!(Backing::look(&path).unwrap().id, None);
    let backing = open(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), SIZE);
    assert_eq!(metadata.blocks(), 0, "no block is allocated");
    assert_eq!(metadata.mode() & 0o777, 0o600);
    assert_eq!(Backing::look(&path).unwrap().id, Some(backing.id()));
}

#[test]
fn a_file_of_another_size_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    for content in [vec![7; 1000], vec![7; (1 << 20) + 512]] {
        fs::write(&path, &content).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(error, Error::WrongSize { wanted: SIZE, .. }),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("size={}B", content.len())),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_size_that_is_zero_or_no_multiple_of_the_block_size_is_refused_and_nothing_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    for size in [0, 511, 513, u64::MAX] {
        let error = Backing::open(&path, size, 512).unwrap_err();
        assert!(matches!(error, Error::BadSize { .. }), "{size}: {error}");
    }
    assert!(!path.exists());
}

#[test]
fn a_size_that_no_file_can_have_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let error = Backing::open(&path, 1 << 63, 512).unwrap_err();
    assert!(matches!(error, Error::System { .. }), "{error}");
    assert!(!path.exists());
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
    let error = open(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(error.contains("/dev/null is neither a file"), "{error}");
}

#[test]
fn a_missing_folder_is_named_and_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("srv");
    let error = open(&missing.join("lun0.img")).unwrap_err();
    assert!(matches!(error, Error::NoFolder { .. }), "{error}");
    assert!(!missing.exists());
}

#[test]
fn a_second_server_is_refused_until_the_first_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let first = open(&path).unwrap();
    assert!(matches!(open(&path).unwrap_err(), Error::Locked { .. }));
    drop(first);
    soon(|| open(&path));
}

#[test]
fn two_names_of_one_file_have_one_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let backing = open(&path).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(Backing::look(&link).unwrap().id, Some(backing.id()));
}

#[test]
fn a_missing_device_is_not_made_a_file() {
    let name = format!("tcmu-pr-there-is-no-device-{}", process::id());
    let path = Path::new("/dev").join(&name);
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("devices");
    std::os::unix::fs::symlink("/dev", &link).unwrap();
    for path in [&path, &link.join(&name)] {
        let error = open(path).unwrap_err();
        assert!(matches!(error, Error::NoDevice { .. }), "{error}");
        let error = Backing::probe(path, Mode::default()).unwrap_err();
        assert!(matches!(error, Error::NoDevice { .. }), "{error}");
    }
    assert!(!path.exists());
}

const READ_ONLY: Mode = Mode {
    read_only: true,
    direct: false,
};

#[test]
fn what_is_only_read_is_neither_created_nor_written_and_needs_no_flush() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let open = || Backing::open_with(&path, SIZE, 512, READ_ONLY);
    let error = open().unwrap_err();
    assert!(matches!(error, Error::NothingToRead { .. }), "{error}");
    let error = Backing::probe(&path, READ_ONLY).unwrap_err();
    assert!(matches!(error, Error::NothingToRead { .. }), "{error}");
    assert!(!path.exists());

    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let backing = open().unwrap();
    let error = backing.file().write_all_at(&[8], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    let mut byte = [0];
    backing.file().read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [7]);
    backing.flush().unwrap();
    let grown = backing.grow(2 * SIZE).unwrap_err();
    assert!(matches!(grown, Error::NotGrown { .. }), "{grown}");
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
}

#[test]
fn readers_keep_a_writer_away_and_a_writer_keeps_readers_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let reader = || Backing::open_with(&path, SIZE, 512, READ_ONLY);
    let writer = open(&path).unwrap();
    assert!(matches!(reader().unwrap_err(), Error::Locked { .. }));
    drop(writer);
    let _both = (soon(reader), soon(reader));
    assert!(matches!(open(&path).unwrap_err(), Error::Locked { .. }));
}

#[test]
fn what_is_only_read_is_free_of_us_whoever_else_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let is_free = || Backing::is_free(&path, true).unwrap();
    let ours = soon(|| Backing::open_with(&path, SIZE, 512, READ_ONLY));
    let io = ours.file().try_clone().unwrap();
    assert!(!is_free());
    drop(ours);
    assert!(!is_free(), "I/O goes on");
    drop(io);
    soon(|| match is_free() {
        true => Ok(()),
        false => Err(Error::Locked { path: path.clone() }),
    });
    let stranger = |lock| Flock::lock(File::open(&path).unwrap(), lock).unwrap();
    let reader = stranger(FlockArg::LockShared);
    assert!(is_free());
    drop(reader);
    let _writer = stranger(FlockArg::LockExclusive);
    assert!(!is_free());
}

#[test]
fn a_file_is_known_by_its_path_without_links() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let backing = open(&link).unwrap();
    assert_eq!(backing.path(), path.canonicalize().unwrap());
    for name in [&link, &path] {
        assert_eq!(Backing::look(name).unwrap().name, backing.path());
    }
}

#[test]
fn a_file_grows_durably_and_nothing_of_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let backing = open(&path).unwrap();
    backing.file().write_all_at(&[7; 512], SIZE - 512).unwrap();
    backing.grow(SIZE).unwrap();
    backing.grow(SIZE + 512).unwrap();
    assert_eq!(backing.size(), SIZE + 512);
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len() as u64, SIZE + 512);
    assert_eq!(content[(1 << 20) - 512..1 << 20], [7; 512]);
    assert_eq!(content[1 << 20..], [0; 512]);
}

#[test]
fn a_file_that_somebody_else_has_made_as_large_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let backing = open(&path).unwrap();
    backing.file().set_len(3 * SIZE).unwrap();
    let error = backing.grow(2 * SIZE).unwrap_err();
    assert!(
        error.to_string().contains("set dev_size=3145728"),
        "{error}"
    );
    assert_eq!(backing.size(), SIZE);
    backing.grow(3 * SIZE).unwrap();
    assert_eq!(backing.size(), 3 * SIZE);
}

#[test]
fn a_size_that_it_cannot_grow_to_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let backing = open(&path).unwrap();
    let refused = |size| backing.grow(size).unwrap_err();
    assert!(matches!(refused(SIZE - 512), Error::Shrink { .. }));
    assert!(matches!(refused(0), Error::Shrink { .. }));
    assert!(matches!(refused(SIZE + 1), Error::BadSize { .. }));
    assert!(matches!(refused(1 << 63), Error::System { .. }));
    assert_eq!(backing.size(), SIZE);
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);

    backing.file().set_len(SIZE - 512).unwrap();
    assert!(matches!(refused(2 * SIZE), Error::Cut { .. }));
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE - 512);
}

#[test]
fn what_lost_data_once_neither_flushes_nor_grows() {
    let folder = tempfile::tempdir().unwrap();
    let backing = open(&folder.path().join("lun0.img")).unwrap();
    let lost = backing.sync(|_| Err(io::Error::from_raw_os_error(libc::EIO)));
    lost.unwrap_err();
    let errno = |error: io::Error| error.raw_os_error();
    assert_eq!(errno(backing.flush().unwrap_err()), Some(libc::EIO));
    backing.grow(2 * SIZE).unwrap_err();
    assert_eq!(backing.size(), SIZE);
    assert_eq!(backing.actual_size().unwrap(), SIZE, "it is cut back");
}

#[test]
fn a_file_of_512_byte_blocks_is_written_in_pages_of_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, block_size| {
        Backing::open(&folder.path().join(name), SIZE, block_size).unwrap()
    };
    let small = open("small.img", 512);
    assert_eq!(small.kind(), Kind::File);
    let expected = Topology {
        physical_block_size: 4096,
        first_physical_block: 0,
        rotates: false,
        atomic_write: None,
    };
    assert_eq!(small.topology(), expected);
    assert_eq!(open("large.img", 4096).topology(), expected);
}

#[test]
fn a_size_that_ends_within_what_is_written_at_once_is_refused() {
    let path = Path::new("/srv/lun0.img");
    check_aligned(path, 8192, 4096).unwrap();
    check_aligned(path, 8192 + 512, 512).unwrap();
    let error = check_aligned(path, 8192 + 512, 4096)
        .unwrap_err()
        .to_string();
    assert!(error.contains("multiples of 4096 bytes"), "{error}");
}

#[test]
fn a_file_is_served_past_the_page_cache_or_refused_with_what_to_leave_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let direct = Mode {
        direct: true,
        ..Mode::default()
    };
    match Backing::open_with(&path, SIZE, 512, direct) {
        Ok(backing) => {
            backing.write_at(&[7; 512], SIZE - 512).unwrap();
            backing.grow(2 * SIZE).unwrap();
            let mut block = [0; 1024];
            let read = backing.read_at(&mut block, SIZE - 512).unwrap();
            assert_eq!((read, block[511], block[512]), (1024, 7, 0));
            drop(backing);
            soon(|| Backing::probe(&path, direct));
        }
        // The file system has none.
        Err(error) => {
            assert!(error.to_string().contains("leave out direct=1"), "{error}");
            assert!(!path.exists());
        }
    }
}

#[test]
fn an_atomic_write_is_one_of_the_systems_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun0.img");
    let region = Arc::new(Region::anonymous(1 << 20).unwrap());
    // In two pieces, neither of which is aligned.
    let pieces = [(8193, 1000), (100, (1 << 19) - 1000)];
    let pieces = pieces.map(|(offset, length)| Segment { offset, length });
    let data = Data::new(&region, pieces.to_vec(), 0..1 << 20).unwrap();
    data.write_at(0, &[0x5a; 1 << 19]);
    let buffered = Backing::open(&path, SIZE, 512).unwrap();
    assert_eq!(buffered.topology().atomic_write, None);
    assert!(buffered.write_atomic(0, &data, 4096).is_err());
    drop(buffered);

    let direct = Mode {
        direct: true,
        ..Mode::default()
    };
    let Ok(backing) = Backing::open_with(&path, SIZE, 512, direct) else {
        return; // no direct I/O here
    };
    let Some(length) = backing.topology().atomic_write else {
        assert!(backing.write_atomic(0, &data, 4096).is_err());
        return;
    };
    let length = u64::from(length);
    backing.write_atomic(length, &data, length).unwrap();
    // Not where it does not begin at a multiple of itself, and no other length.
    for (offset, other) in [(length / 2, length), (0, length / 2), (0, 2 * length)] {
        assert!(backing.write_atomic(offset, &data, other).is_err());
    }
    let mut found = vec![0xff; usize::try_from(4 * length).unwrap()];
    let mut done = 0;
    while done < found.len() {
        done += backing.read_at(&mut found[done..], done as u64).unwrap();
    }
    for (byte, found) in (0..).zip(found) {
        let expected = (length..2 * length).contains(&byte);
        assert_eq!(found, if expected { 0x5a } else { 0 }, "byte {byte}");
    }
}
