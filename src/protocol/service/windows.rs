//! Receive windows: what all connections for calls may make this node hold.
//!
//! A peer can send as many bytes as the window of its connection allows before this node reads any of them. So the
//! windows of all connections come from one budget. The least window of each connection that may be open is kept aside,
//! so that no peer takes the windows of others. What is more comes from the rest: while there is plenty, a connection
//! gets what it asks for; later ones get less and are slower. Clients, which are not members, use a part of both.

/// The least window that a connection works with, in bytes.
pub const WINDOW_MIN: u32 = 64 << 10;
/// A connection gets at most this part of what is left of the rest.
const PART: u64 = 16;
/// Clients together get at most this part of the rest.
const CLIENTS_PART: u64 = 4;

/// The windows that are granted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The least windows.
    least: Pool,
    /// What windows have beyond that.
    rest: Pool,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A member, or a node that a client calls.
    Member,
    /// A client.
    Client,
}

/// The connections that may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// All.
    pub all: usize,
    /// Of these, those of clients.
    pub of_clients: usize,
}

impl Windows {
    /// None is granted. `budget`: the bytes of all windows. If it does not suffice for the least windows of all
    /// `connections`, so many fewer are granted, and nothing beyond them.
    #[must_use]
    pub fn new(budget: u64, connections: Connections) -> Self {
        let bytes_of = |connections: usize| u64::from(WINDOW_MIN) * connections as u64;
        let (all, of_clients) = (bytes_of(connections.all), bytes_of(connections.of_clients));
        let least = all.min(budget);
        // Of a budget that is too small clients lose as much as members.
        let of_clients =
            u128::from(of_clients.min(all)) * u128::from(least) / u128::from(all.max(1));
        let of_clients = u64::try_from(of_clients).unwrap_or(u64::MAX);
        let rest = budget - least;
        Self { least: Pool::new(least, of_clients), rest: Pool::new(rest, rest / CLIENTS_PART) }
    }

    /// A window for a connection that asks for `want` bytes; `None` if there is no room for any.
    pub fn grant(&mut self, holder: Holder, want: u32) -> Option<u32> {
        if self.least.left(holder) < WINDOW_MIN.into() {
            return None;
        }
        let part = u32::try_from(self.rest.left(holder) / PART).unwrap_or(u32::MAX);
        let more = want.saturating_sub(WINDOW_MIN).min(part);
        self.least.take(holder, WINDOW_MIN);
        self.rest.take(holder, more);
        Some(WINDOW_MIN + more)
    }

    /// A connection has ended.
    pub fn give_back(&mut self, holder: Holder, window: u32) {
        self.least.give_back(holder, WINDOW_MIN);
        self.rest.give_back(holder, window.saturating_sub(WINDOW_MIN));
    }

    /// The bytes that are granted.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.least.granted + self.rest.granted
    }
}

/// A part of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pool {
    bytes: u64,
    granted: u64,
    /// What clients may have, and what they have.
    clients: (u64, u64),
}

impl Pool {
    const fn new(bytes: u64, clients: u64) -> Self {
        Self { bytes, granted: 0, clients: (clients, 0) }
    }

    fn left(&self, holder: Holder) -> u64 {
        let left = self.bytes.saturating_sub(self.granted);
        match holder {
            Holder::Member => left,
            Holder::Client => left.min(self.clients.0.saturating_sub(self.clients.1)),
        }
    }

    fn take(&mut self, holder: Holder, bytes: u32) {
        self.granted += u64::from(bytes);
        if holder == Holder::Client {
            self.clients.1 += u64::from(bytes);
        }
    }

    fn give_back(&mut self, holder: Holder, bytes: u32) {
        self.granted = self.granted.saturating_sub(bytes.into());
        if holder == Holder::Client {
            self.clients.1 = self.clients.1.saturating_sub(bytes.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Holder::{Client, Member},
        *,
    };

    const WANT: u32 = 4 << 20;
    /// The connections that the limits of services allow by default.
    const CONNECTIONS: Connections = Connections { all: 2_560, of_clients: 1_024 };

    fn usual() -> Windows {
        Windows::new(512 << 20, CONNECTIONS)
    }

    /// Grants as many windows as there are, up to a number.
    fn grant(windows: &mut Windows, holder: Holder, most: usize) -> Vec<u32> {
        std::iter::from_fn(|| windows.grant(holder, WANT)).take(most).collect()
    }

    #[test]
    fn those_that_come_first_leave_the_least_window_to_all_others() {
        let mut windows = usual();
        let granted = grant(&mut windows, Member, usize::MAX);
        assert_eq!(granted.len(), CONNECTIONS.all);
        assert!(granted.iter().all(|window| *window >= WINDOW_MIN));
        assert!(granted.is_sorted_by(|one, next| one >= next), "later ones get less");
        assert!(windows.granted() <= 512 << 20);
        windows.give_back(Member, granted[0]);
        assert!(windows.grant(Member, WANT) > Some(WINDOW_MIN));
    }

    #[test]
    fn clients_together_get_a_part_and_members_the_rest() {
        let mut windows = usual();
        let clients = grant(&mut windows, Client, usize::MAX);
        assert_eq!(clients.len(), CONNECTIONS.of_clients);
        let beyond: u32 = clients.iter().map(|window| window - WINDOW_MIN).sum();
        assert!(u64::from(beyond) <= (352 << 20) / CLIENTS_PART);
        assert_eq!(windows.grant(Member, WANT), Some(WANT));
        assert_eq!(grant(&mut windows, Member, usize::MAX).len(), 1_535);
        clients.iter().for_each(|window| windows.give_back(Client, *window));
        assert_eq!(grant(&mut windows, Client, usize::MAX).len(), CONNECTIONS.of_clients);
    }

    #[test]
    fn a_budget_below_the_least_windows_of_all_is_not_exceeded() {
        let mut windows = Windows::new(10 << 20, CONNECTIONS);
        assert_eq!(grant(&mut windows, Client, usize::MAX), vec![WINDOW_MIN; 64]);
        assert_eq!(grant(&mut windows, Member, usize::MAX), vec![WINDOW_MIN; 96]);
        assert_eq!(windows.granted(), 10 << 20);
    }

    #[test]
    fn a_connection_gets_what_it_asks_for_while_there_is_plenty() {
        let mut windows = usual();
        assert_eq!(windows.grant(Member, WANT), Some(WANT));
        assert_eq!(windows.grant(Client, 512 << 10), Some(512 << 10));
        assert_eq!(windows.grant(Member, 1), Some(WINDOW_MIN));
        assert_eq!(windows.granted(), (4 << 20) + (512 << 10) + u64::from(WINDOW_MIN));
    }
}
