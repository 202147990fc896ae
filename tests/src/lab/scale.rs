//! How big a test is: small where every change waits for it, whole where a promise is measured.

/// Set to `full`, tests run at the size of their promise and print what they measured.
const VARIABLE: &str = "WEFT_TEST_SCALE";

pub fn is_full() -> bool {
    std::env::var(VARIABLE).is_ok_and(|scale| scale == "full")
}

/// One of two sizes.
pub fn scaled<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}
