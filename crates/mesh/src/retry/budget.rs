//! How many retries a destination may have under way at once.

/// A share of the requests under way, and never less than a few: one endpoint that dies fails
/// every request it has, and of few requests those are many. Without a budget, failures of all
/// requests would multiply the load that made them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    pub percent: u32,
    pub min_retry_concurrency: u32,
}

// === impl RetryBudget ===

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20,
            min_retry_concurrency: 10,
        }
    }
}

impl RetryBudget {
    /// Whether one more retry may begin beside `retries`, with `requests` active or pending
    /// (retries among them).
    pub fn admits(self, retries: u32, requests: u32) -> bool {
        let share = u64::from(requests) * u64::from(self.percent) / 100;
        u64::from(retries) < share.max(u64::from(self.min_retry_concurrency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_requests_and_at_least_ten() {
        let budget = RetryBudget::default();
        for (retries, requests, admitted) in [
            (0, 0, true),
            (9, 0, true),
            (10, 0, false),
            (10, 50, false),
            (10, 55, true),
            (11, 55, false),
            (19, 100, true),
            (20, 100, false),
            (u32::MAX, u32::MAX, false),
        ] {
            let verdict = budget.admits(retries, requests);
            assert_eq!(verdict, admitted, "{retries} of {requests}");
        }
    }
}
