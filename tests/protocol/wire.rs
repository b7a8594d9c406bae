//! The bytes of every message: pinned, so that a change of the wire is noticed; and whatever else a
//! peer may send: refused, without a panic and without a large allocation.

use std::collections::BTreeMap;

use gossipmonger::protocol::{
    delta::{
        ANCESTRY_MAX, Delta, DeltaContent, DeltaEntry, NODE_ENTRIES_MAX, NodeDelta, entry_len_max,
    },
    digest::{Digest, DigestEntry, LINES_MAX},
    gossip::{
        Accusation, Answer, Ask, BEHIND_MAX, Echo, Gossip, Have, OBSERVERS_MAX, OWNERS_MAX,
        Removal, RevocationList, Wave,
    },
    id::{ClusterId, Datacenter, Generation, Incarnation, NodeId, Version},
    message::{
        Call, DECODE_BYTES_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, Heartbeat, Hello, LENGTH_BYTES,
        Message, WireError, frame_len,
    },
    record::{ADDRESSES_MAX, NodeRecord, SEVERED_MAX, Status, TAGS_MAX},
    replica::BATCH_BYTES_MAX,
    revocation::{IssuerId, REVOCATIONS_MAX, Revocation},
    sketch::{CELLS_MAX, CELLS_PER_MESSAGE_MAX, Cell, Cells},
    skim::skim,
    verdict::{Level, Verdict},
};
use proptest::{collection::vec, option, prelude::*};

// --- refusals

fn refused(frame: &[u8]) -> String {
    Message::decode(frame).expect_err("it is no message").to_string()
}

// C90
#[test]
fn refuses_an_unknown_kind_or_version() {
    let unknown = |kind, version| Err(WireError::Unknown { kind, version });
    for (kind, version) in [(0, 1), (7, 1), (16, 1), (255, 1), (3, 0), (3, 2), (3, 255)] {
        assert_eq!(Message::decode(&[kind, version, 0]), unknown(kind, version));
    }
    assert!(matches!(Heartbeat::decode(&[3, 1, 0, 0]), Err(WireError::Unknown { kind: 3, .. })));
    assert!(matches!(Heartbeat::decode(&[16, 2, 0, 0]), Err(WireError::Unknown { .. })));
}

// C90
#[test]
fn refuses_what_is_shorter_than_its_header() {
    for bytes in [&[][..], &[3]] {
        assert_eq!(refused(bytes), "malformed message: shorter than its header");
        assert!(Heartbeat::decode(bytes).is_err());
    }
}

// C90
#[test]
fn refuses_bytes_left_over() {
    for message in examples() {
        let mut frame = frame_of(&message);
        frame.push(0);
        assert_eq!(refused(&frame), "malformed message: 1 bytes left over");
    }
    let mut datagram = heartbeat().encode();
    datagram.push(7);
    assert!(Heartbeat::decode(&datagram).is_err());
}

// C90
#[test]
fn refuses_every_truncation() {
    for message in examples() {
        let frame = frame_of(&message);
        for len in 0..frame.len() {
            assert!(Message::decode(&frame[..len]).is_err(), "{len} of {frame:02x?}");
        }
    }
    let datagram = heartbeat().encode();
    assert!((0..datagram.len()).all(|len| Heartbeat::decode(&datagram[..len]).is_err()));
}

// C90
#[test]
fn refuses_a_digest_that_is_not_sorted() {
    let unsorted = Digest { entries: vec![line("b", 1), line("a", 1)] };
    let repeated = Digest { entries: vec![line("a", 1), line("a", 2)] };
    for digest in [unsorted, repeated] {
        let (syn, syn_digest) = (Message::Syn { digest: digest.clone() }, digest.clone());
        assert_eq!(refused(&frame_of(&syn)), "malformed message: digest not sorted by node");
        let syn_ack = Message::SynAck { wants: digest, delta: Delta::default() };
        assert_eq!(refused(&frame_of(&syn_ack)), "malformed message: digest not sorted by node");
        let pull = Message::Pull { digest: Some(syn_digest), all: true };
        assert_eq!(refused(&frame_of(&pull)), "malformed message: digest not sorted by node");
    }
}

#[test]
fn refuses_more_differences_than_a_sketch_can_tell() {
    let name = |n: usize| DigestEntry::unknown(NodeId::new(&format!("{n:04}")).unwrap());
    let lines = Digest { entries: (0..CELLS_MAX).map(name).collect() };
    let differ = |unknown| frame_of(&Message::Differ { lines: lines.clone(), unknown });
    assert!(Message::decode(&differ(Vec::new())).is_ok());
    assert!(refused(&differ(vec![1])).contains("a list of 1, at most 0 are allowed"));
    let cells = vec![Cell::default(); CELLS_PER_MESSAGE_MAX + 1];
    let cells = Message::Cells(Cells { first: 0, symbols: 0, cells });
    assert!(refused(&frame_of(&cells)).contains("513 cells in a message, at most 512"));
}

/// The start of each message up to a length in it, then a length of 2^60.
// C90
#[test]
fn refuses_to_make_room_for_what_a_few_bytes_claim() {
    let huge = [&[253][..], &(1_u64 << 60).to_le_bytes()].concat();
    let large = [&[252][..], &(1_u32 << 31).to_le_bytes()].concat();
    let starts: [&[u8]; 15] = [
        &[1, 1],                                              // the name of a cluster
        &[3, 1],                                              // the lines of a digest
        &[3, 1, 1],                                           // the name in a line
        &[4, 1],                                              // what is wanted
        &[4, 1, 0],                                           // the nodes of a delta
        &[5, 1],                                              // the same
        &[5, 1, 1],                                           // the name of a node
        &[5, 1, 1, 1, b'a', 1],                               // its earlier lives
        &[5, 1, 1, 1, b'a', 1, 0, 0, 1, 1, 0, 0, 0, 0, 0],    // its entries
        &[5, 1, 1, 1, b'a', 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1], // the first key
        &[10, 1, 0, 1],                                       // cells
        &[12, 1],                                             // the lines that differ
        &[12, 1, 0],                                          // what is unknown
        &[8, 1, 1],                                           // the lines of one who pulls
        &[9, 1],                                              // the nodes of what is pulled
    ];
    for start in starts {
        for claim in [&huge, &large] {
            let error = refused(&[start, claim].concat());
            assert!(
                ["LimitExceeded", "limit", "at most"].iter().any(|word| error.contains(word)),
                "{start:?}: {error}"
            );
        }
    }
}

/// The start of each message up to the count of a list, with a count of one too many and no items.
#[test]
fn refuses_a_list_by_its_count_before_it_decodes_it() {
    let news: &[u8] = &[5, 1, 1, 1, b'a', 1, 0, 0, 1, 1, 0, 0, 0, 0];
    let record = [news, &[1, 1, 2, b'e', b'u']].concat();
    let starts: [(&[u8], usize); 18] = [
        (&[3, 1], LINES_MAX),
        (&[4, 1], LINES_MAX),
        (&[8, 1, 1], LINES_MAX),
        (&[5, 1], LINES_MAX),
        (&[9, 1], LINES_MAX),
        (&[5, 1, 1, 1, b'a', 1], ANCESTRY_MAX),
        (&[news, &[0]].concat(), NODE_ENTRIES_MAX),
        (&record, ADDRESSES_MAX),
        (&[&record[..], &[0]].concat(), TAGS_MAX),
        (&[&record[..], &[0, 0, 1, 1, 0, 0]].concat(), SEVERED_MAX),
        (&[12, 1], CELLS_MAX),
        (&[12, 1, 0], CELLS_MAX),
        (&[6, 1, 2], OWNERS_MAX),
        (&[6, 1, 3], OWNERS_MAX),
        (&[6, 1, 4], OWNERS_MAX),
        (&[6, 1, 6, 1, b'a', 1, 1, 0], BEHIND_MAX),
        (&[6, 1, 9, 1, b'b', 7, 2, 1], OBSERVERS_MAX),
        (&[6, 1, 13], REVOCATIONS_MAX),
    ];
    for (start, max) in starts {
        let error = refused(&[start, &varint(max + 1)].concat());
        let expected = format!("a list of {}, at most {max} are allowed", max + 1);
        assert!(error.contains(&expected), "{start:?}: {error}");
        let error = refused(&[start, &varint(max)].concat());
        assert!(!error.contains("at most"), "{start:?}: {error}");
    }
}

fn varint(number: usize) -> Vec<u8> {
    bincode::encode_to_vec(number as u64, bincode::config::standard()).unwrap()
}

#[test]
fn refuses_news_of_one_node_twice() {
    let Message::Ack { delta } = (Message::Ack { delta: delta() }) else { unreachable!() };
    let nodes = vec![delta.nodes[0].clone(), delta.nodes[0].clone()];
    let twice = Delta { nodes, more: false };
    for message in [
        Message::Ack { delta: twice.clone() },
        Message::More { delta: twice.clone() },
        Message::SynAck { wants: Digest::default(), delta: twice.clone() },
        Message::Gossip(Gossip::Push(twice)),
    ] {
        let error = refused(&frame_of(&message));
        assert!(error.contains("news of one node twice"), "{error}");
    }
}

/// News of so many nodes with so many writes each, of the shortest that there are.
fn shortest(nodes: usize, entries: usize) -> Delta {
    let entry = |n: usize| DeltaEntry {
        key: "k".into(),
        version: Version(1 + n as u64 % 200),
        content: DeltaContent::Tombstone,
    };
    let news = |n: usize| NodeDelta {
        node: id(&format!("n{n}")),
        ancestry: Vec::new(),
        record: None,
        entries: (0..entries).map(entry).collect(),
        ..delta().nodes[0].clone()
    };
    Delta { nodes: (0..nodes).map(news).collect(), more: false }
}

/// What news takes in memory: what lies in lists, and what lies behind pointers.
fn memory(delta: &Delta) -> usize {
    let behind = |len: usize| 2 * size_of::<usize>() + len;
    let entry = |entry: &DeltaEntry| {
        size_of::<DeltaEntry>() + behind(entry.key.as_str().len()) + behind(entry.value_len())
    };
    let news = |news: &NodeDelta| {
        let entries: usize = news.entries.iter().map(entry).sum();
        size_of::<NodeDelta>() + behind(64) + entries
    };
    delta.nodes.iter().map(news).sum()
}

#[test]
fn news_that_is_decoded_takes_no_more_memory_than_a_frame_may() {
    let mut largest = 0;
    for (nodes, entries) in
        [(1, NODE_ENTRIES_MAX), (3, 100_000), (10, 100_000), (15, 130_000), (32_000, 5)]
    {
        let frame = frame_of(&Message::More { delta: shortest(nodes, entries) });
        assert!(frame.len() <= FRAME_BYTES_MAX);
        match Message::decode(&frame) {
            Ok(Message::More { delta }) => largest = largest.max(memory(&delta)),
            refused => assert!(refused.unwrap_err().to_string().contains("Limit")),
        }
    }
    assert!(largest > DECODE_BYTES_MAX / 4, "none of them was large: {largest}");
    assert!(largest <= DECODE_BYTES_MAX, "{largest} bytes");
}

#[test]
fn decodes_the_largest_batch_with_the_shortest_keys() {
    let key = |n: usize| format!("{n:05x}");
    let count = BATCH_BYTES_MAX / entry_len_max(key(0).len(), 1);
    let content = || DeltaContent::Value { value: "v".into(), ttl_ms: Some(1_000) };
    let entry = |n| DeltaEntry { key: key(n).into(), version: Version(9), content: content() };
    let news = NodeDelta { entries: (0..count).map(entry).collect(), ..delta().nodes[0].clone() };
    let message = Message::More { delta: Delta { nodes: vec![news], more: false } };
    assert_eq!(Message::decode(&frame_of(&message)), Ok(message));
}

// C90
#[test]
fn refuses_a_length_beyond_what_is_allowed_here() {
    let length = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    for max in [HELLO_BYTES_MAX, FRAME_BYTES_MAX] {
        assert_eq!(frame_len(length(0), max), Ok(0));
        assert_eq!(frame_len(length(max), max), Ok(max));
        let long = Err(WireError::TooLong { len: max + 1, max });
        assert_eq!(frame_len(length(max + 1), max), long);
    }
    assert!(frame_len([255; 4], FRAME_BYTES_MAX).is_err());
}

#[test]
fn refuses_to_send_what_nobody_would_read() {
    let mut large = delta();
    let value = vec![7; FRAME_BYTES_MAX];
    large.nodes[0].entries[0].content = DeltaContent::Value { value: value.into(), ttl_ms: None };
    let refused = Message::Ack { delta: large }.encode();
    assert!(matches!(refused, Err(WireError::Unsendable { .. })), "{refused:?}");
}

// C90
#[test]
fn refuses_an_accusation_that_names_everybody() {
    let accusation = |count: usize| Accusation {
        subject: id("b"),
        generation: Generation(7),
        verdict: Verdict::default(),
        observers: (0..count).map(|n| id(&format!("n{n}"))).collect(),
    };
    let frame = |count| frame_of(&Message::Gossip(Gossip::Accusation(accusation(count))));
    assert!(Message::decode(&frame(OBSERVERS_MAX)).is_ok());
    let many = refused(&frame(OBSERVERS_MAX + 1));
    assert!(many.contains("a list of 21, at most 20 are allowed"), "{many}");
}

#[test]
fn refuses_names_that_are_no_labels() {
    let mut frame = frame_of(&Message::Hello(hello()));
    assert_eq!(&frame[3..7], b"prod");
    frame[3] = b'P';
    assert!(refused(&frame).contains("is not a label"));
}

// --- golden bytes

// C100
#[test]
fn the_bytes_of_every_message_are_these() {
    assert_eq!(examples().len(), GOLDEN.len());
    for (message, bytes) in examples().iter().zip(GOLDEN) {
        let frame = message.encode().unwrap();
        assert_eq!(hex(&frame), bytes, "{message:?}");
        assert_eq!(Message::decode(&frame[LENGTH_BYTES..]).unwrap(), *message);
    }
    assert_eq!(hex(&heartbeat().encode()), HEARTBEAT);
}

#[test]
fn the_length_before_a_frame_is_what_follows() {
    for message in examples() {
        let frame = message.encode().unwrap();
        let length = frame[..LENGTH_BYTES].try_into().unwrap();
        assert_eq!(frame_len(length, FRAME_BYTES_MAX), Ok(frame.len() - LENGTH_BYTES));
    }
}

#[test]
fn the_largest_hello_fits_what_is_read_before_an_introduction() {
    let name = "x".repeat(63);
    let hello = Hello {
        cluster: ClusterId::new(&name).unwrap(),
        node: NodeId::new(&name).unwrap(),
        generation: Generation(u64::MAX),
        known: Generation(u64::MAX),
        features: u64::MAX,
    };
    assert!(frame_of(&Message::Hello(hello)).len() <= HELLO_BYTES_MAX);
}

/// In the order of [`examples`].
const GOLDEN: [&str; 27] = [
    "0000001501010470726f64026e31fd0068e5cf8b010000fa05",
    "0000001502010470726f64026e31fd0068e5cf8b010000fa00",
    "000000330301020161fd0068e5cf8b0100000102000100000b6e6f64652d322e64635f31fd0068e5cf8b010000fb2c01fb2d0196010000",
    "0000000e0401010162000000000000000000",
    "00000066050101026e31fd0068e5cf8b01000001070302090a060100000109026575010d31302e302e302e313a373030300104726f6c65026462010101020102757301fcf0e2536501fc80243567030161040001760002c3a40500017601fbe80304676f6e6506010001",
    "0000000405010001",
    "000000270a0101fbe8030204030201f6f5f4f3f2f1a4a3a2a10b04030201f6f5f4f3f2f1a4a3a2a1fb5802",
    "000000050b01fb2c01",
    "0000001b0c01010161fd0068e5cf8b0100000102000100000201fc67452301",
    "000000020d01",
    "0000000c060100fd0000000000010000",
    "0000006706010101026e31fd0068e5cf8b01000001070302090a060100000109026575010d31302e302e302e313a373030300104726f6c65026462010101020102757301fcf0e2536501fc80243567030161040001760002c3a40500017601fbe80304676f6e6506010001",
    "0000006706010e01026e31fd0068e5cf8b01000001070302090a060100000109026575010d31302e302e302e313a373030300104726f6c65026462010101020102757301fcf0e2536501fc80243567030161040001760002c3a40500017601fbe80304676f6e6506010001",
    "000000080601020101620703",
    "00000015060103010161fd0068e5cf8b010000010200010000",
    "00000006060104010162",
    "0000000b0601050161010703fbf401",
    "0000000c060106016101020101016201",
    "0000000b0601070162070161fb2c01",
    "0000000e0601080162070161fb2c01016301",
    "0000000d06010901620702010201610163",
    "0000000706010a01620702",
    "0000000606010cfb2c01",
    "0000003006010d0101620909090909090909090909090909090909090909090909090909090909090909fb2c01fb900102010201",
    "0000000408010001",
    "00000016080101010161fd0068e5cf8b01000001020001000000",
    "00000066090101026e31fd0068e5cf8b01000001070302090a060100000109026575010d31302e302e302e313a373030300104726f6c65026462010101020102757301fcf0e2536501fc80243567030161040001760002c3a40500017601fbe80304676f6e6506010001",
];
const HEARTBEAT: &str = "1001fd0068e5cf8b010000fc000001000103";

fn examples() -> Vec<Message> {
    let digest = Digest { entries: vec![line("a", 1), line("node-2.dc_1", 300)] };
    let wants = Digest { entries: vec![DigestEntry::unknown(NodeId::new("b").unwrap())] };
    vec![
        Message::Hello(hello()),
        Message::Welcome(Hello { features: 0, ..hello() }),
        Message::Syn { digest },
        Message::SynAck { wants, delta: Delta::default() },
        Message::Ack { delta: delta() },
        Message::Ack { delta: Delta { nodes: Vec::new(), more: true } },
        Message::Cells(cells()),
        Message::Further { cells: 300 },
        Message::Differ {
            lines: Digest { entries: vec![line("a", 1)] },
            unknown: vec![1, 0x0123_4567],
        },
        Message::Full,
        Message::Gossip(Gossip::Root(1 << 40)),
        Message::Gossip(Gossip::Push(delta())),
        Message::Gossip(Gossip::Tree(delta())),
        Message::Gossip(Gossip::Have(vec![Have {
            node: id("b"),
            generation: Generation(7),
            version: Version(3),
        }])),
        Message::Gossip(Gossip::Graft(vec![line("a", 1)])),
        Message::Gossip(Gossip::Prune(vec![id("b")])),
        Message::Gossip(Gossip::Wave(Wave {
            origin: id("a"),
            id: 1,
            generation: Generation(7),
            version: Version(3),
            patience_ms: 500,
        })),
        Message::Gossip(Gossip::Echo(Echo {
            origin: id("a"),
            id: 1,
            have: 2,
            lack: 1,
            behind: vec![id("b")],
            complete: true,
        })),
        Message::Gossip(Gossip::Ask(ask())),
        Message::Gossip(Gossip::Answer(Answer { ask: ask(), observer: id("c"), hears: true })),
        Message::Gossip(Gossip::Accusation(Accusation {
            subject: id("b"),
            generation: Generation(7),
            verdict: Verdict { incarnation: Incarnation(2), level: Level::Suspect },
            observers: vec![id("a"), id("c")],
        })),
        Message::Gossip(Gossip::Removal(Removal {
            subject: id("b"),
            generation: Generation(7),
            incarnation: Incarnation(2),
        })),
        Message::Gossip(Gossip::RevocationSum(300)),
        Message::Gossip(Gossip::Revocations(RevocationList {
            statements: vec![Revocation {
                node: id("b"),
                issuer: IssuerId([9; 32]),
                cutoff: 300,
                expires: 400,
                signature: vec![1, 2],
            }],
            all: true,
        })),
        Message::Pull { digest: None, all: true },
        Message::Pull { digest: Some(Digest { entries: vec![line("a", 1)] }), all: false },
        Message::More { delta: delta() },
    ]
}

fn ask() -> Ask {
    Ask { subject: id("b"), generation: Generation(7), asker: id("a"), round: 300 }
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// The second and third cell of 1,000 symbols: 666 and 500 are expected in them.
fn cells() -> Cells {
    let cell =
        |count| Cell { ids: 0x0102_0304, states: 0xf1f2_f3f4_f5f6, checks: 0xa1a2_a3a4, count };
    Cells { first: 1, symbols: 1_000, cells: vec![cell(660), cell(800)] }
}

fn hello() -> Hello {
    Hello {
        cluster: ClusterId::new("prod").unwrap(),
        node: NodeId::new("n1").unwrap(),
        generation: Generation(1_700_000_000_000),
        known: Generation(250),
        features: 5,
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        generation: Generation(1_700_000_000_000),
        sequence: 65_536,
        call: Call::Probe,
        health: 3,
    }
}

fn line(node: &str, version: u64) -> DigestEntry {
    DigestEntry {
        node: NodeId::new(node).unwrap(),
        generation: Generation(1_700_000_000_000),
        max_version: Version(version),
        horizon: Version(version + 1),
        gc_floor: Version(version / 2),
        verdict: Verdict::default(),
        record: Version(1),
    }
}

fn delta() -> Delta {
    let record = NodeRecord {
        datacenter: Datacenter::new("eu").unwrap(),
        addresses: vec!["10.0.0.1:7000".into()],
        tags: BTreeMap::from([("role".into(), "db".into())]),
        wire: (1, 1),
        status: Status::Leaving,
        incarnation: Incarnation(2),
        severed: [Datacenter::new("us").unwrap()].into(),
        not_before: Some(1_699_996_400),
        not_after: Some(1_731_536_000),
    };
    let entry = |key: &str, version, content| DeltaEntry {
        key: key.into(),
        version: Version(version),
        content,
    };
    let value = |ttl_ms| DeltaContent::Value { value: "v".into(), ttl_ms };
    let node = NodeDelta {
        sealed: None,
        node: NodeId::new("n1").unwrap(),
        generation: Generation(1_700_000_000_000),
        ancestry: vec![(Generation(7), Version(3))],
        from: Version(2),
        to: Version(9),
        horizon: Version(10),
        torn: Version(6),
        gc_floor: Version(1),
        verdict: Verdict::default(),
        record: Some((Version(9), record)),
        entries: vec![
            entry("a", 4, value(None)),
            entry("ä", 5, value(Some(1_000))),
            entry("gone", 6, DeltaContent::Tombstone),
        ],
    };
    Delta { nodes: vec![node], more: true }
}

fn frame_of(message: &Message) -> Vec<u8> {
    message.encode().unwrap().split_off(LENGTH_BYTES)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// --- anything at all

proptest! {
    #[test]
    fn every_message_comes_back(message in any_message()) {
        let frame = message.encode().unwrap();
        prop_assert_eq!(Message::decode(&frame[LENGTH_BYTES..]).unwrap(), message);
    }

    #[test]
    fn every_heartbeat_comes_back(generation: u64, sequence: u64, health: u8) {
        for call in [Call::Beat, Call::Probe, Call::Echo] {
            let generation = Generation(generation);
            let heartbeat = Heartbeat { generation, sequence, call, health };
            prop_assert_eq!(Heartbeat::decode(&heartbeat.encode()).unwrap(), heartbeat);
        }
    }

    // C90
    #[test]
    fn arbitrary_bytes_never_panic(kind in 0_u8..16, bytes in vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(&bytes);
        let _ = Heartbeat::decode(&bytes);
        let _ = skim(&bytes);
        let _ = skim(&[&[6, 1, 1], &bytes[..]].concat());
        let _ = Message::decode(&[&[kind, 1], &bytes[..]].concat());
        let _ = Heartbeat::decode(&[&[16, 1], &bytes[..]].concat());
    }

    // C90
    #[test]
    fn a_flipped_bit_never_panics(message in any_message(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut frame = frame_of(&message);
        let at = at.index(frame.len());
        frame[at] ^= 1_u8 << bit;
        if let Ok(other) = Message::decode(&frame) {
            // What is taken for a message is one: it can be sent on.
            let again = frame_of(&other);
            prop_assert_eq!(Message::decode(&again).unwrap(), other);
        }
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any_hello().prop_map(Message::Hello),
        any_hello().prop_map(Message::Welcome),
        any_digest().prop_map(|digest| Message::Syn { digest }),
        (any_digest(), any_delta()).prop_map(|(wants, delta)| Message::SynAck { wants, delta }),
        any_delta().prop_map(|delta| Message::Ack { delta }),
        (any::<u32>(), any::<u64>(), vec(any_cell(), 0..9))
            .prop_map(|(first, symbols, cells)| Message::Cells(Cells { first, symbols, cells })),
        any::<u32>().prop_map(|cells| Message::Further { cells }),
        (any_digest(), vec(any::<u32>(), 0..9))
            .prop_map(|(lines, unknown)| Message::Differ { lines, unknown }),
        (option::of(any_digest()), any::<bool>())
            .prop_map(|(digest, all)| Message::Pull { digest, all }),
        any_delta().prop_map(|delta| Message::More { delta }),
        any_opinion().prop_map(Message::Gossip),
    ]
}

fn any_opinion() -> impl Strategy<Value = Gossip> {
    let answer = (any_ask(), any_node(), any::<bool>())
        .prop_map(|(ask, observer, hears)| Gossip::Answer(Answer { ask, observer, hears }));
    let observers = vec(any_node(), 0..OBSERVERS_MAX);
    let accusation = (any_node(), any::<u64>(), any_verdict(), observers).prop_map(
        |(subject, generation, verdict, observers)| {
            let generation = Generation(generation);
            Gossip::Accusation(Accusation { subject, generation, verdict, observers })
        },
    );
    let removal =
        (any_node(), any::<[u64; 2]>()).prop_map(|(subject, [generation, incarnation])| {
            let (generation, incarnation) = (Generation(generation), Incarnation(incarnation));
            Gossip::Removal(Removal { subject, generation, incarnation })
        });
    prop_oneof![any_ask().prop_map(Gossip::Ask), answer, accusation, removal]
}

fn any_ask() -> impl Strategy<Value = Ask> {
    (any_node(), any::<u64>(), any_node(), any::<u64>()).prop_map(
        |(subject, generation, asker, round)| {
            let generation = Generation(generation);
            Ask { subject, generation, asker, round }
        },
    )
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let level = prop_oneof![Just(Level::Alive), Just(Level::Suspect), Just(Level::Dead)];
    (any::<u64>(), level)
        .prop_map(|(incarnation, level)| Verdict { incarnation: Incarnation(incarnation), level })
}

fn any_cell() -> impl Strategy<Value = Cell> {
    any::<(u32, u64, u32, i64)>().prop_map(|(ids, states, checks, count)| Cell {
        ids,
        states: states >> 16,
        checks,
        count,
    })
}

fn any_node() -> impl Strategy<Value = NodeId> {
    "[a-z0-9_-][a-z0-9._-]{0,62}".prop_map(|name| NodeId::new(&name).unwrap())
}

fn any_hello() -> impl Strategy<Value = Hello> {
    ("[a-z0-9_-][a-z0-9._-]{0,62}", any_node(), any::<[u64; 3]>()).prop_map(
        |(cluster, node, [generation, known, features])| Hello {
            cluster: ClusterId::new(&cluster).unwrap(),
            node,
            generation: Generation(generation),
            known: Generation(known),
            features,
        },
    )
}

fn any_digest() -> impl Strategy<Value = Digest> {
    prop::collection::btree_map(any_node(), any::<[u64; 5]>(), 0..10).prop_map(|lines| {
        let line =
            |(node, [generation, max, horizon, floor, record]): (NodeId, [u64; 5])| DigestEntry {
                node,
                generation: Generation(generation),
                max_version: Version(max),
                horizon: Version(horizon),
                gc_floor: Version(floor),
                verdict: Verdict::default(),
                record: Version(record),
            };
        Digest { entries: lines.into_iter().map(line).collect() }
    })
}

fn any_delta() -> impl Strategy<Value = Delta> {
    (vec(any_node_delta(), 0..4), any::<bool>()).prop_map(|(mut nodes, more)| {
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes.dedup_by(|a, b| a.node == b.node);
        Delta { nodes, more }
    })
}

fn any_node_delta() -> impl Strategy<Value = NodeDelta> {
    let ancestry = vec(any::<(u64, u64)>(), 0..8);
    let record = option::of((any::<u64>(), any_record()));
    let entries = vec(any_entry(), 0..10);
    (any_node(), any::<[u64; 6]>(), ancestry, record, entries).prop_map(
        |(node, [generation, from, to, horizon, torn, floor], ancestry, record, entries)| {
            NodeDelta {
                sealed: None,
                node,
                generation: Generation(generation),
                ancestry: ancestry.into_iter().map(|(g, v)| (Generation(g), Version(v))).collect(),
                from: Version(from),
                to: Version(to),
                horizon: Version(horizon),
                torn: Version(torn),
                gc_floor: Version(floor),
                verdict: Verdict::default(),
                record: record.map(|(version, record)| (Version(version), record)),
                entries,
            }
        },
    )
}

fn any_record() -> impl Strategy<Value = NodeRecord> {
    let status = prop_oneof![Just(Status::Up), Just(Status::Leaving), Just(Status::Left)];
    let tags = prop::collection::btree_map(".{0,5}", ".{0,9}", 0..4);
    let severed = prop::collection::btree_set("[a-z]{1,9}", 0..3);
    let dates = any::<(Option<u64>, Option<u64>)>();
    let ends = (any::<(u16, u16)>(), any::<u64>(), severed, dates);
    ("[a-z]{1,9}", vec(".{0,9}", 0..3), tags, status, ends).prop_map(
        |(
            datacenter,
            addresses,
            tags,
            status,
            (wire, incarnation, severed, (not_before, not_after)),
        )| NodeRecord {
            datacenter: Datacenter::new(&datacenter).unwrap(),
            addresses,
            tags,
            wire,
            status,
            incarnation: Incarnation(incarnation),
            severed: severed.iter().map(|name| Datacenter::new(name).unwrap()).collect(),
            not_before,
            not_after,
        },
    )
}

fn any_entry() -> impl Strategy<Value = DeltaEntry> {
    let value = (vec(any::<u8>(), 0..40), option::of(any::<u64>()))
        .prop_map(|(value, ttl_ms)| DeltaContent::Value { value: value.into(), ttl_ms });
    (".{0,20}", any::<u64>(), prop_oneof![value, Just(DeltaContent::Tombstone)]).prop_map(
        |(key, version, content)| DeltaEntry {
            key: key.into(),
            version: Version(version),
            content,
        },
    )
}
