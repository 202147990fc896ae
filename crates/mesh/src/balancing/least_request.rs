//! LEAST_REQUEST: of two endpoints drawn by weight, the one with less to do.

use rand::Rng;

use super::weights::Weights;

/// Compares requests under way per weight; where they are equal the first drawn is taken, so
/// that idle endpoints are used in proportion to their weights.
pub(super) fn choose(
    weights: &Weights,
    active: impl Fn(usize) -> u32,
    qualifies: impl Fn(usize) -> bool,
    random: &mut impl Rng,
) -> Option<usize> {
    let (first, second) = weights.draw_two(qualifies, random)?;
    let Some(second) = second else {
        return Some(first);
    };
    let of_first = u64::from(active(first)) * weights.weight(second);
    let of_second = u64::from(active(second)) * weights.weight(first);
    Some(if of_second < of_first { second } else { first })
}
