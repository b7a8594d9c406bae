//! What the file of golden bytes finds.

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Serialize, Deserialize)]
struct Level(String);
#[derive(Serialize, Deserialize)]
struct Counted {
    item: String,
    count: u32,
}
#[derive(Serialize, Deserialize)]
struct Follow(u8);
#[derive(Serialize, Deserialize)]
struct Import;
#[derive(Serialize, Deserialize)]
struct Item(u32);
#[derive(Serialize, Deserialize)]
struct Export;

crate::service! {
    struct Stock = "stock", 2.1;
    1: call Level -> Option<u32>, idempotent;
    2: cast Counted;
    3: stream Follow -> u16;
    4: collect Import of Item -> u64;
    5: duplex Export, since 1;
}

/// Later, or broken, versions of the service.
mod later {
    use super::*;

    macro_rules! version {
        ($module:ident, $version:literal, $item:ty, $($lines:tt)*) => {
            #[allow(dead_code, reason = "not every version has a method for each")]
            pub(crate) mod $module {
                use super::*;
                #[derive(Serialize, Deserialize)]
                pub(crate) struct Level(pub(crate) $item);
                #[derive(Serialize, Deserialize)]
                pub(crate) struct New(pub(crate) u8);
                crate::service! {
                    pub(crate) struct Stock = "stock", $version;
                    $($lines)*
                }
            }
        };
    }
    version!(first, 2.0, String, 1: call Level -> Option<u32>;);
    version!(added, 2.1, String, 1: call Level -> Option<u32>; 2: cast New, since 1;);
    version!(moved, 2.0, u64, 1: call Level -> Option<u32>;);
    version!(other, 2.0, String, 1: call Level -> u32;);
    version!(since, 2.1, String, 1: call Level -> Option<u32>, since 1;);
    version!(major, 3.0, String, 1: call Level -> Option<u32>;);
    version!(early, 2.0, String, 1: call Level -> Option<u32>; 2: cast New, since 1;);
    version!(without, 2.1, String, 2: cast New, since 1;);
    version!(unmarked, 2.1, String, 1: call Level -> Option<u32>; 2: cast New;);
    version!(twice, 2.0, String, 1: call Level -> Option<u32>, idempotent;);
    version!(reused, 2.2, String, 1: cast New, since 2; 2: call Level -> u8, since 1;);
}

fn whole(path: &Path) -> Frozen<Stock> {
    frozen::<Stock>(path)
        .call(&Level("tea".into()), &Some(3))
        .call(&Level(String::new()), &None)
        .cast(&Counted { item: "tea".into(), count: 300 })
        .stream(&Follow(1), &2)
        .collect(&Import, &Item(7), &8)
        .duplex(&Export)
}

fn first(path: &Path) -> Frozen<later::first::Stock> {
    frozen(path).call(&later::first::Level("tea".into()), &Some(3))
}

fn added(path: &Path) -> Frozen<later::added::Stock> {
    let frozen = frozen(path).call(&later::added::Level("tea".into()), &Some(3));
    frozen.cast(&later::added::New(9))
}

/// What is found, in any order.
fn faults<S: Service>(frozen: Frozen<S>, update: bool) -> Vec<String> {
    frozen.compare(update).err().map_or_else(Vec::new, |faults| faults.faults)
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stock.golden");
    (dir, path)
}

#[test]
fn a_file_that_is_not_there_is_a_fault_and_is_written_only_if_asked_for() {
    let (_dir, path) = file();
    assert_eq!(faults(first(&path), false), ["there is no such file"]);
    assert!(!path.exists());
    assert_eq!(faults(first(&path), true), [""; 0]);
    assert_eq!(faults(first(&path), false), [""; 0]);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "stock 2.0\n1 call 0 Level question 03746561\n1 call 0 Level answer 0103\n");
}

#[test]
fn every_kind_of_method_is_kept() {
    let (_dir, path) = file();
    whole(&path).update();
    whole(&path).check();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "stock 2.1",
            "1 call,idempotent 0 Level question 03746561",
            "1 call,idempotent 0 Level answer 0103",
            "1 call,idempotent 0 Level question 00",
            "1 call,idempotent 0 Level answer 00",
            "2 cast 0 Counted question 03746561fb2c01",
            "3 stream 0 Follow question 01",
            "3 stream 0 Follow item 02",
            "4 collect 0 Import question",
            "4 collect 0 Import item 07",
            "4 collect 0 Import answer 08",
            "5 duplex 1 Export question",
        ]
    );
}

#[test]
fn a_method_without_an_example_is_found_even_when_the_file_is_written() {
    let (_dir, path) = file();
    let part = || frozen::<Stock>(&path).cast(&Counted { item: "tea".into(), count: 300 });
    let found = faults(part(), true);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[0], "method 1 Level has no example");
    assert!(!path.exists());
}

#[test]
fn a_changed_message_is_found_and_never_overwritten() {
    let (_dir, path) = file();
    first(&path).update();
    let before = fs::read_to_string(&path).unwrap();
    for update in [false, true] {
        let moved = frozen::<later::moved::Stock>(&path);
        let found = faults(moved.call(&later::moved::Level(5), &Some(3)), update);
        assert_eq!(found, ["method 1 Level: the question was 03746561, and the question is 05"]);
        let other = frozen::<later::other::Stock>(&path);
        let found = faults(other.call(&later::other::Level("tea".into()), &3), update);
        assert_eq!(found, ["method 1 Level: the answer was 0103, and the answer is 03"]);
        let since = frozen::<later::since::Stock>(&path);
        let found = faults(since.call(&later::since::Level("tea".into()), &Some(3)), update);
        assert_eq!(found[0], "method 1 Level: it was a call since 0, and is a call since 1");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn a_new_method_is_a_fault_until_the_file_has_it() {
    let (_dir, path) = file();
    first(&path).update();
    assert_eq!(faults(added(&path), false), ["New: question is not in the file"]);
    added(&path).update();
    added(&path).check();
    // The older version does not fit any more.
    let found = faults(first(&path), false);
    assert_eq!(found, ["it is of stock 2.1, and the service is 2.0"]);
    let early = frozen::<later::early::Stock>(&path);
    let early = early.call(&later::early::Level("tea".into()), &Some(3));
    let found = faults(early.cast(&later::early::New(9)), false);
    assert_eq!(found[0], "method 2 New is since minor version 1, and the service has only 0");
}

#[test]
fn a_new_method_that_callers_would_ask_released_nodes_for_is_refused() {
    let (_dir, path) = file();
    first(&path).update();
    let before = fs::read_to_string(&path).unwrap();
    let unmarked = || {
        let frozen = frozen::<later::unmarked::Stock>(&path);
        let frozen = frozen.call(&later::unmarked::Level("tea".into()), &Some(3));
        frozen.cast(&later::unmarked::New(9))
    };
    let says = "method 2 New is new, and since minor version 0: nodes of 0 may lack it, so it is since 1 at least";
    for update in [false, true] {
        assert_eq!(faults(unmarked(), update)[0], says);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    // Nothing was released before the file.
    fs::remove_file(&path).unwrap();
    assert_eq!(faults(unmarked(), true), [""; 0]);
}

#[test]
fn a_method_that_becomes_idempotent_or_is_so_no_more_is_found() {
    let twice = |path: &Path| {
        let frozen = frozen::<later::twice::Stock>(path);
        frozen.call(&later::twice::Level("tea".into()), &Some(3))
    };
    let (_dir, path) = file();
    first(&path).update();
    let found = faults(twice(&path), true);
    let says = "method 1 Level: it was a call since 0, and is a call,idempotent since 0";
    assert_eq!(found, [says; 2]);
    let (_dir, path) = file();
    twice(&path).update();
    let found = faults(first(&path), true);
    let says = "method 1 Level: it was a call,idempotent since 0, and is a call since 0";
    assert_eq!(found, [says; 2]);
}

#[test]
fn a_method_that_is_gone_keeps_its_number() {
    let (_dir, path) = file();
    added(&path).update();
    let without = || frozen::<later::without::Stock>(&path).cast(&later::without::New(9));
    assert_eq!(faults(without(), false), ["method 1 was released, and is gone"]);
    without().update();
    without().check();
    assert!(fs::read_to_string(&path).unwrap().ends_with("\n1 gone\n"));
    let reused = frozen::<later::reused::Stock>(&path).cast(&later::reused::New(9));
    let reused = reused.call(&later::reused::Level("tea".into()), &3);
    let found = faults(reused, true);
    assert_eq!(found[0], "method 1 New has the number of a method that is gone");
}

#[test]
fn another_service_and_another_major_version_are_found() {
    let (_dir, path) = file();
    first(&path).update();
    let major = frozen::<later::major::Stock>(&path);
    let found = faults(major.call(&later::major::Level("tea".into()), &Some(3)), true);
    let says =
        "it is of stock 2, and the service is stock 3: each major version has a file of its own";
    assert_eq!(found, [says]);
}

#[test]
fn a_file_that_is_no_such_file_is_refused() {
    let (_dir, path) = file();
    for (text, says) in [
        ("", "line 1 is not a service, such as stock 2.1"),
        ("stock\n", "line 1 is not a service, such as stock 2.1"),
        ("stock 2.0\n1 call\n", "line 2 is not a message: \"1 call\""),
        ("stock 2.0\n70000 gone\n", "line 2 is not a message: \"70000 gone\""),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(faults(first(&path), true), [says]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_message_that_cannot_be_read_again_is_found() {
    #[derive(Serialize, Deserialize)]
    struct Half {
        #[serde(skip_serializing)]
        _lost: u8,
    }
    crate::service! {
        struct Halves = "halves", 1.0;
        1: cast Half;
    }
    let (_dir, path) = file();
    let found = faults(frozen::<Halves>(&path).cast(&Half { _lost: 1 }), true);
    assert!(found[0].starts_with("the question of method 1 Half: "), "{found:?}");
    assert!(!path.exists());
}

#[test]
#[should_panic(expected = "stock.golden does not fit the service:\n  there is no such file")]
fn the_check_panics_and_names_the_file() {
    let (_dir, path) = file();
    first(&path).check();
}
