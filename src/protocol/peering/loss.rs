//! The part of the packets of one connection that is lost, as the transport has measured it.

/// The weight of a look is its packets in so many: about a minute of heartbeats.
const LOSS_PACKETS: f64 = 120.0;
/// A change of the loss that the detector is told.
const LOSS_STEP: f64 = 0.002;

/// Packets sent and lost, over the life of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Sent.
    pub sent: u64,
    /// Of these, lost.
    pub lost: u64,
}

/// The loss of one connection.
#[derive(Debug, Default)]
pub(super) struct Loss {
    seen: Packets,
    part: f64,
}

impl Loss {
    /// Takes a reading; returns the loss, between 0 and 1, if it has changed enough to be told.
    pub(super) fn measure(&mut self, packets: Packets) -> Option<f64> {
        let before = std::mem::replace(&mut self.seen, packets);
        let sent = packets.sent.saturating_sub(before.sent);
        let lost = packets.lost.saturating_sub(before.lost);
        if sent == 0 {
            return None;
        }
        let (sent, lost) = (sent as f64, lost as f64);
        let before = self.part;
        let weight = (sent / LOSS_PACKETS).min(1.0);
        self.part += ((lost / sent).min(1.0) - before) * weight;
        ((self.part - before).abs() > LOSS_STEP).then_some(self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_without_packets_says_nothing() {
        assert_eq!(Loss::default().measure(Packets::default()), None);
    }

    #[test]
    fn the_loss_is_told_when_it_changes_and_not_again() {
        let mut loss = Loss::default();
        let told = loss.measure(Packets { sent: 120, lost: 12 });
        assert_eq!(told, Some(0.1));
        assert_eq!(loss.measure(Packets { sent: 240, lost: 24 }), None);
        let fewer = loss.measure(Packets { sent: 300, lost: 24 });
        assert!(fewer.is_some_and(|part| (part - 0.05).abs() < 1e-9), "{fewer:?}");
    }
}
