//! A duration as Gateway API writes it (GEP-2257): `1h30m`, `500ms`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayDuration {
    text: String,
    duration: Duration,
}

// === impl GatewayDuration ===

impl GatewayDuration {
    /// At most four numbers of at most five digits, each with `h`, `m`, `s` or `ms`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut duration = Duration::ZERO;
        let mut rest = text;
        let mut parts = 0;
        while !rest.is_empty() || parts == 0 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=5).contains(&digits) || parts == 4 {
                return None;
            }
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let (unit, milliseconds) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))?;
            rest = &rest[unit.len()..];
            duration += Duration::from_millis(number * milliseconds);
            parts += 1;
        }
        Some(Self {
            text: text.to_owned(),
            duration,
        })
    }

    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl fmt::Display for GatewayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for GatewayDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for GatewayDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is not a duration: write whole numbers with h, m, s or ms, as 1m30s \
                 or 500ms"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gep_2257_has_them() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1h1m1s1ms", 3_661_001),
            ("99999h", 359_996_400_000),
        ] {
            let read = GatewayDuration::parse(text).map(|read| read.duration());
            assert_eq!(read, Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "100000s",
            "1h1m1s1ms1s",
            "1d",
            "1 s",
        ] {
            assert_eq!(GatewayDuration::parse(text), None, "{text}");
        }
    }
}
