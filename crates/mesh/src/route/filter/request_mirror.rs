//! RequestMirror: which requests are sent to a second backend as well.

use rand::Rng;

use crate::route::RequestMirror;

// === impl RequestMirror ===

impl RequestMirror {
    /// Whether this request is mirrored. A share of more than all is all, of nothing is none.
    pub fn samples(&self, random: &mut impl Rng) -> bool {
        self.numerator >= self.denominator.max(1)
            || (self.denominator > 0 && random.random_ratio(self.numerator, self.denominator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::BackendRef;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn sampled(numerator: u32, denominator: u32) -> usize {
        let mirror = RequestMirror {
            backend: BackendRef::Invalid("".into()),
            numerator,
            denominator,
        };
        let mut random = SmallRng::seed_from_u64(7);
        (0..1000).filter(|_| mirror.samples(&mut random)).count()
    }

    #[test]
    fn a_share_of_requests_is_mirrored() {
        assert_eq!(sampled(100, 100), 1000);
        assert_eq!(sampled(3, 2), 1000);
        assert_eq!(sampled(0, 100), 0);
        assert_eq!(sampled(0, 0), 0);
        assert!((400..600).contains(&sampled(1, 2)));
        assert!((50..150).contains(&sampled(10, 100)));
    }
}
