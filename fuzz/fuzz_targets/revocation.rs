//! Any bytes as a statement, as a list of statements, and as what a peer tells: refused, or the same
//! again; and the union of those that were read is the same in whatever order they come.
#![no_main]

use gossipmonger::protocol::revocation::{
    REVOCATIONS_MAX, Revocation, Revocations, SIGNATURE_BYTES_MAX, STATEMENT_BYTES_MAX,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(statement) = Revocation::decode(bytes) {
        assert!(statement.signature.len() <= SIGNATURE_BYTES_MAX);
        assert!(statement.encode().len() <= STATEMENT_BYTES_MAX);
        assert_eq!(Revocation::decode(&statement.encode()), Ok(statement));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(list) = Revocation::list_from_text(text)
    {
        assert!(list.len() <= REVOCATIONS_MAX);
        union(&list);
    }
    // Statements one behind the other, each with its length before it.
    let (mut rest, mut list) = (bytes, Vec::new());
    while let [len, after @ ..] = rest {
        let (one, left) = after.split_at(after.len().min(usize::from(*len)));
        list.extend(Revocation::decode(one));
        rest = left;
    }
    union(&list);
});

fn union(list: &[Revocation]) {
    let union = Revocations::restored(list.iter().cloned());
    assert_eq!(union, Revocations::restored(list.iter().rev().cloned()));
    assert!(list.iter().all(|statement| union.covers(statement)));
    assert!(union.lacking(list).is_empty());
    for statement in list {
        assert!(union.revokes(&statement.node, statement.cutoff));
    }
}
