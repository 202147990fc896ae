//! RequestAuthentication: not checked yet.

use crate::kinds::request_authentication::RequestAuthentication;
use crate::validate::{Problems, Validate};

impl Validate for RequestAuthentication {
    fn validate(&self, _problems: &mut Problems<'_>) {}
}
