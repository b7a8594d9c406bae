//! How commands show the expiry of certificates: the time left, and the number of nodes.

use std::time::{Duration, SystemTime};

use gossipmonger::Certificates;

/// How long a certificate has left: `in 9 days`.
pub(crate) fn left(until: SystemTime, now: SystemTime) -> String {
    match until.duration_since(now) {
        Ok(left) => format!("in {}", rough(left)),
        Err(past) => format!("{} ago", rough(past.duration())),
    }
}

/// The warning for the operator; `None`: there is no reason for one.
pub(crate) fn warning(certificates: &Certificates, now: SystemTime) -> Option<String> {
    let first = certificates.first.filter(|_| certificates.expiring > 0)?;
    let nodes = match certificates.expiring {
        1 => "1 node".to_owned(),
        several => format!("{several} nodes"),
    };
    let when = left(first, now);
    let expires = if first < now { "has expired" } else { "expires" };
    Some(format!("the certificate {expires} {when} on {nodes}: see members, and renew it there"))
}

/// In the largest unit of which there are at least two, or in the smallest.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= 2 * unit);
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_nothing_while_no_certificate_is_to_be_renewed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let first = now + Duration::from_secs(9 * 86_400 + 7);
        assert_eq!(warning(&Certificates::default(), now), None);
        let certificates = |expiring| {
            let mut certificates = Certificates::default();
            (certificates.expiring, certificates.first) = (expiring, Some(first));
            certificates
        };
        assert_eq!(warning(&certificates(0), now), None);
        let told = warning(&certificates(14), now).unwrap();
        assert!(told.starts_with("the certificate expires in 9 days on 14 nodes"), "{told}");
        let told = warning(&certificates(1), first + Duration::from_secs(90)).unwrap();
        assert!(told.starts_with("the certificate has expired 90 s ago on 1 node:"), "{told}");
    }
}
