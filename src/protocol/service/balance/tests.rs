//! Single picks.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    fixture::{
        Counted, Offers, at, balance, many, named, nearest, node, offers, picked, place, seed,
    },
    *,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The names that a hundred picks find.
fn all_picked<'a>(
    balance: &Balance,
    offers: &'a Offers,
    ask: &Ask<'_>,
    now: Time,
) -> BTreeSet<&'a str> {
    let mut rng = SmallRng::seed_from_u64(seed(1));
    (0..100).map(|_| picked(balance, offers, ask, now, &mut rng).unwrap()).collect()
}

fn overloaded(balance: &mut Balance, now: Time, name: &str, retry_after: Duration) {
    balance.began(now, &node(name));
    balance.ended(now, &node(name), MS, None, Outcome::Overloaded { retry_after });
}

fn answered(balance: &mut Balance, now: Time, name: &str, latency: Duration) {
    balance.began(now, &node(name));
    balance.ended(now, &node(name), latency, Some(0), Outcome::Answered);
}

#[test]
fn anywhere_means_that_a_link_that_seemed_long_keeps_no_calls_away() {
    let (mut balance, offers) = (balance(), offers([("a", &["a1", "a2"]), ("b", &["b1"])]));
    let ask = Ask { prefer: &Prefer::Anywhere, ..nearest(&[]) };
    balance.measured(Time::ZERO, &place("b"), 50 * MS);
    for name in ["a1", "a2"] {
        answered(&mut balance, Time::ZERO, name, MS);
    }
    assert!(all_picked(&balance, &offers, &ask, Time::ZERO).contains("b1"));
    answered(&mut balance, Time::ZERO, "b1", 50 * MS);
    assert!(!all_picked(&balance, &offers, &ask, Time::ZERO).contains("b1"), "a call has shown it");
}

// --- refusals

#[test]
fn says_why_there_is_no_provider() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut pick = |offers: &Offers, ask: &Ask<'_>| {
        picked(&balance(), offers, ask, Time::ZERO, &mut rng).unwrap_err()
    };
    assert_eq!(pick(&Offers::new(), &nearest(&[])), NoPick::NoProvider);
    assert_eq!(pick(&offers([("a", &[]), ("b", &[])]), &nearest(&[])), NoPick::NoProvider);

    let mut three = offers([("a", &["a1", "a2"]), ("b", &["b1"])]);
    named(&mut three, "b1").minor = 3;
    let newer = Ask { since: 4, ..nearest(&[]) };
    assert_eq!(pick(&three, &newer), NoPick::TooOld { offered: 3 });
    named(&mut three, "a2").minor = 4;
    named(&mut three, "a2").draining = true;
    assert_eq!(pick(&three, &newer), NoPick::Draining);
    named(&mut three, "a1").minor = 5;
    assert_eq!(pick(&three, &Ask { tried: &[node("a1")], ..newer }), NoPick::Tried);

    for offered in three.values_mut().flatten() {
        offered.draining = true;
    }
    assert_eq!(pick(&three, &nearest(&[])), NoPick::Draining);
}

#[test]
fn finds_nobody_outside_of_what_is_preferred() {
    let mut rng = SmallRng::seed_from_u64(1);
    let elsewhere = offers([("a", &["a2", "a3"]), ("b", &["b1"])]);
    for prefer in [Prefer::Here, Prefer::Datacenter(place("c"))] {
        let ask = Ask { prefer: &prefer, ..nearest(&[]) };
        let found = picked(&balance(), &elsewhere, &ask, Time::ZERO, &mut rng);
        assert_eq!(found, Err(NoPick::NoProvider), "{prefer:?}");
    }
    let mut own = offers([("a", &["a1", "a2"])]);
    named(&mut own, "a1").draining = true;
    let ask = Ask { prefer: &Prefer::Here, ..nearest(&[]) };
    assert_eq!(picked(&balance(), &own, &ask, Time::ZERO, &mut rng), Err(NoPick::Draining));
}

#[test]
fn never_picks_one_that_drains_is_too_old_or_was_tried() {
    let mut offers = offers([("a", &["a1", "a2", "a3", "a4", "a5"]), ("b", &["b1"])]);
    named(&mut offers, "a1").draining = true;
    named(&mut offers, "a2").suspect = true;
    offers.values_mut().flatten().for_each(|offered| offered.minor = 2);
    named(&mut offers, "a3").minor = 1;
    let tried = [node("a4")];
    let ask = Ask { since: 2, prefer: &Prefer::Anywhere, ..nearest(&tried) };
    assert_eq!(all_picked(&balance(), &offers, &ask, Time::ZERO), ["a5", "b1"].into());
}

#[test]
fn a_suspect_is_picked_only_if_there_is_nobody_else() {
    let mut offers = offers([("a", &["a1", "a2", "a3"]), ("b", &["b1"])]);
    for name in ["a1", "a2", "a3"] {
        named(&mut offers, name).suspect = true;
    }
    let ask = nearest(&[]);
    assert_eq!(all_picked(&balance(), &offers, &ask, Time::ZERO), ["b1"].into());
    named(&mut offers, "b1").draining = true;
    assert_eq!(all_picked(&balance(), &offers, &ask, Time::ZERO), ["a1", "a2", "a3"].into());
    let mut rng = SmallRng::seed_from_u64(1);
    let pick = balance().pick(&offers, &ask, Time::ZERO, &mut rng, |_| 0.0).unwrap();
    assert_eq!((pick.standing, pick.wait), (Standing::Suspect, Duration::ZERO));
}

// --- distance

#[test]
fn stays_in_its_own_datacenter_if_two_are_there() {
    let offers = offers([("a", &["a1", "a2"]), ("b", &["b1", "b2", "b3", "b4"])]);
    assert_eq!(all_picked(&balance(), &offers, &nearest(&[]), Time::ZERO), ["a1", "a2"].into());
    let elsewhere = Balance::new(node("c1"), place("c"));
    let found = all_picked(&elsewhere, &offers, &nearest(&[]), Time::ZERO);
    assert!(
        found.iter().all(|name| name.starts_with('a'))
            || found.iter().all(|name| name.starts_with('b'))
    );
}

#[test]
fn a_single_near_provider_shares_with_the_next_datacenter() {
    let offers = offers([("a", &["a1"]), ("b", &["b1", "b2"]), ("c", &["c1", "c2"])]);
    let mut balance = balance();
    balance.measured(Time::ZERO, &place("b"), 80 * MS);
    balance.measured(Time::ZERO, &place("c"), 20 * MS);
    answered(&mut balance, Time::ZERO, "a1", MS);
    assert_eq!(all_picked(&balance, &offers, &nearest(&[]), Time::ZERO), ["a1"].into());
    // Of two calls to a1 the second waits for the first, and 20 of them as long as one call to the next datacenter.
    (0..20).for_each(|_| balance.began(Time::ZERO, &node("a1")));
    assert_eq!(all_picked(&balance, &offers, &nearest(&[]), Time::ZERO), ["c1", "c2"].into());
    let tried = [node("a1"), node("c1"), node("c2")];
    assert_eq!(all_picked(&balance, &offers, &nearest(&tried), Time::ZERO), ["b1", "b2"].into());
}

#[test]
fn leaves_its_datacenter_for_a_second_if_all_there_are_overloaded() {
    let offers = offers([("a", &["a1", "a2", "a3"]), ("b", &["b1", "b2"])]);
    let mut balance = balance();
    for name in ["a1", "a2"] {
        overloaded(&mut balance, Time::ZERO, name, MS);
    }
    answered(&mut balance, Time::ZERO, "a3", MS);
    balance.measured(Time::ZERO, &place("b"), 20 * MS);
    assert_eq!(all_picked(&balance, &offers, &nearest(&[]), Time::ZERO), ["a3"].into());
    overloaded(&mut balance, Time::ZERO, "a3", MS);
    assert_eq!(all_picked(&balance, &offers, &nearest(&[]), Time::ZERO), ["b1", "b2"].into());
    let found = all_picked(&balance, &offers, &nearest(&[]), at(OVERLOADED_FOR));
    assert_eq!(found, ["a1", "a2", "a3"].into());
}

#[test]
fn among_overloaded_ones_a_pick_says_how_long_to_wait() {
    let offers = offers([("a", &["a1", "a2"])]);
    let mut balance = balance();
    for name in ["a1", "a2"] {
        overloaded(&mut balance, Time::ZERO, name, 300 * MS);
    }
    let mut rng = SmallRng::seed_from_u64(1);
    let mut wait = |since| {
        let pick = balance.pick(&offers, &nearest(&[]), at(since), &mut rng, |_| 0.0).unwrap();
        (pick.standing, pick.wait)
    };
    assert_eq!(wait(100 * MS), (Standing::Overloaded, 200 * MS));
    assert_eq!(wait(500 * MS), (Standing::Overloaded, Duration::ZERO));
    assert_eq!(wait(SECOND), (Standing::Sound, Duration::ZERO));
}

#[test]
fn finds_what_is_preferred() {
    let offers = offers([("a", &["a1", "a2"]), ("b", &["b1", "b2"])]);
    for (prefer, names) in [
        (Prefer::Here, vec!["a1"]),
        (Prefer::Datacenter(place("b")), vec!["b1", "b2"]),
        (Prefer::Anywhere, vec!["a1", "a2", "b1", "b2"]),
    ] {
        let ask = Ask { prefer: &prefer, ..nearest(&[]) };
        let found = all_picked(&balance(), &offers, &ask, Time::ZERO);
        assert_eq!(found, names.into_iter().collect(), "{prefer:?}");
    }
}

// --- score

#[test]
fn a_suspicion_counts_against_a_neighbour() {
    let offers = offers([("a", &["a1", "a2"])]);
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..100 {
        let suspicion = |node: &NodeId| if node.as_str() == "a1" { 0.1 } else { f64::NAN };
        let pick = balance().pick(&offers, &nearest(&[]), Time::ZERO, &mut rng, suspicion).unwrap();
        assert_eq!(pick.provider.node.as_str(), "a2");
    }
}

#[test]
fn a_weight_of_zero_counts_as_one() {
    let mut offers = offers([("a", &["a1", "a2"])]);
    named(&mut offers, "a1").weight = 0;
    assert_eq!(all_picked(&balance(), &offers, &nearest(&[]), Time::ZERO), ["a1", "a2"].into());
}

#[test]
fn a_full_provider_gets_nothing_beside_an_empty_one() {
    let offers = offers([("a", &["a1", "a2"])]);
    let mut balance = balance();
    for (name, load) in [("a1", 250), ("a2", 10)] {
        balance.ended(Time::ZERO, &node(name), MS, Some(load), Outcome::Answered);
    }
    assert_eq!(all_picked(&balance, &offers, &nearest(&[]), Time::ZERO), ["a2"].into());
}

// --- work

#[test]
fn a_pick_among_ten_thousand_looks_at_few() {
    let seed = seed(7);
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut most, mut sum) = (0, 0);
    for (unusable, picks) in [(0.0, 2_000), (0.1, 2_000)] {
        let mut some = many(10_000);
        some.iter_mut().for_each(|offered| offered.draining = rng.random_bool(unusable));
        let looks = Rc::new(Cell::new(0));
        let offers = BTreeMap::from([(place("a"), Counted { offers: some, looks: looks.clone() })]);
        for prefer in [Prefer::Nearest, Prefer::Anywhere, Prefer::Datacenter(place("a"))] {
            for _ in 0..picks {
                looks.set(0);
                let ask = Ask { prefer: &prefer, ..nearest(&[]) };
                balance().pick(&offers, &ask, Time::ZERO, &mut rng, |_| 0.0).unwrap();
                most = most.max(looks.get());
                sum += looks.get();
            }
        }
    }
    println!("most {most}, mean {:.2}", f64::from(u32::try_from(sum).unwrap()) / 12_000.0);
    assert!(most <= DRAWS_MAX, "{most} SEED={seed}");
}

#[test]
fn the_only_usable_ones_among_ten_thousand_are_found_alike() {
    let mut some = many(10_000);
    some.iter_mut().for_each(|offered| offered.draining = true);
    for position in [17, 18, 9_000] {
        some[position].draining = false;
    }
    let offers = BTreeMap::from([(place("a"), some)]);
    let mut rng = SmallRng::seed_from_u64(seed(3));
    let mut counts = BTreeMap::<&str, u32>::new();
    for _ in 0..300 {
        let name = picked(&balance(), &offers, &nearest(&[]), Time::ZERO, &mut rng).unwrap();
        *counts.entry(name).or_default() += 1;
    }
    // A third of 300, six standard deviations of 8.2 around it.
    assert!(
        counts.len() == 3 && counts.values().all(|count| (50..150).contains(count)),
        "{counts:?}"
    );
}
