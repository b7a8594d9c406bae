//! What storage begins by itself waits while the node is late, and nothing else does.

use std::time::Duration;

use gossipmonger::protocol::{
    gossip::Gossip,
    id::Version,
    replica::{Replica, ReplicaConfig},
    route::{Counter, Output, StorageInput, TransportInput},
    rules::Rules,
    time::Time,
    wave::PATIENCE_MAX,
    write::Write,
};

use crate::support::{at, config, node, set, start};

fn linked(gate: bool) -> Replica {
    let rules = Rules { gate, ..Rules::default() };
    let mut replica = start(ReplicaConfig { rules, ..config("owner") }, Default::default());
    for peer in ["a", "b"] {
        replica.handle(at(1), StorageInput::Linked(node(peer), true), &mut Vec::new());
    }
    replica
}

fn lag(replica: &mut Replica, now: Time, millis: u64) -> Vec<Output> {
    let mut out = Vec::new();
    replica.handle(now, StorageInput::Lag(Duration::from_millis(millis)), &mut out);
    out
}

/// The waves that were sent.
fn waves(out: &[Output]) -> usize {
    let wave = |output: &&Output| {
        let Output::Transport(TransportInput::Gossip { gossip, .. }) = output else { return false };
        matches!(**gossip, Gossip::Wave(_))
    };
    out.iter().filter(wave).count()
}

fn held(out: &[Output]) -> u64 {
    let held = out.iter().map(|output| match output {
        Output::Count(Counter::WavesHeld, times) => *times,
        _ => 0,
    });
    held.sum()
}

#[test]
fn waves_wait_while_the_node_is_late_and_none_is_lost() {
    for gate in [true, false] {
        let mut replica = linked(gate);
        let version = set(&mut replica, "k", "v");
        lag(&mut replica, at(2), 300);
        let mut out = Vec::new();
        for _ in 0..4 {
            replica.count(at(2), version, PATIENCE_MAX, &mut out);
        }
        if !gate {
            assert_eq!((waves(&out), held(&out)), (4, 0));
            continue;
        }
        assert_eq!((waves(&out), held(&out)), (1, 3), "the trickle");
        let mut later = Vec::new();
        for second in 3..7 {
            replica.handle(at(second), StorageInput::Tick, &mut later);
        }
        assert_eq!(waves(&later), 1);
        assert_eq!(waves(&lag(&mut replica, at(7), 0)), 2, "the node is on time");
    }
}

#[test]
fn a_wave_that_is_over_before_it_may_begin_is_not_sent() {
    let mut replica = linked(true);
    lag(&mut replica, at(2), 3_000);
    let mut out = Vec::new();
    for _ in 0..2 {
        replica.count(at(2), Version(1), Duration::from_secs(5), &mut out);
    }
    replica.handle(at(8), StorageInput::Tick, &mut out);
    let over = out.iter().filter(|output| matches!(output, Output::Counted(..))).count();
    assert_eq!((waves(&out), over), (1, 2));
    assert_eq!(waves(&lag(&mut replica, at(9), 0)), 0);
}

#[test]
fn own_writes_do_not_wait() {
    let mut replica = linked(true);
    // More lag is an overload, in which owners write less often.
    lag(&mut replica, at(2), 150);
    for n in 0..5 {
        let mut out = Vec::new();
        let write = Write::set("k", n.to_string());
        replica.write(at(3 + n), vec![write], &mut out).unwrap();
        // Behind what waits in the mailbox, which is nothing.
        replica.handle(at(3 + n), StorageInput::Tell, &mut out);
        let told = out.iter().any(|output| match output {
            Output::Transport(TransportInput::Gossip { gossip, .. }) => {
                gossip.news().is_some_and(|(_, news)| !news.nodes.is_empty())
            }
            _ => false,
        });
        assert!(told, "{n}: {out:?}");
    }
}
