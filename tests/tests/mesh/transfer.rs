//! Bytes in bulk, both ways, with half-close, across nodes and on one.

use crate::shop::shared;

const GIBIBYTE: &str = "1073741824";
const SIXTY_FOUR_MEBIBYTES: &str = "67108864";

#[test]
fn a_gibibyte_up_with_half_close_arrives_as_sent() {
    shared()
        .peer("shop/client", &["upload", "server:9002", GIBIBYTE])
        .expect("the checksums agree");
}

#[test]
fn a_gibibyte_down_arrives_as_sent() {
    shared()
        .peer("shop/client", &["download", "server:9003", GIBIBYTE])
        .expect("the bytes agree");
}

#[test]
fn bytes_between_neighbours_arrive_as_sent() {
    for (verb, target) in [("upload", "neighbour:9002"), ("download", "neighbour:9003")] {
        shared()
            .peer("shop/client", &[verb, target, SIXTY_FOUR_MEBIBYTES])
            .expect("the bytes agree");
    }
}

#[test]
fn plaintext_from_outside_arrives_as_sent() {
    for (verb, target) in [
        ("upload", "server.shop:9002"),
        ("download", "server.shop:9003"),
    ] {
        shared()
            .peer("plain/outsider", &[verb, target, SIXTY_FOUR_MEBIBYTES])
            .expect("the bytes agree");
    }
}
