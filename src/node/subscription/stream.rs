//! Subscriptions as streams: they end with the node.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{Events, LiveKeys, PrefixChange, PrefixEvents, ProtocolEvents, SubscriptionError};
use crate::protocol::event::{Event, ProtocolEvent};

/// A lag is an item of the stream; the stream goes on after it.
impl Stream for Events {
    type Item = Result<Event, SubscriptionError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context).map(item)
    }
}

/// A lag is an item of the stream; the stream goes on after it.
impl Stream for ProtocolEvents {
    type Item = Result<ProtocolEvent, SubscriptionError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().queue.poll(context).map(item)
    }
}

/// A lag is an item of the stream; the stream goes on after it.
impl Stream for PrefixEvents {
    type Item = Result<PrefixChange, SubscriptionError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context).map(item)
    }
}

/// A consumer that falls behind is brought up to date, so a lag is no item of the stream.
impl Stream for LiveKeys {
    type Item = PrefixChange;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context).map(Result::ok)
    }
}

fn item<T>(next: Result<T, SubscriptionError>) -> Option<Result<T, SubscriptionError>> {
    Some(next).filter(|next| !matches!(next, Err(SubscriptionError::Ended)))
}
