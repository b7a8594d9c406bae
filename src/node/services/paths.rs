//! How far other datacenters are, as the connections of this process measure it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use crate::{
    net::Connection,
    protocol::{
        id::Datacenter,
        service::balance::{Balance, DATACENTERS_MAX},
        time::Time,
    },
};

/// Connections to one datacenter that are asked; of further ones the oldest is not.
const CONNECTIONS_MAX: usize = 16;
/// The connections are asked so often at most.
pub(crate) const MEASURED_EVERY: Duration = Duration::from_secs(5);

/// The connections to each datacenter, of gossip and for calls.
#[derive(Debug, Default)]
pub(crate) struct Paths(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connections: BTreeMap<Datacenter, VecDeque<Weak<dyn Connection>>>,
    measured: Option<(Time, Measured)>,
}

/// The least round trip to each datacenter, as the connections have said at one time.
type Measured = Arc<[(Datacenter, Duration)]>;

impl Paths {
    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// There is a connection to a node of a datacenter. It is asked as long as it is open.
    pub(crate) fn add(&self, datacenter: &Datacenter, connection: &Arc<dyn Connection>) {
        self.state(|state| {
            let connections = &mut state.connections;
            if !connections.contains_key(datacenter) && connections.len() >= DATACENTERS_MAX {
                connections.retain(|_, there| there.iter().any(|one| one.strong_count() > 0));
                if connections.len() >= DATACENTERS_MAX {
                    return;
                }
            }
            let there = connections.entry(datacenter.clone()).or_default();
            there.retain(|connection| connection.strong_count() > 0);
            if there.len() >= CONNECTIONS_MAX {
                there.pop_front();
            }
            there.push_back(Arc::downgrade(connection));
        });
    }

    /// Tells a balance how far each datacenter is.
    pub(crate) fn feed(&self, now: Time, balance: &mut Balance) {
        for (datacenter, round_trip) in self.measured(now).iter() {
            balance.measured(now, datacenter, *round_trip);
        }
    }

    fn measured(&self, now: Time) -> Measured {
        self.state(|state| match &state.measured {
            Some((at, measured)) if now.since(*at) < MEASURED_EVERY => Arc::clone(measured),
            _ => {
                let least = |there: &VecDeque<Weak<dyn Connection>>| {
                    let open = there.iter().filter_map(Weak::upgrade).filter(|one| one.is_open());
                    open.filter_map(|connection| connection.round_trip()).min()
                };
                let all = state.connections.iter();
                let measured: Measured =
                    all.filter_map(|(name, there)| Some((name.clone(), least(there)?))).collect();
                state.measured = Some((now, Arc::clone(&measured)));
                measured
            }
        })
    }
}
