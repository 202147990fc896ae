//! Retries avoid the endpoints that failed.

/// How often another endpoint is drawn before one that failed is taken again.
const PICKS_MAXIMUM: usize = 5;

/// Draws until an endpoint comes up that was not tried yet; after five draws more the last one
/// is taken, as there may be no other.
pub fn avoid_previous<Id: PartialEq>(
    tried: &[Id],
    mut pick: impl FnMut() -> Option<Id>,
) -> Option<Id> {
    let mut picked = pick()?;
    for _ in 0..PICKS_MAXIMUM {
        if !tried.contains(&picked) {
            break;
        }
        // Before the next draw, so that the draw that is given up counts for nothing.
        drop(picked);
        picked = pick()?;
    }
    Some(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tried: &[u32], draws: &[u32], expected: Option<u32>, used: usize) {
        let mut left = draws.iter().copied();
        assert_eq!(avoid_previous(tried, || left.next()), expected);
        assert_eq!(draws.len() - left.len(), used);
    }

    #[test]
    fn another_endpoint_is_drawn_five_times() {
        check(&[], &[1, 2], Some(1), 1);
        check(&[1], &[1, 1, 2, 3], Some(2), 3);
        check(&[1], &[1; 9], Some(1), 6);
        check(&[1], &[1, 1, 1, 1, 1, 2, 3], Some(2), 6);
        check(&[1], &[], None, 0);
    }
}
