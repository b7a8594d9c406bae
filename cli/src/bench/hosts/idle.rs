//! Services that nobody calls: what does a node pay for offering them?

use gossipmonger::{
    Gossipmonger,
    service::{Access, Call, Kind, Method, Offer, Service, ServiceVersion, codec::Bincode},
};
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// A service of this number.
struct Idle<const N: usize>;

#[derive(Serialize, Deserialize)]
struct Ask<const N: usize>;

impl<const N: usize> Service for Idle<N> {
    const NAME: &'static str = NAMES[N];
    const VERSION: ServiceVersion = ServiceVersion::new(1, 0);
    const METHODS: &'static [Method] = &[<Ask<N> as Call>::METHOD];
    type Codec = Bincode;
}

impl<const N: usize> Call for Ask<N> {
    type Service = Idle<N>;
    type Reply = ();
    const METHOD: Method = Method::new(1, "Ask", Kind::Call);
}

async fn offer_one<const N: usize>(node: &Gossipmonger) -> Result<Offer, CliError> {
    let offer = node.offer::<Idle<N>>(Access::members()).call(|_: Ask<N>, _| async {});
    offer.start().await.map_err(CliError::failed)
}

macro_rules! idle {
    ($($number:literal $name:literal)*) => {
        const NAMES: &[&str] = &[$($name),*];

        /// Offers so many of them.
        pub(super) async fn offer(node: &Gossipmonger, count: usize) -> Result<Vec<Offer>, CliError> {
            let mut offers = Vec::with_capacity(count);
            $(if $number < count {
                offers.push(offer_one::<$number>(node).await?);
            })*
            Ok(offers)
        }
    };
}

idle! {
    0 "bench.idle-1" 1 "bench.idle-2" 2 "bench.idle-3" 3 "bench.idle-4" 4 "bench.idle-5"
    5 "bench.idle-6" 6 "bench.idle-7" 7 "bench.idle-8" 8 "bench.idle-9" 9 "bench.idle-10"
    10 "bench.idle-11" 11 "bench.idle-12" 12 "bench.idle-13" 13 "bench.idle-14" 14 "bench.idle-15"
    15 "bench.idle-16" 16 "bench.idle-17" 17 "bench.idle-18" 18 "bench.idle-19" 19 "bench.idle-20"
}

/// How many there are.
pub(super) const IDLE_MAX: usize = NAMES.len();
