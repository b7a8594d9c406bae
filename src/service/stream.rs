//! Streams: calls with many messages, or with plain bytes.
//!
//! | method | caller | handler |
//! |---|---|---|
//! | server stream | [`ItemStream`] | [`ItemSender`] |
//! | client stream | [`Upload`] | [`ItemReceiver`] |
//! | duplex | [`ByteSender`], [`ByteReceiver`] | the same |
//!
//! A stream goes over a second connection to the node, so it does not hold up small calls. The reader's window is the
//! back-pressure: a writer waits while the other end does not read. A stream has no deadline once its handler has
//! begun. It ends with the handler, when the caller drops it, or at the moment when membership declares the node dead. If
//! a stream breaks off, its reader gets an error instead of the end.

mod bytes;
mod down;
mod handler;
mod up;

pub use self::{
    bytes::{ByteReceiver, ByteSender},
    down::ItemStream,
    handler::{ItemError, ItemReceiver, ItemSender},
    up::Upload,
};
