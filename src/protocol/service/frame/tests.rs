use super::*;

fn trace() -> TraceContext {
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap()
}

fn frames() -> Vec<Frame> {
    vec![
        Frame::Hello(Hello {
            cluster: ClusterId::new("demo").unwrap(),
            node: NodeId::new("a").unwrap(),
            generation: Generation(1_700_000_000_000),
            expected: Generation(7),
            features: 0,
        }),
        Frame::ClientHello(ClientHello { expected: Generation(1_700_000_000_000), features: 0 }),
        Frame::Welcome,
        Frame::Drain,
        Frame::Bind {
            index: 0,
            service: ServiceId { name: ServiceName::new("stock").unwrap(), major: 2 },
        },
        Frame::Request(Request {
            index: 0,
            id: 300,
            method: 1,
            left_ms: 5_000,
            tag: Tag { number: 9, trace: None },
            body: Bytes::from_static(b"question"),
        }),
        Frame::Cast(Cast {
            index: 0,
            method: 3,
            tag: Tag { number: 0, trace: Some(trace()) },
            body: Bytes::from_static(b"told"),
        }),
        Frame::Cancel { id: 300 },
        Frame::Reply { id: 300, load: 12, body: Bytes::from_static(b"answer") },
        Frame::Refuse {
            id: 300,
            code: Code::Overloaded,
            retry_after_ms: 20,
            words: "full".to_owned(),
        },
    ]
}

fn encoded(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes
}

fn decoded(chunks: impl IntoIterator<Item = Bytes>) -> Result<Vec<Frame>, BadFrame> {
    let (mut reader, mut found) = (Frames::default(), Vec::new());
    for chunk in chunks {
        reader.push(chunk);
        while let Some(frame) = reader.take()? {
            found.push(frame);
        }
    }
    Ok(found)
}

#[test]
fn a_frame_longer_than_any_is_refused_before_it_has_arrived() {
    let mut length = BytesMut::new();
    Head(&mut length).number(LANE_FRAME_MAX as u64 + 1);
    let mut reader = Frames::default();
    reader.push(length.freeze());
    assert_eq!(reader.take(), Err(BadFrame::TooLong(LANE_FRAME_MAX as u64 + 1)));
}

#[test]
fn unknown_kinds_and_codes_are_refused() {
    assert_eq!(decoded([Bytes::from_static(&[1, 99])]), Err(BadFrame::Kind(99)));
    assert_eq!(decoded([Bytes::from_static(&[0])]), Err(BadFrame::Kind(0)));
    assert_eq!(decoded([Bytes::from_static(&[5, REFUSE, 1, 31, 0, 0])]), Err(BadFrame::Code(31)));
}

#[test]
fn no_change_of_one_byte_and_no_cut_panics() {
    let whole = encoded(&frames());
    for at in 0..whole.len() {
        let _ = decoded([Bytes::copy_from_slice(&whole[..at])]);
        for byte in 0..=u8::MAX {
            let mut changed = whole.clone();
            changed[at] = byte;
            let _ = decoded([changed.freeze()]);
        }
    }
}

#[test]
fn frames_are_read_however_the_stream_is_cut() {
    let whole = encoded(&frames()).freeze();
    for size in [1, 2, 3, 7, 20, whole.len()] {
        let chunks: Vec<_> = whole.chunks(size).map(Bytes::copy_from_slice).collect();
        assert_eq!(decoded(chunks).unwrap(), frames(), "chunks of {size}");
    }
}

#[test]
fn the_bytes_of_frames_do_not_change() {
    let hex = |frame: &Frame| {
        encoded(std::slice::from_ref(frame)).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let golden: Vec<String> = frames().iter().map(hex).collect();
    assert_eq!(
        golden,
        [
            "1301 0464656d6f 0161 fd0068e5cf8b010000 07 00",
            "0b07 fd0068e5cf8b010000 00",
            "0102",
            "0114",
            "0903 00 0573746f636b 02",
            "1304 00 fb2c01 01 fb8813 09 00 7175657374696f6e",
            "2205 00 03 00 19 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 01 746f6c64",
            "0406 fb2c01",
            "0b11 fb2c01 0c 616e73776572",
            "0b12 fb2c01 04 14 0466756c6c",
        ]
        .map(|golden| golden.replace(' ', ""))
    );
}

#[test]
fn each_code_has_a_number_and_a_label_of_its_own() {
    let numbers: std::collections::BTreeSet<_> =
        Code::ALL.iter().map(|code| code.number()).collect();
    let labels: std::collections::BTreeSet<_> =
        Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!((numbers.len(), labels.len()), (Code::ALL.len(), Code::ALL.len()));
    assert!(Code::ALL.iter().all(|code| Code::of(code.number()) == Some(*code)));
}

#[test]
fn long_words_are_cut_between_two_characters() {
    let words = "ä".repeat(WORDS_MAX);
    let refuse = Frame::Refuse { id: 1, code: Code::Panicked, retry_after_ms: 0, words };
    let read = decoded([encoded(&[refuse]).freeze()]).unwrap();
    assert!(matches!(&read[..], [Frame::Refuse { words, .. }] if words.len() == WORDS_MAX));
}
