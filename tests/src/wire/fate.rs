//! What becomes of a frame: a pure function of the faults, the direction and the frame's number.

use std::time::Duration;

use super::{Counts, Direction, Faults};

/// Of an Ethernet frame.
const ETHERNET_HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xDD];
const TCP: u8 = 6;

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Lost,
    Carried {
        /// Beyond the cable's own delay.
        late: Duration,
        copies: u8,
        damage: Damage,
    },
}

/// What is done to a frame's bytes. The number picks the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    None,
    Corrupt(u64),
    Tamper(u64),
}

/// What is drawn for each frame, each on its own.
#[derive(Clone, Copy)]
enum Draw {
    Loss = 1,
    Duplicate,
    Reorder,
    Lateness,
    Corrupt,
    Tamper,
    Bit,
}

impl Fate {
    /// The fate of frame `number` of a direction, `length` bytes long.
    pub fn of(faults: &Faults, direction: Direction, number: u64, length: usize) -> Self {
        let random = |draw: Draw| {
            let stream = (draw as u64) << 1 | u64::from(direction == Direction::Back);
            mix(mix(faults.seed ^ stream << 56) ^ number)
        };
        let happens = |draw, share: f64| unit(random(draw)) < share;
        let too_long = faults.mtu.is_some_and(|mtu| length > mtu + ETHERNET_HEADER);
        if faults.cut || too_long || happens(Draw::Loss, faults.loss) {
            return Self::Lost;
        }
        let damage = match random(Draw::Bit) {
            bit if happens(Draw::Corrupt, faults.corrupt) => Damage::Corrupt(bit),
            bit if happens(Draw::Tamper, faults.tamper) => Damage::Tamper(bit),
            _ => Damage::None,
        };
        let late = match happens(Draw::Reorder, faults.reorder) {
            true => faults.late.mul_f64(unit(random(Draw::Lateness))),
            false => Duration::ZERO,
        };
        Self::Carried {
            late,
            copies: 1 + u8::from(happens(Draw::Duplicate, faults.duplicate)),
            damage,
        }
    }

    pub fn count(&self, counts: &mut Counts) {
        match self {
            Self::Lost => counts.lost += 1,
            Self::Carried {
                late,
                copies,
                damage,
            } => {
                counts.reordered += u64::from(!late.is_zero());
                counts.duplicated += u64::from(*copies > 1);
                match damage {
                    Damage::None => {}
                    Damage::Corrupt(_) => counts.corrupted += 1,
                    Damage::Tamper(_) => counts.tampered += 1,
                }
            }
        }
    }
}

impl Damage {
    /// Does it to a frame. What is not TCP with payload can't be tampered with and stays whole.
    pub fn apply(self, frame: &mut [u8]) {
        match self {
            Self::None => {}
            Self::Corrupt(bit) => flip(frame.get_mut(ETHERNET_HEADER..).unwrap_or_default(), bit),
            Self::Tamper(bit) => tamper(frame, bit).unwrap_or_default(),
        }
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    if let Some(index) = (bit / 8).checked_rem(bytes.len() as u64) {
        bytes[index as usize] ^= 1 << (bit % 8);
    }
}

fn tamper(frame: &mut [u8], bit: u64) -> Option<()> {
    let kind: [u8; 2] = frame.get(12..ETHERNET_HEADER)?.try_into().ok()?;
    let packet = frame.get_mut(ETHERNET_HEADER..)?;
    let (protocol, header, length) = match kind {
        IPV4 => {
            let length = u16::from_be_bytes([*packet.get(2)?, packet[3]]);
            let header = usize::from(packet[0] & 0xF) * 4;
            (*packet.get(9)?, header, usize::from(length))
        }
        IPV6 => {
            let length = u16::from_be_bytes([*packet.get(4)?, packet[5]]);
            (*packet.get(6)?, 40, 40 + usize::from(length))
        }
        _ => return None,
    };
    let segment = packet.get_mut(header..length)?;
    let payload = usize::from(*segment.get(12)? >> 4) * 4;
    if protocol != TCP || payload >= segment.len() {
        return None;
    }
    let index = payload + (bit / 8) as usize % (segment.len() - payload);
    let word = index & !1;
    let at = |segment: &[u8]| {
        let low = segment.get(word + 1).copied().unwrap_or_default();
        u16::from_be_bytes([segment[word], low])
    };
    let before = at(segment);
    segment[index] ^= 1 << (bit % 8);
    let after = at(segment);
    // RFC 1624: the checksum follows a changed word without the others.
    let checksum = u16::from_be_bytes([segment[16], segment[17]]);
    let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Some(())
}

/// SplitMix64's output function: every bit depends on every bit.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// In [0, 1).
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(faults: &Faults, direction: Direction) -> Vec<Fate> {
        (0..10_000)
            .map(|number| Fate::of(faults, direction, number, 1500))
            .collect()
    }

    #[test]
    fn a_fate_depends_on_seed_direction_and_number_alone() {
        let faults = Faults {
            loss: 0.3,
            duplicate: 0.3,
            corrupt: 0.3,
            ..Faults::default()
        };
        let there = fates(&faults, Direction::There);
        assert_eq!(there, fates(&faults, Direction::There));
        assert_ne!(there, fates(&faults, Direction::Back));
        let other = Faults { seed: 1, ..faults };
        assert_ne!(there, fates(&other, Direction::There));
    }

    #[test]
    fn shares_are_what_they_say() {
        let faults = Faults {
            loss: 0.05,
            duplicate: 0.1,
            reorder: 0.2,
            late: Duration::from_millis(10),
            corrupt: 0.02,
            tamper: 0.5,
            ..Faults::default()
        };
        let mut counts = Counts::default();
        for fate in fates(&faults, Direction::Back) {
            fate.count(&mut counts);
        }
        for (count, share) in [
            (counts.lost, 0.05),
            (counts.duplicated, 0.95 * 0.1),
            (counts.reordered, 0.95 * 0.2),
            (counts.corrupted, 0.95 * 0.02),
            (counts.tampered, 0.95 * 0.98 * 0.5),
        ] {
            let found = count as f64 / 10_000.0;
            assert!((found - share).abs() < 0.015, "{found} for {share}");
        }
    }

    #[test]
    fn a_whole_cable_does_nothing_and_a_cut_one_passes_nothing() {
        let whole = Fate::Carried {
            late: Duration::ZERO,
            copies: 1,
            damage: Damage::None,
        };
        let fates_of = |faults| fates(&faults, Direction::There);
        let same = |fates: Vec<Fate>, all| fates.into_iter().all(|fate| fate == all);
        assert!(same(fates_of(Faults::default()), whole));
        let cut = Faults {
            cut: true,
            ..Faults::default()
        };
        assert!(same(fates_of(cut), Fate::Lost));
        for (mtu, fate) in [(1500 - ETHERNET_HEADER, whole), (1485, Fate::Lost)] {
            let mtu = Some(mtu);
            let narrow = Faults {
                mtu,
                ..Faults::default()
            };
            assert!(same(fates_of(narrow), fate), "{mtu:?}");
        }
    }

    /// The one's complement sum over a segment and its pseudo-header, which is all ones.
    fn sum(addresses: &[u8], segment: &[u8]) -> u16 {
        let length = (segment.len() as u16).to_be_bytes();
        let pseudo = [addresses, &[0, TCP], &length].concat();
        let mut sum = 0_u32;
        for bytes in [&pseudo[..], segment] {
            for word in bytes.chunks(2) {
                let low = word.get(1).copied().unwrap_or_default();
                sum += u32::from(u16::from_be_bytes([word[0], low]));
            }
        }
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        sum as u16
    }

    /// A frame with one TCP segment, its checksum right.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let addresses = [10, 0, 0, 1, 10, 0, 0, 2];
        let mut segment = vec![0; 20];
        segment[..4].copy_from_slice(&[0x9C, 0x40, 0x1F, 0x90]);
        segment[12] = 5 << 4;
        segment.extend(payload);
        let checksum = !sum(&addresses, &segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        let length = (20 + segment.len() as u16).to_be_bytes();
        let header = [
            0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        [&[0; 12], &IPV4[..], &header, &segment].concat()
    }

    #[test]
    fn a_tampered_segment_has_a_right_checksum_and_other_bytes() {
        for payload in [&b"hello"[..], b"even", b"x"] {
            let whole = frame(payload);
            for bit in 0..200 {
                let mut tampered = whole.clone();
                Damage::Tamper(bit).apply(&mut tampered);
                let (head, body) = tampered.split_at(whole.len() - payload.len());
                assert_ne!(body, payload);
                assert_eq!(head[..34], whole[..34]);
                assert_eq!(sum(&tampered[26..34], &tampered[34..]), 0xFFFF, "{bit}");
            }
        }
        let whole = frame(b"");
        let mut same = whole.clone();
        Damage::Tamper(7).apply(&mut same);
        assert_eq!(same, whole);
    }

    #[test]
    fn a_corrupt_frame_differs_by_one_bit_behind_its_header() {
        let whole = frame(b"hello");
        for bit in 0..1000 {
            let mut corrupt = whole.clone();
            Damage::Corrupt(bit).apply(&mut corrupt);
            let differing = whole
                .iter()
                .zip(&corrupt)
                .map(|(a, b)| (a ^ b).count_ones());
            assert_eq!(differing.sum::<u32>(), 1);
            assert_eq!(corrupt[..ETHERNET_HEADER], whole[..ETHERNET_HEADER]);
        }
        Damage::Corrupt(3).apply(&mut [0; 5]);
        Damage::Tamper(3).apply(&mut [0; 5]);
    }
}
