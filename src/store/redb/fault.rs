//! Errors of the file, before its name is known.

use std::{
    any::Any,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::store::StoreError;

/// A [`StoreError`] without its location.
#[derive(Debug)]
pub(super) enum Fault {
    /// A check failed.
    Damaged(String),
    /// Another version of this program wrote it, in a format that this version does not read.
    Format { written: u32, read: u32 },
    /// Others than the owner may use the file; its mode.
    Exposed(u32),
    /// The database failed.
    Redb(redb::Error),
}

impl Fault {
    /// Names the file.
    fn at(self, path: &Path) -> StoreError {
        let location = path.display().to_string();
        let reason = match self {
            Self::Damaged(reason) => return StoreError::Damaged { location, reason },
            Self::Redb(error) if is_locked(&error) => return StoreError::InUse { location },
            Self::Redb(error) if is_damage(&error) => {
                let reason = error.to_string();
                let reason =
                    if reason.contains("magic number") { NO_STORE.to_owned() } else { reason };
                return StoreError::Damaged { location, reason };
            }
            Self::Redb(redb::Error::Io(error)) => error.to_string(),
            Self::Redb(error) => error.to_string(),
            Self::Format { written, read } => format!(
                "written in format {written}, and this version reads {read}; run the one that wrote it"
            ),
            Self::Exposed(mode) => format!(
                "its mode {mode:o} lets others at the secrets in it; run chmod 600 {location}"
            ),
        };
        StoreError::Io { location, reason }
    }
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

/// Runs `work`, and adds the file's name to its error or panic.
///
/// This is the last resort: redb promises to report a file that was damaged before it was opened, and
/// [`Watched`](super::disk::Watched) detects later damage. But redb has hundreds of assertions about the
/// data it reads; a damaged file is an error like any other and must not end the process. Unwinding is safe
/// here: whatever fails, the caller closes the database, and none of its state is used again.
pub(super) fn guard<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Fault::Damaged(text(&*panic))))
        .map_err(|fault| fault.at(path))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it made the database panic: {}", text.unwrap_or("without a message"))
}

fn is_locked(error: &redb::Error) -> bool {
    matches!(error, redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch)
}

/// Whether the content of the file is wrong, rather than out of reach.
fn is_damage(error: &redb::Error) -> bool {
    use redb::Error::{
        Corrupted, Io, TableDoesNotExist, TableIsMultimap, TableTypeMismatch,
        TypeDefinitionChanged, UpgradeRequired,
    };
    match error {
        Corrupted(_)
        | TableDoesNotExist(_)
        | TableIsMultimap(_)
        | TableTypeMismatch { .. }
        | TypeDefinitionChanged { .. } => true,
        // Redb's file formats before the one in which this format was first written.
        UpgradeRequired(_) => true,
        // Not a database, or a truncated one.
        Io(error) => matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof),
        _ => false,
    }
}

/// The error for a file that redb has not created.
const NO_STORE: &str = "this file is not a store of gossipmonger, or its beginning was overwritten";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_an_error_of_a_panic() {
        let error = guard::<()>(Path::new("the file"), || panic!("page {}", 7)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("the file") && error.contains("panic: page 7"), "{error}");
    }
}
