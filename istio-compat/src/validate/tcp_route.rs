//! TcpRoute: not checked yet.

use crate::kinds::tcp_route::TcpRoute;
use crate::validate::{Problems, Validate};

impl Validate for TcpRoute {
    fn validate(&self, _problems: &mut Problems<'_>) {}
}
