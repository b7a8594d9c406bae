//! Waiting for the reply of an actor without a task.
//!
//! A task for each call would be woken by the reply, often on another thread, and then wake the writer of the lane. What
//! follows a reply is short, so it runs in the thread that sends it.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    sync::oneshot::{Receiver, error::RecvError},
    task::{Unconstrained, unconstrained},
};

use crate::node::services::running::Stops;

/// A reply that has not come, and what follows it.
///
/// Without a budget of the task: a wait that tokio would put off wakes itself at once where no scheduler is, under this lock.
struct Waiting<T, F>(Mutex<Option<(Unconstrained<Receiver<T>>, F)>>);

/// Calls `then` with the reply, in the thread that sends it, or here if it is there already. What is returned stops the
/// wait: then `then` is dropped, and the sender finds its channel closed.
pub(super) fn once_replied<T, F>(reply: Receiver<T>, then: F) -> Arc<dyn Stops>
where
    T: Send + 'static,
    F: FnOnce(Result<T, RecvError>) + Send + 'static,
{
    let waiting = Arc::new(Waiting(Mutex::new(Some((unconstrained(reply), then)))));
    waiting.look();
    waiting
}

impl<T, F> Waiting<T, F> {
    fn lock(&self) -> MutexGuard<'_, Option<(Unconstrained<Receiver<T>>, F)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, F> Waiting<T, F>
where
    T: Send + 'static,
    F: FnOnce(Result<T, RecvError>) + Send + 'static,
{
    fn look(self: &Arc<Self>) {
        let mut waits = self.lock();
        let Some((reply, _)) = &mut *waits else { return };
        let waker = Waker::from(Arc::clone(self));
        let Poll::Ready(reply) = Pin::new(reply).poll(&mut Context::from_waker(&waker)) else {
            return;
        };
        let waited = waits.take();
        drop(waits);
        // A panic here must not end the actor that sends the reply.
        if let Some((_, then)) = waited {
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| then(reply)));
        }
    }
}

impl<T, F> Wake for Waiting<T, F>
where
    T: Send + 'static,
    F: FnOnce(Result<T, RecvError>) + Send + 'static,
{
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl<T: Send, F: Send> Stops for Waiting<T, F> {
    fn stop(&self) {
        let waits = self.lock().take();
        drop(waits);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn waits(reply: Receiver<u32>) -> (Arc<dyn Stops>, Receiver<Result<u32, RecvError>>) {
        let (told, heard) = oneshot::channel();
        (once_replied(reply, |reply| drop(told.send(reply))), heard)
    }

    #[test]
    fn what_follows_a_reply_runs_when_it_is_sent_or_will_never_be() {
        let (send, reply) = oneshot::channel();
        let (_stops, mut heard) = waits(reply);
        assert!(heard.try_recv().is_err());
        send.send(7).unwrap();
        assert_eq!(heard.try_recv().unwrap(), Ok(7));
        let (send, reply) = oneshot::channel();
        let (_stops, mut heard) = waits(reply);
        drop(send);
        assert!(heard.try_recv().unwrap().is_err());
    }

    #[test]
    fn a_reply_that_is_there_already_is_not_waited_for() {
        let (send, reply) = oneshot::channel();
        send.send(7).unwrap();
        assert_eq!(waits(reply).1.try_recv().unwrap(), Ok(7));
    }

    #[test]
    fn who_stops_to_wait_closes_the_channel() {
        let (send, reply) = oneshot::channel();
        let (stops, mut heard) = waits(reply);
        stops.stop();
        assert!(send.is_closed());
        assert_eq!(send.send(7), Err(7));
        assert!(matches!(heard.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }

    #[test]
    fn a_task_without_budget_and_scheduler_waits_as_any_other() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            // Each message that is received takes from the budget, 128 for each poll.
            let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
            (0..1_000).for_each(|n| send.send(n).unwrap());
            let used_up = std::future::poll_fn(|context| {
                while receive.poll_recv(context).is_ready() {}
                let (send, reply) = oneshot::channel();
                let (_stops, mut heard) = waits(reply);
                send.send(7).unwrap();
                Poll::Ready(heard.try_recv())
            });
            assert_eq!(used_up.await.unwrap(), Ok(7));
        });
    }

    #[test]
    fn a_panic_in_what_follows_does_not_reach_the_sender() {
        let (send, reply) = oneshot::channel::<u32>();
        let _stops = once_replied(reply, |_| panic!("on purpose"));
        send.send(7).unwrap();
    }

    #[test]
    fn no_reply_is_lost_whatever_happens_at_once() {
        for _ in 0..2_000 {
            let (send, reply) = oneshot::channel();
            let sender = std::thread::spawn(move || send.send(7));
            let (_stops, heard) = waits(reply);
            sender.join().unwrap().unwrap();
            assert_eq!(heard.blocking_recv().unwrap(), Ok(7));
        }
    }
}
