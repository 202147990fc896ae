//! Tests of what a failed attempt says about the next one.

use std::sync::Arc;

use super::*;

fn tcp(kind: io::ErrorKind) -> OpenError {
    let address = SocketAddr::from(([10, 0, 0, 1], 15008));
    OpenError::Connect(ConnectError::Tcp(address, Arc::new(kind.into())))
}

#[test]
fn only_an_endpoint_that_is_not_there_is_left_alone() {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, Other};
    for (error, expected) in [
        (tcp(ConnectionRefused), Fault::Endpoint),
        (tcp(HostUnreachable), Fault::Endpoint),
        // Descriptors or ports of ours have run out.
        (tcp(AddrNotAvailable), Fault::Unclear),
        (tcp(Other), Fault::Unclear),
        (ConnectError::HandshakeTimeout.into(), Fault::Endpoint),
        (OpenError::ResponseTimeout, Fault::Endpoint),
        (
            OpenError::Status(StatusCode::SERVICE_UNAVAILABLE),
            Fault::Endpoint,
        ),
    ] {
        assert_eq!(Fault::of_open(&error, true), expected, "{error}");
    }
}

#[test]
fn what_policy_or_identity_refuse_is_not_tried_elsewhere() {
    let stranger = Arc::new(io::Error::other("someone else"));
    for error in [
        OpenError::Status(StatusCode::UNAUTHORIZED),
        OpenError::Status(StatusCode::FORBIDDEN),
        OpenError::Status(StatusCode::BAD_REQUEST),
        ConnectError::PeerIdentity(stranger).into(),
        ConnectError::Revoked.into(),
    ] {
        assert_eq!(Fault::of_open(&error, true), Fault::Final, "{error}");
    }
}

#[test]
fn a_waypoint_is_not_to_blame_for_what_is_behind_it() {
    let unavailable = OpenError::Status(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(Fault::of_open(&unavailable, false), Fault::Unclear);
    let down = tcp(io::ErrorKind::ConnectionRefused);
    assert_eq!(Fault::of_open(&down, false), Fault::Endpoint);
}

#[test]
fn who_is_silent_is_waited_for_longer_each_time() {
    let seconds = Duration::from_secs;
    for (connect_timeout, waited, expected) in [
        (seconds(10), None, seconds(1)),
        (seconds(2), None, Duration::from_millis(400)),
        (seconds(10), Some(Duration::from_millis(2_004)), seconds(2)),
        (seconds(10), Some(seconds(8)), seconds(8)),
        // The only one that was silent, and the others failed at once.
        (seconds(10), Some(Duration::from_millis(3)), seconds(1)),
    ] {
        assert_eq!(patience(connect_timeout, waited), expected);
    }
}
