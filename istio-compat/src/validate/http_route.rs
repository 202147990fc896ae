//! HttpRoute: not checked yet.

use crate::kinds::http_route::HttpRoute;
use crate::validate::{Problems, Validate};

impl Validate for HttpRoute {
    fn validate(&self, _problems: &mut Problems<'_>) {}
}
