//! A hash that is the same at all nodes, in all versions and in all processes, so that nodes draw the same
//! conclusion from the same name. It has no key: anybody can find names that collide.

/// The hash of some bytes: FNV-1a (Fowler, Noll and Vo; RFC 9923), then [`mix`], so that every byte affects every
/// bit.
#[must_use]
pub fn hash(bytes: impl AsRef<[u8]>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    mix(bytes.as_ref().iter().fold(FNV_BASIS, step))
}

/// The finish of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014).
#[must_use]
pub const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_what_it_is() {
        // FNV-1a of these, as RFC 9923 has them, before the finish.
        assert_eq!(hash(""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash("a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(hash("foobar"), mix(0x8594_4171_f739_67e8));
        assert_eq!(mix(0), 0);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    }
}
