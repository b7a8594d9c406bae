//! What both ends of a call share: a service, its methods, and their messages.

use super::codec::Codec;
pub use crate::protocol::service::{Kind, ServiceVersion};

/// A set of numbered methods under a name and a version. [`service!`](crate::service!) writes the implementation.
pub trait Service: Send + Sync + Sized + 'static {
    /// The name: 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`.
    const NAME: &'static str;
    /// The version. A caller finds only providers of the same major version.
    const VERSION: ServiceVersion;
    /// The methods.
    const METHODS: &'static [Method];
    /// How messages become bytes.
    type Codec: Send + Sync + 'static;
}

/// One method of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Method {
    /// Its number, which is never used again for another method.
    pub number: u16,
    /// The name of its question, for people.
    pub name: &'static str,
    /// How many messages go in each direction.
    pub kind: Kind,
    /// The minor version of the service that introduced it.
    pub since: u16,
    /// Whether it may run twice for one call.
    pub idempotent: bool,
}

impl Method {
    /// A method of the first minor version that must not run twice.
    #[must_use]
    pub const fn new(number: u16, name: &'static str, kind: Kind) -> Self {
        Self { number, name, kind, since: 0, idempotent: false }
    }

    /// The same, introduced in this minor version.
    #[must_use]
    pub const fn since(self, minor: u16) -> Self {
        Self { since: minor, ..self }
    }

    /// The same, which may run twice for one call.
    #[must_use]
    pub const fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }
}

/// A question with one answer. The type belongs to one method of one service.
pub trait Call: Send + Sized + 'static {
    /// The service.
    type Service: Service<Codec: Codec<Self> + Codec<Self::Reply>>;
    /// The answer.
    type Reply: Send + 'static;
    /// The method.
    const METHOD: Method;
}

/// A message without an answer. The type belongs to one method of one service.
pub trait Cast: Send + Sized + 'static {
    /// The service.
    type Service: Service<Codec: Codec<Self>>;
    /// The method.
    const METHOD: Method;
}

/// A question with any number of items as the answer. The type belongs to one method of one service.
pub trait ServerStream: Send + Sized + 'static {
    /// The service.
    type Service: Service<Codec: Codec<Self> + Codec<Self::Item>>;
    /// An item of the answer.
    type Item: Send + 'static;
    /// The method.
    const METHOD: Method;
}

/// A question with any number of items behind it, and one answer. The type belongs to one method of one service.
pub trait ClientStream: Send + Sized + 'static {
    /// The service.
    type Service: Service<Codec: Codec<Self> + Codec<Self::Item> + Codec<Self::Reply>>;
    /// An item behind the question.
    type Item: Send + 'static;
    /// The answer.
    type Reply: Send + 'static;
    /// The method.
    const METHOD: Method;
}

/// A question, and then bytes in both directions. The type belongs to one method of one service.
pub trait Duplex: Send + Sized + 'static {
    /// The service.
    type Service: Service<Codec: Codec<Self>>;
    /// The method.
    const METHOD: Method;
}

/// The version in a literal like `2.1`.
#[doc(hidden)]
#[must_use]
pub const fn version(text: &str) -> ServiceVersion {
    let bytes = text.as_bytes();
    let (mut parts, mut at, mut point) = ([0_u32; 2], 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'.' if point == 0 && at > 0 => point = 1,
            digit @ b'0'..=b'9' => parts[point] = parts[point] * 10 + (digit - b'0') as u32,
            _ => panic!("a version is two numbers with a point between them, like 2.1"),
        }
        at += 1;
    }
    assert!(
        point == 1 && parts[0] <= u16::MAX as u32 && parts[1] <= u16::MAX as u32,
        "a version is two numbers with a point between them, like 2.1"
    );
    ServiceVersion::new(parts[0] as u16, parts[1] as u16)
}

/// Defines a service: its name, its version, and its methods.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// pub struct Level {
///     pub item: String,
/// }
/// #[derive(Serialize, Deserialize)]
/// pub struct Counted {
///     pub item: String,
///     pub count: u32,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// pub struct Follow {
///     pub item: String,
/// }
/// #[derive(Serialize, Deserialize)]
/// pub struct Import;
/// #[derive(Serialize, Deserialize)]
/// pub struct Export;
///
/// gossipmonger::service! {
///     /// What a shop has in store.
///     pub struct Stock = "stock", 2.1;
///
///     1: call Level -> Option<u32>, idempotent;
///     2: cast Counted, since 1;
///     3: stream Follow -> Counted;          // one question, any number of items
///     4: collect Import of Counted -> u64;  // any number of items, one answer
///     5: duplex Export;                     // bytes in both directions
/// }
/// # use gossipmonger::service::Service;
/// # assert_eq!((Stock::VERSION.major, Stock::METHODS[1].since), (2, 1));
/// ```
///
/// A line is a number, the kind of the method, the type of its question and, after `->`, that of its answer, or of the
/// items of its answer. `of` says the type of the items behind a question: one name, without parameters. A type
/// belongs to one method, so a call needs no method name, and cannot be sent to another service.
///
/// Numbers are never used again. The type of a released method does not change: what breaks callers is a new major
/// version, a new method raises the minor version and says `since`.
#[macro_export]
macro_rules! service {
    (
        $(#[$doc:meta])*
        $visible:vis struct $service:ident = $name:literal, $version:literal;
        $($number:literal : $kind:ident $ask:ident $(of $item:ident)? $(-> $reply:ty)?
            $(, $flag:ident $($value:literal)?)*;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        $visible struct $service;

        impl $crate::service::Service for $service {
            const NAME: &'static str = $name;
            const VERSION: $crate::service::ServiceVersion =
                $crate::service::version(stringify!($version));
            const METHODS: &'static [$crate::service::Method] =
                &[$($crate::service!(@method $kind $ask)),*];
            type Codec = $crate::service::codec::Bincode;
        }

        $($crate::service!(@impl $kind $service $ask ($($item)?) ($($reply)?)
            $crate::service::Method::new(
                $number,
                stringify!($ask),
                $crate::service!(@kind $kind),
            )$(.$flag($($value)?))*);)*
    };
    (@method call $ask:ident) => { <$ask as $crate::service::Call>::METHOD };
    (@method cast $ask:ident) => { <$ask as $crate::service::Cast>::METHOD };
    (@method stream $ask:ident) => { <$ask as $crate::service::ServerStream>::METHOD };
    (@method collect $ask:ident) => { <$ask as $crate::service::ClientStream>::METHOD };
    (@method duplex $ask:ident) => { <$ask as $crate::service::Duplex>::METHOD };
    (@kind stream) => { $crate::service::Kind::ServerStream };
    (@kind collect) => { $crate::service::Kind::ClientStream };
    (@kind duplex) => { $crate::service::Kind::Duplex };
    (@kind call) => { $crate::service::Kind::Call };
    (@kind cast) => { $crate::service::Kind::Cast };
    (@impl stream $service:ident $ask:ident () ($item:ty) $method:expr) => {
        impl $crate::service::ServerStream for $ask {
            type Service = $service;
            type Item = $item;
            const METHOD: $crate::service::Method = $method;
        }
    };
    (@impl collect $service:ident $ask:ident ($item:ident) ($reply:ty) $method:expr) => {
        impl $crate::service::ClientStream for $ask {
            type Service = $service;
            type Item = $item;
            type Reply = $reply;
            const METHOD: $crate::service::Method = $method;
        }
    };
    (@impl duplex $service:ident $ask:ident () () $method:expr) => {
        impl $crate::service::Duplex for $ask {
            type Service = $service;
            const METHOD: $crate::service::Method = $method;
        }
    };
    (@impl call $service:ident $ask:ident () ($reply:ty) $method:expr) => {
        impl $crate::service::Call for $ask {
            type Service = $service;
            type Reply = $reply;
            const METHOD: $crate::service::Method = $method;
        }
    };
    (@impl cast $service:ident $ask:ident () () $method:expr) => {
        impl $crate::service::Cast for $ask {
            type Service = $service;
            const METHOD: $crate::service::Method = $method;
        }
    };
}
