//! A certificate's number, by which its issuer takes it back.

use std::fmt;
use std::str::FromStr;

use x509_parser::num_bigint::BigUint;

/// As dumps and logs show it: in decimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(BigUint);

/// What is no number of a certificate.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is no serial number: they are decimal numbers of 20 bytes at most")]
pub struct NoSerial(String);

/// RFC 5280 §4.1.2.2.
const LONGEST: usize = 20;

// === impl Serial ===

impl Serial {
    pub(crate) fn new(number: &BigUint) -> Self {
        Self(number.clone())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes_be()
    }
}

impl FromStr for Serial {
    type Err = NoSerial;

    fn from_str(text: &str) -> Result<Self, NoSerial> {
        let refused = || NoSerial(text.to_owned());
        // The longest in decimal has 49 digits; what is longer is not worth a multiplication.
        if text.len() > 49 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        let serial = Self(text.parse().map_err(|_| refused())?);
        match serial.to_bytes().len() > LONGEST {
            true => Err(refused()),
            false => Ok(serial),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_decimal_are_serial_numbers() {
        let longest = (BigUint::from(1_u8) << 160_u32) - 1_u8;
        for text in ["0", "18446744073709551616", &longest.to_string()] {
            let serial: Serial = text.parse().expect(text);
            assert_eq!(serial.to_string(), text);
        }
        let beyond = (longest + 1_u8).to_string();
        for text in [
            "",
            "-1",
            "+1",
            "1_0",
            "0x10",
            " 1",
            "a",
            &beyond,
            &"1".repeat(5000),
        ] {
            assert!(text.parse::<Serial>().is_err(), "{text:?}");
        }
    }
}
