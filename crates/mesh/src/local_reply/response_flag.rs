//! Flags: what went wrong with a request or a connection, in two to five letters.

use std::fmt;

/// A flag of access logs and metrics, under Envoy's short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResponseFlag {
    FailedLocalHealthCheck,
    NoHealthyUpstream,
    UpstreamRequestTimeout,
    LocalReset,
    UpstreamRemoteReset,
    UpstreamConnectionFailure,
    UpstreamConnectionTermination,
    UpstreamOverflow,
    NoRouteFound,
    DelayInjected,
    FaultInjected,
    RateLimited,
    UnauthorizedExternalService,
    RateLimitServiceError,
    DownstreamConnectionTermination,
    UpstreamRetryLimitExceeded,
    StreamIdleTimeout,
    InvalidEnvoyRequestHeaders,
    DownstreamProtocolError,
    UpstreamProtocolError,
    UpstreamMaxStreamDurationReached,
    DurationTimeout,
    NoClusterFound,
    OverloadManager,
    DnsResolutionFailed,
}

/// The flags of one request, in the order they came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags {
    /// More than one try and one end seldom have.
    flags: [Option<ResponseFlag>; 4],
}

// === impl ResponseFlag ===

impl ResponseFlag {
    pub fn short(self) -> &'static str {
        match self {
            Self::FailedLocalHealthCheck => "LH",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamRequestTimeout => "UT",
            Self::LocalReset => "LR",
            Self::UpstreamRemoteReset => "UR",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamOverflow => "UO",
            Self::NoRouteFound => "NR",
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::RateLimited => "RL",
            Self::UnauthorizedExternalService => "UAEX",
            Self::RateLimitServiceError => "RLSE",
            Self::DownstreamConnectionTermination => "DC",
            Self::UpstreamRetryLimitExceeded => "URX",
            Self::StreamIdleTimeout => "SI",
            Self::InvalidEnvoyRequestHeaders => "IH",
            Self::DownstreamProtocolError => "DPE",
            Self::UpstreamProtocolError => "UPE",
            Self::UpstreamMaxStreamDurationReached => "UMSDR",
            Self::DurationTimeout => "DT",
            Self::NoClusterFound => "NC",
            Self::OverloadManager => "OM",
            Self::DnsResolutionFailed => "DF",
        }
    }
}

// === impl ResponseFlags ===

impl ResponseFlags {
    /// Each flag counts once.
    pub fn add(&mut self, flag: ResponseFlag) {
        if !self.flags.contains(&Some(flag))
            && let Some(free) = self.flags.iter_mut().find(|slot| slot.is_none())
        {
            *free = Some(flag);
        }
    }

    pub fn contains(&self, flag: ResponseFlag) -> bool {
        self.flags.contains(&Some(flag))
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut flags = self.flags.iter().flatten();
        let Some(first) = flags.next() else {
            return f.write_str("-");
        };
        f.write_str(first.short())?;
        flags.try_for_each(|flag| write!(f, ",{}", flag.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_joined_by_commas() {
        let mut flags = ResponseFlags::default();
        assert_eq!(flags.to_string(), "-");
        flags.add(ResponseFlag::UpstreamConnectionFailure);
        flags.add(ResponseFlag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "UF");
        flags.add(ResponseFlag::UpstreamRetryLimitExceeded);
        assert_eq!(flags.to_string(), "UF,URX");
        assert!(flags.contains(ResponseFlag::UpstreamRetryLimitExceeded));
        assert!(!flags.contains(ResponseFlag::NoRouteFound));
    }
}
