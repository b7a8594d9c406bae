//! Calls to systems outside the process that may hang: a network file system, a pipe in the place of a file, systemd's
//! socket. They run on threads that may block, and the caller waits for a limited time.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::CliError;

/// How long the agent waits for files.
pub(super) const FILE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls of one kind in progress at once, including those that no caller waits for any more. Each takes a thread until
/// the system answers.
const CALLS_MAX: usize = 8;

/// The kinds of calls. Each kind has threads of its own, so that a call that hangs delays no other kind.
#[derive(Debug)]
pub(super) struct Calls(Semaphore);

impl Calls {
    const fn new() -> Self {
        Self(Semaphore::const_new(CALLS_MAX))
    }
}

/// Files of the agent's directory, and those that its configuration names.
pub(super) static FILES: Calls = Calls::new();
/// The tokens of HTTP: any client of the address causes a read of the file.
pub(super) static TOKENS: Calls = Calls::new();
/// The directory of the CA.
pub(super) static AUTHORITY: Calls = Calls::new();
/// systemd's socket. Its watchdog must receive our reports, whatever else hangs.
pub(super) static SYSTEMD: Calls = Calls::new();

/// Runs `call` and waits at most `patience` for it; after that the call goes on, and its result is dropped. `what`:
/// what the agent waits for, as the beginning of a sentence.
///
/// # Errors
/// The error of `call`, or that it takes too long.
pub(super) async fn offload<T: Send + 'static>(
    calls: &'static Calls,
    what: &'static str,
    patience: Duration,
    call: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let called = async {
        let permit = calls.0.acquire().await.map_err(CliError::failed)?;
        let called = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            call()
        });
        called.await.map_err(CliError::failed)?
    };
    tokio::time::timeout(patience, called).await.unwrap_or_else(|_| {
        Err(CliError::failed(format!(
            "{what}: no answer from the system within {patience:?}; is it on a file system that hangs, \
             or a pipe?"
        )))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_call_that_hangs_is_given_up_and_others_go_on_up_to_the_limit() {
        let soon = Duration::from_millis(20);
        let hang = |let_go: mpsc::Receiver<()>| move || Ok(let_go.recv().unwrap_err());
        let (releases, hangs): (Vec<_>, Vec<_>) =
            (0..CALLS_MAX).map(|_| mpsc::channel::<()>()).unzip();
        for (n, let_go) in hangs.into_iter().enumerate() {
            let error = offload(&FILES, "node.pem", soon, hang(let_go)).await;
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with("node.pem: no answer from the system within 20ms"),
                "{error}"
            );
            if n + 1 < CALLS_MAX {
                assert_eq!(
                    offload(&FILES, "node.pem", FILE_TIMEOUT, move || Ok(n)).await.unwrap(),
                    n
                );
            }
        }
        let more = offload(&FILES, "node.pem", soon, || Ok(0)).await;
        assert!(more.is_err(), "one more thread was taken");
        assert_eq!(offload(&SYSTEMD, "the socket", FILE_TIMEOUT, || Ok(2)).await.unwrap(), 2);
        drop(releases);
        assert_eq!(offload(&FILES, "node.pem", FILE_TIMEOUT, || Ok(1)).await.unwrap(), 1);
    }
}
