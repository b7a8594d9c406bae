//! The parts that the simulator leaves out make no difference, and the parts that it shares are small.

use std::time::Duration;

use super::{network::Network, settings::Settings, warm, world::World};

const NODES: usize = 14;

fn world(seed: u64, elide: bool) -> World {
    let sites: Vec<u16> = (0..NODES).map(|node| (node % 2) as u16).collect();
    let network = Network::new(seed, 80_000, 0.02, sites);
    let settings = Settings { seeds: vec![0, 1], disk: 0, ..Settings::roomy() };
    let mut world = World::large(seed, NODES, settings, network);
    world.switches().elide = elide;
    warm::start(&mut world, NODES);
    world
}

/// The states that all nodes see of all others, examined again and again while a node dies and a datacenter
/// is cut off, and the traffic until then.
fn history(seed: u64, elide: bool) -> Vec<String> {
    let mut world = world(seed, elide);
    let mut history = Vec::new();
    for step in 0_u32..400 {
        match step {
            30 => world.crash(3 + (seed % 10) as usize),
            120 => world.cut(|node| node % 2 == 0),
            200 => world.heal(Duration::from_secs(8)),
            _ => {}
        }
        world.run_for(Duration::from_millis(100));
        world.settle_accounts();
        let mut seen = format!("{:?}", world.network.sent);
        for node in world.running() {
            let states =
                world.node(node).liveness.lives().map(|(_, life)| format!("{:?}", life.state));
            seen += &format!(" {node}: {}", states.collect::<Vec<_>>().join(" "));
        }
        history.push(seen);
    }
    history
}

#[test]
fn a_run_that_leaves_out_what_does_nothing_is_the_same_run() {
    for seed in 0..6 {
        let (whole, elided) = (history(seed, false), history(seed, true));
        let differs = whole.iter().zip(&elided).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("SEED={seed} at step {at}:\n{}\n{}", whole[at], elided[at]);
        }
    }
}
