//! Reading a body again, and what it costs.

use bytes::Bytes;

use super::*;
use crate::pipeline::mirror;
use crate::pipeline::tests::harness::{frames, read};

#[tokio::test]
async fn a_kept_body_is_read_again_from_the_beginning() {
    let body = RequestBody::new(frames(&[b"one", b"two"]), 6, false);
    let (first, _) = read(body.reading()).await;
    assert_eq!(first.expect("whole"), b"onetwo");
    assert!(body.is_replayable());
    let (second, _) = read(body.reading()).await;
    assert_eq!(second.expect("whole"), b"onetwo");
    assert_eq!(body.bytes(), 6);
}

#[tokio::test]
async fn a_try_that_read_half_is_followed_by_one_that_reads_all() {
    let body = RequestBody::new(frames(&[b"one", b"two"]), 64, false);
    let mut half = body.reading();
    let frame = std::future::poll_fn(|cx| Pin::new(&mut half).poll_frame(cx)).await;
    let data = frame.expect("a frame").expect("good").into_data();
    assert_eq!(data.expect("data"), Bytes::from_static(b"one"));
    drop(half);
    let (all, _) = read(body.reading()).await;
    assert_eq!(all.expect("whole"), b"onetwo");
}

#[tokio::test]
async fn past_the_limit_nothing_is_kept_but_reading_goes_on() {
    let body = RequestBody::new(frames(&[b"one", b"two"]), 5, false);
    let (all, _) = read(body.reading()).await;
    assert_eq!(all.expect("whole"), b"onetwo");
    assert!(!body.is_replayable());
}

#[tokio::test]
async fn a_mirror_that_can_not_follow_is_broken_off() {
    let body = RequestBody::new(frames(&[b"one", b"two"]), 64, false);
    let (tee, slow) = mirror::copy(4);
    body.add_tee(tee);
    let (tee, fast) = mirror::copy(64);
    body.add_tee(tee);
    let (all, _) = read(body.reading()).await;
    assert_eq!(all.expect("whole"), b"onetwo");
    assert!(read(Body::stream(slow)).await.0.is_err());
    assert_eq!(read(Body::stream(fast)).await.0.expect("whole"), b"onetwo");
}

#[tokio::test]
async fn a_request_without_a_body_is_mirrored_as_one() {
    let body = RequestBody::new(Body::Empty, 64, false);
    let (tee, copy) = mirror::copy(64);
    body.add_tee(tee);
    let (all, _) = read(body.reading()).await;
    assert_eq!(all.expect("whole"), b"");
    assert_eq!(read(Body::stream(copy)).await.0.expect("whole"), b"");
}
