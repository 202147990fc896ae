//! Service ports and what they lead to.

use mesh::service as model;

use super::{AppProtocol, Port};
use crate::error::{self, ConversionError};

impl TryFrom<Port> for model::Port {
    type Error = ConversionError;

    fn try_from(wire: Port) -> Result<Self, Self::Error> {
        Ok(Self {
            service_port: error::port("service_port", wire.service_port)?,
            target_port: error::port("target_port", wire.target_port)?,
            // One of a later version is told from the bytes, as where none is said.
            app_protocol: AppProtocol::try_from(wire.app_protocol)
                .unwrap_or_default()
                .into(),
        })
    }
}

impl From<&model::Port> for Port {
    fn from(port: &model::Port) -> Self {
        Self {
            service_port: port.service_port.into(),
            target_port: port.target_port.into(),
            app_protocol: AppProtocol::from(port.app_protocol).into(),
        }
    }
}

impl From<AppProtocol> for model::AppProtocol {
    fn from(wire: AppProtocol) -> Self {
        match wire {
            AppProtocol::Unknown => Self::Unknown,
            AppProtocol::Http11 => Self::Http11,
            AppProtocol::Http2 => Self::Http2,
            AppProtocol::Grpc => Self::Grpc,
            AppProtocol::Tcp => Self::Tcp,
            AppProtocol::Tls => Self::Tls,
        }
    }
}

impl From<model::AppProtocol> for AppProtocol {
    fn from(protocol: model::AppProtocol) -> Self {
        match protocol {
            model::AppProtocol::Unknown => Self::Unknown,
            model::AppProtocol::Http11 => Self::Http11,
            model::AppProtocol::Http2 => Self::Http2,
            model::AppProtocol::Grpc => Self::Grpc,
            model::AppProtocol::Tcp => Self::Tcp,
            model::AppProtocol::Tls => Self::Tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strategies;

    proptest! {
        #[test]
        fn reads_back_as_written(port in strategies::port()) {
            prop_assert_eq!(Port::from(&port).try_into(), Ok(port));
        }
    }

    #[test]
    fn a_protocol_of_a_later_version_is_unknown() {
        let wire = Port {
            service_port: 80,
            target_port: 80,
            app_protocol: 99,
        };
        let port = model::Port::try_from(wire).expect("a port");
        assert_eq!(port.app_protocol, model::AppProtocol::Unknown);
    }

    #[test]
    fn numbers_beyond_a_port_are_rejected_not_narrowed() {
        let wire = Port {
            service_port: 65_536 + 80,
            target_port: 80,
            app_protocol: 0,
        };
        assert!(model::Port::try_from(wire).is_err());
    }
}
