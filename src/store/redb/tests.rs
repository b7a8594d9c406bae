//! A disk that fails, and one that loses power: how the store copes, at each of its writes.

use std::{
    cell::RefCell,
    fs,
    io::{self, ErrorKind, Seek, SeekFrom, Write as _},
    ops::Bound,
};

use ::redb::{BackendError, StorageBackend};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::{record::Kind, *};
use crate::{
    protocol::{entry::Value, id::Version},
    store::{Head, StoredEntry},
};

/// An error that redb's own checks cannot detect, since redb wrote it: our summary of the records does.
// C98
#[test]
fn refuses_records_that_do_not_add_up() {
    let key = b"key 8".as_slice();
    let entry = |key: &[u8]| {
        let entry = StoredEntry { version: Version(0), value: None, expires: None };
        Some(record::seal(Kind::Entry, key, &record::Entry::of(&entry)))
    };
    let bytes = |key: &[u8]| Some(record::seal(Kind::Meta, key, &0_u8));
    type Case<'a> = (&'a str, Kind, &'a [u8], Option<Vec<u8>>);
    let cases: [Case<'_>; 8] = [
        ("found 10 records", Kind::Entry, key, None),
        ("found 11 records", Kind::Entry, key, entry(key)),
        ("found 12 records", Kind::Entry, b"key 8b", entry(b"key 8b")),
        (
            "the checksum of the Entry record \"key 8\" is wrong",
            Kind::Entry,
            key,
            Some(vec![7; 30]),
        ),
        ("the summary record is missing", Kind::Meta, record::SUMMARY, None),
        ("the format record is missing", Kind::Meta, record::FORMAT, None),
        ("unknown record \"x\"", Kind::Meta, b"x", bytes(b"x")),
        ("a record cannot be read", Kind::Meta, record::HEAD, bytes(record::HEAD)),
    ];
    for (reason, kind, key, record) in cases {
        let error = load_tampered(kind, key, record).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}, not {reason}");
    }
    assert_eq!(load_tampered(Kind::Entry, b"none", None).unwrap(), applied(1));
}

#[test]
fn refuses_the_format_of_a_later_version() {
    let format = record::seal(Kind::Meta, record::FORMAT, &2_u32);
    let error = load_tampered(Kind::Meta, record::FORMAT, Some(format)).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("written in format 2"), "{error}");
}

/// The store keeps its state and continues when the disk does, wherever in a commit it failed.
// C98
#[test]
fn takes_back_a_commit_that_failed_anywhere() {
    let mut landed = 0;
    for failing in 0.. {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        let store = open(&path);
        store.commit(&batch(1)).unwrap();
        fail_after(Some(failing));
        let result = store.commit(&batch(2));
        fail_after(None);
        if result.is_ok() {
            assert!(landed > 0, "no failure came so late that the commit was on the disk");
            return;
        }
        landed += usize::from(stored_in_a_copy(&path) == applied(2));
        assert_eq!(store.load().unwrap(), applied(1), "failing after {failing}");
        store.commit(&batch(3)).unwrap();
        drop(store);
        let mut expected = applied(1);
        batch(3).iter().for_each(|change| expected.apply(change));
        assert_eq!(open(&path).load().unwrap(), expected, "failing after {failing}");
    }
}

#[test]
fn names_the_file_when_the_disk_fails() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    fail_after(Some(0));
    for _ in 0..2 {
        let error = store.commit(&batch(1)).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    fail_after(None);
    store.commit(&batch(1)).unwrap();
    assert_eq!(store.load().unwrap(), applied(1));
}

/// The power is cut at any moment, also while the store is opened or closed: of the sectors written
/// since the last sync of the disk, any subset may be on it.
// C98
#[test]
fn keeps_what_was_acknowledged_when_the_power_is_cut() {
    let mut random = random();
    let (writes, acknowledged) = record_a_life();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let mut newer = 0;
    for _ in 0..POWER_CUTS {
        let mut cut = random.random_range(acknowledged[0]..=writes.len());
        if random.random_bool(0.5) {
            // Just before a sync of the disk, when all of a commit may be on it.
            cut += writes[cut..].iter().position(|w| matches!(w, Write::Sync)).unwrap_or(0);
        }
        let _ = fs::remove_file(&path);
        let image = image(&writes[..cut], &mut random);
        file::create(&path, |mut file| Ok(file.write_all(&image)?)).unwrap();
        let stored = RedbStore::open(&path).and_then(|store| store.load());
        let stored = stored.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let last = acknowledged.iter().rposition(|at| *at <= cut).unwrap();
        let expected = [applied(last as u64), applied(last as u64 + 1)];
        assert!(expected.contains(&stored), "cut at {cut}: {:?}, not {last}", stored.head);
        newer += usize::from(stored == expected[1]);
    }
    println!("{newer} of {POWER_CUTS} with the commit that was under way");
}

/// redb's cache does not help: it reads the data that the disk has made up meanwhile, and copies it
/// into the next commit.
// C98
#[test]
fn serves_no_garbage_from_a_file_damaged_while_open() {
    let mut random = random();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let mut refused = 0;
    for _ in 0..DAMAGES {
        let _ = fs::remove_file(&path);
        let store = RedbStore::open_with(path.clone(), |file| {
            builder().set_cache_size(0).create_with_backend(Watched::new(FileBackend::new(file)?))
        });
        let store = store.unwrap();
        (1..4).for_each(|number| store.commit(&batch(number)).unwrap());
        damage(&path, &mut random);
        let committed = store.commit(&batch(4)).is_ok();
        for store in [Some(store), None] {
            let loaded = match store {
                Some(store) => store.load(),
                None => RedbStore::open(&path).and_then(|store| store.load()),
            };
            match loaded {
                Ok(stored) if committed => assert!([applied(3), applied(4)].contains(&stored)),
                Ok(stored) => assert!([applied(2), applied(3)].contains(&stored)),
                Err(error) => {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    refused += 1;
                }
            }
        }
    }
    println!("refused {refused} of {}", 2 * DAMAGES);
}

/// All writes of a store that is opened twice, and after how many of them it existed and each commit
/// was acknowledged.
fn record_a_life() -> (Vec<Write>, Vec<usize>) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let count = || DISK.with_borrow(|disk| disk.writes.len());
    let mut acknowledged = vec![];
    for life in [1..6, 6..10] {
        let store = open(&path);
        if acknowledged.is_empty() {
            // From its second opening on the file has its final name, see `create`.
            acknowledged.push(DISK.with_borrow(|disk| disk.opened[1]));
        }
        for number in life {
            store.commit(&batch(number)).unwrap();
            acknowledged.push(count());
        }
    }
    (DISK.take().writes, acknowledged)
}

/// The content of the disk if the power is cut after `writes`.
fn image(writes: &[Write], random: &mut StdRng) -> Vec<u8> {
    let synced = writes.iter().rposition(|write| matches!(write, Write::Sync)).unwrap_or(0);
    // Few missing sectors are as interesting as few written ones.
    let reached: f64 = random.random_range(-0.5_f64..1.5).clamp(0.0, 1.0);
    let mut image = vec![];
    for (at, write) in writes.iter().enumerate() {
        let mut reaches = || at <= synced || random.random_bool(reached);
        match write {
            Write::Sync => {}
            Write::Length(length) if reaches() => image.resize(*length, 0),
            Write::Length(_) => {}
            Write::Bytes(offset, bytes) => {
                for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                    let start = offset + number * SECTOR;
                    // Data behind the end is not in the file.
                    if reaches() && start + sector.len() <= image.len() {
                        image[start..start + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
    }
    image
}

/// Loads a store after `record` was inserted or removed under `key` without its knowledge.
fn load_tampered(kind: Kind, key: &[u8], record: Option<Vec<u8>>) -> Result<Stored, StoreError> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    RedbStore::open(&path).unwrap().commit(&batch(1)).unwrap();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction.open_table(kind.table()).unwrap();
    match record {
        Some(record) => drop(table.insert(key, record.as_slice()).unwrap()),
        None => drop(table.remove(key).unwrap()),
    }
    drop(table);
    transaction.commit().unwrap();
    drop(database);
    RedbStore::open(&path)?.load()
}

/// Writes garbage at a random place in the file.
fn damage(path: &Path, random: &mut StdRng) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut garbage = vec![0; random.random_range(1..=4096)];
    if random.random_bool(0.5) {
        random.fill_bytes(&mut garbage);
    }
    file.seek(SeekFrom::Start(random.random_range(0..length - 4096))).unwrap();
    file.write_all(&garbage).unwrap();
}

/// The seed is taken from the variable `SEED`, or new; it is printed, so a failed test shows it.
fn random() -> StdRng {
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open_with(path.into(), |file| {
        DISK.with_borrow_mut(|disk| disk.opened.push(disk.writes.len()));
        builder().create_with_backend(Watched::new(Disk(FileBackend::new(file)?)))
    })
    .unwrap()
}

/// The state that the next process would find.
fn stored_in_a_copy(path: &Path) -> Stored {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    RedbStore::open(copy).unwrap().load().unwrap()
}

fn fail_after(writes: Option<usize>) {
    DISK.with_borrow_mut(|disk| disk.fails_after = writes);
}

fn batch(number: u64) -> Vec<Change> {
    let put = |key: u64| Change::Put {
        key: format!("key {key}").into(),
        entry: StoredEntry {
            version: Version(number),
            value: Some(Value::from(vec![number as u8; 500])),
            expires: None,
        },
    };
    let head = Change::Head(Head { max_version: Version(number), ..Head::default() });
    let removed = Change::Remove(format!("key {}", number + 3).as_str().into());
    (number..number + 10).map(put).chain([removed, head]).collect()
}

fn applied(number: u64) -> Stored {
    let mut stored = Stored::default();
    (1..=number).flat_map(batch).for_each(|change| stored.apply(&change));
    stored
}

/// One operation on a file.
#[derive(Debug)]
enum Write {
    Length(usize),
    Bytes(usize, Vec<u8>),
    Sync,
}

#[derive(Debug, Default)]
struct DiskState {
    writes: Vec<Write>,
    /// The number of earlier writes when a file was opened.
    opened: Vec<usize>,
    /// This many more writes succeed; later ones fail, as on a full or broken disk.
    fails_after: Option<usize>,
}

thread_local! {
    /// The disk of the test on this thread.
    static DISK: RefCell<DiskState> = RefCell::default();
}

#[derive(Debug)]
struct Disk(FileBackend);

impl Disk {
    fn note(write: Write) -> Result<(), io::Error> {
        DISK.with_borrow_mut(|disk| {
            match &mut disk.fails_after {
                Some(0) => return Err(ErrorKind::StorageFull.into()),
                Some(left) => *left -= 1,
                None => {}
            }
            disk.writes.push(write);
            Ok(())
        })
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        Self::note(Write::Length(len as usize))?;
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Self::note(Write::Sync)?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        Self::note(Write::Bytes(offset as usize, data.into()))?;
        self.0.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}

const POWER_CUTS: usize = 300;
const DAMAGES: usize = 100;
const SECTOR: usize = 512;
