//! What an authority knows to be revoked: the statements that it has verified, and the list in its directory.

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::{
    directory::{keys_of, revocations, roots_of},
    error::AuthorityError,
    file,
    files::{Existing, save},
};
use crate::{
    clock::Clock,
    protocol::{
        id::ClusterId,
        revocation::{Revocation, RevocationError, Revocations},
    },
    tls::{
        Naming,
        certificate::date,
        client::revoked_by,
        files::Audience,
        revoked::{self, AuthorityKey, seconds},
    },
};

/// The revocations that one authority has verified.
pub(super) struct Revoked {
    cluster: ClusterId,
    /// The keys whose statements count: its own, and those of the other authorities of its directory.
    authorities: Vec<AuthorityKey>,
    /// Each of them is signed by one of `authorities`.
    union: Mutex<Revocations>,
}

impl Revoked {
    /// Nothing is revoked yet.
    pub(super) fn new(cluster: ClusterId, authorities: Vec<AuthorityKey>) -> Self {
        Self { cluster, authorities, union: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Revocations> {
        // Code under the lock does not panic half way.
        self.union.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an authority of the directory has signed it.
    pub(super) fn check(&self, statement: &Revocation) -> Result<(), RevocationError> {
        revoked::verify(&self.authorities, &self.cluster, statement)
    }

    /// The latest cutoff of the names that these URIs give a certificate.
    pub(super) fn cutoff(&self, uris: &[String]) -> Option<u64> {
        let (revoked, naming) = (self.lock(), Naming::default());
        let names = uris.iter().filter_map(|uri| revoked_by(uri, &naming));
        names.filter_map(|name| revoked.cutoff(&name)).max()
    }

    /// Adds statements of unknown origin, if an authority of the directory has signed them. Returns those that are
    /// not added, unless the known ones cover them.
    pub(super) fn heed(
        &self,
        statements: impl IntoIterator<Item = Revocation>,
    ) -> Vec<(Revocation, RevocationError)> {
        let (mut revoked, now) = (self.lock(), seconds(Clock::wall()));
        let mut refused = Vec::new();
        for statement in statements {
            match self.check(&statement).and_then(|()| statement.check_cutoff(now)) {
                Ok(()) => drop(revoked.merge(statement)),
                Err(error) => refused.push((statement, error)),
            }
        }
        refused.retain(|(statement, _)| !reaches(&revoked, statement));
        refused
    }

    /// Adds the list in its directory. A line that cannot be verified is skipped if a verified one covers it, as
    /// after a rotation; otherwise the whole list is refused.
    pub(super) fn merge_file(&self, directory: &Path) -> Result<(), AuthorityError> {
        // Read again: a rotation may have added an authority since this one was loaded.
        let authorities = keys_of(&roots_of(directory)?)?;
        let listed = revocations(directory)?;
        let mut revoked = self.lock();
        let mut unsigned = Vec::new();
        for statement in listed {
            match revoked::verify(&authorities, &self.cluster, &statement) {
                Ok(()) => drop(revoked.merge(statement)),
                Err(error) => unsigned.push((statement, error)),
            }
        }
        match unsigned.into_iter().find(|(statement, _)| !reaches(&revoked, statement)) {
            Some((statement, _)) => Err(AuthorityError::Unsigned {
                path: directory.join(file::REVOCATIONS),
                node: statement.node,
                issuer: statement.issuer,
            }),
            None => Ok(()),
        }
    }

    /// Adds the known revocations to the list in the directory.
    pub(super) fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        // Others may add to it at the same moment: their lines must not get lost. If a directory
        // cannot be locked, it must have only one issuer.
        let _lock = fs::File::open(directory).and_then(|open| open.lock().map(|()| open));
        self.merge_file(directory)?;
        let lines = self.lock().iter().map(described).collect::<String>();
        let text = format!("{REVOCATIONS_HEAD}{lines}");
        let files = [(file::REVOCATIONS, text.as_str(), Audience::Anyone)];
        save(directory, Existing::Replace, &files)
    }
}

/// Whether these revoke all certificates that the statement revokes.
fn reaches(revoked: &Revocations, statement: &Revocation) -> bool {
    revoked.cutoff(&statement.node).is_some_and(|cutoff| cutoff >= statement.cutoff)
}

fn described(statement: &Revocation) -> String {
    let date = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let Revocation { node, cutoff, expires, .. } = statement;
    let text = statement.to_text();
    format!("# {node}, valid from {} or earlier, until {}\n{text}\n", date(*cutoff), date(*expires))
}

const REVOCATIONS_HEAD: &str = "# Whose certificates this authority has revoked. Made by gossipmonger; lines may only be added.\n";

#[cfg(all(test, unix))]
mod tests {
    use super::{
        super::{
            authority::{Authority, AuthorityOptions},
            phase::RotationPhase,
            samples::{authority, issue},
        },
        *,
    };
    use crate::{
        protocol::{
            id::NodeId,
            revocation::{Authorities, CUTOFF_AHEAD_MAX},
        },
        tls::{Identity, Roots},
    };

    #[test]
    fn remembers_what_several_revoke_at_once() {
        let directory = tempfile::tempdir().unwrap();
        authority().save(directory.path()).unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let directory = directory.path();
                scope.spawn(move || {
                    let authority = Authority::load(directory).unwrap();
                    let node = NodeId::new(&format!("n{n}")).unwrap();
                    authority.revoke(node, Clock::wall()).unwrap();
                    authority.save_revocations(directory).unwrap();
                });
            }
        });
        assert_eq!(revocations(directory.path()).unwrap().len(), 8);
    }

    #[test]
    fn refuses_statements_that_no_authority_of_its_directory_has_signed() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, foreign) = (authority(), authority());
        ours.save(directory.path()).unwrap();
        let a = NodeId::new("a").unwrap();
        let theirs = foreign.revoke(a.clone(), Clock::wall()).unwrap();
        let renamed = Revocation { issuer: ours.id(), ..theirs.clone() };
        let far = Revocation { cutoff: 4_000_000_000, ..ours.revoke(a, Clock::wall()).unwrap() };
        let fresh = Authority::load(directory.path()).unwrap();
        let refused = fresh.heed([theirs, renamed, far]);
        let why: Vec<_> = refused.into_iter().map(|(_, why)| why).collect();
        assert!(
            matches!(
                why[..],
                [
                    RevocationError::UnknownIssuer(_),
                    RevocationError::Forged(_),
                    RevocationError::Forged(_)
                ]
            ),
            "{why:?}"
        );
        fresh.save_revocations(directory.path()).unwrap();
        assert_eq!(
            (fresh.statements().unwrap().len(), revocations(directory.path()).unwrap().len()),
            (0, 0)
        );
        assert!(issue(&fresh, "a").certificate.not_before < Clock::wall(), "it issues as before");
    }

    #[test]
    fn neither_accepts_nor_signs_a_cutoff_in_the_future() {
        let (ours, far) = (authority(), Clock::wall() + Duration::from_secs(CUTOFF_AHEAD_MAX + 60));
        let a = NodeId::new("a").unwrap();
        let error = ours.revoke(a.clone(), far).unwrap_err().to_string();
        assert!(error.contains("compare the clock"), "{error}");
        // Signed with the same key on a host with its clock ahead.
        let mut statement = ours.revoke(a.clone(), Clock::wall()).unwrap();
        statement.cutoff = seconds(far);
        ours.seal(&mut statement).unwrap();
        let refused = ours.heed([statement.clone()]);
        assert!(matches!(refused[..], [(_, RevocationError::Ahead(_))]), "{refused:?}");
        assert!(ours.revoked.lock().cutoff(&a).unwrap() < statement.cutoff);
    }

    #[test]
    fn refuses_a_list_with_a_line_that_no_authority_of_its_directory_has_signed() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, foreign) = (authority(), authority());
        ours.save(directory.path()).unwrap();
        let theirs = foreign.revoke(NodeId::new("b").unwrap(), Clock::wall()).unwrap();
        let list = directory.path().join(file::REVOCATIONS);
        fs::write(&list, format!("{}\n", theirs.to_text())).unwrap();
        let error = Authority::load(directory.path()).unwrap_err().to_string();
        for part in [
            "revocations.txt: no authority",
            "the revocation of b",
            "ca-old.pem",
            &theirs.issuer.to_string(),
        ] {
            assert!(error.contains(part), "{error}");
        }
        // With the certificate of that authority the list is accepted.
        fs::write(directory.path().join(file::OLD_AUTHORITY), foreign.certificate_pem()).unwrap();
        assert_eq!(Authority::load(directory.path()).unwrap().statements().unwrap().len(), 1);
    }

    #[test]
    fn signs_anew_what_the_authority_before_it_has_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let options = AuthorityOptions::default();
        authority().save(dir).unwrap();
        let old = Authority::load(dir).unwrap();
        crate::pki::rotation::prepare(dir, &options).unwrap();
        old.revoke(NodeId::new("a").unwrap(), Clock::wall()).unwrap();
        old.save_revocations(dir).unwrap();
        crate::pki::rotation::switch(dir).unwrap();
        // By a process that still uses the old one.
        old.revoke(NodeId::new("c").unwrap(), Clock::wall()).unwrap();
        old.save_revocations(dir).unwrap();
        crate::pki::rotation::finish(dir).unwrap();

        let loaded = Authority::load(dir).unwrap();
        let statements = loaded.statements().unwrap();
        assert_eq!(statements.len(), 2);
        let issued = issue(&loaded, "b");
        let (pem, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        let roots = Roots::from_pem(loaded.certificate_pem().as_bytes()).unwrap();
        let tls = crate::tls::Tls::new(Identity::from_pem(pem, key).unwrap(), roots).unwrap();
        for statement in &statements {
            Authorities::verify(&tls, statement).unwrap();
        }
        assert_eq!(loaded.statements().unwrap(), statements, "once is enough");
        for statement in statements {
            let again = issue(&loaded, statement.node.as_str()).certificate.not_before;
            assert!(seconds(again) > statement.cutoff, "nothing is issued that is revoked");
        }
        // After a further rotation the lines of the first authority do not matter.
        for phase in [crate::pki::rotation::switch, crate::pki::rotation::finish] {
            if RotationPhase::of(dir) == RotationPhase::Settled {
                crate::pki::rotation::prepare(dir, &options).unwrap();
            }
            phase(dir).unwrap();
        }
        assert_eq!(Authority::load(dir).unwrap().statements().unwrap().len(), 2);
    }
}
