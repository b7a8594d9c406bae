//! Receive windows: what all connections for calls may make this node hold.
//!
//! A peer can send as many bytes as the window of its connection allows before this node reads any of them. So the
//! windows of all connections come from one budget. While there is plenty, a connection gets what it asks for; later
//! ones get less and are slower, and once even the least window finds no room, a connection is refused.

/// The least window that a connection works with, in bytes.
pub const WINDOW_MIN: u32 = 64 << 10;
/// A connection gets at most this part of what is left, or the least window.
const PART: u64 = 16;

/// The windows that are granted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    budget: u64,
    granted: u64,
}

impl Windows {
    /// None is granted.
    #[must_use]
    pub const fn new(budget: u64) -> Self {
        Self { budget, granted: 0 }
    }

    /// A window for a connection that asks for `want` bytes; `None` if there is no room for any.
    pub fn grant(&mut self, want: u32) -> Option<u32> {
        let left = self.budget.saturating_sub(self.granted);
        if left < u64::from(WINDOW_MIN) {
            return None;
        }
        let part = u32::try_from(left / PART).unwrap_or(u32::MAX).max(WINDOW_MIN);
        let window = want.max(WINDOW_MIN).min(part);
        self.granted += u64::from(window);
        Some(window)
    }

    /// A connection has ended.
    pub fn give_back(&mut self, window: u32) {
        self.granted = self.granted.saturating_sub(window.into());
    }

    /// The bytes that are granted.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_connections_gets_more_than_the_budget() {
        let mut windows = Windows::new(10 << 20);
        let mut granted = Vec::new();
        while let Some(window) = windows.grant(4 << 20) {
            assert!(windows.granted() <= 10 << 20);
            granted.push(window);
        }
        assert!(granted.iter().all(|window| *window >= WINDOW_MIN));
        assert!(granted.is_sorted_by(|one, next| one >= next), "later ones get less");
        assert!(granted.len() > 20, "{}", granted.len());
        windows.give_back(granted[0]);
        assert!(windows.grant(4 << 20).is_some());
    }

    #[test]
    fn a_connection_gets_what_it_asks_for_while_there_is_plenty() {
        let mut windows = Windows::new(512 << 20);
        assert_eq!(windows.grant(4 << 20), Some(4 << 20));
        assert_eq!(windows.grant(512 << 10), Some(512 << 10));
        assert_eq!(windows.grant(1), Some(WINDOW_MIN));
        assert_eq!(windows.granted(), (4 << 20) + (512 << 10) + u64::from(WINDOW_MIN));
    }
}
